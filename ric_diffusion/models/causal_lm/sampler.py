"""Sampling responses from a language model, and judging them: the sampler protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ric_diffusion.data.medium import TEXT, Medium
from ric_diffusion.io import config
from ric_diffusion.models.causal_lm.generation import Sampling, generate, left_padded
from ric_diffusion.models.causal_lm.model import RiCCausalLM
from ric_diffusion.models.causal_lm.texts import whole_sentences, word_features
from ric_diffusion.models.judge import prompt_r_precision
from ric_diffusion.rewards import opposite

JUDGE_BATCH = 16


class LlmSampler:
    """A language model, with an adapter or without, behind the sampler protocol."""

    medium: Medium = TEXT

    def __init__(self, lm: RiCCausalLM, sampling: Mapping[str, Any] | None = None) -> None:
        """``sampling``: fields of Sampling, by default what the adapter was validated with."""
        self.lm = lm
        if sampling is None:
            sampling = lm.adapter.sampling if lm.adapter else {}
        self.sampling: Mapping[str, Any] = sampling

    @property
    def settings(self) -> Sampling:
        """All of them; InputError for a field that does not exist."""
        return config.from_dict(dict(self.sampling), Sampling, "sampling")

    def sample(
        self,
        prompts: Sequence[str],
        targets: Sequence[Mapping[str, float]],
        seeds: Sequence[int],
    ) -> list[str]:
        """One response per prompt, each from its own seed."""
        lm, settings = self.lm, self.settings
        requests = list(targets)
        if lm.adapter:
            adapters = zip(lm.adapters_for(prompts), targets, strict=True)
            requests = [own.model_targets(own.reachable(z)) for own, z in adapters]
            if settings.guidance_scale != 1:
                space = lm.adapter.space
                away = [opposite(z, space, settings.contrast) for z in requests]
                prompts, requests = [*prompts, *prompts], [*requests, *away]
        with torch.no_grad(), lm.steered(requests, settings.steering):
            contexts = lm.contexts(prompts, requests, settings.prompt_tokens)
            found = generate(lm.model, contexts, seeds, settings, lm.chat.stops)
        return [self.text_of(ids) for ids in found]

    def text_of(self, ids: Sequence[int]) -> str:
        """A response's text; one that did not end is cut behind its last full sentence."""
        text: str = self.lm.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return text if len(ids) and ids[-1] in self.lm.chat.stops else whole_sentences(text)

    def network(self) -> torch.nn.Module:
        network: torch.nn.Module = self.lm.model
        return network

    def features(self, samples: Sequence[str]) -> np.ndarray:
        return word_features(samples)

    def prompt_r_precision(self, prompts: Sequence[str], samples: Sequence[str]) -> np.ndarray:
        """By likelihood: a response is explained by the prompt that the model without its adapter
        would rather say it to."""
        with self.lm.without_adapter():
            return prompt_r_precision(prompts, lambda given: -self.log_likelihood(given, samples))

    @torch.no_grad()
    def log_likelihood(self, prompts: Sequence[str], samples: Sequence[str]) -> np.ndarray:
        """(N,) mean over the tokens of each response, its end included, in nats; rewards on auto.
        Inside ``lm.without_adapter()``: how fluent the base model finds it."""
        found: list[float] = []
        for start in range(0, len(samples), JUDGE_BATCH):
            some = slice(start, start + JUDGE_BATCH)
            losses = token_losses(
                self.lm, prompts[some], [{}] * len(prompts[some]), samples[some], self.settings
            )
            found += [-float(row.mean()) for row in losses]
        return np.array(found)


def token_losses(
    lm: RiCCausalLM,
    prompts: Sequence[str],
    targets: Sequence[Mapping[str, float]],
    responses: Sequence[str],
    settings: Sampling,
) -> list[torch.Tensor]:
    """Cross-entropy of each response's tokens, (R_i,) each; the prompt's own count nothing."""
    ids = [lm.chat.response(text, settings.response_tokens) for text in responses]
    contexts = lm.contexts(prompts, targets, settings.prompt_tokens)
    # The last token is only predicted, never read.
    rows = [torch.cat([c, lm.embed(r[:-1])]) for c, r in zip(contexts, ids, strict=True)]
    inputs = left_padded(rows)
    inputs["position_ids"] = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    longest = max(len(r) for r in ids)
    # As indices: of a slice, the output layer would copy its weight once for each row.
    last = torch.arange(-longest, 0, device=inputs["inputs_embeds"].device)
    with lm.steered(targets):
        logits = lm.model(**inputs, use_cache=False, logits_to_keep=last).logits  # (B, R, V)
    return [
        F.cross_entropy(
            row[longest - len(r) :].float(), torch.tensor(r, device=row.device), reduction="none"
        )
        for row, r in zip(logits, ids, strict=True)
    ]
