"""The messages of remote scorers: what the code takes is what the JSON Schema says."""

import json

import pytest

from scorers.base import ScorerError
from scorers.remote_schema import (
    MESSAGES,
    Answer,
    Description,
    Problem,
    Request,
    json_schema,
    parse,
    to_json,
)

jsonschema = pytest.importorskip("jsonschema")

WHOLE = {
    Description: {
        "protocol": 1,
        "name": "hpsv3",
        "unit": "points",
        "fingerprint": "v1",
        "medium": "text",
        "needs_prompts": True,
        "compares_within": "prompt",
        "reads_paths": False,
        "max_samples": 4,
        "max_pixels": None,
        "max_bytes": 100,
    },
    Request: {"samples": ["a", "b"], "encoding": "text", "prompts": ["c", "d"]},
    Answer: {"scores": [1, 2.5, None], "fingerprint": "v1"},
    Problem: {"error": "no"},
}
VALUES = [None, True, 0, 1, -1, 1.5, "", "a", "A", "text", "prompt", [], ["a"], [1], [None]]
VALUES += [{}, ["a"] * 1025, "x" * 5000]


def valid(message, value):
    schema = json_schema()
    checker = jsonschema.Draft202012Validator(
        {"$ref": f"#/$defs/{message.__name__}", "$defs": schema["$defs"]}
    )
    return checker.is_valid(value)


def parsed(message, value):
    try:
        return parse(message, json.dumps(value).encode())
    except ScorerError:
        return None


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_survive(message):
    found = parsed(message, WHOLE[message])
    assert json.loads(to_json(found)) == WHOLE[message]
    assert valid(message, json.loads(to_json(found)))


@pytest.mark.parametrize("message", MESSAGES)
def test_code_and_schema_take_the_same(message):
    """With every field left out, and put to everything that another field may be."""
    tried = [{}, {**WHOLE[message], "strange": 1}, [], "text"]
    for name in WHOLE[message]:
        tried.append({k: v for k, v in WHOLE[message].items() if k != name})
        tried += [{**WHOLE[message], name: value} for value in VALUES]
    taken = [parsed(message, value) is not None for value in tried]
    assert taken == [valid(message, value) for value in tried]
    assert any(taken) and not all(taken)


@pytest.mark.parametrize("name", ["name", "fingerprint"])
def test_a_line_has_no_end(name):
    """Which Python's `$` lets pass, and JSON Schema's does not."""
    assert parsed(Description, {**WHOLE[Description], name: "hpsv3\n"}) is None
