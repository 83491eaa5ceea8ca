"""The objective of denoising as an object: how noise is mixed in, what is predicted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from ric_diffusion.io.errors import InputError
from ric_diffusion.models.protocol import Note, unnoted

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # noisy latents, t -> prediction
OF_DIFFUSION = (
    "min_snr_gamma",
    "debiased_estimation",
    "noise_offset",
)  # what flow matching has no use for
EDGE = 1e-6  # of the unit interval, whose ends a normal distribution has at infinity


class Objective(Protocol):
    """What training and the diffusion classifier ask of any parametrisation. B latents are
    (B, C, H, W); times are (B,)."""

    def loss(
        self,
        predict: Predict,
        latents: torch.Tensor,
        generator: torch.Generator,
        note: Note = unnoted,
    ) -> torch.Tensor:
        """Mean weighted squared error over noise and times from ``generator``, which lives on the
        CPU: a scalar with a graph. ``note`` is told of each of the latents, as ``Batch`` has it."""

    def errors(
        self, predict: Predict, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """Mean squared error of the prediction for each of the latents, (B,)."""

    def expected(self, predict: Predict, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The latents that are expected where only noise is seen, in float32."""

    def at(self, level: float, count: int, device: torch.device) -> torch.Tensor:
        """``count`` times of the noise ``level``, from 0 (none) to 1 (all)."""


def stratified(count: int, generator: torch.Generator, *, shift: float = 1.0) -> torch.Tensor:
    """(count,) float in [0, 1): one draw in each of ``count`` equal strata, shuffled.

    Each is uniform as usual, but a batch covers the schedule evenly, which takes much of the noise
    out of the loss of a small batch (Kingma et al. 2021, VDM, appendix I.1). A ``shift`` above 1
    moves them towards the noise (Esser et al. 2024, SD3, eq. 23).
    """
    strata = torch.randperm(count, generator=generator)
    u = (strata + torch.rand(count, generator=generator)) / count
    return shifted(u, shift)


def shifted(u: torch.Tensor, shift: float) -> torch.Tensor:
    """Times in [0, 1] moved towards the noise (Esser et al. 2024, SD3, eq. 23)."""
    return shift * u / (1 + (shift - 1) * u)


def snr_weights(
    alphas_cumprod: torch.Tensor, prediction_type: str, gamma: float | None
) -> torch.Tensor:
    """Min-SNR-gamma loss weights for every timestep, (T,) (Hang et al. 2023, eq. 5 and 6).

    With ``gamma`` None the weights are 1. Note that a schedule with zero terminal SNR gives its
    last step the weight 0 under v-prediction, so the two don't go together.
    """
    if gamma is None:
        return torch.ones_like(alphas_cumprod)
    snr = alphas_cumprod / (1.0 - alphas_cumprod)
    if prediction_type == "v_prediction":
        return snr.clamp_max(gamma) / (snr + 1.0)
    return gamma / snr.clamp_min(gamma)  # min(snr, gamma) / snr, a number at snr = 0 too


def debiased_weights(alphas_cumprod: torch.Tensor, prediction_type: str) -> torch.Tensor:
    """Loss weights for every timestep, (T,): 1 / sqrt(SNR) for the error of the noise (debiased
    estimation, Yu et al. 2023, arXiv 2310.08442), and for that of the velocity what comes to the
    same. InputError where noise is predicted from noise alone, whose weight would be infinite."""
    sigma2 = 1.0 - alphas_cumprod
    if prediction_type == "v_prediction":
        return (alphas_cumprod * sigma2).sqrt()  # sqrt(SNR) / (SNR + 1)
    if not alphas_cumprod.all():
        raise InputError(
            "diffusion.debiased_estimation: what this model sees at its last timestep is noise "
            "alone, whose weight would be infinite; leave it out"
        )
    return (sigma2 / alphas_cumprod).sqrt()


@dataclass(frozen=True, kw_only=True)
class DiscreteDiffusion:
    """Noise of a schedule of T steps, ``alphas_cumprod`` (T,); what is predicted is the noise
    (``epsilon``, Ho et al. 2020, eq. 14) or the velocity (``v_prediction``, Salimans & Ho 2022,
    appendix D).

    ``min_snr_gamma`` and ``timestep_shift`` as in ``snr_weights`` and ``stratified``;
    ``debiased_estimation``: ``debiased_weights`` instead. ``noise_offset``: how much noise each
    channel has that is the same all over a picture, so that its mean brightness is learned too
    (Guttenberg 2023, "Diffusion with offset noise").
    """

    alphas_cumprod: torch.Tensor
    prediction_type: str
    min_snr_gamma: float | None = None
    debiased_estimation: bool = False
    noise_offset: float = 0.0
    timestep_shift: float = 1.0

    def __post_init__(self) -> None:
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"prediction_type {self.prediction_type!r}: only 'epsilon' and 'v_prediction' are "
                "trained"
            )
        self.weights()

    @classmethod
    def of(cls, scheduler: Any, **settings: Any) -> DiscreteDiffusion:
        """That of a scheduler of diffusers."""
        return cls(
            alphas_cumprod=scheduler.alphas_cumprod,
            prediction_type=scheduler.config.prediction_type,
            **settings,
        )

    def times(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """(count,) int64 timesteps of a batch."""
        steps = len(self.alphas_cumprod)
        u = stratified(count, generator, shift=self.timestep_shift)
        return (u * steps).long().clamp_max(steps - 1)

    def weights(self) -> torch.Tensor:
        """Of the loss at every timestep, (T,)."""
        if self.debiased_estimation:
            return debiased_weights(self.alphas_cumprod, self.prediction_type)
        return snr_weights(self.alphas_cumprod, self.prediction_type, self.min_snr_gamma)

    def loss(
        self,
        predict: Predict,
        latents: torch.Tensor,
        generator: torch.Generator,
        note: Note = unnoted,
    ) -> torch.Tensor:
        noise = torch.randn(latents.shape, generator=generator)
        if self.noise_offset:
            offset = torch.randn(*latents.shape[:2], 1, 1, generator=generator)
            noise = noise + self.noise_offset * offset
        noise = noise.to(latents)
        t = self.times(len(latents), generator).to(latents.device)
        losses = self.weights().to(latents.device)[t] * self.errors(predict, latents, noise, t)
        note(t / len(self.alphas_cumprod), losses)
        return losses.mean()

    def errors(
        self, predict: Predict, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        # Not the scheduler's add_noise: those made for sampling scale it otherwise (Euler) or know
        # only the timesteps they were last set to (DPM-Solver), and a folder names any of them.
        alpha = self.alphas_cumprod.to(latents)[t].view(-1, 1, 1, 1)
        signal, sigma = alpha**0.5, (1 - alpha) ** 0.5
        predicted = predict(signal * latents + sigma * noise, t).float()
        aim = noise if self.prediction_type == "epsilon" else signal * noise - sigma * latents
        return F.mse_loss(predicted, aim.float(), reduction="none").mean((1, 2, 3))

    def expected(self, predict: Predict, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha = self.alphas_cumprod.to(noise)[t].view(-1, 1, 1, 1)
        signal, sigma = alpha**0.5, (1 - alpha) ** 0.5
        noisy = sigma * noise
        predicted = predict(noisy, t).float()
        if self.prediction_type == "epsilon":
            return (noisy - sigma * predicted) / signal
        return signal * noisy - sigma * predicted

    def at(self, level: float, count: int, device: torch.device) -> torch.Tensor:
        return torch.full((count,), int(level * len(self.alphas_cumprod)), device=device)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Rectified flow (Liu et al. 2022, arXiv 2209.03003): x_t = (1 - t) x + t noise, and the
    velocity noise - x is predicted; times are t, from 0 (no noise) to 1.

    Times are drawn logit-normally and then shifted towards the noise (Esser et al. 2024, SD3, eq.
    19 and 23), as diffusers' ``train_dreambooth_lora_sd3.py`` does it. ``shift``: of the schedule
    that the model samples with, a number, or a function of how many tokens a picture has.
    ``timestep_shift`` comes on top. ``patch``: pixels of a latent to the side of a token.
    """

    shift: float | Callable[[int], float] = 1.0
    timestep_shift: float = 1.0
    patch: int = 2

    @classmethod
    def of(cls, scheduler: Any, **settings: Any) -> Flow:
        """That of a scheduler of diffusers. InputError for settings that weigh or change the steps
        of a diffusion."""
        for name in OF_DIFFUSION:
            if settings.pop(name, None):
                raise InputError(
                    f"diffusion.{name}: goes with noise of a diffusion, and this model is trained "
                    "by flow matching; leave it out"
                )
        config = scheduler.config
        if not config.get("use_dynamic_shifting"):
            return cls(shift=config.get("shift", 1.0), **settings)
        if config.get("time_shift_type", "exponential") != "exponential":
            raise ValueError(f"time_shift_type {config.time_shift_type!r} is not trained")
        low, high = config.base_image_seq_len, config.max_image_seq_len
        slope = (config.max_shift - config.base_shift) / (high - low)

        def shift(tokens: int) -> float:  # as FlowMatchEulerDiscreteScheduler's mu
            return math.exp(config.base_shift + slope * (tokens - low))

        return cls(shift=shift, **settings)

    def times(self, latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(B,) t of a batch of latents (B, C, H, W)."""
        tokens = latents.shape[-2] * latents.shape[-1] // self.patch**2
        shift = self.shift(tokens) if callable(self.shift) else self.shift
        normal = torch.special.ndtri(stratified(len(latents), generator).clamp(EDGE, 1 - EDGE))
        return shifted(normal.sigmoid(), shift * self.timestep_shift)

    def loss(
        self,
        predict: Predict,
        latents: torch.Tensor,
        generator: torch.Generator,
        note: Note = unnoted,
    ) -> torch.Tensor:
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        t = self.times(latents, generator).to(latents.device)
        losses = self.errors(predict, latents, noise, t)
        note(t, losses)
        return losses.mean()

    def errors(
        self, predict: Predict, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        at = t.to(latents).view(-1, 1, 1, 1)
        predicted = predict((1 - at) * latents + at * noise, t).float()
        return F.mse_loss(predicted, (noise - latents).float(), reduction="none").mean((1, 2, 3))

    def expected(self, predict: Predict, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        at = t.to(noise).view(-1, 1, 1, 1)
        noisy = at * noise
        return noisy - at * predict(noisy, t).float()

    def at(self, level: float, count: int, device: torch.device) -> torch.Tensor:
        return torch.full((count,), level, device=device)
