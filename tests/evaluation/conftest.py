"""Reward spaces, a sampler and scorers without any model behind them."""

import numpy as np
import pytest
from PIL import Image

from ric_diffusion.data.medium import IMAGE
from ric_diffusion.rewards import RewardSpace


@pytest.fixture
def space():
    """Two rewards: bright has mean 100 and std 50, dark is its opposite on another scale."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=500)
    values = (values - values.mean()) / values.std()
    return RewardSpace.fit({"bright": 100 + 50 * values, "dark": -1 - 0.5 * values})


class Painter:
    """A sampler: a picture whose grey level says target, prompt and seed, with a black corner, as
    it would be blank without one. Remembers its calls."""

    medium = IMAGE

    def __init__(self, name="bright"):
        self.name = name
        self.calls = []

    def sample(self, prompts, targets, seeds):
        assert len(prompts) == len(targets) == len(seeds)
        self.calls.append(len(prompts))
        levels = [
            120 + 20 * target.get(self.name, 0.0) + 3 * len(prompt) + seed
            for prompt, target, seed in zip(prompts, targets, seeds, strict=True)
        ]
        pictures = [Image.new("L", (8, 8), round(level)) for level in levels]
        for picture in pictures:
            picture.putpixel((7, 7), 0)
        return pictures


@pytest.fixture
def painter():
    return Painter()


def bright(images, prompts):
    assert len(images) == len(prompts)
    return np.array([image.getpixel((0, 0)) for image in images], np.float32)


def dark(images, prompts):
    return -bright(images, prompts) / 100


@pytest.fixture
def fake_scorers():
    return [bright, dark]
