"""AttriCtrl-like: an encoder for each reward, on a network that stays as it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from baselines.attrictrl import attrictrl, train_value_encoder
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import to_targets
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer

LOOP = LoopConfig(
    steps=6, batch_size=4, learning_rate=1e-2, ema=0.5, log_every=10, checkpoint_minutes=0,
    precision="fp32", trackers=(),
)  # fmt: skip
ENCODER = "adapter/reward_encoder.safetensors"


@pytest.fixture(scope="module")
def train(model, pictures, space, config):
    folder, records = pictures

    def run(reward, out, loop=LOOP, **given):
        return train_value_encoder(
            model, reward, records, folder, space, config, loop, out, **given
        )

    return run


@pytest.fixture(scope="module")
def runs(train, space, tmp_path_factory):
    folder = tmp_path_factory.mktemp("attrictrl")
    costs = {name: train(name, folder / name) for name in space.names}
    assert all(cost.forwards == 6 * 4 * 3 for cost in costs.values())
    return {name: folder / name for name in space.names}


def test_each_reward_has_an_encoder_of_its_own_and_nothing_else(runs, space):
    for name, run in runs.items():
        adapter = Adapter.load(run / "adapter")
        assert adapter.space.names == (name,) and adapter.frozen
        assert adapter.encoder.time_width == 0
        files = {path.name for path in (run / "adapter").iterdir()}
        assert files == {
            "ric_adapter.json",
            "reward_encoder.safetensors",
            "manifest.json",
            "README.md",
        }


def test_together_they_are_asked_the_values_of_a_preference(
    runs, space, sampler, pixels, pipe, monkeypatch
):
    before = {name: p.clone() for name, p in pipe.unet.named_parameters()}
    method = attrictrl("attrictrl", sampler, space, runs, "linear")
    asked, sample = [], sampler.sample

    def seen(prompts, targets, seeds):
        asked.append((pipe.reward_space.names, targets))
        return sample(prompts, targets, seeds)

    monkeypatch.setattr(sampler, "sample", seen)
    preference = {"bright": 0.8, "warm": 0.2}
    one = pixels(method.draw(preference, ["pizza"], [3]))
    assert asked == [(space.names, [to_targets(preference, space, "linear")])]
    other = pixels(method.draw({"warm": 1.0}, ["pizza"], [3]))
    assert not np.array_equal(one, other) and pipe.adapter is None
    assert all(torch.equal(p, before[name]) for name, p in pipe.unet.named_parameters())


def test_resumed_it_is_the_same_run(train, runs, tmp_path, monkeypatch):
    real, calls = Trainer.step, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train("bright", tmp_path)
    train("bright", tmp_path, resume=True)
    one, other = (load_file(run / ENCODER) for run in (runs["bright"], tmp_path))
    assert all(torch.equal(one[key], other[key]) for key in one)
    with pytest.raises(InputError, match=r'other reward \("bright", now "warm"\)'):
        train("warm", tmp_path, resume=True)
    with pytest.raises(InputError, match=r"other loop\.learning_rate"):
        train("bright", tmp_path, replace(LOOP, learning_rate=1e-3), resume=True)
