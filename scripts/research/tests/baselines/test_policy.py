"""The denoising chain as a policy: DDIM's steps, and the densities of its Gaussians."""

import math
from operator import itemgetter

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from baselines.ddpo import encoded
from baselines.policy import Policy, denoising_chain, gaussian_log_prob
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.families.sdxl import FAMILY as SDXL
from ric_diffusion.models.diffusion.family import TEXT_TO_IMAGE
from support import sdxl
from support.model import SCHEDULER

EPSILON = {
    **SCHEDULER,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "set_alpha_to_one": False,
}


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def reference(settings, steps):
    scheduler = DDIMScheduler(**settings)
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("settings", [SCHEDULER, EPSILON], ids=["v", "epsilon"])
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_without_noise_a_step_is_ddim_s(settings, steps):
    scheduler = reference(settings, steps)
    chain = denoising_chain(scheduler, steps, eta=0.0)
    assert list(chain.timesteps) == scheduler.timesteps.tolist()
    latents, predicted = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    for k, t in enumerate(chain.timesteps):
        expected = scheduler.step(predicted, t, latents, eta=0.0).prev_sample
        assert torch.allclose(chain.mean(latents, k, predicted), expected, atol=1e-5, rtol=1e-5)
    assert chain.sigma == (0.0,) * steps and chain.decisions == []


@pytest.mark.parametrize("settings", [SCHEDULER, EPSILON], ids=["v", "epsilon"])
def test_with_noise_a_step_is_ddim_s_too(settings):
    scheduler = reference(settings, 20)
    chain = denoising_chain(scheduler, 20, eta=1.0)
    latents, predicted = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    drawn = noise(2, 4, 8, 8, seed=2)
    # Theirs takes a root of less than nothing where the step from alpha = 0 rounds that way.
    first = 1 if settings is SCHEDULER else 0
    for k, t in list(enumerate(chain.timesteps))[first:]:
        theirs = scheduler.step(predicted, t, latents, eta=1.0, variance_noise=drawn).prev_sample
        ours = chain.mean(latents, k, predicted) + chain.sigma[k] * drawn
        assert torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_first_step_from_pure_noise_is_finite():
    chain = denoising_chain(reference(SCHEDULER, 20), 20, eta=1.0)
    latents, predicted = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    assert chain.timesteps[0] == 999 and chain.alpha[0] == pytest.approx(0, abs=1e-12)
    # v = -x0 there, and with eta = 1 nothing but x0 is carried over.
    expected = -math.sqrt(chain.alpha_next[0]) * predicted
    assert torch.allclose(chain.mean(latents, 0, predicted), expected, atol=1e-5)


def test_the_last_step_is_no_decision_if_it_ends_clean():
    assert denoising_chain(reference(SCHEDULER, 5), 5, 1.0).decisions == [0, 1, 2, 3]
    assert denoising_chain(reference(EPSILON, 5), 5, 1.0).decisions == [0, 1, 2, 3, 4]


def test_any_scheduler_of_the_model_names_its_schedule():
    other = DPMSolverMultistepScheduler.from_config(DDIMScheduler(**SCHEDULER).config)
    ours = denoising_chain(DDIMScheduler(**SCHEDULER), 4, 1.0)
    assert denoising_chain(other, 4, 1.0) == ours


def test_schedules_that_cannot_be_had():
    with pytest.raises(InputError, match="v_prediction"):
        denoising_chain(DDIMScheduler(**{**SCHEDULER, "prediction_type": "epsilon"}), 5, 1.0)
    with pytest.raises(InputError, match="'sample'"):
        denoising_chain(DDIMScheduler(**{**SCHEDULER, "prediction_type": "sample"}), 5, 1.0)


def test_the_log_probability_is_the_gaussian_s():
    x, mean = noise(3, 4, 2, 2), noise(3, 4, 2, 2, seed=1)
    for sigma in (0.01, 0.7, 3.0):
        density = torch.distributions.Normal(mean, sigma).log_prob(x).mean(dim=(1, 2, 3))
        assert torch.allclose(gaussian_log_prob(x, mean, sigma), density, rtol=1e-5)


@pytest.fixture
def policy(pipe):
    def make(steps=4, eta=1.0, batch_size=3):
        return Policy(
            pipe=pipe,
            chain=denoising_chain(pipe.scheduler, steps, eta),
            empty=encoded(pipe, [""]),
            guidance_scale=3.0,
            batch_size=batch_size,
            precision="fp32",
        )

    return make


def test_a_chain_without_noise_is_the_stock_pipeline_s(pipe, policy):
    prompts, start = ["pizza", "red apple"], noise(2, 4, 8, 8)
    drawn = policy(eta=0.0).rollout(start, encoded(pipe, prompts), torch.Generator())
    stock = pipe(
        prompts,
        latents=start,
        num_inference_steps=4,
        guidance_scale=3.0,
        output_type="latent",
    ).images
    assert torch.allclose(drawn.latents[-1], stock, atol=1e-4)


def test_a_context_with_pooled_parts_goes_through_too():
    """Stable Diffusion XL, whose denoiser takes more than the states of a text."""
    pipe = SDXL.pipelines[TEXT_TO_IMAGE](**sdxl.parts())
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing", clip_sample=False
    )
    prompts, start = ["red apple", "blue car", "red car"], noise(3, 4, 8, 8)
    policy = Policy(
        pipe=pipe,
        chain=denoising_chain(pipe.scheduler, 3, eta=0.0),
        empty=encoded(pipe, [""]),
        guidance_scale=3.0,
        batch_size=2,
        precision="fp32",
    )
    drawn = policy.rollout(start, encoded(pipe, prompts), torch.Generator())
    stock = pipe(
        prompts,
        latents=start,
        num_inference_steps=3,
        guidance_scale=3.0,
        output_type="latent",
    ).images
    assert torch.allclose(drawn.latents[-1], stock, atol=1e-4)


@torch.no_grad()
def test_on_the_first_pass_every_ratio_is_one(pipe, policy):
    context = encoded(pipe, ["pizza", "red apple", "rocket"] * 2)
    acting = policy()
    drawn = acting.rollout(noise(6, 4, 8, 8), context, torch.Generator().manual_seed(0))
    assert drawn.latents.shape == (5, 6, 4, 8, 8) and drawn.log_probs.shape == (4, 6)
    rows = torch.tensor([4, 0, 2])
    for k in acting.chain.decisions:
        before, after = drawn.latents[k, rows], drawn.latents[k + 1, rows]
        again = acting.log_prob(before, k, after, context.map(itemgetter(rows)))
        assert torch.allclose((again - drawn.log_probs[k, rows]).exp(), torch.ones(3), atol=1e-5)
    assert (drawn.log_probs[-1] == 0).all()


def test_a_rollout_repeats_bit_for_bit_and_spreads(pipe, policy):
    context, start = encoded(pipe, ["pizza"] * 2), noise(1, 4, 8, 8).repeat(2, 1, 1, 1)
    one, same, other = (
        policy().rollout(start, context, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one.latents, same.latents) and torch.equal(one.log_probs, same.log_probs)
    assert not torch.equal(one.latents, other.latents)
    assert not torch.allclose(one.latents[-1, 0], one.latents[-1, 1])
