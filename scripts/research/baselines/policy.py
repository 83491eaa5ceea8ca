"""The denoising chain as a policy: each step draws from a Gaussian whose mean the denoiser sets.

DDIM with noise (Song et al. 2021, arXiv 2010.02502, eq. 12 and 16), read as a Markov decision
process as in DDPO (Black et al. 2023, arXiv 2305.13301, section 4.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler

from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.context import Context, combined


@dataclass(frozen=True, kw_only=True)
class Chain:
    """T denoising steps, in the order in which they are taken.

    Step k goes from the timestep ``timesteps[k]``, where the fraction of signal in the variance
    is ``alpha[k]``, to the fraction ``alpha_next[k]``, and adds noise of standard deviation
    ``sigma[k]``.
    """

    timesteps: tuple[int, ...]
    alpha: tuple[float, ...]
    alpha_next: tuple[float, ...]
    sigma: tuple[float, ...]
    prediction_type: str

    @property
    def decisions(self) -> list[int]:
        """The steps at which something is drawn; the last is none where it ends without noise."""
        return [k for k, sigma in enumerate(self.sigma) if sigma > 0]

    def mean(self, latents: torch.Tensor, k: int, predicted: torch.Tensor) -> torch.Tensor:
        """Where step k goes on average: latents and prediction (B, C, H, W) -> the same.

        Under v-prediction x0 = √α·x - √(1-α)·v and ε = √α·v + √(1-α)·x (Salimans & Ho 2022,
        appendix D), which holds at α = 0 too, the first step of a schedule with zero terminal SNR.
        """
        alpha, after, sigma = self.alpha[k], self.alpha_next[k], self.sigma[k]
        signal, noise = math.sqrt(alpha), math.sqrt(1 - alpha)
        if self.prediction_type == "epsilon":
            x0, epsilon = (latents - noise * predicted) / signal, predicted
        else:
            x0, epsilon = (
                signal * latents - noise * predicted,
                signal * predicted + noise * latents,
            )
        # With eta = 1 the first step's difference is 0, and rounding may leave less than that.
        towards = math.sqrt(max(1 - after - sigma**2, 0.0))
        return math.sqrt(after) * x0 + towards * epsilon


def denoising_chain(scheduler: Any, steps: int, eta: float) -> Chain:
    """The chain of DDIM with ``steps`` steps over the model's own noise schedule.

    Timesteps are spaced trailing, so that it starts at pure noise. ``eta`` scales the noise: 1 is
    as much as in ancestral sampling, 0 none. InputError for a schedule that it can't be had of.
    """
    ddim = DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing")
    ddim.set_timesteps(steps)
    prediction = ddim.config.prediction_type
    if prediction not in ("epsilon", "v_prediction"):
        raise InputError(
            f"prediction_type {prediction!r}: only 'epsilon' and 'v_prediction' are known"
        )
    cumulative = ddim.alphas_cumprod.double()
    alpha = cumulative[ddim.timesteps]
    following = ddim.timesteps - ddim.config.num_train_timesteps // steps  # as DDIMScheduler.step
    after = cumulative[following.clamp_min(0)]
    after[following < 0] = ddim.final_alpha_cumprod.double()
    if prediction == "epsilon" and not alpha.all():
        raise InputError("a schedule with zero terminal SNR needs a model of v_prediction")
    variance = (1 - after) / (1 - alpha) * (1 - alpha / after)
    return Chain(
        timesteps=tuple(ddim.timesteps.tolist()),
        alpha=tuple(alpha.tolist()),
        alpha_next=tuple(after.tolist()),
        sigma=tuple((eta * variance.clamp_min(0).sqrt()).tolist()),
        prediction_type=prediction,
    )


def gaussian_log_prob(x: torch.Tensor, mean: torch.Tensor, sigma: float) -> torch.Tensor:
    """log N(x; mean, sigma²) of (B, C, H, W), averaged over the C·H·W numbers: (B,).

    The average instead of the sum, as in the authors' code: it keeps the ratios of a chain of a
    thousand and more numbers near 1, and is what their clip range of 1e-4 refers to.
    """
    squares = ((x - mean) / sigma).square().mean(dim=(1, 2, 3))
    return -0.5 * squares - math.log(sigma) - 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A batch of chains: ``latents`` (T+1, N, C, H, W) from noise to picture, ``log_probs`` (T, N)
    of the steps between them, 0 where nothing was drawn, and what they were drawn under."""

    latents: torch.Tensor
    log_probs: torch.Tensor
    context: Context


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A pipeline's denoiser on a chain, under classifier-free guidance.

    ``empty``, of one row, is the context that guidance steers away from. No more than
    ``batch_size`` chains pass through the denoiser at once, each twice.
    """

    pipe: Any
    chain: Chain
    empty: Context
    guidance_scale: float
    batch_size: int
    precision: Literal["fp32", "bf16"]

    def mean(self, latents: torch.Tensor, k: int, context: Context) -> torch.Tensor:
        """Where step k goes on average from latents (B, C, H, W): the same shape, float32."""
        t = torch.full((2 * len(latents),), self.chain.timesteps[k], device=latents.device)
        branches = self.branches(context)
        bf16 = self.precision == "bf16"
        autocast = torch.autocast(latents.device.type, torch.bfloat16, enabled=bf16)
        with autocast, self.pipe.with_adapter():
            both = self.pipe.family.predict(self.pipe, torch.cat([latents, latents]), t, branches)
        without, given = both.float().chunk(2)
        predicted = without + self.guidance_scale * (given - without)
        return self.chain.mean(latents, k, predicted)

    def branches(self, context: Context) -> Context:
        """What B chains pass through the denoiser under: B rows of what guidance steers away from,
        then theirs."""
        count = len(context)
        empty = self.empty.map(lambda x: x.expand(count, *x.shape[1:]))
        return combined(torch.cat, [empty, context])

    def log_prob(
        self, latents: torch.Tensor, k: int, after: torch.Tensor, context: Context
    ) -> torch.Tensor:
        """Log-probability (B,) that step k takes ``latents`` to ``after``."""
        return gaussian_log_prob(after, self.mean(latents, k, context), self.chain.sigma[k])

    @torch.no_grad()
    def rollout(
        self, latents: torch.Tensor, context: Context, generator: torch.Generator
    ) -> Rollout:
        """Denoise latents (N, C, H, W); ``generator``, on the CPU, draws the noise on the way."""
        starts = range(0, len(latents), self.batch_size)
        parts = [slice(start, start + self.batch_size) for start in starts]
        contexts = [context.map(itemgetter(part)) for part in parts]
        seen, log_probs = [latents], []
        for k, sigma in enumerate(self.chain.sigma):
            each = zip(parts, contexts, strict=True)
            mean = torch.cat([self.mean(latents[part], k, theirs) for part, theirs in each])
            noise = torch.randn(mean.shape, generator=generator).to(mean)
            latents = mean + sigma * noise
            seen.append(latents)
            log_probs.append(
                gaussian_log_prob(latents, mean, sigma) if sigma > 0 else mean.new_zeros(len(mean))
            )
        return Rollout(latents=torch.stack(seen), log_probs=torch.stack(log_probs), context=context)
