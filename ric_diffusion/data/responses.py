"""Responses to prompts as a folder that can be labelled, and those of datasets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ric_diffusion.data.medium import TEXT
from ric_diffusion.data.records import Record, write_metadata
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.io.paths import expanded_name
from scorers.post import framed

Format = Literal["dialogue", "summary"]
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def write_responses(
    rows: Iterable[tuple[str, str]], out: Path, extra: Sequence[Mapping[str, Any]] = ()
) -> int:
    """Write prompts with their responses to the folder ``out``, a text file each and metadata,
    which comes last; returns how many. ``extra``: more columns for each row."""
    records = []
    for i, (prompt, response) in enumerate(rows):
        file = f"texts/{i:06d}{TEXT.suffix}"
        TEXT.write(response, out / file)
        records.append(Record(file=file, captions=(prompt,), extra=extra[i] if extra else {}))
    if not records:
        raise InputError(f"{out}: no responses to write")
    write_metadata(out, records)
    return len(records)


def read_dataset(
    source: str,
    form: Format,
    *,
    subset: str | None = None,
    split: str = "train",
    limit: int | None = None,
) -> Iterator[tuple[str, str]]:
    """Prompts and responses of a dataset: a folder, file or hub id that ``datasets`` loads, with
    its ``subset`` where it has several. A file is all split train, of which a part can be named.

    ``dialogue``: HH-RLHF's columns chosen and rejected, whole dialogues of which the last turn is
    the response; each row gives both. ``summary``: the columns info.post and summaries of OpenAI's
    summarize_from_feedback, of which rows without a post, those of news, are passed over; or post
    (prompt) and summary (label) of others. ``limit``: how many rows to read.
    """
    rows = _load(source, subset, split)
    named = {
        "dialogue": "chosen and rejected",
        "summary": "info.post and summaries with a text each, or post and summary",
    }[form]
    for i, row in enumerate(rows):
        if limit is not None and i >= limit:
            return
        pairs = _dialogues(row) if form == "dialogue" else _summaries(row)
        if pairs is None:
            raise InputError(
                f"{source}: row {i} is no {form}: its columns are {', '.join(row)}; a {form} has "
                f"{named}"
            )
        yield from pairs


def _load(source: str, subset: str | None, split: str) -> Iterable[dict[str, Any]]:
    import datasets

    source = expanded_name(source)
    kind = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
    suffix = Path(source).suffix.lower()
    try:
        if os.path.isfile(source):
            if suffix not in kind:
                raise InputError(f"{source}: unknown format{suggest(suffix, kind)}")
            if subset is not None:
                raise InputError(f"{source}: a file has no subset {subset!r}; leave it out")
            loaded = datasets.load_dataset(kind[suffix], data_files=source, split=split)
        elif (suffix in kind or os.path.isabs(source)) and not os.path.isdir(source):
            raise InputError(f"{source}: no such file")
        else:
            loaded = datasets.load_dataset(source, subset, split=split)
    except InputError:
        raise
    except Exception as error:  # it raises types of its own
        reason, *more = str(error).splitlines() or [type(error).__name__]
        if reason == "Config name is missing.":  # the next line lists them
            raise InputError(f"{source}: has several datasets; give --subset. {more[0]}") from error
        raise InputError(f"{source}: cannot be loaded as a dataset ({reason})") from error
    rows: Iterable[dict[str, Any]] = loaded
    return rows


def split_dialogue(text: str) -> tuple[str, str] | None:
    """A dialogue up to its last answer, and that answer. None if nobody answers."""
    start = text.rfind(ASSISTANT)
    if start < 0 or HUMAN in text[start:]:
        return None
    end = start + len(ASSISTANT)
    return text[:end].strip(), text[end:].strip()


def _dialogues(row: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    texts: list[Any] = [row.get("chosen"), row.get("rejected")]
    if not all(isinstance(text, str) for text in texts):
        return None
    found = [split_dialogue(text) for text in texts]
    return [pair for pair in found if pair is not None and pair[1]]


def _summaries(row: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    info = row.get("info")
    if isinstance(info, Mapping):
        post, listed = info.get("post"), row.get("summaries")
        if "post" in info and post is None:
            return []
        if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
            return None
        summaries = [summary.get("text") for summary in listed]
    else:
        post, summaries = row.get("post", row.get("prompt")), [row.get("summary", row.get("label"))]
    if not isinstance(post, str) or not all(isinstance(text, str) for text in summaries):
        return None
    prompt = framed(" ".join(post.split()))
    return [(prompt, text.strip()) for text in summaries if text.strip()]
