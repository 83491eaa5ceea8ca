"""Plain supervised fine-tuning on the best data: our training without the rewards in context."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from baselines.base import Preference, plain_backend
from baselines.families import save_run
from ric_diffusion.api.runs import records_digest
from ric_diffusion.data.records import Record
from ric_diffusion.data.standard import records_z
from ric_diffusion.evaluation.method import weights_of
from ric_diffusion.io import config as configs
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_json
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.causal_lm.backend import LlmConfig
from ric_diffusion.models.cost import COST, Cost, Meter
from ric_diffusion.models.diffusion.backend import DiffusionConfig
from ric_diffusion.models.family import family_of
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.rewards.selection import by_fronts
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer


def best_records(records: Sequence[Record], space: RewardSpace, fraction: float) -> list[Record]:
    """The non-dominated records, then those only they dominate, and so on, until ``fraction`` of
    all is reached; of the last front the loneliest (crowding distance). In the order of the
    records."""
    return _first(records, by_fronts(records_z(records, space)), fraction)


def best_records_for(
    records: Sequence[Record], space: RewardSpace, preference: Preference, fraction: float
) -> list[Record]:
    """The ``fraction`` with the highest weighted z, in the order of the records.

    With all the weight on one reward: the data of that reward's LoRA in a soup.
    """
    values = records_z(records, space) @ weights_of(preference, space)
    return _first(records, np.argsort(-values, kind="stable"), fraction)


def _first(records: Sequence[Record], order: np.ndarray, fraction: float) -> list[Record]:
    if not 0 < fraction <= 1:
        raise InputError(f"fraction {fraction}: give a number above 0, at most 1")
    return [records[i] for i in sorted(order[: math.ceil(fraction * len(records))].tolist())]


def train_sft(
    model: str,
    records: Sequence[Record],
    folder: Path,
    space: RewardSpace,
    config: DiffusionConfig | LlmConfig,
    loop: LoopConfig,
    out: Path,
    *,
    resume: bool = False,
    device: str | torch.device = "cpu",
) -> Cost:
    """Fine-tune a LoRA on ``records``, whose files lie in ``folder``; returns the cost. Of
    ``config``, the settings of the model's family, what conditions on rewards is not used.

    Leaves the LoRA in ``out``, where ``lora_file`` says, and ``cost.json``. ``resume`` goes on
    after an interruption, exactly. InputError if ``out`` holds another run.
    """
    run = RunFolder(out, "sft")
    run.check_free(resume=resume)
    config, precision = family_of(model).resolved(config, loop.precision, device)
    loop = replace(loop, precision=precision)
    backend = plain_backend(model, space, config, seed=loop.seed, device=device)
    identity = {
        "model": configs.to_dict(config),
        "loop": loop.identity(),
        "weights": configs.digest(backend.model.family.digests(backend.model)),
        "records": records_digest(records),
    }
    run.check_same(identity)
    backend.prepare(records, folder, out / "cache")
    run.begin(identity, resume=resume)
    meter = Meter()
    with meter.running(backend.network()):
        Trainer(
            backend, len(records), loop, out, digest=run.digest, resume=resume, meter=meter
        ).run()
    save_run(backend, out)
    write_json(out / COST, meter.read().to_dict())
    return meter.read()
