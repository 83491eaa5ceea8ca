"""The sampler protocol over a pipeline: samples, rejected, features, and whose prompt fits."""

import numpy as np
import pytest
import torch
from PIL import Image

from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Meter
from ric_diffusion.models.diffusion.sampler import DiffusionSampler

SAMPLING = {"guidance_scale": 3.0, "num_inference_steps": 2}


@pytest.fixture
def noise_pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(5)]


def test_without_an_adapter_it_is_the_stock_model(pipe, stock):
    found = DiffusionSampler(pipe, SAMPLING).sample(["red apple", "blue car"], [{}, {}], [3, 4])
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    wanted = stock(["red apple", "blue car"], generator=generators, **SAMPLING).images
    assert [image.tobytes() for image in found] == [image.tobytes() for image in wanted]
    with pytest.raises(InputError, match="no adapter is loaded"):
        DiffusionSampler(pipe, SAMPLING).sample(["red apple"], [{"colorfulness": 1.0}], [0])


def test_the_adapters_own_sampling_by_default(adapters, pipe):
    pipe.load_adapter(adapters["embedding"])
    assert DiffusionSampler(pipe).sampling == pipe.adapter.sampling


def test_written_and_read_without_loss(pipe, noise_pictures, tmp_path):
    medium = DiffusionSampler(pipe).medium
    medium.write(noise_pictures[0], tmp_path / f"a{medium.suffix}")
    again = medium.read(tmp_path / f"a{medium.suffix}")
    assert medium.digest(again) == medium.digest(noise_pictures[0])
    assert medium.digest(again) != medium.digest(noise_pictures[1])


def test_blank_pictures_are_rejected(pipe, noise_pictures):
    sampler = DiffusionSampler(pipe)
    assert sampler.medium.reject_reason(noise_pictures[0]) is None
    assert sampler.medium.reject_reason(Image.new("RGB", (64, 64), "white")) == "blank"


def test_features_tell_pictures_apart(pipe, noise_pictures):
    features = DiffusionSampler(pipe).features([*noise_pictures, noise_pictures[0]])
    assert features.shape == (6, 4 * 8 * 8) and features.dtype == np.float32
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert np.allclose(features[0], features[5])
    assert not np.allclose(features[0], features[1], atol=1e-2)


def test_cost_counts_every_guided_step(pipe):
    sampler, meter = DiffusionSampler(pipe, SAMPLING), Meter()
    with meter.running(sampler.network()):
        sampler.sample(["red apple"] * 3, [{}] * 3, [0, 1, 2])
    assert meter.read().forwards == 3 * 2 * 2  # pictures x steps x branches
    sampler.sample(["red apple"], [{}], [0])
    assert meter.read().forwards == 12


PROMPTS = ["red apple", "blue car", "red car", "blue apple", "apple"]


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_prompts_are_judged_by_the_model_under_the_adapter(
    mode, adapters, pipe, noise_pictures, watch
):
    plain = DiffusionSampler(pipe, SAMPLING).prompt_r_precision(PROMPTS, noise_pictures)
    pipe.load_adapter(adapters[mode])
    unchanged = watch(pipe.unet)
    judged = DiffusionSampler(pipe).prompt_r_precision(PROMPTS, noise_pictures)
    assert judged.tolist() == plain.tolist() and unchanged()
    assert set((3 * judged).round(6)) <= {0, 1, 2, 3}


def test_so_are_they_with_an_adapter_in_training(make_backend, stir, pipe, noise_pictures):
    backend = stir(make_backend())
    plain = DiffusionSampler(pipe, SAMPLING).prompt_r_precision(PROMPTS, noise_pictures)
    assert backend.prompt_r_precision(PROMPTS, noise_pictures).tolist() == plain.tolist()
    before = backend.sample(["red apple"], [{"colorfulness": 1.0}], [0])[0].tobytes()
    backend.prompt_r_precision(PROMPTS, noise_pictures)
    assert backend.sample(["red apple"], [{"colorfulness": 1.0}], [0])[0].tobytes() == before


def test_the_right_prompt_is_told_from_the_others(pipe, monkeypatch):
    """A stand-in U-Net that denoises perfectly where the context is that of the picture."""
    colours = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}
    pictures = {name: Image.new("RGB", (64, 64), rgb) for name, rgb in colours.items()}
    prompts = list(colours)
    contexts = {p: pipe.encode_prompt([p], "cpu", 1, False)[0][0] for p in prompts}
    latents = {p: DiffusionSampler(pipe)._latents([pictures[p]])[0][0] for p in prompts}

    class Oracle(torch.nn.Module):
        dtype, device = torch.float32, torch.device("cpu")

        def forward(self, noisy, t, encoder_hidden_states):
            rows = []
            for x, step, context in zip(noisy, t, encoder_hidden_states, strict=True):
                name = next(p for p in prompts if torch.equal(contexts[p], context))
                alpha = pipe.scheduler.alphas_cumprod[step]
                noise = (x - alpha**0.5 * latents[name]) / (1 - alpha) ** 0.5
                rows.append(alpha**0.5 * noise - (1 - alpha) ** 0.5 * latents[name])
            return type("Output", (), {"sample": torch.stack(rows)})

    monkeypatch.setattr(pipe, "unet", Oracle())
    sampler = DiffusionSampler(pipe, SAMPLING)
    right = sampler.prompt_r_precision(prompts, [pictures[p] for p in prompts])
    assert right.tolist() == [1.0, 1.0, 1.0]
    swapped = sampler.prompt_r_precision(prompts, [pictures[p] for p in ("blue", "red", "green")])
    assert swapped[0] < 1 and swapped[1] < 1 and swapped[2] == 1


def test_a_single_prompt_is_judged_against_none(pipe, noise_pictures):
    kept = DiffusionSampler(pipe, SAMPLING).prompt_r_precision(
        ["red apple"] * 2, noise_pictures[:2]
    )
    assert set(kept.tolist()) <= {0.0, 1.0}
