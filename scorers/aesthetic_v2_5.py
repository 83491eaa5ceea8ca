"""How much people would like a picture: the aesthetic predictor v2.5 on SigLIP."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scorers.base import BaseScorer, ScorerError, WeightsError, check_batch_size, first_line
from scorers.hardware import Precision, resolve_compute
from scorers.head import Head
from scorers.hub_encoder import load_hub_encoder
from scorers.weights import digest, read_state_dict

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

DEFAULT_ENCODER = "google/siglip-so400m-patch14-384"
PLACES = (0, 2, 4, 6, 8)  # of the head's layers
# The hub has no copy of the head by its author: the file in his repository, at one commit.
HEAD_URL = (
    "https://github.com/discus0434/aesthetic-predictor-v2-5/raw/"
    "3125a9e1f275092432ffc336f2908eda812c373c/models/aesthetic_predictor_v2_5.pth"
)


class AestheticV25(BaseScorer):
    """Aesthetic predictor v2.5: points from about 1 to 10, of which 5.5 is good.

    Five linear layers without activations on the L2-normalised features of SigLIP so400m at 384
    pixels (discus0434/aesthetic-predictor-v2-5, whose head is under AGPL-3.0).

    Options: ``encoder``, a folder or hub id of transformers' SigLIP; ``head``, the path of the
    head's .safetensors or .pth, or None to fetch the latter; ``device``, ``precision`` and
    ``batch_size``, as of ``clip_score``.
    """

    name = "aesthetic_v2_5"
    unit = "points"

    def __init__(
        self,
        *,
        encoder: str | os.PathLike[str] = DEFAULT_ENCODER,
        head: str | os.PathLike[str] | None = None,
        device: str | None = None,
        precision: Precision = "auto",
        batch_size: int | None = None,
    ) -> None:
        where = f"{self.name}: head"
        self._batch_size = check_batch_size(self.name, batch_size)
        compute = resolve_compute(self.name, device, precision)
        state = fetch_head() if head is None else read_state_dict(head, where=where)
        self._encoder = load_hub_encoder(
            "SiglipVisionModel", encoder, compute, where=f"{self.name}: encoder"
        )
        width = self._encoder.width
        try:
            self._head = Head(name="scoring_head", width=width, places=PLACES).load(state)
        except Exception as error:
            raise ScorerError(
                f"{where}={str(head)!r} does not hold five layers on {width} features "
                f"({first_line(error)}); give the file from {HEAD_URL}, or leave head out"
            ) from error
        self.options = {
            "encoder": str(encoder),
            "head": None if head is None else str(head),
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
        }
        self.fingerprint = (
            f"{self.name} head={digest(self._head.state_dict())} {self._encoder.fingerprint}"
        )

    def _score(self, images: list[Image], prompts: list[str] | None) -> np.ndarray:
        import torch

        features = self._encoder.encode_images(images, self._batch_size)  # (N, D)
        with torch.inference_mode():
            points: np.ndarray = self._head(features)[:, 0].numpy()
        return points


def fetch_head() -> dict[str, torch.Tensor]:
    """The head from its author's repository, or from torch.hub's cache on this machine."""
    import torch

    try:
        state: dict[str, torch.Tensor] = torch.hub.load_state_dict_from_url(
            HEAD_URL, map_location="cpu", weights_only=True
        )
    except Exception as error:
        raise WeightsError(
            f"{AestheticV25.name}: cannot fetch {HEAD_URL} ({type(error).__name__}); go online "
            f"once, or give head=PATH of a copy"
        ) from error
    return state
