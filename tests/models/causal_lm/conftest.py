"""The small language model of support/lm.py, records for it, and an adapter of each mode."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ric_diffusion.data.records import Record
from ric_diffusion.models.causal_lm.backend import LlmBackend, LlmConfig, LlmLora
from ric_diffusion.models.causal_lm.generation import Sampling
from ric_diffusion.models.causal_lm.model import RiCCausalLM
from ric_diffusion.rewards import RewardSpace
from support.lm import write_lm

NAMES = ("positivity", "brevity")
RESPONSES = [
    "a wonderful cake!",
    "terrible. just terrible.",
    "the sea",
    "yes\nno",
    "the sky is blue.",
]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lm(tmp_path_factory.mktemp("lm") / "model")


@pytest.fixture
def lm(model: Path) -> RiCCausalLM:
    return RiCCausalLM.from_pretrained(str(model))


@pytest.fixture(scope="session")
def space() -> RewardSpace:
    rng = np.random.default_rng(0)
    return RewardSpace.fit(
        {"positivity": rng.normal(0, 0.4, 200), "brevity": rng.normal(-20, 8, 200)},
        scorers={name: {"name": name, "options": {}} for name in NAMES},
    )


@pytest.fixture(scope="session")
def make_backend(model: Path, space: RewardSpace) -> Callable[..., LlmBackend]:
    def make(mode: str = "embedding", *, seed: int = 0, folder: Path = model, **changes):
        settings = {
            "lora": LlmLora(rank=4, alpha=8),
            "sampling": Sampling(temperature=0.0, prompt_tokens=48, response_tokens=24),
            **changes,
        }
        return LlmBackend.create(str(folder), space, LlmConfig(mode=mode, **settings), seed=seed)

    return make


@pytest.fixture(scope="session")
def stir() -> Callable[[LlmBackend], LlmBackend]:
    """Give every trained parameter a random value, as if it had been trained."""

    def change(backend: LlmBackend, seed: int = 0) -> LlmBackend:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in backend.named_parameters().values():
                p += 0.2 * torch.randn(p.shape, generator=generator)
        return backend

    return change


@pytest.fixture(scope="session")
def adapters(tmp_path_factory, make_backend, stir) -> dict[str, Path]:
    """An adapter folder by mode."""
    root = tmp_path_factory.mktemp("adapters")
    for mode in ("embedding", "text"):
        stir(make_backend(mode)).save(root / mode)
    return {mode: root / mode for mode in ("embedding", "text")}


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> tuple[Path, list[Record]]:
    """Ten labelled responses on disk."""
    folder = tmp_path_factory.mktemp("texts")
    records = []
    for i in range(10):
        (folder / f"{i}.txt").write_text(RESPONSES[i % 5])
        scores = {"positivity": 0.5 - i / 8, "brevity": -30.0 + 3 * i}
        prompt = ("how do i bake a cake?", "tell me about the sea.")[i % 2]
        records.append(Record(file=f"{i}.txt", captions=(prompt,), scores=scores))
    return folder, records
