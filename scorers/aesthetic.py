"""How much people would like a picture: LAION's aesthetic predictor."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from scorers.base import BaseScorer, ScorerError, WeightsError, check_integer, first_line
from scorers.clip import DEFAULT_CLIP, DEFAULT_WEIGHTS, load_clip
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
WIDTH = 768  # of the image features of ViT-L/14


class Aesthetic(BaseScorer):
    """LAION's improved aesthetic predictor: points from about 1 to 10.

    Five linear layers without activations on the L2-normalised image features of OpenAI's CLIP
    ViT-L/14 (christophschuhmann/improved-aesthetic-predictor, sac+logos+ava1-l14-linearMSE).

    Options: ``clip`` and ``clip_weights``, an open_clip model and its pretrained tag or the path of
    a weights file; ``head``, the path of the head's .safetensors or LAION's .pth, or None to fetch
    it from the hub; ``device``, None for cuda where there is one; ``batch_size``, images per pass.
    The last two are not in the fingerprint: they move a score by rounding only.
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
        batch_size: int = 32,
    ) -> None:
        self._batch_size = check_integer(self.name, "batch_size", batch_size, 1, 65536)
        self._head = load_head(fetch_head() if head is None else head)  # before the big download
        self._clip = load_clip(self.name, clip, clip_weights, device)
        if self._clip.width != WIDTH:
            raise ScorerError(
                f"{self.name}: clip={clip} gives {self._clip.width} features and the head reads "
                f"{WIDTH}; use clip={DEFAULT_CLIP}"
            )
        self.options = {
            "clip": clip,
            "clip_weights": str(clip_weights),
            "head": None if head is None else str(head),
            "device": device,
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


def build_head() -> torch.nn.Module:
    """LAION's head, (N, 768) -> (N, 1), named as in its file: layers.0, .2, .4, .6 and .7.

    The identities stand where training had dropout.
    """
    from torch import nn

    layers = nn.Sequential(
        nn.Linear(WIDTH, 1024),
        nn.Identity(),
        nn.Linear(1024, 128),
        nn.Identity(),
        nn.Linear(128, 64),
        nn.Identity(),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    )
    return nn.Sequential(OrderedDict(layers=layers))


def load_head(path: str | os.PathLike[str]) -> torch.nn.Module:
    """The head with the weights of a file: float32, in evaluation, on the CPU (it is tiny)."""
    import torch

    where = f"{Aesthetic.name}: head"
    state = read_state_dict(path, where=where)
    try:
        with torch.device("meta"):  # no random init, which would move the user's seed
            head = build_head()
        state = {key: value.to(torch.float32) for key, value in state.items()}
        head.load_state_dict(state, assign=True)
    except Exception as error:
        raise ScorerError(
            f"{where}={str(path)!r} does not hold LAION's five layers ({first_line(error)}); "
            f"give the file from {LEGACY_URL}, or leave head out to fetch it"
        ) from error
    return head.eval()


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
