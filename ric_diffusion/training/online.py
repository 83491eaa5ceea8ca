"""Online rounds: draw targets near the front, sample, score, select, fine-tune; again.

What a round's samples reach becomes part of the front, for the targets of later rounds and for the
preferences of the adapter that is left; what z means never changes.

RiC's online stage (arXiv 2402.10207, section 3.2) against the backend protocol, so for pictures
and text alike. Every round is a folder:

drawn.json     what was asked: prompt, targets in z and seed of each sample
samples/       what came of it
scores.jsonl   a line per batch: scores, what is wrong with a sample, cost so far
kept.json      for each sample "kept" or why not, and the original records chosen beside them
train/         the fine-tuning and its checkpoints
adapter/       what the round leaves behind
guard.json     what it left of diversity and prompts
round.json     the round in numbers; written last

Killed anywhere, a run does again at most the batch or the steps it was in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from ric_diffusion.backend import Backend
from ric_diffusion.config import at_least, digest
from ric_diffusion.cost import Cost, Meter
from ric_diffusion.data.records import Record
from ric_diffusion.errors import InputError
from ric_diffusion.files import append_json, read_json_lines, write_json
from ric_diffusion.rewards import RewardSpace, to_targets
from ric_diffusion.rewards.selection import SELECTIONS
from ric_diffusion.training.guard import Guard, GuardConfig
from ric_diffusion.training.loop import LoopConfig, fit

ORIGINALS = 1  # a stream of random numbers beside that of the wishes
OUT_OF_RANGE = 6.0  # z; no reward encoder reads further, and no honest sample lies there


@dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """Rounds of ``samples`` each.

    Targets: the point of the front along a preference drawn evenly from the simplex, every reward
    pushed beyond it by up to ``push`` z. The front is extended to the quantile ``reach`` of what
    the samples reach: high where they scatter little, since few are drawn for any one direction;
    lower where single ones get much further than most. ``selection`` keeps about ``share`` of the
    samples, and of the original records, of which so many are mixed in that they make up the part
    ``originals``.
    """

    rounds: int = 2
    samples: int = 1024
    batch_size: int = 64
    push: float = 0.3
    reach: float = 0.98
    selection: Literal["fronts", "quantile"] = "fronts"
    share: float = 0.5
    originals: float = 0.5
    seed: int = 0
    guard: GuardConfig = field(default_factory=GuardConfig)
    loop: LoopConfig

    def __post_init__(self) -> None:
        at_least(self, 1, "rounds", "samples", "batch_size")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; give more than 0, at most 1")
        if not 0 < self.reach < 1:
            raise ValueError(f"reach is {self.reach}; give more than 0, below 1")
        if not 0 <= self.originals < 1:
            raise ValueError(f"originals is {self.originals}; give 0 or more, below 1")
        at_least(self, 0, "push")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the rounds work with: ``space`` and ``mapping`` are the adapter's at the start;
    ``originals`` are labelled records with absolute file names."""

    space: RewardSpace
    mapping: str
    prompts: Sequence[str]
    scorers: Sequence[Any]
    originals: Sequence[Record]


def run_rounds(
    backend: Backend, task: Task, config: OnlineConfig, out: Path, *, key: str, resume: bool
) -> tuple[Cost, RewardSpace]:
    """Run the rounds that ``out`` lacks; returns what all of them cost, and the space with the
    front they have reached. ``key`` names the run.

    Raises CollapseError when the guard finds that diversity or prompts have collapsed.
    """
    guard = Guard(config.guard, backend, task.prompts, out / "start.json", seed=config.seed)
    total = Cost.from_dict(guard.start["cost"])
    for number in range(1, config.rounds + 1):
        folder = out / f"round-{number}"
        if (folder / "round.json").exists():
            story = json.loads((folder / "round.json").read_text())
            total += Cost.from_dict(story["cost"])
            task = replace(task, space=replace(task.space, front=story["front"]))
            if not (out / f"round-{number + 1}" / "round.json").exists():
                backend.load(folder / "adapter")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        story = run_round(backend, task, config, folder, number=number, key=key, resume=resume)
        story["guard"] = guard.check(number, folder / "guard.json")
        cost = Cost.from_dict(story["cost"]) + Cost.from_dict(story["guard"]["cost"])
        story["cost"] = cost.to_dict()
        write_json(folder / "round.json", story)
        task = replace(task, space=replace(task.space, front=story["front"]))
        total += cost
    return total, task.space


def run_round(
    backend: Backend,
    task: Task,
    config: OnlineConfig,
    folder: Path,
    *,
    number: int,
    key: str,
    resume: bool,
) -> dict[str, Any]:
    """One round, from what it asks to its adapter; returns round.json."""
    wishes = drawn(task, config, folder, number)
    rows, cost = sampled(backend, task, config, folder, wishes)
    kept, chosen = selected(task, config, folder, rows, number)
    records = [
        *(_record(folder, wishes[i], rows[i], task.space, backend.suffix, i) for i in kept),
        *(task.originals[i] for i in chosen),
    ]
    if not records:
        raise InputError(
            f"{folder}: none of {len(rows)} samples can be used; see kept.json for the reasons"
        )
    backend.prepare(records, folder, folder / "cache")
    meter = Meter()
    with meter.running(backend.watched()):
        fit(
            backend,
            len(records),
            replace(config.loop, seed=config.loop.seed + number - 1),  # other noise in each round
            folder / "train",
            digest=digest([key, number]),
            resume=resume,
            meter=meter,
        )
    backend.save(folder / "adapter")
    usable = np.array([row["z"] for row in rows if row["fault"] is None])
    return {
        "round": number,
        "samples": len(rows),
        "kept": len(kept),
        "originals": len(chosen),
        "mean z": dict(zip(task.space.names, usable.mean(axis=0).tolist(), strict=True)),
        "front": [list(point) for point in task.space.reaching(usable, config.reach).front],
        "sampling cost": cost.to_dict(),
        "training cost": meter.read().to_dict(),
        "cost": (cost + meter.read()).to_dict(),
    }


def drawn(task: Task, config: OnlineConfig, folder: Path, number: int) -> list[dict[str, Any]]:
    """The round's wishes, drawn once: prompts in turn, targets near the front, fresh seeds."""
    path = folder / "drawn.json"
    if not path.exists():
        rng = np.random.default_rng([config.seed, number])
        names = task.space.names
        order = [
            rng.permutation(len(task.prompts))
            for _ in range(-(-config.samples // len(task.prompts)))
        ]
        prompts = np.concatenate(order)[: config.samples].tolist()
        weights = rng.dirichlet(np.ones(len(names)), config.samples).tolist()
        pushes = config.push * rng.random((config.samples, len(names)))
        seeds = rng.integers(2**31, size=config.samples).tolist()
        wishes = []
        for prompt, weight, push, seed in zip(prompts, weights, pushes, seeds, strict=True):
            target = to_targets(dict(zip(names, weight, strict=True)), task.space, task.mapping)
            target = {n: target[n] + p for n, p in zip(names, push.tolist(), strict=True)}
            wishes.append({"prompt": task.prompts[prompt], "targets": target, "seed": seed})
        write_json(path, wishes)
    stored: list[dict[str, Any]] = json.loads(path.read_text())
    return stored


def sampled(
    backend: Backend,
    task: Task,
    config: OnlineConfig,
    folder: Path,
    wishes: Sequence[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], Cost]:
    """Every wish sampled and scored: a row {"scores", "z", "fault"} each, and the cost.

    A row's fault says why its sample can't be used: nothing is ever labelled that is not a number,
    blank, out of range or a duplicate.
    """
    journal = folder / "scores.jsonl"
    batches = read_json_lines(journal)
    rows = [row for batch in batches for row in batch["rows"]]
    meter = Meter(Cost.from_dict(batches[-1]["cost"]) if batches else None)
    using = meter.metered(task.scorers)
    (folder / "samples").mkdir(exist_ok=True)
    seen = {row["digest"] for row in rows}
    with (
        meter.running(backend.watched()),
        tqdm(total=len(wishes), initial=len(rows), desc=f"{folder.name}: samples") as bar,
    ):
        while len(rows) < len(wishes):
            first = len(rows)
            part = wishes[first : first + config.batch_size]
            prompts = [w["prompt"] for w in part]
            samples = backend.sample(
                prompts, [w["targets"] for w in part], [w["seed"] for w in part]
            )
            new = _scored(backend, task, samples, prompts, using, seen)
            for i, sample in enumerate(samples, start=first):
                backend.write(sample, folder / "samples" / f"{i:06d}{backend.suffix}")
            append_json(journal, {"rows": new, "cost": meter.read().to_dict()})
            rows += new
            bar.update(len(new))
    return rows, meter.read()


def _scored(
    backend: Backend,
    task: Task,
    samples: Sequence[Any],
    prompts: Sequence[str],
    using: Sequence[Any],
    seen: set[str],
) -> list[dict[str, Any]]:
    columns = [np.asarray(scorer(list(samples), list(prompts)), float) for scorer in using]
    scores = np.stack(columns, axis=1)
    rows = []
    for sample, score, z in zip(samples, scores, task.space.normalize(scores), strict=True):
        digest_ = backend.digest(sample)
        fault = backend.fault(sample)
        if fault is None and not np.isfinite(score).all():
            fault = "score is not finite"
        if fault is None and np.abs(z).max() > OUT_OF_RANGE:
            fault = "out of range"
        if fault is None and digest_ in seen:
            fault = "duplicate"
        seen.add(digest_)
        usable = fault is None
        rows.append(
            {
                "scores": score.tolist() if usable else None,
                "z": z.tolist() if usable else None,
                "fault": fault,
                "digest": digest_,
            }
        )
    return rows


def selected(
    task: Task,
    config: OnlineConfig,
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    number: int,
) -> tuple[list[int], list[int]]:
    """The samples worth training on and the originals to mix in, both by index; of the latter no
    more than are selected themselves."""
    names = task.space.names
    scores = [[record.scores[name] for name in names] for record in task.originals]
    reference = task.space.normalize(np.reshape(scores, (-1, len(names))))
    select = SELECTIONS[config.selection]
    usable = np.array([i for i, row in enumerate(rows) if row["fault"] is None], dtype=int)
    z = np.reshape([rows[i]["z"] for i in usable], (-1, len(names)))
    kept = usable[select(z, reference, config.share)].tolist()
    good = select(reference, reference, config.share)
    wanted = round(len(kept) * config.originals / (1 - config.originals))
    rng = np.random.default_rng([config.seed, number, ORIGINALS])
    chosen = sorted(rng.permutation(good)[:wanted].tolist())
    verdicts = [row["fault"] or "not selected" for row in rows]
    for i in kept:
        verdicts[i] = "kept"
    write_json(
        folder / "kept.json",
        {
            "selection": config.selection,
            "samples": verdicts,
            "originals": [task.originals[i].file for i in chosen],
        },
    )
    return kept, chosen


def _record(
    folder: Path,
    wish: Mapping[str, Any],
    row: Mapping[str, Any],
    space: RewardSpace,
    suffix: str,
    index: int,
) -> Record:
    """A kept sample as a labelled record: its own scores, not those that were asked for."""
    return Record(
        file=str((folder / "samples" / f"{index:06d}{suffix}").absolute()),
        captions=(wish["prompt"],),
        scores=dict(zip(space.names, row["scores"], strict=True)),
    )
