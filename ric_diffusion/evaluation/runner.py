"""Draws, scores and judges a method on a grid of points x prompts x seeds.

``run_sweep`` keeps everything in memory. ``evaluate`` works in a folder of the method's own:

run.json               all that its samples depend on
samples/               one file per cell
drawn-PROCESS.jsonl    a line per batch: scores and rejected, and what drawing it cost
judged-PROCESS.jsonl   a line per block of prompts: diversity and prompt R-precision

An evaluation that was killed loses one batch at most; run again, it goes on. Several processes take
every world-th batch and block each, or workers of an engine one after the other; which of them took
which makes no difference to what comes out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ric_diffusion.data.medium import read_named
from ric_diffusion.data.scoring import scores_of
from ric_diffusion.evaluation.config import EvaluationConfig
from ric_diffusion.evaluation.grid import Cell, Grid, Point
from ric_diffusion.evaluation.method import Draw, Method, by_targets
from ric_diffusion.evaluation.metrics import Array
from ric_diffusion.evaluation.standard import Standard
from ric_diffusion.io.config import from_dict, to_dict
from ric_diffusion.io.counting import counted
from ric_diffusion.io.engines import HERE, Workers
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.journal import Journal
from ric_diffusion.io.progress import tracking
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.cost import Cost
from ric_diffusion.models.hardware import this_process
from ric_diffusion.models.judge import diversity
from ric_diffusion.models.protocol import Sampler
from ric_diffusion.rewards import RewardSpace

VERB = "evaluate"
METHODS = "methods"  # below a report's folder
DRAW_AGAIN = "remove it, and run this again, which draws it again"
JUDGED_TOGETHER = 16  # prompts, with all their seeds; they are each other's distractors

Block = tuple[int, tuple[int, ...]]  # point, prompts
Numbers = tuple[float | None, ...]  # of JSON, which knows no NaN


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Samples and scores on P points x Q prompts x S seeds.

    ``samples``: lists P x Q x S. ``scores`` and ``z``: (P, Q, S, n), raw and in standard units.
    """

    points: list[Point]
    prompts: list[str]
    seeds: list[int]
    samples: list[list[list[Any]]]
    scores: Array
    z: Array


def run_sweep(
    sampler: Sampler,
    space: RewardSpace,
    points: Sequence[Point],
    prompts: Sequence[str],
    seeds: Sequence[int],
    scorers: Sequence[Any],
    *,
    batch_size: int = 32,
    stage: str = "sweep",
    draw: Draw | None = None,
) -> Sweep:
    """Sample every point for every prompt, each of which has the same seeds, and score what comes;
    nothing is written. Scores are NaN where a sample is rejected. Rewards that are compared within
    a prompt are so among the samples of the sweep. ``draw``: by default from the sampler, asked for
    the points' targets."""
    grid = Grid(points=points, prompts=prompts, seeds=[seeds] * len(prompts), batch_size=batch_size)
    draw = draw or by_targets(sampler)
    samples: list[list[list[Any]]] = [[[None for _ in seeds] for _ in prompts] for _ in points]
    scores = np.zeros((*grid.shape, len(scorers)))
    with tracking(stage, math.prod(grid.shape), unit="sample") as tracker:
        for batch in grid.batches():
            drawn = _draw(draw, grid, batch)
            found = scores_of(drawn, [prompts[q] for _, q, _ in batch], scorers)
            for (p, q, s), sample, row in zip(batch, drawn, found, strict=True):
                samples[p][q][s] = sample
                rejected = sampler.medium.reject_reason(sample) is not None
                scores[p, q, s] = math.nan if rejected else row
            tracker.advance(len(batch))
    return Sweep(
        points=list(points),
        prompts=list(prompts),
        seeds=list(seeds),
        samples=samples,
        scores=scores,
        z=Standard.of(space, [scores]).z(scores),
    )


def _draw(draw: Draw, grid: Grid, batch: Sequence[Cell]) -> list[Any]:
    """The samples of one batch."""
    return draw(
        [grid.points[p] for p, _, _ in batch],
        [grid.prompts[q] for _, q, _ in batch],
        [grid.seeds[q][s] for _, q, s in batch],
    )


@dataclass(frozen=True, kw_only=True)
class MethodScores:
    """What came of one method with P points, the first R of them its preference sweep.

    ``scores`` (P, Q, S, n) and ``held_out`` (R, Q, S, h) in the scorers' units, NaN where a sample
    is rejected; ``rejected``: how many samples by reason; ``diversity`` (R, Q);
    ``prompt_r_precision`` (R, Q, S); ``files`` [P][Q][S], below the method's folder; ``cost`` of
    drawing.
    """

    name: str
    about: Mapping[str, Any]
    points: Sequence[Point]
    space: RewardSpace | None
    scores: Array
    held_out: Array
    rejected: Mapping[str, int]
    diversity: Array
    prompt_r_precision: Array
    files: list[list[list[str]]]
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class DrawnCell:
    """One sample of a batch: its place in the grid, its seed, and its scores; ``held_out`` is empty
    where nothing is held out, or beyond the preference sweep."""

    point: int
    prompt: int
    seed: int
    scores: Numbers
    held_out: Numbers
    reject_reason: str | None


@dataclass(frozen=True, kw_only=True)
class DrawnBatch:
    """A line of the journal ``drawn``: the batch of this number."""

    batch: int
    cells: tuple[DrawnCell, ...]
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class JudgedBlock:
    """A line of the journal ``judged``: prompts that were judged together at one point.
    ``prompt_r_precision`` has a row for each prompt."""

    point: int
    prompts: tuple[int, ...]
    diversity: Numbers
    prompt_r_precision: tuple[Numbers, ...]


@dataclass(frozen=True, kw_only=True)
class EvaluationWorker:
    """What draws, scores and judges: a method, and what all methods share."""

    method: Method
    config: EvaluationConfig


def folder_of(out: Path, name: str) -> Path:
    """Where the method of this name keeps its samples and journals, below a report's folder."""
    return out / METHODS / (re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "method")


def identity_of(method: Method, config: EvaluationConfig) -> dict[str, Any]:
    """All that the method's samples and scores depend on, as plain data."""
    return {
        "method": to_dict(method.about),
        "points": [asdict(point) for point in method.points],
        "prompts": list(config.prompts),
        "seeds": config.grid(method.points).seeds,
        "scorers": [scorer.fingerprint for scorer in config.scorers],
        "held_out": [scorer.fingerprint for scorer in config.held_out],
        "batch_size": config.batch_size,
    }


def check_folder(method: Method, config: EvaluationConfig, folder: Path) -> None:
    """InputError if the folder holds a run of something else, or with other settings. Writes
    nothing."""
    run = RunFolder(folder, VERB)
    run.check_free(resume=True)
    run.check_same(identity_of(method, config))


def evaluate_methods(
    methods: Sequence[Method], config: EvaluationConfig, out: Path, workers: Workers = HERE
) -> list[MethodScores]:
    """``evaluate`` for each, in a folder of its own below ``out``. All the folders are checked
    before anything is drawn."""
    folders = [folder_of(out, method.name) for method in methods]
    for method, folder in zip(methods, folders, strict=True):
        check_folder(method, config, folder)
    return [
        evaluate(method, config, folder, workers)
        for method, folder in zip(methods, folders, strict=True)
    ]


def evaluate(
    method: Method, config: EvaluationConfig, folder: Path, workers: Workers = HERE
) -> MethodScores:
    """Draw, score and judge every cell, on all processes together; each gets all the scores.
    ``workers`` do it: this process, or others, who make the method of its ``elsewhere``.

    What an earlier run with the same settings left in ``folder`` is not done again. InputError if
    it was left by other settings.
    """
    state = this_process()
    rank, world = state.process_index, state.num_processes
    check_folder(method, config, folder)
    if state.is_main_process:
        RunFolder(folder, VERB).begin(identity_of(method, config))
    method.prepare()
    draw_cells(method, config, folder, rank=rank, world=world, workers=workers)
    state.wait_for_everyone()
    judge_cells(method, config, folder, rank=rank, world=world, workers=workers)
    state.wait_for_everyone()
    return read_scores(method, config, folder)


def draw_cells(
    method: Method,
    config: EvaluationConfig,
    folder: Path,
    *,
    rank: int = 0,
    world: int = 1,
    workers: Workers = HERE,
) -> None:
    """Draw, write and score every ``world``-th batch that is not done."""
    batches = config.grid(method.points).batches()
    done, mine = read_drawn(method, config, folder), range(rank, len(batches), world)
    progress = tracking(
        f"{method.name}: draw",
        sum(len(batches[number]) for number in mine),
        unit="sample",
        initial=sum(len(batches[number]) for number in mine if number in done),
        show=rank == 0,
    )
    found = workers.map(
        draw_batch,
        [
            {"folder": str(folder.absolute()), "batch": number, "cells": to_dict(batches[number])}
            for number in mine
            if number not in done
        ],
        here=EvaluationWorker(method=method, config=config),
        called=lambda item: f"{method.name}: batch {item['batch']}",
        **_elsewhere(method, config),
    )
    with closing(Journal(folder, "drawn")) as journal, progress as tracker:
        for drawn in found:
            journal.append(drawn)
            tracker.advance(len(drawn["cells"]))


def _elsewhere(method: Method, config: EvaluationConfig) -> dict[str, Any]:
    """As plain data, what a worker in another process makes of the method and the config."""
    return {
        "method": {"points": to_dict(method.points), **(method.elsewhere or {})},
        "shared": {
            "prompts": list(config.prompts),
            "seeds": list(config.seeds),
            "held_out": bool(config.held_out),
            "batch_size": config.batch_size,
        },
    }


def draw_batch(worker: EvaluationWorker, item: Mapping[str, Any]) -> dict[str, Any]:
    """Draw, write and score the cells of one batch, from and to plain data: a ``DrawnBatch`` as the
    journal has it."""
    method, config, folder = worker.method, worker.config, Path(item["folder"])
    batch: list[Cell] = from_dict(item["cells"], list[Cell], "cells")
    medium, before = method.sampler.medium, method.meter.read()
    with method.meter.running(method.sampler.network()):
        samples = _draw(method.draw, config.grid(method.points), batch)
    after = method.meter.read()
    for cell, sample in zip(batch, samples, strict=True):
        medium.write(sample, folder / sample_file(config, cell, medium.suffix))
    prompts = [config.prompts[q] for _, q, _ in batch]
    scores = scores_of(samples, prompts, config.scorers)
    weighed = sum(method.points[p].along is None for p, _, _ in batch)  # they come first
    held_out = np.zeros((weighed, 0))
    if weighed and config.held_out:
        held_out = scores_of(samples[:weighed], prompts[:weighed], config.held_out)
    reasons = [medium.reject_reason(sample) for sample in samples]
    rejected = [reason is not None for reason in reasons]
    scores[rejected], held_out[rejected[:weighed]] = math.nan, math.nan
    cells = tuple(
        DrawnCell(
            point=p,
            prompt=q,
            seed=config.seed(q, s),
            scores=_plain(scores[i]),
            held_out=_plain(held_out[i]) if i < weighed else (),
            reject_reason=reasons[i],
        )
        for i, (p, q, s) in enumerate(batch)
    )
    drawn = DrawnBatch(batch=item["batch"], cells=cells, cost=after - before)
    plain: dict[str, Any] = to_dict(drawn)
    return plain


def sample_file(config: EvaluationConfig, cell: Cell, suffix: str) -> str:
    """Where the sample of a cell lies, below the method's folder; ``suffix``: of its medium."""
    p, q, s = cell
    return file_of(p, q, config.seed(q, s), suffix)


def file_of(point: int, prompt: int, seed: int, suffix: str) -> str:
    """The same by the numbers of point and prompt, and the seed itself."""
    return f"samples/{point:03d}/{prompt:04d}-{seed}{suffix}"


def sample_files(
    config: EvaluationConfig, shape: tuple[int, int, int], suffix: str
) -> list[list[list[str]]]:
    """``sample_file`` of every cell of a grid of this shape, [P][Q][S]."""
    points, prompts, seeds = map(range, shape)
    return [
        [[sample_file(config, (p, q, s), suffix) for s in seeds] for q in prompts] for p in points
    ]


def read_drawn(method: Method, config: EvaluationConfig, folder: Path) -> dict[int, DrawnBatch]:
    """The batches that were drawn and whose samples are all still there, by number."""
    batches, found = config.grid(method.points).batches(), {}
    suffix = method.sampler.medium.suffix
    for entry in Journal(folder, "drawn").entries():
        drawn = from_dict(entry, DrawnBatch, f"{folder}: drawn")
        files = [folder / sample_file(config, cell, suffix) for cell in batches[drawn.batch]]
        if all(file.exists() for file in files):
            found[drawn.batch] = drawn
    return found


def blocks_of(method: Method, config: EvaluationConfig) -> list[Block]:
    """The points of the preference sweep, each with the blocks of prompts judged together."""
    prompts = np.arange(len(config.prompts))
    parts = np.array_split(prompts, math.ceil(len(prompts) / JUDGED_TOGETHER))
    return [(p, tuple(part.tolist())) for p in range(method.preferences) for part in parts]


def judge_cells(
    method: Method,
    config: EvaluationConfig,
    folder: Path,
    *,
    rank: int = 0,
    world: int = 1,
    workers: Workers = HERE,
) -> None:
    """Diversity and prompt R-precision of every ``world``-th block that is not done."""
    done = read_judged(folder)
    todo = [block for block in blocks_of(method, config)[rank::world] if block not in done]
    progress = tracking(f"{method.name}: judge", len(todo), unit="block", show=rank == 0)
    found = workers.map(
        judge_block,
        [
            {"folder": str(folder.absolute()), "point": p, "prompts": list(prompts)}
            for p, prompts in todo
        ],
        here=EvaluationWorker(method=method, config=config),
        called=lambda item: f"{method.name}: point {item['point']}, prompts {item['prompts']}",
        **_elsewhere(method, config),
    )
    with closing(Journal(folder, "judged")) as journal, progress as tracker:
        for judged in found:
            journal.append(judged)
            tracker.advance()


def judge_block(worker: EvaluationWorker, item: Mapping[str, Any]) -> dict[str, Any]:
    """Diversity and prompt R-precision of one block, whose samples are read back, from and to plain
    data: a ``JudgedBlock`` as the journal has it."""
    method, config, folder = worker.method, worker.config, Path(item["folder"])
    sampler, p, prompts = method.sampler, item["point"], tuple(item["prompts"])
    cells = [(p, q, s) for q in prompts for s in range(len(config.seeds))]
    files = [folder / sample_file(config, cell, sampler.medium.suffix) for cell in cells]
    samples = [read_named(file, sampler.medium, mend=DRAW_AGAIN) for file in files]
    features = np.asarray(sampler.features(samples), float)
    precision = np.asarray(
        sampler.prompt_r_precision([config.prompts[q] for _, q, _ in cells], samples), float
    )
    shape = len(prompts), len(config.seeds)
    judged = JudgedBlock(
        point=p,
        prompts=prompts,
        diversity=_plain(np.array([diversity(f) for f in features.reshape(*shape, -1)])),
        prompt_r_precision=tuple(_plain(row) for row in precision.reshape(shape)),
    )
    plain: dict[str, Any] = to_dict(judged)
    return plain


def read_judged(folder: Path) -> dict[Block, JudgedBlock]:
    """The blocks that were judged."""
    found = [
        from_dict(entry, JudgedBlock, f"{folder}: judged")
        for entry in Journal(folder, "judged").entries()
    ]
    return {(block.point, block.prompts): block for block in found}


def _plain(values: Array) -> Numbers:
    """JSON knows no NaN."""
    return tuple(value if math.isfinite(value) else None for value in values.tolist())


def _array(values: Numbers) -> Array:
    return np.array([math.nan if value is None else value for value in values], float)


def read_scores(method: Method, config: EvaluationConfig, folder: Path) -> MethodScores:
    """The journals of all processes, merged. InputError if something in them is missing."""
    grid = config.grid(method.points)
    drawn, judged = read_drawn(method, config, folder), read_judged(folder)
    batches, blocks = grid.batches(), blocks_of(method, config)
    missing = len(batches) - len(drawn) + sum(block not in judged for block in blocks)
    if missing:
        raise InputError(
            f"{folder}: {counted(missing, 'parts')} of the evaluation missing; all processes must "
            "write to one folder that they share"
        )
    sweep = method.preferences, *grid.shape[1:]
    scores = np.full((*grid.shape, len(config.scorers)), np.nan)
    held_out = np.full((*sweep, len(config.held_out)), np.nan)
    precision, spread = np.full(sweep, np.nan), np.full(sweep[:2], np.nan)
    rejected: Counter[str] = Counter()
    cost = Cost()
    for number, batch in enumerate(batches):
        cost += drawn[number].cost
        for (p, q, s), cell in zip(batch, drawn[number].cells, strict=True):
            if cell.reject_reason is not None:
                rejected[cell.reject_reason] += 1
                continue
            scores[p, q, s] = _array(cell.scores)
            if p < method.preferences:
                held_out[p, q, s] = _array(cell.held_out)
    for p, those in blocks:
        block = judged[p, those]
        spread[p, list(those)] = _array(block.diversity)
        precision[p, list(those)] = [_array(row) for row in block.prompt_r_precision]
    return MethodScores(
        name=method.name,
        about=method.about,
        points=method.points,
        space=method.space,
        scores=scores,
        held_out=held_out,
        rejected=dict(rejected),
        diversity=spread,
        prompt_r_precision=precision,
        files=sample_files(config, grid.shape, method.sampler.medium.suffix),
        cost=cost,
    )
