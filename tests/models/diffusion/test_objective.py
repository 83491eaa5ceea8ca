import math

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.families.sd import FAMILY
from ric_diffusion.models.diffusion.objective import (
    DiscreteDiffusion,
    Flow,
    debiased_weights,
    shifted,
    snr_weights,
)

SCHEDULERS = [
    DDIMScheduler,
    DDPMScheduler,
    PNDMScheduler,
    EulerDiscreteScheduler,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
]
KINDS = ("epsilon", "v_prediction")
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
COUNT = 16


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


LATENTS = torch.randn(COUNT, 4, 6, 6, generator=seeded(99))


def timesteps(count, steps, generator, shift=1.0):
    objective = DiscreteDiffusion(
        alphas_cumprod=torch.linspace(1, 0, steps), prediction_type="epsilon", timestep_shift=shift
    )
    return objective.times(count, generator)


class Predictor(torch.nn.Module):
    """Solves for the noise in what it is given, knowing the latents, and answers what was asked.

    The schedule is worked out here once more, in float64.
    """

    def __init__(self, kind, error=0.0):
        super().__init__()
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.alphas = (1 - betas).cumprod(0)
        self.kind, self.error, self.seen = kind, error, []

    def forward(self, noisy, t):
        self.seen.append(t)
        alpha = self.alphas[t].sqrt().view(-1, 1, 1, 1)
        sigma = (1 - self.alphas[t]).sqrt().view(-1, 1, 1, 1)
        noise = (noisy.double() - alpha * LATENTS) / sigma
        assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1
        right = noise if self.kind == "epsilon" else alpha * noise - sigma * LATENTS
        return (right + self.error).float()


def loss(predictor, scheduler=None, **given):
    if scheduler is None:
        scheduler = DDIMScheduler(prediction_type=predictor.kind, clip_sample=False, **BETAS)
    generator = given.pop("generator", None) or seeded()
    return DiscreteDiffusion.of(scheduler, **given).loss(predictor, LATENTS, generator)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_right_answer_costs_nothing_under_any_scheduler(scheduler, kind):
    """Which sampler a model's folder names must not change what it is trained on."""
    made = scheduler(prediction_type=kind, **BETAS)
    assert loss(Predictor(kind), made) < 1e-6
    made.set_timesteps(5)  # as a validation sheet leaves it
    assert loss(Predictor(kind), made) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_error_costs_its_square(kind):
    assert float(loss(Predictor(kind, error=0.5))) == pytest.approx(0.25, rel=1e-4)


def test_the_other_aim_is_wrong():
    scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False, **BETAS)
    assert loss(Predictor("epsilon"), scheduler) > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_is_that_of_the_timestep(kind):
    predictor = Predictor(kind, error=1.0)
    found = float(loss(predictor, min_snr_gamma=1.0))
    alphas = predictor.alphas[predictor.seen[0]]
    snr = alphas / (1 - alphas)
    weight = snr.clamp(max=1) / (snr if kind == "epsilon" else snr + 1)
    assert found == pytest.approx(float(weight.mean()), rel=1e-4)
    assert found < 0.9


def test_min_snr_weights_by_hand():
    """Hang et al. 2023: min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v; SNR 9, 1, 1/9."""
    alphas = torch.tensor([0.9, 0.5, 0.1])
    epsilon = snr_weights(alphas, "epsilon", 5.0)
    v = snr_weights(alphas, "v_prediction", 5.0)
    assert torch.allclose(epsilon, torch.tensor([5 / 9, 1.0, 1.0]))
    assert torch.allclose(v, torch.tensor([0.5, 0.5, 0.1]))
    assert snr_weights(alphas, "epsilon", None).tolist() == [1, 1, 1]
    assert snr_weights(alphas, "v_prediction", None).tolist() == [1, 1, 1]


def test_debiased_weights_by_hand():
    """1 / sqrt(SNR) for epsilon; for v, whose error is (SNR + 1) / SNR times that of the noise."""
    alphas = torch.tensor([0.9, 0.5, 0.1])
    epsilon, v = (debiased_weights(alphas, kind) for kind in KINDS)
    assert torch.allclose(epsilon, torch.tensor([1 / 3, 1.0, 3.0]))
    assert torch.allclose(v, torch.tensor([3 / 10, 0.5, (1 / 3) / (1 / 9 + 1)]))


def test_debiased_estimation_weighs_the_loss():
    predictor = Predictor("epsilon", error=1.0)
    found = float(loss(predictor, debiased_estimation=True))
    alphas = predictor.alphas[predictor.seen[0]]
    assert found == pytest.approx(float(((1 - alphas) / alphas).sqrt().mean()), rel=1e-4)


def test_noise_that_is_predicted_from_noise_alone_cannot_be_debiased():
    alphas = torch.tensor([0.5, 0.0])
    given = {"alphas_cumprod": alphas, "debiased_estimation": True}
    with pytest.raises(InputError, match=r"^diffusion\.debiased_estimation: what this model sees"):
        DiscreteDiffusion(prediction_type="epsilon", **given)
    assert DiscreteDiffusion(prediction_type="v_prediction", **given).weights()[1] == 0


def test_noise_offset_is_the_same_all_over_a_channel():
    """A picture's noise is white noise, as without, and one number to a channel."""
    seen = []

    def predict(noisy, t):
        seen.append(noisy)
        return torch.zeros_like(noisy)

    for offset in (0.0, 0.5):
        objective = DiscreteDiffusion(
            alphas_cumprod=torch.zeros(10), prediction_type="epsilon", noise_offset=offset
        )
        objective.loss(predict, torch.zeros(64, 4, 6, 6), seeded())
    added = seen[1] - seen[0]
    assert torch.allclose(added, added[:, :, :1, :1].expand_as(added), atol=1e-6)
    assert float(added.std()) == pytest.approx(0.5, rel=0.1)
    assert float(added.mean()) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("made", ["diffusion", "flow"])
def test_levels_and_losses_are_noted(made):
    noted = []
    if made == "flow":
        objective = Flow()
    else:
        objective = DiscreteDiffusion(
            alphas_cumprod=torch.linspace(0.9, 0.1, 10), prediction_type="epsilon"
        )
    times = []

    def predict(noisy, t):
        times.append(t)
        return torch.zeros_like(noisy)

    found = objective.loss(predict, LATENTS, seeded(), lambda *given: noted.append(given))
    ((levels, losses),) = noted
    assert torch.allclose(levels, times[0] / (1 if made == "flow" else 10))
    assert levels.min() >= 0 and levels.max() <= 1 and losses.shape == (COUNT,)
    assert float(losses.mean()) == pytest.approx(float(found))


@pytest.mark.parametrize(
    ("name", "value"),
    [("min_snr_gamma", 5.0), ("debiased_estimation", True), ("noise_offset", 0.1)],
)
def test_flow_matching_has_no_use_for_what_diffusions_have(name, value):
    with pytest.raises(InputError, match=rf"^diffusion\.{name}: .* flow matching; leave it out$"):
        Flow.of(FlowMatchEulerDiscreteScheduler(), **{name: value})


def test_weights_at_the_ends_of_a_schedule_are_numbers():
    """Zero terminal SNR, and no noise at all."""
    alphas = torch.tensor([1.0, 0.0])
    assert snr_weights(alphas, "epsilon", 5.0).tolist() == [0.0, 1.0]
    assert snr_weights(alphas, "v_prediction", 5.0).tolist() == [0.0, 0.0]


def test_zero_terminal_snr_is_trained_on_plain_velocity():
    scheduler = DDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=False, **BETAS
    )

    class Last(torch.nn.Module):
        def forward(self, noisy, t):
            last = t == 999
            assert torch.equal(noisy[last], noise[last])  # nothing of the latents is left
            return torch.where(last[:, None, None, None], -LATENTS, 0)

    for seed in range(50):
        generator = seeded(seed)
        noise = torch.randn(LATENTS.shape, generator=generator)
        if 999 in timesteps(COUNT, 1000, generator):
            break
    objective = DiscreteDiffusion.of(scheduler, min_snr_gamma=None)
    assert torch.isfinite(objective.loss(Last(), LATENTS, seeded(seed)))


def test_an_aim_that_is_not_trained_is_refused():
    scheduler = DDIMScheduler(prediction_type="sample")
    with pytest.raises(ValueError, match="prediction_type 'sample'"):
        loss(Predictor("epsilon"), scheduler)


def test_the_generator_alone_decides():
    torch.manual_seed(0)
    predictors = [Predictor("epsilon", error=0.1) for _ in range(3)]
    one = loss(predictors[0], min_snr_gamma=1.0)
    torch.manual_seed(1)
    assert loss(predictors[1], min_snr_gamma=1.0) == one
    assert torch.equal(predictors[0].seen[0], predictors[1].seen[0])
    loss(predictors[2], generator=seeded(1))
    assert not torch.equal(predictors[0].seen[0], predictors[2].seen[0])


@pytest.mark.parametrize(("count", "steps"), [(1, 1000), (4, 1000), (7, 10), (16, 4)])
def test_a_batch_covers_the_schedule_evenly(count, steps):
    generator = seeded()
    for _ in range(20):
        t = timesteps(count, steps, generator)
        assert t.shape == (count,) and t.dtype == torch.int64
        assert t.min() >= 0 and t.max() < steps
        for i, value in enumerate(t.sort().values.tolist()):
            assert i * steps / count - 1 < value < (i + 1) * steps / count


def test_a_shift_moves_the_timesteps_towards_the_noise():
    """By hand: u in the middle of [0, 1] becomes 4/5 under a shift of 4, and the ends stay."""
    t = timesteps(4000, 1000, seeded(), shift=4.0).sort().values
    assert abs(t[2000].item() - 800) <= 2 and t[0] <= 4 and t[-1] == 999
    assert torch.equal(
        timesteps(64, 1000, seeded(), shift=1.0),
        timesteps(64, 1000, seeded()),
    )


def test_a_shifted_loss_is_one_at_other_timesteps():
    predictor = Predictor("epsilon", error=0.1)
    loss(predictor, timestep_shift=8.0)
    assert predictor.seen[0].float().mean() > 700


def test_every_timestep_is_as_likely_at_every_place_in_the_batch():
    generator = seeded()
    draws = torch.stack([timesteps(4, 10, generator) for _ in range(8000)])
    for place in range(4):
        shares = draws[:, place].bincount(minlength=10) / len(draws)
        assert (shares - 0.1).abs().max() < 5 * (0.09 / len(draws)) ** 0.5
    again = seeded()
    assert torch.equal(timesteps(4, 10, again), draws[0])


def test_the_attention_of_training_on_a_cpu_is_the_same(stock):
    given = (torch.randn(2, 4, 8, 8, generator=seeded()), torch.tensor([3, 700]))
    context = torch.randn(2, 9, 32, generator=seeded(1))
    processors = stock.unet.attn_processors
    with torch.no_grad():
        fused = stock.unet(*given, encoder_hidden_states=context).sample
        try:
            FAMILY.prepare_cpu_training(stock.unet)
            assert stock.unet.attn_processors.keys() == processors.keys()
            plain = stock.unet(*given, encoder_hidden_states=context).sample
        finally:
            stock.unet.set_attn_processor(processors)
    assert torch.allclose(fused, plain, atol=1e-5)


# Flow matching.


def velocity(error=0.0):
    """Solves for the noise in what it is given, knowing the latents."""

    def predict(noisy, t):
        at = t.double().view(-1, 1, 1, 1)
        noise = (noisy.double() - (1 - at) * LATENTS) / at
        return (noise - LATENTS + error).float()

    return predict


def test_the_right_velocity_costs_nothing_and_a_constant_error_its_square():
    flow, noise = Flow(shift=2.0), torch.randn(LATENTS.shape, generator=seeded())
    assert flow.loss(velocity(), LATENTS, seeded()) < 1e-6
    assert float(flow.loss(velocity(0.5), LATENTS, seeded())) == pytest.approx(0.25, rel=1e-4)
    for level in (0.3, 1.0):
        t = flow.at(level, COUNT, LATENTS.device)
        assert flow.errors(velocity(), LATENTS, noise, t).max() < 1e-6
    assert flow.loss(lambda noisy, t: noisy, LATENTS, seeded()) > 0.1


@pytest.mark.parametrize(("shift", "more"), [(1.0, 1.0), (3.0, 1.0), (1.5, 2.0)])
def test_times_are_logit_normal_and_shifted(shift, more):
    """Quantiles of the normal distribution at -2, -1, 0, 1, 2; a shift adds its logarithm there."""
    levels = torch.tensor([0.02275, 0.15866, 0.5, 0.84134, 0.97725])
    flow = Flow(shift=shift, timestep_shift=more)
    t = flow.times(torch.empty(20000, 1, 2, 2, device="meta"), seeded())
    wanted = (torch.arange(-2.0, 3.0) + math.log(shift * more)).sigmoid()
    assert torch.allclose(t.quantile(levels), wanted, atol=1e-3)
    assert t.shape == (20000,) and t.min() > 0 and t.max() < 1


DYNAMIC = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}


@pytest.mark.parametrize("settings", [{"shift": 1.0}, {"shift": 3.0}, DYNAMIC])
@pytest.mark.parametrize("side", [32, 128])
def test_they_are_shifted_as_the_schedule_that_a_model_samples_with(settings, side):
    scheduler, tokens = FlowMatchEulerDiscreteScheduler(**settings), (side // 2) ** 2
    u = np.linspace(1, 0.1, 10, dtype=np.float32)
    mu = calculate_shift(tokens) if settings is DYNAMIC else None
    scheduler.set_timesteps(sigmas=u, mu=mu)
    flow = Flow.of(scheduler)
    shift = flow.shift(tokens) if callable(flow.shift) else flow.shift
    assert torch.allclose(shifted(torch.from_numpy(u), shift), scheduler.sigmas[:-1], atol=1e-6)
    t = flow.times(torch.empty(4000, 1, side, side, device="meta"), seeded())
    assert float(t.median()) == pytest.approx(shift / (1 + shift), abs=2e-3)


def test_a_schedule_that_is_not_known_is_refused():
    scheduler = FlowMatchEulerDiscreteScheduler(**DYNAMIC, time_shift_type="linear")
    with pytest.raises(ValueError, match="time_shift_type 'linear' is not trained"):
        Flow.of(scheduler)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_expected_of_noise_is_what_the_predictor_knows(kind):
    """By hand, for a denoiser that always expects the same latents."""
    objective = DiscreteDiffusion(
        alphas_cumprod=torch.linspace(0.99, 0.01, 100), prediction_type=kind
    )
    noise, t = torch.randn(2, 4, 6, 6, generator=seeded()), objective.at(0.9, 2, LATENTS.device)
    alpha = objective.alphas_cumprod[t].view(-1, 1, 1, 1)

    def predict(noisy, _):
        left = (noisy - alpha.sqrt() * LATENTS[:2]) / (1 - alpha).sqrt()
        if kind == "epsilon":
            return left
        return alpha.sqrt() * left - (1 - alpha).sqrt() * LATENTS[:2]

    assert torch.allclose(objective.expected(predict, noise, t), LATENTS[:2], atol=1e-4)


def test_what_a_flow_expects_of_noise():
    def predict(noisy, t):
        return (noisy - LATENTS[:2]) / t.view(-1, 1, 1, 1)

    t = Flow().at(0.9, 2, LATENTS.device)
    noise = torch.randn(2, 4, 6, 6, generator=seeded())
    assert torch.allclose(Flow().expected(predict, noise, t), LATENTS[:2], atol=1e-5)
