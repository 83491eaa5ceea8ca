"""A round's samples: drawn and scored batch by batch, each batch journalled, by all processes or
by the workers of an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ric_diffusion.data.images import NOT_FINITE
from ric_diffusion.data.scoring import scores_of
from ric_diffusion.io.config import from_dict, to_dict
from ric_diffusion.io.engines import HERE, Workers
from ric_diffusion.io.journal import Journal
from ric_diffusion.io.progress import tracking
from ric_diffusion.models.cost import Cost, Meter
from ric_diffusion.models.hardware import this_process
from ric_diffusion.models.protocol import Backend
from ric_diffusion.rewards import PromptGroups, RewardSpace
from ric_diffusion.training.requests import SampleRequest

OFF_PROMPT = "prompt not followed"
OUT_OF_RANGE = 6.0  # z; no reward encoder reads further, and no honest sample lies there


@dataclass(frozen=True, kw_only=True)
class ScoredSample:
    """What is known of one sample: its scores in the order of the rewards, or why it can't be used;
    and its digest."""

    digest: str
    reject_reason: str | None = None
    scores: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class RoundSample(ScoredSample):
    """The same once all samples of the round are drawn, with its z, or None."""

    z: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ScoredBatch:
    """Consecutive samples: the number of the first, and what this batch cost."""

    first: int
    samples: tuple[ScoredSample, ...]
    cost: Cost


def sample_path(folder: Path, number: int, suffix: str) -> Path:
    """Where sample ``number`` of a round is."""
    return folder / "samples" / f"{number:06d}{suffix}"


@dataclass(frozen=True, kw_only=True)
class SampleWorker:
    """What samples are drawn and scored by: a backend with the round's adapter, and a scorer for
    each reward."""

    backend: Backend
    scorers: Sequence[Any]


def sample_and_score(
    worker: SampleWorker,
    requests: Sequence[SampleRequest],
    folder: Path,
    *,
    batch_size: int,
    prompt_r_precision: float = 0.0,
    workers: Workers = HERE,
    adapter: Path | None = None,
) -> tuple[list[ScoredSample], Cost]:
    """Draw and score what is asked for, as far as ``folder`` has not got it: all of it, and its
    cost. Samples go to ``folder/samples``, scores to the journal ``folder/scores-*.jsonl``. Of n
    processes, the kth draws the batches k, k + n, k + 2n, …, and all wait for the last. Those of a
    sharded network draw in turns; who has no batch in one draws that of another, for nothing.
    Samples with a prompt R-precision below ``prompt_r_precision`` are rejected, the distractors
    being other prompts of the batch; at 0 none is judged.

    ``workers`` draw the batches: ``worker``, or in other processes some that load ``adapter``.
    """
    process = this_process()
    firsts = range(0, len(requests), batch_size)
    count = process.num_processes
    turns = [firsts[i : i + count] for i in range(0, len(firsts), count)]
    with closing(Journal(folder, "scores")) as journal:
        done = _journalled(journal)
        own = firsts[process.process_index :: count]
        total = sum(len(requests[first : first + batch_size]) for first in own)
        initial = sum(len(done[first].samples) for first in own if first in done)
        stage = f"{folder.name}: samples"
        drawn = workers.map(
            draw_batch,
            [
                {
                    "folder": str(folder.absolute()),
                    "first": first,
                    "requests": to_dict(requests[first : first + batch_size]),
                    "prompt_r_precision": prompt_r_precision,
                }
                for first in own
                if first not in done
            ],
            here=worker,
            called=lambda item: f"{folder}: samples from {item['first']}",
            adapter=str(adapter and adapter.absolute()),
        )
        with tracking(
            stage, total, unit="sample", initial=initial, show=process.is_main_process
        ) as progress:
            for turn in turns:
                missing = [first for first in turn if first not in done]
                if any(first in own for first in missing):
                    batch = next(drawn)
                    journal.append(batch)
                    progress.advance(len(batch["samples"]))
                elif missing and worker.backend.sharded:
                    some = requests[missing[0] : missing[0] + batch_size]
                    _draw(worker.backend, some, prompt_r_precision)
        process.wait_for_everyone()
        done = _journalled(journal)
    samples = without_duplicates([one for first in firsts for one in done[first].samples])
    return samples, sum((done[first].cost for first in firsts), Cost())


def _journalled(journal: Journal) -> dict[int, ScoredBatch]:
    """The batches that all processes have drawn so far, by the number of their first sample."""
    entries = (from_dict(entry, ScoredBatch, str(journal.folder)) for entry in journal.entries())
    return {batch.first: batch for batch in entries}


def without_duplicates(samples: Sequence[ScoredSample]) -> list[ScoredSample]:
    """Samples that are the same as an earlier one are rejected."""
    seen: set[str] = set()
    found = []
    for sample in samples:
        repeated = sample.reject_reason is None and sample.digest in seen
        seen.add(sample.digest)
        found.append(
            replace(sample, reject_reason="duplicate", scores=None) if repeated else sample
        )
    return found


def draw_batch(worker: SampleWorker, item: Mapping[str, Any]) -> dict[str, Any]:
    """Draw, write and score consecutive samples, from and to plain data: a ``ScoredBatch`` as the
    journal has it."""
    requests = from_dict(item["requests"], list[SampleRequest], "requests")
    backend, folder, meter = worker.backend, Path(item["folder"]), Meter()
    with meter.running(backend.network()):
        made, on_prompt = _draw(backend, requests, item["prompt_r_precision"])
        prompts = [request.prompt for request in requests]
        scores = scores_of(made, prompts, meter.metered(worker.scorers))
        scored = judge_samples(backend, made, scores, on_prompt)
        suffix = backend.medium.suffix
        for number, sample in enumerate(made, start=item["first"]):
            if backend.medium.reject_reason(sample) != NOT_FINITE:
                backend.medium.write(sample, sample_path(folder, number, suffix))
    batch = ScoredBatch(first=item["first"], samples=tuple(scored), cost=meter.read())
    plain: dict[str, Any] = to_dict(batch)
    return plain


def _draw(
    backend: Backend, requests: Sequence[SampleRequest], least: float
) -> tuple[list[Any], np.ndarray]:
    """The samples, and which of them have a prompt R-precision of at least so much, (N,); without
    a limit of ``least`` none is judged, which takes passes of the network."""
    prompts = [request.prompt for request in requests]
    made = backend.sample(
        prompts,
        [request.targets for request in requests],
        [request.seed for request in requests],
    )
    if not least:
        return made, np.ones(len(made), bool)
    return made, backend.prompt_r_precision(prompts, made) >= least


def judge_samples(
    backend: Backend, samples: Sequence[Any], scores: np.ndarray, on_prompt: np.ndarray
) -> list[ScoredSample]:
    """Which samples can be used: nothing is ever labelled that is not a number or blank, or that
    is not ``on_prompt`` (N,). ``scores`` (N, n) in the scorers' units."""
    found = []
    for sample, row, good in zip(samples, scores, on_prompt.tolist(), strict=True):
        digest = backend.medium.digest(sample)
        reject_reason = backend.medium.reject_reason(sample)
        if reject_reason is None and not np.isfinite(row).all():
            reject_reason = "score is not finite"
        if reject_reason is None and not good:
            reject_reason = OFF_PROMPT
        if reject_reason is None:
            found.append(ScoredSample(digest=digest, scores=tuple(row.tolist())))
        else:
            found.append(ScoredSample(digest=digest, reject_reason=reject_reason))
    return found


def in_standard_units(
    samples: Sequence[ScoredSample],
    prompts: Sequence[str],
    space: RewardSpace,
    labelled: PromptGroups,
) -> tuple[list[RoundSample], PromptGroups]:
    """A round's samples, N of them with their prompts, with their z; those that are out of range
    are rejected.

    Rewards that are compared within a prompt are so with what is ``labelled`` of the prompt
    together with all samples of the round that can be used: the groups that are returned.
    """
    usable = [i for i, sample in enumerate(samples) if sample.scores is not None]
    scores = np.reshape([samples[i].scores for i in usable], (-1, len(space.names)))
    asked = [prompts[i] for i in usable]
    groups = labelled + space.groups(scores, asked)
    found = [RoundSample(digest=one.digest, reject_reason=one.reject_reason) for one in samples]
    for i, z in zip(usable, space.normalize(scores, asked, groups), strict=True):
        if np.abs(z).max() > OUT_OF_RANGE:
            found[i] = replace(found[i], reject_reason="out of range")
        else:
            found[i] = replace(found[i], scores=samples[i].scores, z=tuple(z.tolist()))
    return found, groups
