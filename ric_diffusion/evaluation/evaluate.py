"""Draws, scores and judges a subject on a grid of points x prompts x seeds.

The subject's folder:

settings.json       all that its samples depend on
samples/            one file per cell
drawn-RANK.jsonl    a line per batch: scores and faults, and what drawing it cost
judged-RANK.jsonl   a line per block of prompts: diversity and prompt figure

A run that was killed loses one batch at most; run again, it goes on. Several processes take every
world-th batch and block each; which of them took which makes no difference to what comes out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from ric_diffusion.backend import diversity
from ric_diffusion.cost import Cost
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.metrics import Array
from ric_diffusion.evaluation.scoring import scores_of
from ric_diffusion.evaluation.subject import (
    SETTINGS,
    Outcome,
    Setup,
    Subject,
    check_folder,
    settings_of,
)
from ric_diffusion.files import append_json, read_json_lines, write_json

JUDGED_TOGETHER = 16  # prompts, with all their seeds; they are each other's foils

Cell = tuple[int, int, int]  # point, prompt, seed
Block = tuple[int, tuple[int, ...]]  # point, prompts
Entry = Mapping[str, Any]  # a line of a journal


def evaluate(subject: Subject, setup: Setup, folder: Path) -> Outcome:
    """Draw, score and judge every cell, on all processes together; each gets the whole outcome.

    What an earlier run with the same settings left in ``folder`` is not done again. InputError if
    it was left by other settings.
    """
    state = PartialState(cpu=not torch.cuda.is_available())
    rank, world = state.process_index, state.num_processes
    check_folder(subject, setup, folder)
    if state.is_main_process:
        write_json(folder / SETTINGS, settings_of(subject, setup))
    # Everyone reads before anyone writes: reading mends the torn end of a journal.
    drawn, judged = read_drawn(subject, setup, folder), read_judged(folder)
    state.wait_for_everyone()
    draw_cells(subject, setup, folder, drawn, rank=rank, world=world)
    state.wait_for_everyone()
    judge_cells(subject, setup, folder, judged, rank=rank, world=world)
    state.wait_for_everyone()
    return read_outcome(subject, setup, folder)


def batches_of(subject: Subject, setup: Setup) -> list[list[Cell]]:
    """All cells in batches, the same in every run whatever was done before: a sample then never
    depends on when it was drawn, or by which process."""
    shape = len(subject.points), len(setup.prompts), len(setup.seeds)
    cells = [(p, q, s) for p, q, s in np.ndindex(*shape)]
    size = setup.batch_size
    return [cells[start : start + size] for start in range(0, len(cells), size)]


def blocks_of(subject: Subject, setup: Setup) -> list[Block]:
    """The points of the preference sweep, each with the blocks of prompts judged together."""
    prompts = np.arange(len(setup.prompts))
    parts = np.array_split(prompts, math.ceil(len(prompts) / JUDGED_TOGETHER))
    return [(p, tuple(part.tolist())) for p in range(subject.preferences) for part in parts]


def file_of(subject: Subject, setup: Setup, cell: Cell) -> str:
    """Where the sample of a cell lies, below the subject's folder."""
    p, q, s = cell
    return f"samples/{p:03d}/{q:04d}-{setup.seed(q, s)}{subject.sampler.suffix}"


def read_drawn(subject: Subject, setup: Setup, folder: Path) -> dict[int, Entry]:
    """The batches that were drawn and whose samples are all still there, by number."""
    batches, found = batches_of(subject, setup), {}
    for entry in _entries(folder, "drawn"):
        files = [folder / file_of(subject, setup, cell) for cell in batches[entry["batch"]]]
        if all(file.exists() for file in files):
            found[entry["batch"]] = entry
    return found


def read_judged(folder: Path) -> dict[Block, Entry]:
    """The blocks that were judged."""
    found = _entries(folder, "judged")
    return {(entry["point"], tuple(entry["prompts"])): entry for entry in found}


def _entries(folder: Path, name: str) -> list[Any]:
    """The lines of the journals of all processes."""
    files = sorted(folder.glob(f"{name}-*.jsonl"))
    return [entry for file in files for entry in read_json_lines(file)]


def draw_cells(
    subject: Subject,
    setup: Setup,
    folder: Path,
    done: Mapping[int, Entry],
    *,
    rank: int = 0,
    world: int = 1,
) -> None:
    """Draw, write and score every ``world``-th batch that is not done."""
    batches = batches_of(subject, setup)
    mine = range(rank, len(batches), world)
    with tqdm(
        total=sum(len(batches[number]) for number in mine),
        initial=sum(len(batches[number]) for number in mine if number in done),
        desc=f"{subject.name}: draw",
        unit="sample",
        disable=rank > 0,
    ) as bar:
        for number in mine:
            if number not in done:
                entry = _drawn(subject, setup, folder, batches[number])
                append_json(folder / f"drawn-{rank}.jsonl", {"batch": number, **entry})
                bar.update(len(batches[number]))


def _drawn(subject: Subject, setup: Setup, folder: Path, batch: Sequence[Cell]) -> dict[str, Any]:
    """Draw and write the cells of one batch; its line in the journal."""
    points = [subject.points[p] for p, _, _ in batch]
    prompts = [setup.prompts[q] for _, q, _ in batch]
    before = subject.meter.read()
    with subject.meter.running(subject.sampler.watched()):
        samples = subject.draw(points, prompts, [setup.seed(q, s) for _, q, s in batch])
    after = subject.meter.read()
    for cell, sample in zip(batch, samples, strict=True):
        path = folder / file_of(subject, setup, cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        subject.sampler.write(sample, path)
    scores = scores_of(samples, prompts, setup.scorers)
    weighed = sum(point.along is None for point in points)  # they come first
    held_out = np.zeros((weighed, 0))
    if weighed and setup.held_out:
        held_out = scores_of(samples[:weighed], prompts[:weighed], setup.held_out)
    cells = [
        {
            "point": p,
            "prompt": q,
            "seed": setup.seed(q, s),
            "scores": _plain(scores[i]),
            "held_out": _plain(held_out[i]) if i < weighed else [],
            "fault": subject.sampler.fault(samples[i]),
        }
        for i, (p, q, s) in enumerate(batch)
    ]
    cost = Cost(
        after.forwards - before.forwards,
        after.scored - before.scored,
        after.seconds - before.seconds,
    )
    return {"cells": cells, "cost": cost.to_dict()}


def judge_cells(
    subject: Subject,
    setup: Setup,
    folder: Path,
    done: Mapping[Block, Entry],
    *,
    rank: int = 0,
    world: int = 1,
) -> None:
    """Diversity and prompt figure of every ``world``-th block that is not done."""
    mine = blocks_of(subject, setup)[rank::world]
    todo = [block for block in mine if block not in done]
    desc = f"{subject.name}: judge"
    for p, prompts in tqdm(todo, desc=desc, unit="block", disable=rank > 0):
        cells = [(p, q, s) for q in prompts for s in range(len(setup.seeds))]
        samples = [subject.sampler.read(folder / file_of(subject, setup, cell)) for cell in cells]
        features = np.asarray(subject.sampler.features(samples), float)
        kept = subject.sampler.prompt_kept([setup.prompts[q] for _, q, _ in cells], samples)
        shape = len(prompts), len(setup.seeds)
        entry = {
            "point": p,
            "prompts": prompts,
            "diversity": _plain(np.array([diversity(f) for f in features.reshape(*shape, -1)])),
            "kept": np.asarray(kept, float).reshape(shape).tolist(),
        }
        append_json(folder / f"judged-{rank}.jsonl", entry)


def _plain(values: Array) -> list[float | None]:
    """JSON knows no NaN."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _array(values: Sequence[float | None]) -> Array:
    return np.array([math.nan if value is None else value for value in values], float)


def read_outcome(subject: Subject, setup: Setup, folder: Path) -> Outcome:
    """The journals of all processes, merged. InputError if something in them is missing."""
    drawn, judged = read_drawn(subject, setup, folder), read_judged(folder)
    batches, blocks = batches_of(subject, setup), blocks_of(subject, setup)
    missing = len(batches) - len(drawn) + sum(block not in judged for block in blocks)
    if missing:
        raise InputError(
            f"{folder}: {missing} parts of the evaluation are not there; all processes must write "
            "to one folder that they share"
        )
    shape = len(subject.points), len(setup.prompts), len(setup.seeds)
    sweep = subject.preferences, *shape[1:]
    scores = np.full((*shape, len(setup.scorers)), np.nan)
    held_out = np.full((*sweep, len(setup.held_out)), np.nan)
    kept, diversity = np.full(sweep, np.nan), np.full(sweep[:2], np.nan)
    faults: Counter[str] = Counter()
    cost = Cost()
    files = [[[""] * shape[2] for _ in range(shape[1])] for _ in range(shape[0])]
    for number, batch in enumerate(batches):
        cost += Cost.from_dict(drawn[number]["cost"])
        for (p, q, s), cell in zip(batch, drawn[number]["cells"], strict=True):
            files[p][q][s] = file_of(subject, setup, (p, q, s))
            if cell["fault"] is not None:
                faults[cell["fault"]] += 1
                continue
            scores[p, q, s] = _array(cell["scores"])
            if p < sweep[0]:
                held_out[p, q, s] = _array(cell["held_out"])
    for p, prompts in blocks:
        entry = judged[p, prompts]
        diversity[p, list(prompts)] = _array(entry["diversity"])
        kept[p, list(prompts)] = entry["kept"]
    return Outcome(
        name=subject.name,
        about=subject.about,
        points=subject.points,
        space=subject.space,
        scores=scores,
        held_out=held_out,
        faults=dict(faults),
        diversity=diversity,
        kept=kept,
        files=files,
        cost=cost,
    )
