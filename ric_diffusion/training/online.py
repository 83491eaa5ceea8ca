"""Online rounds: draw targets near the front, sample, score, select, fine-tune; again.

What a round's samples reach becomes part of the front, for the targets of later rounds and for the
preferences of the adapter that is left; what z means never changes. A reward that is compared
within a prompt is so with the labelled records of that prompt and the round's own samples of it.

RiC's online stage (arXiv 2402.10207, section 3.2) against the backend protocol, so for pictures
and text alike. Every round is a folder:

requests.json    what was asked: prompt, targets in z and seed of each sample
samples/         what came of it
scores-*.jsonl   a line per batch: scores, why a sample can't be used, cost
selected.json    for each sample "selected" or why not, and the records replayed beside them
train/           the fine-tuning and its checkpoints
adapter/         what the round leaves behind
guard.json       what it left of diversity and prompt R-precision
round.json       the round in numbers; written last

Killed anywhere, a run does again at most the batch or the steps it was in. Several processes share
the samples and the fine-tuning; the first of them writes what there is one of. Or workers of an
engine draw the samples, and this process does all else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ric_diffusion.data.records import Record
from ric_diffusion.io import config as configs
from ric_diffusion.io.bounds import MOST_RUN_SEED, MOST_SAMPLES
from ric_diffusion.io.config import probabilities, within
from ric_diffusion.io.counting import counted
from ric_diffusion.io.engines import HERE, Workers
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Cost, Meter
from ric_diffusion.models.hardware import this_process
from ric_diffusion.models.protocol import Backend
from ric_diffusion.rewards import PromptGroups, RewardSpace
from ric_diffusion.training import processes, selection, stored
from ric_diffusion.training.guard import Guard, GuardConfig, GuardFigures
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.requests import SampleRequest, draw_requests
from ric_diffusion.training.sampling import (
    RoundSample,
    SampleWorker,
    in_standard_units,
    sample_and_score,
    sample_path,
)
from ric_diffusion.training.selection import Criterion, select
from ric_diffusion.training.trainer import Trainer

START = "start.json"  # what the guard measured before the first round
REPLAY = 1  # a stream of random numbers beside that of the requests


@dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """Rounds of ``samples`` each.

    Targets: the point of the front along a preference drawn evenly from the simplex, with up to
    ``exploration`` z added to every reward. The front is extended to the quantile
    ``front_quantile`` of what the samples reach: high where they scatter little, since few are
    drawn for any one direction; lower where single ones get much further than most. Samples with a
    prompt R-precision below ``prompt_r_precision`` are rejected: what buys rewards with the prompt
    is not trained on, and the front is that of the others. 0 judges none, which takes fewer passes.
    ``selection`` keeps about ``keep_fraction`` of the samples, and of the records the adapter was
    trained on, of which so many are replayed that they make up ``replay_fraction`` of a round's
    training data.
    """

    rounds: int = 2
    samples: int = 1024
    batch_size: int = 64
    exploration: float = 0.3
    front_quantile: float = 0.98
    prompt_r_precision: float = 0.0
    selection: Criterion = "fronts"
    keep_fraction: float = 0.5
    replay_fraction: float = 0.5
    seed: int = 0
    guard: GuardConfig = field(default_factory=GuardConfig)
    loop: LoopConfig

    RENAMED: ClassVar[Mapping[str, str]] = {
        "push": "exploration",
        "reach": "front_quantile",
        "share": "keep_fraction",
        "originals": "replay_fraction",
    }

    def __post_init__(self) -> None:
        within(self, 1, 1000, "rounds")
        within(self, 1, MOST_SAMPLES, "samples", "batch_size")
        within(self, 0, 10, "exploration")  # z
        within(self, 0, MOST_RUN_SEED, "seed")
        probabilities(self, "prompt_r_precision")
        if not 0 < self.keep_fraction <= 1:
            raise ValueError(f"keep_fraction is {self.keep_fraction}; give more than 0, at most 1")
        if not 0 < self.front_quantile < 1:
            raise ValueError(f"front_quantile is {self.front_quantile}; give more than 0, below 1")
        if not 0 <= self.replay_fraction < 1:
            raise ValueError(f"replay_fraction is {self.replay_fraction}; give 0 or more, below 1")

    def identity(self) -> dict[str, Any]:
        """The settings that decide the result, as plain data; see ``LoopConfig.identity``."""
        return {**configs.to_dict(self), "loop": self.loop.identity()}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the rounds work with: ``space`` and ``mapping`` are the adapter's at the start, and
    ``adapter`` is its folder, where workers elsewhere load it; ``replay`` are labelled records with
    absolute file names, and ``data`` is the folder that they were labelled in, whose framing holds
    for samples, too; ``groups`` are what all records of that folder say of their prompts."""

    space: RewardSpace
    mapping: str
    prompts: Sequence[str]
    scorers: Sequence[Any]
    replay: Sequence[Record]
    groups: PromptGroups
    data: Path
    adapter: Path | None = None


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """``round.json``: one round in numbers. ``samples``, ``selected`` and ``replay`` are counts;
    ``mean_z`` is over the samples that can be used; ``front`` (F, n) and ``corners`` (n, n), in z,
    are what the run has reached so far; ``guard`` is what the round left of the guard's figures."""

    round: int
    samples: int
    selected: int
    replay: int
    mean_z: Mapping[str, float]
    front: tuple[tuple[float, ...], ...]
    corners: tuple[tuple[float, ...], ...] | None
    guard: GuardFigures
    sampling_cost: Cost
    training_cost: Cost

    @property
    def cost(self) -> Cost:
        """Of everything in the round."""
        return self.sampling_cost + self.training_cost + self.guard.cost


def run_rounds(
    backend: Backend,
    task: Task,
    config: OnlineConfig,
    out: Path,
    *,
    digest: str,
    resume: bool,
    workers: Workers = HERE,
) -> tuple[Cost, RewardSpace]:
    """Run the rounds that ``out`` lacks; returns what all of them cost, and the space with the
    front they have reached. ``digest`` names the run; ``workers`` draw the samples.

    Raises CollapseError when the guard finds that diversity or prompts have collapsed.
    """
    process = this_process()
    guard = Guard(config.guard, backend, task.prompts, out / START, seed=config.seed)
    total = guard.start.cost
    for number in range(1, config.rounds + 1):
        folder = out / round_name(number)
        if (folder / "round.json").exists():
            result = stored.read(folder / "round.json", RoundResult)
            if not (out / round_name(number + 1) / "round.json").exists():
                backend.load(folder / "adapter")
        else:
            result = run_round(
                backend,
                task,
                config,
                guard,
                folder,
                number=number,
                digest=digest,
                resume=resume,
                workers=workers,
            )
        process.wait_for_everyone()  # before the next round is begun, all know of this one
        space = replace(task.space, front=result.front, corners=result.corners)
        task = replace(task, space=space, adapter=folder / "adapter")
        total += result.cost
    return total, task.space


def round_name(number: int) -> str:
    """What the folder of a round is called, below the run's."""
    return f"round-{number}"


def run_round(
    backend: Backend,
    task: Task,
    config: OnlineConfig,
    guard: Guard,
    folder: Path,
    *,
    number: int,
    digest: str,
    resume: bool,
    workers: Workers = HERE,
) -> RoundResult:
    """One round, from its requests to its adapter and its ``round.json``."""
    process = this_process()
    requests = processes.once(
        folder / "requests.json",
        list[SampleRequest],
        lambda: draw_requests(
            task.prompts,
            task.space,
            task.mapping,
            count=config.samples,
            exploration=config.exploration,
            rng=np.random.default_rng([config.seed, number]),
        ),
    )
    scored, sampling_cost = sample_and_score(
        SampleWorker(backend=backend, scorers=task.scorers),
        requests,
        folder,
        batch_size=config.batch_size,
        prompt_r_precision=config.prompt_r_precision,
        workers=workers,
        adapter=task.adapter,
    )
    samples, groups = in_standard_units(
        scored, [request.prompt for request in requests], task.space, task.groups
    )
    chosen = select(
        samples,
        task.replay,
        task.space,
        groups,
        criterion=config.selection,
        keep_fraction=config.keep_fraction,
        replay_fraction=config.replay_fraction,
        rng=np.random.default_rng([config.seed, number, REPLAY]),
    )
    report = selection.report(chosen, samples, task.replay, config.selection)
    if process.is_main_process:
        stored.write(folder / "selected.json", report)
    if not chosen.samples:
        raise InputError(
            f"{folder}: none of {counted(len(samples), 'samples')} was selected; see selected.json "
            "for the reasons"
        )
    suffix = backend.medium.suffix
    records = [
        *(
            labelled(sample_path(folder, i, suffix), requests[i], samples[i], task.space)
            for i in chosen.samples
        ),
        *(task.replay[i] for i in chosen.replay),
    ]
    training_cost = fine_tune(
        backend,
        records,
        groups,
        task.data,
        config,
        folder,
        number=number,
        digest=digest,
        resume=resume,
    )
    usable = np.array([sample.z for sample in samples if sample.z is not None])
    reached = task.space.reaching(usable, config.front_quantile)
    result = RoundResult(
        round=number,
        samples=len(samples),
        selected=len(chosen.samples),
        replay=len(chosen.replay),
        mean_z=dict(zip(task.space.names, usable.mean(axis=0).tolist(), strict=True)),
        front=reached.front,
        corners=reached.corners,
        guard=guard.check(number, folder / "guard.json"),
        sampling_cost=sampling_cost,
        training_cost=training_cost,
    )
    if process.is_main_process:
        stored.write(folder / "round.json", result)
    return result


def labelled(path: Path, request: SampleRequest, sample: RoundSample, space: RewardSpace) -> Record:
    """A sample as a record to train on: with the scores it has, not those that were asked for."""
    assert sample.scores is not None
    scores = dict(zip(space.names, sample.scores, strict=True))
    return Record(file=str(path.absolute()), captions=(request.prompt,), scores=scores)


def fine_tune(
    backend: Backend,
    records: Sequence[Record],
    groups: PromptGroups,
    data: Path,
    config: OnlineConfig,
    folder: Path,
    *,
    number: int,
    digest: str,
    resume: bool,
) -> Cost:
    """Train on the records, drawn as those of the labelled folder ``data`` and compared with the
    ``groups``, and write ``folder/adapter``; returns the cost of training."""
    process = this_process()
    # One cache for all rounds: many of the records are replayed in each.
    count = backend.prepare(records, data, folder.parent / "cache", groups)
    process.wait_for_everyone()  # all have seen the folder as it was
    meter = Meter()
    with meter.running(backend.network()):
        Trainer(
            backend,
            count,
            replace(config.loop, seed=config.loop.seed + number - 1),  # other noise in each round
            folder / "train",
            digest=configs.digest([digest, number]),
            resume=resume,
            meter=meter,
            sharded=backend.sharded,
        ).run()
    with backend.gathered():
        if process.is_main_process:
            backend.save(folder / "adapter")
    process.wait_for_everyone()
    return meter.read()
