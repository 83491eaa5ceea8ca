"""How good a picture looks, by a pair of opposite prompts: CLIP-IQA."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from scorers.base import BaseScorer, ScorerError, check_batch_size
from scorers.clip import DEFAULT_CLIP, DEFAULT_WEIGHTS, load_clip
from scorers.hardware import Precision

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

SCALE = 100.0  # of the cosines: what CLIP was trained with


class ClipIqa(BaseScorer):
    """CLIP-IQA (Wang et al. 2023, arXiv 2207.12396): the probability, 0 to 1, that CLIP gives a
    prompt against its opposite, "Good photo." against "Bad photo." by default.

    The paper's own numbers are those of a ResNet-50 without position embedding. On OpenAI's
    ViT-L/14 it shares the pass of ``aesthetic`` and ``clip_score``.

    Options: ``positive`` and ``negative``, the two prompts; ``clip`` and ``clip_weights``,
    ``device``, ``precision`` and ``batch_size``, as of ``clip_score``.
    """

    name = "clip_iqa"
    unit = "probability"

    def __init__(
        self,
        *,
        positive: str = "Good photo.",
        negative: str = "Bad photo.",
        clip: str = DEFAULT_CLIP,
        clip_weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
        device: str | None = None,
        precision: Precision = "auto",
        batch_size: int | None = None,
    ) -> None:
        self._batch_size = check_batch_size(self.name, batch_size)
        for option, prompt in (("positive", positive), ("negative", negative)):
            if not isinstance(prompt, str) or not prompt.strip():
                raise ScorerError(f"{self.name}: {option}={prompt!r} is no prompt; give a text")
        self._pair = [positive, negative]
        self._clip = load_clip(self.name, clip, clip_weights, device, precision)
        self.options = {
            "positive": positive,
            "negative": negative,
            "clip": clip,
            "clip_weights": str(clip_weights),
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
        }
        self.fingerprint = f"{self.name} {positive!r}/{negative!r} {self._clip.fingerprint}"

    @cached_property
    def _anchors(self) -> torch.Tensor:
        """(2, D): of the two prompts."""
        return self._clip.encode_texts(self._pair)

    def _score(self, images: list[Image], prompts: list[str] | None) -> np.ndarray:
        pictures = self._clip.encode_images(images, self._batch_size)  # (N, D)
        logits = SCALE * pictures @ self._anchors.T  # (N, 2)
        scores: np.ndarray = logits.softmax(dim=1)[:, 0].numpy()
        return scores
