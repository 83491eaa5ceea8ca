"""Generating a batch of responses at once, each from its own seed and as if it were alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from ric_diffusion.io.config import within
from ric_diffusion.io.errors import not_finite_error

MOST_TOKENS = 2**17
CANDIDATES = 50  # the likeliest tokens, among which a sampled one is


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How responses are made, and how long texts may be, in tokens.

    ``temperature`` 0 takes the likeliest token each time. ``top_p``: tokens are drawn from the
    likeliest that make up that much. A prompt is cut to ``prompt_tokens`` with its reward words.
    ``steering``: how many times as far as in training rewards move the states of each layer.
    ``guidance_scale``: how many times as far as in training they move what is said next, away from
    what is said for ``contrast`` times the opposite of what is asked, or where all are on auto if
    that is 0; in twice the passes. 1 goes without.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    prompt_tokens: int = 256
    response_tokens: int = 128
    steering: float = 1.0
    guidance_scale: float = 1.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        within(self, 0, 100, "temperature", "steering", "guidance_scale", "contrast")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; give more than 0, at most 1")
        within(self, 1, MOST_TOKENS, "prompt_tokens", "response_tokens")


class Draw(LogitsProcessor):
    """Turns the likeliest token into a drawn one: adds each row's own Gumbel noise (Maddison et
    al. 2014, the Gumbel-max trick) to its log-probabilities."""

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        self.sampling = sampling
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(B, V) logits -> (B, V), -inf for all but the candidates."""
        count = min(CANDIDATES, scores.shape[1])
        top, tokens = (scores / self.sampling.temperature).topk(count)
        log_p = top.log_softmax(dim=1)  # falls along each row
        likelier = log_p.exp().cumsum(dim=1) - log_p.exp()
        uniform = torch.stack([torch.rand(count, generator=g) for g in self.generators])
        noise = -(-uniform.clamp(min=1e-20).log()).log()
        drawn = (log_p + noise.to(log_p)).masked_fill(likelier >= self.sampling.top_p, -math.inf)
        return torch.full_like(scores, -math.inf).scatter(1, tokens, drawn)


class Guided(LogitsProcessor):
    """Guides the first half of the rows away from the second, which are the same with other rewards
    or without: ``log p = log p_away + scale (log p_rewards - log p_away)`` (Sanchez et al. 2023,
    after Ho & Salimans 2022). Both halves become that, so that they go on with the same token."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(2B, V) logits -> (2B, V) log-probabilities, up to a constant for each row."""
        rewards, away = scores.log_softmax(dim=1).chunk(2)
        return away.lerp(rewards, self.scale).repeat(2, 1)


class Finite(LogitsProcessor):
    """FloatingPointError where the model says no numbers, of which a token would be made."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not scores.isfinite().all():
            raise not_finite_error("what the model says of the next token")
        return scores


def left_padded(rows: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Embeddings (T_i, D) each -> model inputs (B, T, D) whose rows end together."""
    longest = max(len(row) for row in rows)
    embeds = rows[0].new_zeros(len(rows), longest, rows[0].shape[1])
    mask = torch.zeros(len(rows), longest, dtype=torch.long, device=embeds.device)
    for i, row in enumerate(rows):
        embeds[i, longest - len(row) :] = row
        mask[i, longest - len(row) :] = 1
    return {"inputs_embeds": embeds, "attention_mask": mask}


@torch.no_grad()
def generate(
    model: Any,
    contexts: Sequence[torch.Tensor],
    seeds: Sequence[int],
    sampling: Sampling,
    stops: Sequence[int],
) -> list[list[int]]:
    """Contexts (T_i, D) -> the ids of each response, with the token of ``stops`` that ended it
    last; without one where it was cut at ``response_tokens``. With guidance there are twice as many
    contexts as seeds, the second half with what it steers away from. FloatingPointError for a model
    whose logits are NaN or Inf."""
    guided = [Guided(sampling.guidance_scale)] if len(contexts) > len(seeds) else []
    draw = [Draw(sampling, [*seeds] * (1 + len(guided)))] if sampling.temperature > 0 else []
    config = GenerationConfig(
        max_new_tokens=sampling.response_tokens,
        do_sample=False,
        eos_token_id=list(stops),
        pad_token_id=stops[0],
    )
    found = model.generate(
        **left_padded(contexts),
        logits_to_keep=torch.tensor([-1]),  # indices, for the reason that token_losses gives
        generation_config=config,
        logits_processor=LogitsProcessorList([Finite(), *guided, *draw]),
    )
    rows: list[list[int]] = found[: len(seeds)].tolist()
    ends = [next((i for i, token in enumerate(row) if token in stops), len(row)) for row in rows]
    return [row[: end + 1] for row, end in zip(rows, ends, strict=True)]
