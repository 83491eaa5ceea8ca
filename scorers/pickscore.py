"""Which of two pictures of one prompt people would pick: PickScore."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from scorers.base import BaseScorer, check_batch_size
from scorers.hardware import Precision, resolve_compute
from scorers.hub_encoder import load_hub_encoder

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

DEFAULT_MODEL = "yuvalkirstain/PickScore_v1"


class PickScore(BaseScorer):
    """PickScore (Kirstain et al. 2023, arXiv 2305.01569): a CLIP fine-tuned on which of two
    pictures of a prompt people picked. Its cosine times its own scale, about 100: e to the
    difference of two scores is the odds that the first picture is picked, so scores compare within
    one prompt.

    Options: ``model``, a folder or hub id of transformers' CLIP; ``device``, ``precision`` and
    ``batch_size``, as of ``clip_score``.
    """

    name = "pickscore"
    unit = "logit"
    needs_prompts = True
    compares_within: Literal["prompt"] | None = "prompt"

    def __init__(
        self,
        *,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        device: str | None = None,
        precision: Precision = "auto",
        batch_size: int | None = None,
    ) -> None:
        self._batch_size = check_batch_size(self.name, batch_size)
        compute = resolve_compute(self.name, device, precision)
        self._clip = load_hub_encoder("CLIPModel", model, compute, where=f"{self.name}: model")
        self.options = {
            "model": str(model),
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
        }
        self.fingerprint = f"{self.name} {self._clip.fingerprint}"

    def _score(self, images: list[Image], prompts: list[str] | None) -> np.ndarray:
        assert prompts is not None  # needs_prompts
        cosines = self._clip.cosines(images, prompts, self._batch_size)  # (N,)
        scores: np.ndarray = self._clip.scale * cosines.numpy()
        return scores
