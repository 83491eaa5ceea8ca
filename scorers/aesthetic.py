"""How much people would like a picture: LAION's aesthetic predictor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from scorers.base import BaseScorer, ScorerError, WeightsError, check_batch_size, first_line
from scorers.clip import DEFAULT_CLIP, DEFAULT_WEIGHTS, load_clip
from scorers.hardware import Precision
from scorers.head import Head
from scorers.weights import digest, read_state_dict

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

# LAION's sac+logos+ava1-l14-linearMSE.pth as safetensors, pinned to one revision.
HUB_REPO = "ttj/sac-logos-ava1-l14-linearMSE"
HUB_FILE = "model.safetensors"
HUB_REVISION = "1e77fa05081323d99725fc40a9bf9f88180490e7"
LEGACY_URL = (
    "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/"
    "sac+logos+ava1-l14-linearMSE.pth"
)
HEAD = Head(name="layers", width=768, places=(0, 2, 4, 6, 7))  # of ViT-L/14's image features


class Aesthetic(BaseScorer):
    """LAION's improved aesthetic predictor: points from about 1 to 10.

    Five linear layers without activations on the L2-normalised image features of OpenAI's CLIP
    ViT-L/14 (christophschuhmann/improved-aesthetic-predictor, sac+logos+ava1-l14-linearMSE).

    Options: ``clip`` and ``clip_weights``, as of ``clip_score``; ``head``, the path of the head's
    .safetensors or LAION's .pth, or None to fetch it from the hub; ``device``, ``precision`` and
    ``batch_size``, as of ``clip_score``.
    """

    name = "aesthetic"
    unit = "points"

    def __init__(
        self,
        *,
        clip: str = DEFAULT_CLIP,
        clip_weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
        head: str | os.PathLike[str] | None = None,
        device: str | None = None,
        precision: Precision = "auto",
        batch_size: int | None = None,
    ) -> None:
        self._batch_size = check_batch_size(self.name, batch_size)
        self._head = load_head(fetch_head() if head is None else head)  # before the big download
        self._clip = load_clip(self.name, clip, clip_weights, device, precision)
        if self._clip.width != HEAD.width:
            raise ScorerError(
                f"{self.name}: clip={clip} gives {self._clip.width} features and the head reads "
                f"{HEAD.width}; use clip={DEFAULT_CLIP}"
            )
        self.options = {
            "clip": clip,
            "clip_weights": str(clip_weights),
            "head": None if head is None else str(head),
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
        }
        self.fingerprint = (
            f"{self.name} head={digest(self._head.state_dict())} {self._clip.fingerprint}"
        )

    def _score(self, images: list[Image], prompts: list[str] | None) -> np.ndarray:
        import torch

        features = self._clip.encode_images(images, self._batch_size)  # (N, 768)
        with torch.inference_mode():
            points: np.ndarray = self._head(features)[:, 0].numpy()
        return points


def load_head(path: str | os.PathLike[str]) -> torch.nn.Module:
    """The head with the weights of a file: float32, in evaluation, on the CPU."""
    where = f"{Aesthetic.name}: head"
    state = read_state_dict(path, where=where)
    try:
        return HEAD.load(state)
    except Exception as error:
        raise ScorerError(
            f"{where}={str(path)!r} does not hold LAION's five layers ({first_line(error)}); "
            f"give the file from {LEGACY_URL}, or leave head out to fetch it"
        ) from error


def fetch_head() -> Path:
    """LAION's head from the hub, or from the hub's cache on this machine."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(HUB_REPO, HUB_FILE, revision=HUB_REVISION))
    except Exception as error:
        raise WeightsError(
            f"{Aesthetic.name}: cannot fetch {HUB_FILE} of https://huggingface.co/{HUB_REPO} "
            f"({type(error).__name__}); go online once, or give head=PATH of a copy, "
            f"LAION's own {LEGACY_URL} included"
        ) from error
