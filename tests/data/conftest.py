"""Small captioned folders and a scorer that counts its calls."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scorers


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """A noisy picture of its own for each seed."""

    def make(seed: int, size: tuple[int, int] = (16, 12)) -> Image.Image:
        rng = np.random.default_rng(seed)
        high = 40 + 20 * (seed % 10)
        return Image.fromarray(rng.integers(0, high, (size[1], size[0], 3), dtype=np.uint8))

    return make


@pytest.fixture
def folder(tmp_path: Path, picture: Callable[..., Image.Image]) -> Path:
    """Ten pictures with captions beside them, three of them in a subfolder."""
    root = tmp_path / "pictures"
    (root / "more").mkdir(parents=True)
    for seed in range(10):
        path = root / ("more" if seed > 6 else "") / f"{seed}.png"
        picture(seed).save(path)
        path.with_suffix(".txt").write_text(f"picture {seed}\n")
    return root


class Brightness(scorers.BaseScorer):
    """Mean grey level; `seen` has the prompts it was asked about, `calls` counts."""

    unit = "level"

    def __init__(
        self, name: str = "brightness", fingerprint: str = "brightness-1", gain: float = 1.0
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.options = {"gain": gain}
        self.seen: list[str] = []
        self.calls = 0

    def _score(self, images, prompts):
        self.calls += 1
        self.seen += prompts
        return [self.options["gain"] * np.mean(image) for image in images]


@pytest.fixture
def make_scorer() -> type[Brightness]:
    return Brightness
