"""Phases of training from scratch: each is a run that depends on those before it."""

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from ric_diffusion.io import config
from ric_diffusion.io.errors import InputError
from ric_diffusion.training.loop import LoopConfig
from support.processes import HOME
from train_emoji_base import BaseConfig, TimedConfig, run_phase

IMAGES = torch.zeros(8, 3, 4, 4, dtype=torch.uint8)
LOOP = LoopConfig(steps=3, batch_size=4, learning_rate=0.1, ema=0.0, precision="fp32")


class Towards:
    """Three numbers that are trained to be 1."""

    buckets = None

    def __init__(self):
        self.numbers = torch.nn.Parameter(torch.zeros(3))
        self.steps = 0

    def named_parameters(self):
        return {"numbers": self.numbers}

    def loss(self, batch):
        self.steps += 1
        return (self.numbers - 1).square().mean()


def test_a_phase_is_trained_once(tmp_path):
    first = Towards()
    identity = run_phase(first, IMAGES, LOOP, tmp_path / "text", {"seed": 0})
    assert first.steps == 3 and (first.numbers > 0).all()
    assert identity["seed"] == 0 and identity["text_loop"]["steps"] == 3
    again = Towards()
    assert run_phase(again, IMAGES, LOOP, tmp_path / "text", {"seed": 0}) == identity
    assert again.steps == 0 and torch.equal(again.numbers, first.numbers)


def test_a_phase_is_not_resumed_after_another_one(tmp_path):
    identity = run_phase(Towards(), IMAGES, LOOP, tmp_path / "text", {"seed": 0})
    run_phase(Towards(), IMAGES, LOOP, tmp_path / "unet", identity)
    longer = replace(LOOP, steps=4)
    with pytest.raises(InputError, match=r"text: holds a run with other text_loop\.steps \(3, now"):
        run_phase(Towards(), IMAGES, longer, tmp_path / "text", {"seed": 0})
    other = run_phase(Towards(), IMAGES, longer, tmp_path / "other" / "text", {"seed": 0})
    with pytest.raises(InputError, match=r"unet: holds a run with other text_loop\.steps \(3, now"):
        run_phase(Towards(), IMAGES, LOOP, tmp_path / "unet", other)


CONFIGS = HOME / "scripts" / "research" / "configs"


def test_its_own_config_is_read():
    settings = config.load_yaml(CONFIGS / "emoji-base.yaml", BaseConfig)
    assert settings.unet["cross_attention_dim"] == settings.text_encoder["hidden_size"]


def test_the_config_of_emoji_128_fits_together_and_into_its_size():
    settings = config.load_yaml(CONFIGS / "emoji-128.yaml", TimedConfig)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**settings.unet)
        vae = AutoencoderKL(**settings.autoencoder)
        states = torch.empty(1, 40, settings.text_encoder["hidden_size"])
        latents = vae.encode(torch.empty(1, 3, 128, 128)).latent_dist.mode()
        predicted = unet(latents, torch.zeros(1), encoder_hidden_states=states).sample
        assert predicted.shape == (1, 8, 16, 16)
        assert vae.decode(predicted).sample.shape == (1, 3, 128, 128)
    parameters = [sum(p.numel() for p in each.parameters()) for each in (unet, vae)]
    assert parameters[0] <= 30e6
    assert 2 * sum(parameters) < 53e6  # bytes; with the text encoder's 11.3e6 they travel in 64 MiB
