"""The small Stable Diffusion of support/model.py, and an adapter for it in each mode.

All parts are the real classes with random weights.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from ric_diffusion import RiCStableDiffusionPipeline
from ric_diffusion.data.records import Record
from ric_diffusion.models.diffusion.backend import DiffusionBackend, DiffusionConfig, LoraConfig
from ric_diffusion.models.diffusion.families.sd import FAMILY
from ric_diffusion.rewards import RewardSpace
from scratch import pruned_tokenizer, small_text_encoder
from support import model as model_settings

NAMES = ("colorfulness", "compressibility")
KINDS = ("attention", "feed_forward", "convolution")
SAMPLING = {"guidance_scale": 3.0, "num_inference_steps": 2}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def parts(*, width: int = 32, **unet: Any) -> dict[str, Any]:
    """The pipeline's parts; ``unet`` settings replace those of the small model."""
    tokenizer = pruned_tokenizer(["red apple blue car", *NAMES, "0 1 2 3 4 5 6 7 8 9"], 32)
    text_encoder = small_text_encoder(tokenizer, model_settings.TEXT | {"hidden_size": width})
    made = UNet2DConditionModel(**model_settings.UNET | {"cross_attention_dim": width} | unet)
    vae = model_settings.autoencoder()
    scheduler = DDIMScheduler(**model_settings.SCHEDULER)
    return {
        "tokenizer": tokenizer,
        "text_encoder": text_encoder.eval(),
        "unet": made.eval(),
        "vae": vae.eval(),
        "scheduler": scheduler,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


@pytest.fixture(scope="session")
def make_parts() -> Callable[..., dict[str, Any]]:
    return parts


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small model, as stock diffusers writes it."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    StableDiffusionPipeline(**parts()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def space() -> RewardSpace:
    rng = np.random.default_rng(0)
    return RewardSpace.fit(
        {name: rng.normal(10, 2, size=200) for name in NAMES},
        units={"colorfulness": "M3", "compressibility": "-kB"},
        scorers={name: {"name": name, "options": {}} for name in NAMES},
        fingerprints={name: f"{name}-1" for name in NAMES},
    )


@pytest.fixture(scope="session")
def make_backend(model: Path, space: RewardSpace) -> Callable[..., DiffusionBackend]:
    def make(
        mode: str = "embedding", *, seed: int = 0, folder: Path = model, **changes: Any
    ) -> DiffusionBackend:
        settings = {
            "lora": LoraConfig(rank=4, alpha=8, targets=KINDS),
            "sampling": SAMPLING,
            **changes,
        }
        config = DiffusionConfig(mode=mode, **settings)
        return FAMILY.create_backend(str(folder), space, config, seed=seed)

    return make


@pytest.fixture(scope="session")
def stir() -> Callable[[DiffusionBackend], DiffusionBackend]:
    """Give every trained parameter a random value, as if it had been trained."""

    def change(backend: DiffusionBackend, seed: int = 0) -> DiffusionBackend:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in backend.named_parameters().values():
                p += 0.1 * torch.randn(p.shape, generator=generator)
        return backend

    return change


@pytest.fixture(scope="session")
def adapters(tmp_path_factory, make_backend, stir) -> dict[str, Path]:
    """An adapter folder by mode."""
    root = tmp_path_factory.mktemp("adapters")
    for mode in ("embedding", "text"):
        stir(make_backend(mode)).save(root / mode)
    return {mode: root / mode for mode in ("embedding", "text")}


@pytest.fixture
def pipe(model: Path) -> RiCStableDiffusionPipeline:
    """A fresh pipeline without an adapter."""
    made = RiCStableDiffusionPipeline.from_pretrained(model)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="session")
def stock(model: Path) -> StableDiffusionPipeline:
    made = StableDiffusionPipeline.from_pretrained(model, use_safetensors=True)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="session")
def draw() -> Callable[..., torch.Tensor]:
    """Two steps from a seed, without decoding: latents tell outputs apart to the last bit."""

    def latents(pipe: Any, prompt: Any = "red apple", *, seed: int = 0, **given: Any) -> Any:
        generator = torch.Generator().manual_seed(seed)
        given = {"num_inference_steps": 2, "output_type": "latent", **given}
        return pipe(prompt, generator=generator, **given).images

    return latents


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> tuple[Path, list[Record]]:
    """A folder of twelve labelled pictures, flat colours with a bar across."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    records = []
    for i in range(12):
        pixels = np.full((64, 64, 3), rng.integers(0, 256, 3), dtype=np.uint8)
        pixels[5 * i : 5 * i + 6] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        captions = ("red apple", "apple", "blue car")[: 1 + i % 3]
        scores = {"colorfulness": 8.0 + i / 3, "compressibility": 12.0 - i / 3}
        records.append(Record(file=f"{i}.png", captions=captions, scores=scores))
    return folder, records


@pytest.fixture(scope="session")
def watch() -> Callable[[torch.nn.Module], Callable[[], bool]]:
    """``unchanged = watch(module)``; ``unchanged()``: are all its weights the same bits as then?"""

    def begin(module: torch.nn.Module) -> Callable[[], bool]:
        then = {key: value.clone() for key, value in module.state_dict().items()}

        def unchanged() -> bool:
            now = module.state_dict()
            return then.keys() == now.keys() and all(
                torch.equal(now[k], v) for k, v in then.items()
            )

        return unchanged

    return begin
