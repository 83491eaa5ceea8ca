"""What training leaves out of the context, so that a person can leave it out too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ric_diffusion.io.config import probabilities


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Probabilities, drawn independently for every sample.

    ``prompt``: no prompt, for classifier-free guidance; ``everything``: neither prompt nor
    rewards, the branch that guidance starts from; ``reward``: each reward on its own, so that any
    subset can be left on auto.
    """

    prompt: float = 0.05
    everything: float = 0.05
    reward: float = 0.15

    def __post_init__(self) -> None:
        probabilities(self, "prompt", "everything", "reward")
        if (together := self.prompt + self.everything) > 1:
            raise ValueError(f"prompt and everything are {together:g} together; give 1 at most")

    def __call__(
        self,
        prompts: Sequence[str],
        targets: Sequence[Mapping[str, float]],
        generator: torch.Generator,
    ) -> tuple[list[str], list[dict[str, float]]]:
        """Prompts and targets with what was drawn left out."""
        kept_prompts, kept_targets = [], []
        for prompt, target in zip(prompts, targets, strict=True):
            drop, *each = torch.rand(1 + len(target), generator=generator).tolist()
            everything = drop < self.everything
            kept_prompts.append("" if drop < self.everything + self.prompt else prompt)
            kept_targets.append(
                {
                    name: value
                    for (name, value), draw in zip(target.items(), each, strict=True)
                    if not everything and draw >= self.reward
                }
            )
        return kept_prompts, kept_targets
