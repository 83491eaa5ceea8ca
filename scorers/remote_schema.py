"""What a remote scorer and its server say to each other: the one place that knows.

    GET  URL -> Description
    POST URL <- Request, -> Answer
    any status but 200 comes with Problem

All of it is JSON in UTF-8. ``json_schema`` gives the same as JSON Schema, for servers that are
written without this package; ``parse`` and ``to_json`` are what both ends here use.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from scorers.base import ScorerError

PROTOCOL: Literal[1] = 1
MOST_SAMPLES = 1024  # of one request, whatever the server says of itself
JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", NoneType: "null"}

Medium = Literal["image", "text"]
Encoding = Literal["base64", "path", "text"]
Message = TypeVar("Message", "Description", "Request", "Answer", "Problem")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a server says of its scorer. The first four are all that a scorer of pictures that reads
    no prompts has to say.

    Attributes:
        protocol: the version of these messages.
        name: of the scorer, and of its reward unless the client calls it otherwise.
        unit: of its scores.
        fingerprint: one line that changes when the scores do.
        medium: what its samples are.
        needs_prompts: whether every sample needs a prompt.
        compares_within: "prompt" if scores compare within one prompt only.
        reads_paths: whether it takes pictures as paths on a file system that both ends see.
        max_samples, max_pixels, max_bytes: how many samples, pixels of all pictures, and bytes of
            the body a request may have; null for as many as there are.
    """

    protocol: Literal[1]
    name: str = field(metadata={"pattern": "^[a-z][a-z0-9_]*$", "maxLength": 100})
    unit: str = field(metadata={"maxLength": 100})
    fingerprint: str = field(metadata={"minLength": 1, "maxLength": 4000, "pattern": r"^[^\r\n]+$"})
    medium: Medium = "image"
    needs_prompts: bool = False
    compares_within: Literal["prompt"] | None = None
    reads_paths: bool = False
    max_samples: int | None = field(default=None, metadata={"minimum": 1})
    max_pixels: int | None = field(default=None, metadata={"minimum": 1})
    max_bytes: int | None = field(default=None, metadata={"minimum": 1})


@dataclass(frozen=True, kw_only=True)
class Request:
    """N samples to score.

    Attributes:
        samples: N files of pictures in base64, paths of pictures, or texts.
        encoding: which of the three. Pictures are PNG, which keeps every pixel as it is.
        prompts: one for each sample, or null.
    """

    samples: tuple[str, ...] = field(metadata={"minItems": 1, "maxItems": MOST_SAMPLES})
    encoding: Encoding
    prompts: tuple[str, ...] | None = field(default=None, metadata={"maxItems": MOST_SAMPLES})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The scores of the N samples of a request.

    Attributes:
        scores: N numbers, null for a sample that has none.
        fingerprint: that of the description, if the scorer is still the same.
    """

    scores: tuple[float | None, ...] = field(metadata={"maxItems": MOST_SAMPLES})
    fingerprint: str = field(metadata={"maxLength": 4000})


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why there is no answer, in one line."""

    error: str


MESSAGES = (Description, Request, Answer, Problem)


def parse(message: type[Message], body: bytes) -> Message:
    """The message in a body of JSON. ScorerError, in words for a person, if it is none."""
    try:
        found = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ScorerError("no JSON") from error
    if not isinstance(found, dict):
        raise ScorerError("no JSON object")
    hints = get_type_hints(message)
    known = {one.name: one for one in fields(message)}
    if strange := sorted(found.keys() - known.keys()):
        raise ScorerError(f"unknown field {strange[0][:100]!r}")
    given: dict[str, Any] = {}
    for name, one in known.items():
        if name in found:
            if not _fits(hints[name], one.metadata, found[name]):
                raise ScorerError(f"{name} must be {_told(_schema_of(hints[name], one))}")
            value = found[name]
            given[name] = tuple(value) if isinstance(value, list) else value
        elif one.default is MISSING:
            raise ScorerError(f"{name} is missing")
    return message(**given)


def to_json(message: Description | Request | Answer | Problem) -> bytes:
    """A message as the body of a request or an answer."""
    return json.dumps(asdict(message), allow_nan=False).encode()


def json_schema() -> dict[str, Any]:
    """The messages as JSON Schema 2020-12, one definition each."""
    definitions = {}
    for message in MESSAGES:
        hints = get_type_hints(message)
        definitions[message.__name__] = {
            "type": "object",
            "properties": {one.name: _schema_of(hints[one.name], one) for one in fields(message)},
            "required": [one.name for one in fields(message) if one.default is MISSING],
            "additionalProperties": False,
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions}


def _schema_of(hint: Any, one: Field[Any]) -> dict[str, Any]:
    return {**_type_schema(hint), **one.metadata}


def _type_schema(hint: Any) -> dict[str, Any]:
    """Of the types that the messages have: plain ones, literals, tuples of one type, and any of
    these or null."""
    if get_origin(hint) in (Union, UnionType):
        [some] = [part for part in get_args(hint) if part is not NoneType]
        inner = _type_schema(some)
        if "enum" in inner:
            return {"enum": [*inner["enum"], None]}
        return {**inner, "type": [inner["type"], "null"]}
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _type_schema(get_args(hint)[0])}
    return {"type": JSON_TYPES[hint]}


def _fits(hint: Any, limits: Mapping[str, Any], value: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(part, limits, value) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return any(value == one and type(value) is type(one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return (
            isinstance(value, list)
            and limits.get("minItems", 0) <= len(value) <= limits["maxItems"]
            and all(_fits(inner, {}, item) for item in value)
        )
    if hint is str:
        return (
            isinstance(value, str)
            and limits.get("minLength", 0) <= len(value) <= limits.get("maxLength", math.inf)
            and ("pattern" not in limits or re.fullmatch(limits["pattern"], value) is not None)
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _finite(value)
    if hint is int:
        return type(value) is int and value >= limits.get("minimum", value)
    return isinstance(value, hint)


def _finite(value: float) -> bool:
    """In float32, which scores are."""
    return abs(value) <= 3.4028234e38


def _told(schema: Mapping[str, Any]) -> str:
    """A schema in words enough for an error."""
    return json.dumps(schema).replace('"', "").strip("{}")


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
