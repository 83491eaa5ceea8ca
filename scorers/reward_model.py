"""The logit of a reward model: any sequence classifier from a folder or the hub."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, get_args

from scorers.base import ScorerError, TextScorer, check_called, check_integer
from scorers.post import bare
from scorers.transformer import TextTransformer

if TYPE_CHECKING:
    import numpy as np

Reads = Literal["prompt", "response", "both", "response+prompt", "response+bos+prompt"]


class RewardModel(TextScorer):
    """One logit of a sequence classifier, as reward models of language models are.

    Options: ``model``, a folder or hub id; ``called``, the name of the scorer and its reward, so
    that several can be used together, by default reward_model; ``logit``, the number of the output
    that counts; ``reads``, what the model sees: the ``prompt``, the ``response``, ``both`` as its
    pair of texts, that pair with the response first (``response+prompt``), or a single text,
    response, beginning-of-sequence token, prompt (``response+bos+prompt``); ``device``, None for
    cuda where there is one; ``batch_size``, texts per pass. The last two are not in the
    fingerprint: they move a score by rounding only. Nor is the name.

    Response first is how models judge summaries: they see the post without the instruction to
    summarise it. The models of Rewards-in-Context's authors, and their options:

    - harmless, helpful: Ray2333/gpt2-large-harmless-reward_model and -helpful-, no other options
    - humor: mohameddhiab/humor-no-humor, logit=1,reads=response
    - faithful: CogComp/bart-faithful-summary-detector, logit=1,reads=response+prompt
    - summary: Tristan/gpt2_reward_summarization, reads=response+bos+prompt
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
        self.name = check_called(self.kind, called)
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
        if reads == "response+bos+prompt" and self._model.tokenizer.bos_token is None:
            raise ScorerError(
                f"{self.name}: reads={reads!r} needs a beginning-of-sequence token, and the "
                f"tokenizer of model={str(model)!r} has none; give reads=response+prompt"
            )
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

        read = self._read(texts, prompts)
        scores = []
        for start in range(0, len(texts), self._batch_size):
            some = slice(start, start + self._batch_size)
            with torch.inference_mode():
                logits = self._model.model(**self._model.encode(*(t[some] for t in read))).logits
            scores.append(logits[:, self._logit].float().cpu())
        found: np.ndarray = torch.cat(scores).numpy()
        return found

    def _read(self, texts: list[str], prompts: list[str] | None) -> list[list[str]]:
        """N texts for the model, or the two halves of N pairs."""
        if prompts is None or self._reads == "response":
            return [texts]
        if self._reads == "prompt":
            return [prompts]
        if self._reads == "both":
            return [prompts, texts]
        posts = [bare(prompt) for prompt in prompts]
        if self._reads == "response+prompt":
            return [texts, posts]
        bos = self._model.tokenizer.bos_token
        return [[f"{text} {bos} {post}" for text, post in zip(texts, posts, strict=True)]]
