"""Plain supervised fine-tuning on the best data: our training without the rewards in context."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from baselines.base import Preference, plain_backend
from baselines.offline import train_offline
from ric_diffusion.data.records import Record
from ric_diffusion.data.standard import records_z
from ric_diffusion.evaluation.method import weights_of
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.causal_lm.backend import LlmConfig
from ric_diffusion.models.cost import Cost
from ric_diffusion.models.diffusion.backend import DiffusionConfig
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.rewards.selection import by_fronts
from ric_diffusion.training.loop import LoopConfig


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
    return train_offline(
        "sft", model, records, folder, space, config, loop, out,
        create=plain_backend, resume=resume, device=device,
    )  # fmt: skip
