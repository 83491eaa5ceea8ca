"""The denoising objective, shared by base training and adapter fine-tuning."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor


def plain_attention(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """For training on a CPU: there the fused attention's backward pass takes a third of the step
    of a small U-Net, and matrix products a twentieth."""
    unet.set_attn_processor(AttnProcessor())
    return unet


def stratified_timesteps(
    count: int, steps: int, generator: torch.Generator, *, shift: float = 1.0
) -> torch.Tensor:
    """(count,) int64 in [0, steps): one draw in each of ``count`` equal strata, shuffled.

    Each timestep is uniform as usual, but a batch covers the schedule evenly, which takes much of
    the noise out of the loss of a small batch (Kingma et al. 2021, VDM, appendix I.1). A ``shift``
    above 1 moves them towards the noise (Esser et al. 2024, SD3, eq. 23).
    """
    strata = torch.randperm(count, generator=generator)
    u = (strata + torch.rand(count, generator=generator)) / count
    u = shift * u / (1 + (shift - 1) * u)
    return (u * steps).long().clamp_max(steps - 1)


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


def denoising_loss(
    unet: torch.nn.Module,
    scheduler: Any,
    latents: torch.Tensor,
    context: torch.Tensor,
    generator: torch.Generator,
    *,
    min_snr_gamma: float | None = None,
    timestep_shift: float = 1.0,
) -> torch.Tensor:
    """Mean weighted squared error of the U-Net's prediction: a scalar.

    ``latents`` (B, C, H, W) scaled, ``context`` (B, T, D) encoder hidden states, ``generator`` on
    the CPU. The scheduler's ``prediction_type`` says what is predicted: ``epsilon`` (Ho et al.
    2020, eq. 14) or ``v_prediction`` (Salimans & Ho 2022, appendix D).
    """
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    steps = scheduler.config.num_train_timesteps
    t = stratified_timesteps(len(latents), steps, generator, shift=timestep_shift)
    t = t.to(latents.device)
    kind = scheduler.config.prediction_type
    weights = snr_weights(scheduler.alphas_cumprod, kind, min_snr_gamma).to(latents.device)[t]
    return (weights * squared_errors(unet, scheduler, latents, context, noise, t)).mean()


def squared_errors(
    unet: torch.nn.Module,
    scheduler: Any,
    latents: torch.Tensor,
    context: torch.Tensor,
    noise: torch.Tensor,
    t: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error of the U-Net's prediction for each of the latents: (B,).

    ``noise`` (B, C, H, W) is mixed in to the level of the timesteps ``t`` (B,).
    """
    # Not the scheduler's add_noise: those made for sampling scale it otherwise (Euler) or know only
    # the timesteps they were last set to (DPM-Solver), and a model's folder names any of them.
    alpha = scheduler.alphas_cumprod.to(latents)[t].view(-1, 1, 1, 1)
    noisy = alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise ValueError(f"prediction_type {kind!r}: only 'epsilon' and 'v_prediction' are trained")
    aim = noise if kind == "epsilon" else alpha**0.5 * noise - (1 - alpha) ** 0.5 * latents
    predicted = unet(noisy, t, encoder_hidden_states=context).sample.float()
    return F.mse_loss(predicted, aim.float(), reduction="none").mean((1, 2, 3))
