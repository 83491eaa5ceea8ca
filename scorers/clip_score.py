"""How well a picture fits its prompt: CLIPScore."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scorers.base import BaseScorer, check_batch_size
from scorers.clip import DEFAULT_CLIP, DEFAULT_WEIGHTS, load_clip
from scorers.hardware import Precision

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


class ClipScore(BaseScorer):
    """CLIPScore (Hessel et al. 2021, arXiv 2104.08718): 100 max(cos(image, prompt), 0).

    The weight 100 is torchmetrics' and diffusers'; the paper's own is 2.5, on ViT-B/32 and with
    "A photo depicts" before the prompt, which is left out here. Prompts are cut at CLIP's 77
    tokens.

    Options: ``clip`` and ``clip_weights``, an open_clip model and its pretrained tag or the path of
    a weights file, or as ``clip`` alone ``emoji-clip``, which comes along and knows emoji only, a
    folder of open_clip's, or a folder or hub id of transformers' CLIP; ``device``, None for cuda
    where there is one; ``precision`` of the passes, auto (fp16 on cuda, fp32 elsewhere), fp32, bf16
    or fp16; ``batch_size``, inputs per pass, None for what fits. Device and batch size are not in
    the fingerprint: they move a score by rounding only.
    """

    name = "clip_score"
    unit = "100*cos"
    needs_prompts = True

    def __init__(
        self,
        *,
        clip: str = DEFAULT_CLIP,
        clip_weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
        device: str | None = None,
        precision: Precision = "auto",
        batch_size: int | None = None,
    ) -> None:
        self._batch_size = check_batch_size(self.name, batch_size)
        self._clip = load_clip(self.name, clip, clip_weights, device, precision)
        self.options = {
            "clip": clip,
            "clip_weights": str(clip_weights),
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
        }
        self.fingerprint = f"{self.name} weight=100 {self._clip.fingerprint}"

    def _score(self, images: list[Image], prompts: list[str] | None) -> np.ndarray:
        assert prompts is not None  # needs_prompts
        cosines = self._clip.cosines(images, prompts, self._batch_size)  # (N,)
        scores: np.ndarray = 100 * cosines.clamp(min=0).numpy()
        return scores
