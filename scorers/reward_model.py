"""What a reward model says: any sequence classifier from a folder or the hub."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Literal, get_args

from scorers.base import ScorerError, TextScorer, check_integer
from scorers.transformer import TextTransformer

if TYPE_CHECKING:
    import numpy as np

Reads = Literal["prompt", "response", "both"]


class RewardModel(TextScorer):
    """One logit of a sequence classifier, as reward models of language models are.

    Options: ``model``, a folder or hub id; ``called``, the name of the scorer and its reward, so
    that several can be used together, by default reward_model; ``logit``, the number of the output
    that counts; ``reads``, whether the model sees the prompt, the response, or both as its pair of
    texts; ``device``, None for cuda where there is one; ``batch_size``, texts per pass. The last
    two are not in the fingerprint: they move a score by rounding only. Nor is the name.
    """

    kind = name = "reward_model"
    unit = "logit"

    def __init__(
        self,
        *,
        model: str | os.PathLike[str],
        called: str | None = None,
        logit: int = 0,
        reads: Reads = "both",
        device: str | None = None,
        batch_size: int = 16,
    ) -> None:
        if called is not None:
            if not isinstance(called, str) or not re.fullmatch("[a-z][a-z0-9_]*", called):
                raise ScorerError(
                    f"{self.kind}: called={called!r} is not a name; use small letters, digits "
                    "and _, a letter first"
                )
            self.name = called
        if reads not in get_args(Reads):
            raise ScorerError(
                f"{self.name}: reads={reads!r} is not allowed; give one of "
                f"{', '.join(get_args(Reads))}"
            )
        self._batch_size = check_integer(self.name, "batch_size", batch_size, 1, 65536)
        self._model = TextTransformer(
            "AutoModelForSequenceClassification", model, device, where=f"{self.name}: model"
        )
        count = self._model.model.config.num_labels
        self._logit = check_integer(self.name, "logit", logit, 0, count - 1)
        self._reads: Reads = reads
        self.needs_prompts = reads != "response"
        self.options = {
            "model": str(model),
            "called": called,
            "logit": logit,
            "reads": reads,
            "device": device,
            "batch_size": batch_size,
        }
        self.fingerprint = f"{self.kind} logit={logit} reads={reads} {self._model.fingerprint}"

    def _score(self, texts: list[str], prompts: list[str] | None) -> np.ndarray:
        import torch

        asked = [] if prompts is None else prompts
        read = {"prompt": [asked], "response": [texts], "both": [asked, texts]}[self._reads]
        scores = []
        for start in range(0, len(texts), self._batch_size):
            some = slice(start, start + self._batch_size)
            with torch.inference_mode():
                logits = self._model.model(**self._model.encode(*(t[some] for t in read))).logits
            scores.append(logits[:, self._logit].float().cpu())
        found: np.ndarray = torch.cat(scores).numpy()
        return found
