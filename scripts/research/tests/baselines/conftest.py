"""The small Stable Diffusion of support/tiny.py, two rewards read from pixels, and LoRA files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from baselines.base import plain_backend
from baselines.families import lora_file, save_run
from ric_diffusion import RiCStableDiffusionPipeline
from ric_diffusion.data.records import Record
from ric_diffusion.models.diffusion.backend import DiffusionConfig, LoraConfig
from ric_diffusion.models.diffusion.families.sd import FAMILY
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from ric_diffusion.rewards import RewardSpace
from support import tiny

LORA = LoraConfig(rank=4, alpha=8, targets=("attention", "feed_forward", "convolution"))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("stock") / "model"
    tiny.write_model(folder)
    return str(folder)


@pytest.fixture
def pipe(model):
    pipe = RiCStableDiffusionPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def sampling():
    return {"guidance_scale": 3.0, "num_inference_steps": 2}


@pytest.fixture
def sampler(pipe, sampling):
    return DiffusionSampler(pipe, sampling)


@pytest.fixture(scope="session")
def space() -> RewardSpace:
    """bright: mean 120, std 20; warm: mean 0, std 10."""
    values = np.random.default_rng(0).normal(size=(2, 500))
    values = (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)
    return RewardSpace.fit({"bright": 120 + 20 * values[0], "warm": 10 * values[1]})


def bright(images, prompts):
    """Mean of all channels, 0 to 255."""
    assert len(images) == len(prompts)
    return np.array([np.asarray(image, float).mean() for image in images], np.float32)


def warm(images, prompts):
    """Mean of red minus mean of blue."""
    means = [np.asarray(image, float).mean(axis=(0, 1)) for image in images]
    return np.array([mean[0] - mean[2] for mean in means], np.float32)


@pytest.fixture(scope="session")
def pixel_scorers():
    return [bright, warm]


@pytest.fixture(scope="session")
def config(sampling):
    return DiffusionConfig(lora=LORA, sampling=sampling)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> tuple[Path, list[Record]]:
    """Captioned pictures and made-up scores, each better in one reward than worse in the other."""
    folder = tmp_path_factory.mktemp("baselines") / "pictures"
    tiny.write_pictures(folder)
    records = [
        Record(
            file=f"{i}.png",
            captions=(tiny.NAMES[i % len(tiny.NAMES)],),
            scores={"bright": 100.0 + 3 * i, "warm": -1.0 * i},
        )
        for i in range(tiny.COUNT)
    ]
    return folder, records


@pytest.fixture(scope="session")
def lora_files(tmp_path_factory, model, space, config) -> dict[str, Path]:
    """A random LoRA for each reward."""
    folder = tmp_path_factory.mktemp("loras")
    files = {}
    for seed, name in enumerate(space.names):
        backend = plain_backend(model, space, config, seed=seed, device="cpu")
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in backend.named_parameters().values():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        save_run(backend, folder / name)
        files[name] = folder / name / lora_file(FAMILY)
    return files


@pytest.fixture(scope="session")
def pixels():
    """Pictures as one array of numbers (N, H, W, 3)."""
    return lambda images: np.stack([np.asarray(image, float) for image in images])


@pytest.fixture(scope="session")
def latents_as_pictures():
    """In place of ``ddpo.decoded``. Three channels of the latents (N, 4, H, W) as colours: the
    random decoder of the tiny model turns whatever it is given into the same grey."""

    def decoded(pipe, latents, batch_size):
        levels = (128 + 30 * latents[:, :3]).clamp(0, 255).round().byte()
        return [Image.fromarray(one.permute(1, 2, 0).contiguous().numpy()) for one in levels]

    return decoded


class LatentSampler(DiffusionSampler):
    """Draws latents: of the tiny model's pictures one is as grey as the other."""

    def _check_some_finite(self, pictures):
        assert all(torch.isfinite(latents).all() for latents in pictures)


@pytest.fixture
def latent_sampler(pipe):
    """latent_sampler(sampling): what draws latents with these arguments."""
    return lambda sampling: LatentSampler(pipe, {**sampling, "output_type": "latent"})
