"""Responses to prompts, from a model itself or from a dataset, as a folder that can be labelled."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from ric_diffusion.backend import Sampler
from ric_diffusion.cost import COST, Cost, Meter
from ric_diffusion.data.records import Record, write_metadata
from ric_diffusion.data.texts import Texts
from ric_diffusion.errors import InputError, suggest
from ric_diffusion.files import append_json, read_json_lines, write_json
from scorers.post import framed

Format = Literal["dialogue", "summary"]
JOURNAL, SOURCE = "responses.jsonl", "source.json"
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def write_responses(
    rows: Iterable[tuple[str, str]], out: Path, extra: Sequence[Mapping[str, Any]] = ()
) -> int:
    """Write prompts with their responses to the folder ``out``, a text file each and metadata,
    which comes last; returns how many. ``extra``: more columns for each row."""
    texts, records = Texts(), []
    for i, (prompt, response) in enumerate(rows):
        file = f"texts/{i:06d}{texts.suffix}"
        texts.write(response, out / file)
        records.append(Record(file=file, captions=(prompt,), extra=extra[i] if extra else {}))
    if not records:
        raise InputError(f"{out}: no responses to write")
    write_metadata(out, records)
    return len(records)


def self_sample(
    samplers: Mapping[str, Sampler],
    prompts: Sequence[str],
    out: Path,
    *,
    per_prompt: int,
    hints: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 32,
    source: Mapping[str, Any],
) -> int:
    """Have a model respond to every prompt, ``per_prompt`` times with each of its samplers, which
    differ in temperature; returns how many responses are in ``out``.

    ``hints`` are said to the model behind its prompts, in turn, and not recorded with them: left to
    itself a model responds too much alike for its rewards to spread. Every batch is journalled: run
    again after an interruption, it goes on, if ``source``, which says what the samplers are, is
    what it was. The columns ``sampler``, ``hint`` and ``seed`` say how a response came about,
    ``cost.json`` what all of them cost.
    """
    if per_prompt < 1:
        raise InputError(f"per_prompt is {per_prompt}; give 1 or more")
    turns = [(name, number) for name in samplers for number in range(per_prompt)]
    said_too = list(hints) or [""]
    wishes = [
        (name, prompt, said_too[(turn + i) % len(said_too)], seed + number)
        for turn, (name, number) in enumerate(turns)
        for i, prompt in enumerate(prompts)
    ]
    done = read_json_lines(out / JOURNAL)
    began = out / SOURCE
    same = not done or (began.exists() and json.loads(began.read_text()) == source)
    if not same or [row[:-1] for row in done] != [list(wish) for wish in wishes[: len(done)]]:
        raise InputError(f"{out}: holds other responses; choose another folder")
    write_json(began, source)
    meter = Meter(_spent(out / COST))
    networks = {sampler.watched() for sampler in samplers.values()}
    with (
        meter.running(*networks),
        tqdm(total=len(wishes), initial=len(done), desc="respond", unit="response") as bar,
    ):
        while len(done) < len(wishes):
            name = wishes[len(done)][0]
            part = [w for w in wishes[len(done) : len(done) + batch_size] if w[0] == name]
            asked = [f"{prompt} {hint}".strip() for _, prompt, hint, _ in part]
            seeds = [number for *_, number in part]
            said = samplers[name].sample(asked, [{}] * len(part), seeds)
            write_json(out / COST, meter.read().to_dict())  # first: a batch that is lost costs, too
            for wish, response in zip(part, said, strict=True):
                append_json(out / JOURNAL, [*wish, response])
                done.append([*wish, response])
            bar.update(len(part))
    extra = [{"sampler": row[0], "hint": row[2], "seed": row[3]} for row in done]
    return write_responses([(row[1], row[4]) for row in done], out, extra)


def _spent(path: Path) -> Cost:
    return Cost.from_dict(json.loads(path.read_text())) if path.exists() else Cost()


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

    try:
        if os.path.isfile(source):
            kind = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
            if (suffix := Path(source).suffix) not in kind:
                raise InputError(f"{source}: unknown format{suggest(suffix, kind)}")
            if subset is not None:
                raise InputError(f"{source}: a file has no subset {subset!r}; leave it out")
            loaded = datasets.load_dataset(kind[suffix], data_files=source, split=split)
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
