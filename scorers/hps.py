"""How well people would like a picture of a prompt: the Human Preference Score v2.1."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from scorers.base import BaseScorer, check_batch_size
from scorers.clip import ClipEncoder, load_clip
from scorers.hardware import Precision
from scorers.weights import find_weights

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

CLIP = "ViT-H-14"
DEFAULT_WEIGHTS = "xswu/HPSv2"
FILES = ("HPS_v2.1_compressed.safetensors", "HPS_v2.1_compressed.pt")


class HpsEncoder(ClipEncoder):
    """Sees pictures as the package hpsv2 shows them: in floats before they are resized, so nothing
    is rounded to 8 bits or clipped afterwards."""

    def _pixels(self, image: Image) -> torch.Tensor:
        resize, crop, _, to_tensor, normalize = self._preprocess.transforms
        pixels: torch.Tensor = normalize(crop(resize(to_tensor(image))))
        return pixels


class Hps(BaseScorer):
    """HPS v2.1 (Wu et al. 2023, arXiv 2306.09341): the cosine of a CLIP ViT-H/14 fine-tuned on how
    people ranked pictures of one prompt, within which alone scores compare, as its authors say.

    Options: ``weights``, a hub id or folder with HPS_v2.1_compressed, or the path of a file with
    the weights of an open_clip model; ``clip``, that model; ``device``, ``precision`` and
    ``batch_size``, as of ``clip_score``.
    """

    name = "hps"
    unit = "cos"
    needs_prompts = True
    compares_within: Literal["prompt"] | None = "prompt"

    def __init__(
        self,
        *,
        weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
        clip: str = CLIP,
        device: str | None = None,
        precision: Precision = "auto",
        batch_size: int | None = None,
    ) -> None:
        self._batch_size = check_batch_size(self.name, batch_size)
        path = find_weights(weights, FILES, where=f"{self.name}: weights", option="weights")
        self._clip = load_clip(self.name, clip, path, device, precision, encoder=HpsEncoder)
        self.options = {
            "weights": str(weights),
            "clip": clip,
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
        }
        self.fingerprint = f"{self.name} {self._clip.fingerprint}"

    def _score(self, images: list[Image], prompts: list[str] | None) -> np.ndarray:
        assert prompts is not None  # needs_prompts
        cosines = self._clip.cosines(images, prompts, self._batch_size)  # (N,)
        scores: np.ndarray = cosines.numpy()
        return scores
