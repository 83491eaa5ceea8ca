"""Several samples of every prompt, as a folder that can be labelled.

run.json          all that they depend on beside the prompts
images/           a picture for each prompt and number
drawn-*.jsonl     a line per batch: which samples, and why one was rejected
metadata.jsonl    for ``ric label``: file, prompt, seed and number
rejected.json     what was not written, and why

A sample's seed follows from its prompt and number alone: prompts, and samples of each, may be added
to a folder that is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ric_diffusion.io.config import from_dict, to_dict
from ric_diffusion.io.counting import counted
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import clear_leftovers, write_json, write_text
from ric_diffusion.io.journal import Journal
from ric_diffusion.io.progress import tracking
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.protocol import Sampler

VERB = "sample-prompts"
METADATA, REJECTED, SAMPLES = "metadata.jsonl", "rejected.json", "images"
BATCH_SIZE = 32
SEED_BYTES = 6  # any program can count to such a seed

Cell = tuple[str, int]  # a prompt, and the number of its sample


@dataclass(frozen=True, kw_only=True)
class PromptSample:
    """One sample that was drawn, and why it was not written, None if it was."""

    prompt: str
    number: int
    seed: int
    reject_reason: str | None


@dataclass(frozen=True, kw_only=True)
class DrawnSamples:
    """A line of the journal: one batch."""

    samples: tuple[PromptSample, ...]


@dataclass(frozen=True, kw_only=True)
class PromptSamples:
    """What ``sample_prompts`` left in the folder ``out``.

    Attributes:
        out: the folder.
        prompts: how many prompts it has samples of.
        count: how many samples are in it; of a shard, only of that.
        drawn: how many were drawn in this call.
        rejected: those that were not written.
    """

    out: Path
    prompts: int
    count: int
    drawn: int
    rejected: tuple[PromptSample, ...]


def draw_samples(
    sampler: Sampler,
    prompts: Sequence[str],
    out: Path,
    *,
    count: int,
    seed: int,
    shard: tuple[int, int] | None,
    source: Mapping[str, Any],
) -> PromptSamples:
    """Draw ``count`` samples of every prompt, rewards on auto, as far as ``out`` has not got them.

    ``source`` identifies the sampler. Every batch is journalled: killed and called again with the
    same, it goes on and ends with the same bytes. With ``shard=(k, n)`` only the batches k, k + n,
    … are drawn and metadata.jsonl is not written; a call without it draws what is missing and does.
    Samples that an earlier call drew stay, whether it asked for others or for more.

    InputError if ``out`` holds another run, or if all samples are rejected.
    """
    run = RunFolder(out, VERB, writes=(METADATA, REJECTED, SAMPLES))
    run.begin({"source": source, "seed": seed})
    clear_leftovers(out)
    first, step = shard or (0, 1)
    batches = batches_of(prompts, count, BATCH_SIZE)[first::step]
    drawn = 0
    with closing(Journal(out, "drawn")) as journal:
        done = _done(journal, sampler.medium.suffix)
        missing = [[cell for cell in batch if cell not in done] for batch in batches]
        total, left = sum(map(len, batches)), sum(map(len, missing))
        with tracking(VERB, total, unit="sample", initial=total - left) as tracker:
            for cells in filter(None, missing):
                batch = _drawn(sampler, cells, out, seed, source)
                journal.append(to_dict(batch))
                drawn += len(cells)
                tracker.advance(len(cells))
        done = _done(journal, sampler.medium.suffix)
    if shard is not None:
        done = {cell: done[cell] for batch in batches for cell in batch}
    found = _in_order(prompts, done)
    rejected = tuple(one for one in found if one.reject_reason is not None)
    if shard is None:
        _write(out, found, sampler.medium.suffix)
    if found and len(rejected) == len(found):
        raise InputError(
            f"{out}: all of {counted(len(found), 'samples')} rejected, the first as "
            f"{rejected[0].reject_reason}; try another dtype, or other sampling arguments"
        )
    return PromptSamples(
        out=out,
        prompts=len({one.prompt for one in found}),
        count=len(found) - len(rejected),
        drawn=drawn,
        rejected=rejected,
    )


def batches_of(prompts: Sequence[str], count: int, size: int) -> list[list[Cell]]:
    """All samples in batches of ``size`` at most: of as many whole prompts as fit, or of a part of
    one. What is in a batch depends neither on what was drawn before nor on prompts that come
    later, but for the last ones."""
    together = max(1, size // count)
    batches = []
    for start in range(0, len(prompts), together):
        cells = [(prompt, n) for prompt in prompts[start : start + together] for n in range(count)]
        batches += [cells[i : i + size] for i in range(0, len(cells), size)]
    return batches


def seed_of(seed: int, prompt: str, number: int) -> int:
    """The seed of one sample, which no other prompt or number shares but by chance."""
    digest = hashlib.sha256(f"{seed} {number} {prompt}".encode()).digest()
    return int.from_bytes(digest[:SEED_BYTES], "big")


def file_of(cell: Cell, suffix: str) -> str:
    """Where a sample lies, below the folder."""
    prompt, number = cell
    return f"{SAMPLES}/{hashlib.sha256(prompt.encode()).hexdigest()[:32]}-{number:04d}{suffix}"


def _drawn(
    sampler: Sampler, cells: Sequence[Cell], out: Path, seed: int, source: Mapping[str, Any]
) -> DrawnSamples:
    """Draw a batch, and write what is not rejected."""
    medium = sampler.medium
    seeds = [seed_of(seed, *cell) for cell in cells]
    made = sampler.sample([prompt for prompt, _ in cells], [{}] * len(cells), seeds)
    found = []
    for cell, one, sample in zip(cells, seeds, made, strict=True):
        prompt, number = cell
        reason = medium.reject_reason(sample)
        if reason is None:
            told = {"prompt": prompt, "seed": one, "model": source["model"]}
            medium.write(sample, out / file_of(cell, medium.suffix), told)
        found.append(PromptSample(prompt=prompt, number=number, seed=one, reject_reason=reason))
    return DrawnSamples(samples=tuple(found))


def _done(journal: Journal, suffix: str) -> dict[Cell, PromptSample]:
    """What all processes have drawn so far and is still there."""
    entries = (from_dict(entry, DrawnSamples, str(journal.folder)) for entry in journal.entries())
    found = {(one.prompt, one.number): one for entry in entries for one in entry.samples}
    return {
        cell: one
        for cell, one in found.items()
        if one.reject_reason is not None or (journal.folder / file_of(cell, suffix)).exists()
    }


def _in_order(prompts: Sequence[str], done: Mapping[Cell, PromptSample]) -> list[PromptSample]:
    """By prompt and number: prompts as they are given, then those of earlier calls by name."""
    place = {prompt: i for i, prompt in enumerate(prompts)}
    keys = sorted(done, key=lambda cell: (place.get(cell[0], len(place)), *cell))
    return [done[key] for key in keys]


def _write(out: Path, found: Sequence[PromptSample], suffix: str) -> None:
    """What was written, for ``ric label``, and what was not, for people."""
    rejected = [to_dict(one) for one in found if one.reject_reason is not None]
    write_json(out / REJECTED, rejected)
    write_text(out / METADATA, "".join(_rows(found, suffix)))


def _rows(found: Sequence[PromptSample], suffix: str) -> Iterator[str]:
    for one in found:
        if one.reject_reason is None:
            row = {
                "file_name": file_of((one.prompt, one.number), suffix),
                "text": one.prompt,
                "seed": one.seed,
                "number": one.number,
            }
            yield json.dumps(row, ensure_ascii=False) + "\n"
