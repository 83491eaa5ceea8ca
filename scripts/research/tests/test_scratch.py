"""Training a small Stable Diffusion from scratch: tokenizer, number reader, trainer."""

import json
import re

import numpy as np
import open_clip
import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import scratch as base
from ric_diffusion.conditioning.grammar import Grammar
from ric_diffusion.models.protocol import Batch
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer
from scratch import NumberReader, TextToImageTrainer
from support.model import SCHEDULER, TEXT, UNET, autoencoder
from support.seeds import assert_only_the_generator_decides

LABELS = ("colorfulness", "compressibility", "aesthetic")
CAPTIONS = [
    ["red apple", "apple", "fruit, healthy food"],
    ["octopus"],
    ["man's shoe", "sneakers: running-shoe"],
    ["crème brûlée", "日本 post office"],
]
WORDS = [word for each in CAPTIONS for text in each for word in text.split()]
TEXTS = ["a red apple, on a table.", "don't!", "4k photo of an astronaut riding a horse", "ROCKET"]

untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def clip():
    return base.clip_tokenizer(*base.clip_bpe(), 77)


@pytest.fixture(scope="module")
def pruned():
    every = [text for each in CAPTIONS for text in each]
    return base.pruned_tokenizer([*every, *LABELS, "0 1 2 3 4 5 6 7 8 9"], 32)


def test_the_full_tokenizer_gives_clips_ids(clip):
    assert len(clip) == 49408
    reference = open_clip.SimpleTokenizer()
    for text in [*TEXTS, *WORDS, "<colorfulness> -1.5"]:
        assert clip(text).input_ids == [49406, *reference.encode(text), 49407]


def test_words_that_are_covered_are_split_as_clip_splits_them(clip, pruned):
    assert len(pruned) < len(clip) / 40
    for word in [*WORDS, *LABELS, *"0123456789"]:
        assert pruned.tokenize(word) == clip.tokenize(word)
    assert pruned.tokenize("octopus") == ["octopus</w>"]


@untimed
@given(st.lists(st.sampled_from([*WORDS, *LABELS]), max_size=6).map(" ".join))
def test_so_are_texts_of_them(clip, pruned, text):
    assert pruned.tokenize(text) == clip.tokenize(text)


@untimed
@given(st.text(max_size=30).filter(lambda text: "<|" not in text))
def test_any_other_text_has_tokens_too(pruned, text):
    ids = pruned(text, add_special_tokens=False).input_ids
    assert pruned.eos_token_id not in ids  # it stands for the unknown as well
    assert ids or not text.strip()


@pytest.fixture(scope="module")
def reader(pruned):
    torch.manual_seed(0)
    return NumberReader(32, LABELS, pruned)


def test_drawn_texts_are_what_the_grammar_writes(reader, pruned):
    generator = seeded()
    texts = ["red apple", "", "octopus"] * 10
    ids, where, aims = reader.draw(texts, generator)
    assert ids.shape == (30, 32) and where.shape == aims.shape == (30, 3)
    grammar, seen = Grammar.words(LABELS), set()
    for row, text in enumerate(texts):
        line = ids[row].tolist()
        end = line.index(pruned.eos_token_id)
        assert line[0] == pruned.bos_token_id
        assert set(line[end:]) == {pruned.eos_token_id}
        spoken = {n: int(p) for n, p in zip(LABELS, where[row], strict=True) if p}
        targets = {n: float(v) for n, v in zip(LABELS, aims[row], strict=True) if n in spoken}
        assert 1 <= len(spoken) <= 3
        seen.add(frozenset(spoken))
        parts, start = [], 1 + len(pruned(text, add_special_tokens=False).input_ids)
        assert line[1:start] == pruned(text, add_special_tokens=False).input_ids
        for name in sorted(spoken, key=spoken.get):
            # From the end of what came before to the value's last token: one reward word.
            words = grammar.reward_words({name: targets[name]})
            found = line[start : spoken[name] + 1]
            minus_zero = words.replace(" 0.0", " -0.0")
            wanted = [pruned(w, add_special_tokens=False).input_ids for w in (words, minus_zero)]
            assert found in wanted
            last = pruned.convert_ids_to_tokens(line[spoken[name]])
            assert last == f"{abs(targets[name]):.1f}"[-1] + "</w>"
            start = spoken[name] + 1
            parts.append(name)
        assert start == end
        assert not aims[row][where[row] == 0].any()
    assert len(seen) == 7  # every subset but the empty one
    assert aims.abs().max() <= 3 and len(aims.unique()) > 20


def test_a_long_text_is_cut_and_the_values_never(reader, pruned):
    ids, where, aims = reader.draw(["red apple " * 30] * 20, seeded())
    assert where.max() <= 30
    for row in range(20):
        for position, aim in zip(where[row].tolist(), aims[row].tolist(), strict=True):
            if position:
                token = pruned.convert_ids_to_tokens(int(ids[row, position]))
                assert token == f"{abs(aim):.1f}"[-1] + "</w>"


def test_the_reading_loss_by_hand(reader):
    """Two values: read at their places, 0 for the other labels; what is absent costs nothing."""
    states = torch.zeros(1, 6, 32)
    where, aims = torch.tensor([[2, 0, 5]]), torch.tensor([[1.5, 0.0, -2.0]])
    head = torch.nn.Linear(32, 3)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    one = NumberReader(32, LABELS, reader.tokenizer)
    one.head = head
    assert one.loss(states, where, aims).item() == pytest.approx((1.5**2 + 2**2) / (2 * 3))
    with torch.no_grad():
        head.weight[:, :3] = torch.eye(3)
    states[0, 2, 0], states[0, 5, 2], states[0, 0] = 1.5, -2.0, 99.0
    assert one.loss(states, where, aims).item() == 0.0


def test_a_few_steps_teach_the_encoder_to_read(reader, pruned):
    torch.manual_seed(0)
    encoder = base.small_text_encoder(pruned, TEXT)
    test = reader.draw(["red apple"] * 64, seeded(9))

    def loss(drawn):
        ids, where, aims = drawn
        return reader.loss(encoder(ids).last_hidden_state, where, aims)

    with torch.no_grad():
        before = loss(test)
    parameters = [*encoder.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0)
    generator = seeded()
    for _ in range(60):
        loss(reader.draw(["red apple", "octopus"] * 16, generator)).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        assert loss(test) < 0.7 * before


UNET = UNET | {"sample_size": 4, "block_out_channels": (32, 32)}


def images(count=4):
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=seeded())


@pytest.fixture
def trainer():
    torch.manual_seed(0)
    vae = autoencoder(block_out_channels=(4, 4, 4, 8), sample_size=32).eval()
    return TextToImageTrainer(
        vae, images(), CAPTIONS, LABELS, text_encoder=TEXT, unet=UNET, scheduler=SCHEDULER
    )


def batch(seed=0, indices=(0, 1, 2, 3)):
    return Batch(indices=tuple(indices), generator=seeded(seed))


def test_latents_of_both_mirror_images_have_unit_variance(trainer):
    assert trainer.latents.shape == (4, 2, 4, 4, 4)
    assert trainer.latents.std().item() == pytest.approx(1.0, abs=1e-3)
    pixels = images().flip(-1)[2:3] / 127.5 - 1
    with torch.no_grad():
        mirrored = trainer.vae.encode(pixels).latent_dist.mean * trainer.vae.config.scaling_factor
    assert torch.allclose(trainer.latents[2, 1], mirrored[0], atol=1e-5)


def test_the_name_is_used_most_and_the_prompt_left_out_at_times(trainer):
    draws = torch.rand(3000, 3, generator=seeded()).tolist()
    found = [trainer.caption(0, draw) for draw in draws]
    fractions = {text: found.count(text) / len(found) for text in set(found)}
    name, *others = CAPTIONS[0]
    assert fractions[""] == pytest.approx(0.1, abs=0.03)
    assert fractions[name] == pytest.approx(0.9 * (0.6 + 0.4 / 3), abs=0.04)
    assert all(fractions[other] == pytest.approx(0.9 * 0.4 / 3, abs=0.03) for other in others)


def test_the_generator_alone_decides_the_loss(trainer):
    assert_only_the_generator_decides(lambda seed: trainer.loss(batch(seed)).item())


def test_text_encoder_and_unet_learn_and_then_the_unet_alone(trainer):
    trainer.loss(batch()).backward()
    everything = [*trainer.unet.parameters(), *trainer.text_encoder.parameters()]
    learned = {id(p) for p in trainer.named_parameters().values()}
    assert {id(p) for p in everything} < learned
    assert all(p.grad is not None for p in trainer.unet.parameters())
    assert sum(p.grad is not None for p in trainer.text_encoder.parameters()) > 10

    trainer.freeze_text()
    for p in everything:
        p.grad = None
    assert {id(p) for p in trainer.named_parameters().values()} == {
        id(p) for p in trainer.unet.parameters()
    }
    trainer.loss(batch()).backward()
    assert all(p.grad is None for p in trainer.text_encoder.parameters())
    assert all(p.grad is not None for p in trainer.unet.parameters())


def test_frozen_states_are_those_of_the_encoder(trainer, monkeypatch):
    seen = []
    inner = trainer._denoising

    def look(latents, context, generator):
        seen.append(context)
        return inner(latents, context, generator)

    monkeypatch.setattr(trainer, "_denoising", look)
    trainer.text_encoder.eval()
    trainer.loss(batch())
    trainer.freeze_text()
    trainer.loss(batch())
    assert torch.allclose(seen[0], seen[1], atol=1e-5)
    assert not torch.allclose(seen[0][0], seen[0][1], atol=1e-2)


def test_the_saved_folder_is_stock_float32_and_runs(trainer, tmp_path):
    Trainer(
        trainer,
        4,
        LoopConfig(precision="fp32", steps=2, batch_size=4),
        tmp_path / "run",
        digest="x",
    ).run()
    trainer.save(tmp_path / "pipeline")
    files = [p for p in (tmp_path / "pipeline").rglob("*") if p.is_file()]
    assert not [p for p in files if p.suffix in (".bin", ".pt", ".pkl")]
    assert base.megabytes(tmp_path / "pipeline") == sum(p.stat().st_size for p in files) / 1e6
    index = json.loads((tmp_path / "pipeline" / "model_index.json").read_text())
    assert not re.search("ric|RiC", json.dumps(index))

    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline", use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        assert {p.dtype for p in part.parameters()} == {torch.float32}
    assert pipe.tokenizer.model_max_length == 32
    assert pipe.tokenizer("octopus").input_ids == trainer.tokenizer("octopus").input_ids
    assert pipe.vae.config.scaling_factor == trainer.vae.config.scaling_factor
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert pipe.scheduler.config.clip_sample is False
    image = pipe("octopus", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (32, 32, 3) and np.isfinite(image).all()


def test_training_goes_on_in_full_precision_after_saving(trainer, tmp_path):
    trainer.save(tmp_path / "pipeline")
    assert {next(part.parameters()).dtype for part in (trainer.unet, trainer.vae)} == {
        torch.float32
    }


def test_pictures_of_a_captioned_folder(tmp_path):
    for name, size in (("a", (40, 20)), ("b", (16, 16))):
        Image.new("RGB", size, "red").save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"picture {name}")
    records, pixels = base.read_pictures(tmp_path, 16)
    assert [r.captions[0] for r in records] == ["picture a", "picture b"]
    assert pixels.shape == (2, 3, 16, 16) and pixels.dtype == torch.uint8
