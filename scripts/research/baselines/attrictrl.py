"""AttriCtrl's idea (Chen et al. 2025, arXiv 2508.02151): the network stays frozen, and an encoder
for each attribute alone learns to say its value in tokens.

Each encoder is trained apart from the others, on the value of its own reward, and all their tokens
follow the prompt when pictures are drawn. The encoders are ours, without the modulation: one token
for a value, where the paper has 32 beside a text of 512. The paper has no preferences, so values
come from them by the mapping that our own adapters have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from baselines.adapted import Adapted
from baselines.base import Preference
from baselines.families import ADAPTER
from baselines.offline import adapter_backend, train_offline
from ric_diffusion.data.records import Record
from ric_diffusion.models.cost import Cost
from ric_diffusion.models.diffusion.backend import DiffusionConfig, LoraConfig
from ric_diffusion.rewards import RewardSpace, to_targets
from ric_diffusion.training.loop import LoopConfig


def train_value_encoder(
    model: str,
    reward: str,
    records: Sequence[Record],
    folder: Path,
    space: RewardSpace,
    config: DiffusionConfig,
    loop: LoopConfig,
    out: Path,
    *,
    resume: bool = False,
    device: str | torch.device = "cpu",
) -> Cost:
    """Train the tokens of one reward of the space on ``records``, whose files lie in ``folder``;
    returns the cost. Of ``config``, LoRA and modulation are not used.

    Leaves an adapter of that reward in ``out/adapter``, and ``cost.json``. ``resume`` goes on after
    an interruption, exactly. InputError if ``out`` holds another run.
    """
    config = replace(config, train="tokens", mode="embedding", modulation=False, lora=LoraConfig())
    return train_offline(
        "attrictrl", model, records, folder, space.subset([reward]), config, loop, out,
        create=adapter_backend, about={"reward": reward}, resume=resume, device=device,
    )  # fmt: skip


def attrictrl(
    name: str, sampler: Any, space: RewardSpace, runs: Mapping[str, Path], mapping: str
) -> Adapted:
    """The value encoders of ``runs``, by reward, together; ``mapping``: how a preference becomes
    values, in the space of all."""

    def asked(preference: Preference) -> dict[str, float]:
        return to_targets(preference, space, mapping)

    folders = {reward: run / ADAPTER for reward, run in runs.items()}
    return Adapted(name, sampler, folders, asked)
