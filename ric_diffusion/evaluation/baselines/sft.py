"""Plain supervised fine-tuning on the best data: our training without the rewards in context."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ric_diffusion import config as configs
from ric_diffusion.cost import Cost, Meter
from ric_diffusion.data.records import Record
from ric_diffusion.diffusion.backend import DiffusionConfig
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.baselines.base import Preference, plain_backend
from ric_diffusion.evaluation.baselines.kinds import kind_of
from ric_diffusion.evaluation.methods import weights_of
from ric_diffusion.files import write_json
from ric_diffusion.llm.backend import LlmConfig
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.rewards.selection import by_fronts
from ric_diffusion.training import checkpoint
from ric_diffusion.training.loop import LoopConfig, fit


def best_records(records: Sequence[Record], space: RewardSpace, share: float) -> list[Record]:
    """The non-dominated records, then those only they dominate, and so on, until ``share`` of all
    is reached; of the last front the loneliest (crowding distance). In the order of the records."""
    return _first(records, by_fronts(_z(records, space)), share)


def best_records_for(
    records: Sequence[Record], space: RewardSpace, preference: Preference, share: float
) -> list[Record]:
    """The ``share`` with the highest weighted z, in the order of the records.

    With all the weight on one reward: the data of that reward's LoRA in a soup.
    """
    values = _z(records, space) @ weights_of(preference, space)
    return _first(records, np.argsort(-values, kind="stable"), share)


def _z(records: Sequence[Record], space: RewardSpace) -> np.ndarray:
    return space.normalize([[record.scores[name] for name in space.names] for record in records])


def _first(records: Sequence[Record], order: np.ndarray, share: float) -> list[Record]:
    if not 0 < share <= 1:
        raise InputError(f"share {share}: give a number above 0, at most 1")
    return [records[i] for i in sorted(order[: math.ceil(share * len(records))].tolist())]


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
    """Fine-tune a LoRA on ``records``, whose files lie in ``folder``; returns the cost. The kind of
    model is that of ``config``, of which what conditions on rewards is not used.

    Leaves the LoRA in ``out``, where the kind has it, and ``cost.json``. ``resume`` goes on after
    an interruption, exactly.
    """
    if checkpoint.newest(out / "checkpoints") and not resume:
        raise InputError(f"{out}: holds a run already; resume it, or choose another folder")
    kind = kind_of(config)
    backend = plain_backend(model, space, config, seed=loop.seed, device=device)
    backend.prepare(records, folder, out / "cache")
    digest = configs.digest(
        [
            configs.to_dict(config),
            configs.to_dict(loop),
            [[record.file, record.captions, record.scores] for record in records],
            kind.digests(kind.model_of(backend)),
        ]
    )
    meter = Meter()
    with meter.running(backend.watched()):
        fit(backend, len(records), loop, out, digest=digest, resume=resume, meter=meter)
    kind.save(backend, out)
    write_json(out / "cost.json", meter.read().to_dict())
    return meter.read()
