"""The text encoder learns to carry numbers to the end of a text, and nothing else changes."""

import json
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline

import scratch as base
from carry import LENGTH, CarryTrainer
from ric_diffusion.io import config
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.protocol import Batch, weights_digest
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer
from support.model import SCHEDULER, TEXT, UNET, autoencoder
from support.processes import HOME
from support.seeds import assert_only_the_generator_decides
from train_emoji_base import BaseConfig, carry

LABELS = ("colorfulness", "compressibility", "brightness")
LONG = "man's shoe, sneakers, running shoe, athletic shoe, footwear, to run in"
TEXTS = ["red apple", "octopus", "crab", LONG]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(seed=0):
    return Batch(indices=(0, 1, 2, 3), generator=seeded(seed))


@pytest.fixture(scope="module")
def tokenizer():
    return base.pruned_tokenizer([*TEXTS, *LABELS, "0 1 2 3 4 5 6 7 8 9"], 40)


@pytest.fixture
def trainer(tokenizer):
    torch.manual_seed(0)
    settings = TEXT | {"max_position_embeddings": 40}
    return CarryTrainer(base.small_text_encoder(tokenizer, settings), tokenizer, TEXTS, LABELS, 0)


def states(trainer, texts, encoder=None):
    with torch.no_grad():
        return (encoder or trainer.text_encoder)(
            base.padded_ids(trainer.tokenizer, texts)
        ).last_hidden_state


def test_directions_are_orthonormal_and_the_seeds(tokenizer, trainer):
    assert torch.allclose(trainer.directions @ trainer.directions.T, torch.eye(3), atol=1e-5)
    encoder = trainer.text_encoder
    same, other = (CarryTrainer(encoder, tokenizer, TEXTS, LABELS, seed) for seed in (0, 1))
    assert torch.equal(same.directions, trainer.directions)
    assert not torch.equal(other.directions, trainer.directions)


def test_only_texts_with_room_for_it_are_given_numbers(trainer):
    assert trainer.short == ["red apple", "octopus", "crab"]
    with pytest.raises(InputError, match=r"^no caption leaves room for 3 numbers"):
        CarryTrainer(trainer.text_encoder, trainer.tokenizer, [LONG], LABELS, 0)


def test_the_generator_alone_decides_the_loss(trainer):
    assert_only_the_generator_decides(lambda seed: trainer.loss(batch(seed)).item())


class Ideal:
    """In place of the text encoder: says a share of every value, and all else as before."""

    def __init__(self, trainer, share):
        self.trainer, self.share, self.draw = trainer, share, trainer.reader.draw

    def drawn(self, texts, generator):
        ids, where, values = self.draw(texts, generator)
        place = torch.arange(ids.shape[1])[None, :, None]
        said = (where[:, None] > 0) & (place >= where[:, None])
        aims = LENGTH * (said * values[:, None]) @ self.trainer.directions
        self.words = states(self.trainer, texts, self.trainer.before) + self.share * aims
        return ids, where, values

    def __call__(self, ids):
        plain = self.trainer.before(ids[: len(ids) - len(self.words)]).last_hidden_state
        return SimpleNamespace(last_hidden_state=torch.cat([plain, self.words]))


def test_an_encoder_that_carries_numbers_has_no_loss(trainer, monkeypatch):
    """And one that does not is charged with the values, squared."""

    def loss(share):
        ideal = Ideal(trainer, share)
        with monkeypatch.context() as patch:
            patch.setattr(trainer.reader, "draw", ideal.drawn)
            patch.setattr(trainer, "text_encoder", ideal)
            return trainer.loss(batch(3)).item()

    assert loss(1.0) == pytest.approx(0.0, abs=1e-9)
    assert loss(0.0) > 0.1
    assert loss(0.0) == pytest.approx(4 * loss(0.5), rel=1e-4)


def test_a_few_steps_carry_numbers_and_keep_the_rest(trainer, tmp_path):
    loop = LoopConfig(steps=150, batch_size=16, learning_rate=3e-3, precision="fp32", ema=0.0)
    trainer.texts = TEXTS * 16
    Trainer(trainer, 64, loop, tmp_path / "run", digest="x").run()

    def value(text):  # of colorfulness, at the text's last token of all
        moved = states(trainer, [text])[0, -1] - states(trainer, ["crab"], trainer.before)[0, -1]
        return float(moved @ trainer.directions[0]) / LENGTH

    low, high = (value(f"crab <colorfulness> {v}") for v in ("-2.5", "2.5"))
    assert high - low > 1.5
    drift = (states(trainer, TEXTS) - states(trainer, TEXTS, trainer.before)).square().mean()
    assert drift < 0.02 * states(trainer, TEXTS, trainer.before).square().mean()


def test_a_pipeline_is_gone_on_with(tokenizer, tmp_path):
    torch.manual_seed(0)
    model = base.TextToImageTrainer(
        autoencoder(block_out_channels=(4, 4, 4, 8), sample_size=32).eval(),
        torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=seeded()),
        [["red apple"], ["octopus"], ["crab"]],
        LABELS,
        text_encoder=TEXT | {"max_position_embeddings": 40},
        unet=UNET | {"sample_size": 4, "block_out_channels": (32, 32)},
        scheduler=SCHEDULER,
    )
    start, out = tmp_path / "start", tmp_path / "out"
    model.save(start)
    (start / "ric_adapter").mkdir()
    settings = config.load_yaml(
        HOME / "scripts" / "research" / "configs" / "emoji-base.yaml", BaseConfig
    )
    loop = LoopConfig(steps=2, batch_size=4, precision="fp32")
    settings = config.from_dict(
        config.to_dict(settings)
        | dict.fromkeys(("carry_loop", "keep_loop"), config.to_dict(loop))
        | {"labels": LABELS},
        BaseConfig,
        "",
    )
    carry(settings, ["crab", "octopus", "crab"], out, start)
    found = StableDiffusionPipeline.from_pretrained(out / "pipeline", use_safetensors=True)
    stock = StableDiffusionPipeline.from_pretrained(start, use_safetensors=True)
    for part in ("unet", "vae"):
        assert weights_digest(getattr(found, part)) == weights_digest(getattr(stock, part))
    assert weights_digest(found.text_encoder) != weights_digest(stock.text_encoder)
    assert not (out / "pipeline" / "ric_adapter").exists()
    again = (out / "pipeline" / "text_encoder" / "model.safetensors").read_bytes()
    carry(settings, ["crab", "octopus", "crab"], out, start)  # is there already
    assert (out / "pipeline" / "text_encoder" / "model.safetensors").read_bytes() == again
    with pytest.raises(InputError, match="texts"):
        carry(settings, ["crab", "lobster"], out, start)
    identity = json.loads((out / "keep" / "run.json").read_text())["identity"]
    assert identity["carry_loop"] == identity["keep_loop"] and identity["seed"] == 0
