"""emoji-clip: what it is shown, its loss, and the folder that open_clip and the scorers load."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from emoji_clip import ClipTrainer, contrastive_loss, drawn_caption, retrieval, roughened
from ric_diffusion.data.images import save_png
from ric_diffusion.io import config
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_text
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer
from scorers.clip import DEFAULT_WEIGHTS, load_clip
from support.processes import HOME
from train_emoji_clip import ClipConfig, train

SHIPPED = HOME / "scripts" / "research" / "configs" / "emoji-clip.yaml"
LOOP = LoopConfig(steps=4, batch_size=6, learning_rate=1e-2, ema=0.5, precision="fp32")
MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 4, "head_width": 32},
    "text_cfg": {"context_length": 12, "width": 16, "heads": 2, "layers": 1},
}
CAPTIONS = (
    ("red disc", "disc", "red disc, round, ball"),
    ("blue disc",),
    ("grey",),
    ("sky, high",),
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures():
    colours = torch.tensor([[255, 0, 0], [0, 0, 255], [128, 128, 128], [160, 200, 255]])
    images = torch.full((4, 3, 32, 32), 255, dtype=torch.uint8)
    images[:, :, 8:24, 8:24] = colours[:, :, None, None].to(torch.uint8)
    return images


def small():
    torch.manual_seed(0)
    return ClipTrainer(MODEL, pictures(), CAPTIONS, [c[0] for c in CAPTIONS])


def test_roughened_pictures_keep_their_colours():
    images = pictures().repeat_interleave(8, dim=0)
    seen = roughened(images, generator())
    assert (seen.shape, seen.dtype) == (images.shape, torch.float32)
    assert seen.min() >= 0 and seen.max() <= 1
    assert (seen - images / 255).abs().mean(dim=(1, 2, 3)).min() > 0.005  # each is another picture
    ground = seen[:, :, :3, :3].mean(dim=(2, 3))
    assert (ground > 0.8).all()
    ink = seen[:, :, 12:20, 12:20].mean(dim=(2, 3)).view(4, 8, 3).median(dim=1).values
    assert (ink - pictures()[:, :, 16, 16] / 255).abs().max() < 0.12
    assert torch.equal(seen, roughened(images, generator()))
    assert not torch.equal(seen, roughened(images, generator(1)))


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        ([0.1, 0.9, 0, 0, 0], "fog"),
        ([0.6, 0.4, 0, 0, 0], "mist"),
        ([0.6, 0.9, 0, 0, 0], "fog, weather, cloud, grey"),
        ([0.9, 0, 0.1, 0.9, 0.1], "weather, grey"),
        ([0.9, 0, 0.9, 0.1, 0.9], "fog, cloud"),  # a keyword alone would be half the pictures'
        ([0.9, 0, 0.9, 0.9, 0.9], "fog"),
    ],
)
def test_captions_are_names_aliases_and_keywords(draws, expected):
    assert drawn_caption(["fog", "mist", "fog, weather, cloud, grey"], draws) == expected
    assert drawn_caption(["fog"], draws) == "fog"


def test_the_loss_is_info_nce_without_negatives_of_the_same_name():
    pictures, texts = torch.nn.functional.normalize(
        torch.randn(2, 4, 5, generator=generator()), dim=-1
    )
    names, scale = [3, 7, 3, 1], 4.0

    def cross_entropy(own, others):
        return -np.log(np.exp(own) / (np.exp(own) + np.exp(others).sum()))

    cosines, expected = scale * (pictures @ texts.T).numpy(), []
    for i in range(4):
        others = [j for j in range(4) if names[j] != names[i]]
        expected.append(cross_entropy(cosines[i, i], cosines[i, others]))
        expected.append(cross_entropy(cosines[i, i], cosines[others, i]))
    found = contrastive_loss(pictures, texts, torch.tensor(scale), names)
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_retrieval_counts_distractors_that_come_first():
    vectors = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.6, 0.8]}
    encoder = SimpleNamespace(
        encode_texts=lambda names: torch.tensor([vectors[name] for name in names]),
        encode_images=lambda images: torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]),
    )
    found = retrieval(encoder, [None] * 3, ["a", "b", "a"], 1, seed=0)
    assert (found.found, found.ranked) == (1, 1)
    found = retrieval(encoder, [None] * 3, ["a", "b", "c"], 2, seed=0)
    assert (found.found, found.ranked) == (1, 1)  # cos 0.96 with its own, 0.8 and 0.6 with others
    found = retrieval(encoder, [None] * 3, ["b", "c", "a"], 2, seed=0)
    # cosines with a, b, c: (1, 0, .6), (0, 1, .8), (.8, .6, .96); the second is behind b alone
    assert (found.found, found.ranked) == (0, pytest.approx(2 / 6))
    assert (found.right, found.wrong) == (pytest.approx(1.6 / 3), pytest.approx(4.16 / 6))
    with pytest.raises(ValueError, match="3 distractors are more than 3 names"):
        retrieval(encoder, [None] * 3, ["a", "b", "c"], 3, seed=0)


def test_training_goes_on_bit_for_bit_where_it_stopped(tmp_path):
    whole = small()
    Trainer(whole, 4, LOOP, tmp_path / "whole", digest="x").run()
    stopped = Trainer(small(), 4, LOOP, tmp_path / "stopped", digest="x")
    stopped.step()
    stopped.save()
    again = small()
    Trainer(again, 4, LOOP, tmp_path / "stopped", digest="x", resume=True).run()
    for trainer in (whole, again):
        trainer.settle(6, generator())
    expected, found = whole.model.state_dict(), again.model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert "visual.bn1.running_mean" in expected


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emoji")
    for split, rows in {"train": (0, 1), "other": (2, 3), "held-out": ()}.items():
        lines = []
        for row in rows:
            save_png(
                folder / split / f"{row}.png",
                Image.fromarray(pictures()[row].permute(1, 2, 0).numpy()),
            )
            captions = '", "'.join(CAPTIONS[row])
            lines.append(f'{{"file_name": "{row}.png", "captions": ["{captions}"]}}\n')
        write_text(folder / split / "metadata.jsonl", "".join(lines))
    return folder


@pytest.fixture(scope="module")
def settings():
    return replace(config.load_yaml(SHIPPED, ClipConfig), model=MODEL, loop=LOOP)


def test_open_clip_and_the_scorers_load_what_was_trained(data, settings, tmp_path):
    folder = train(settings, data, tmp_path / "run")
    assert sorted(file.name for file in folder.iterdir()) == [
        "open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    image = Image.open(data / "train" / "0.png")
    names = ["red disc", "blue disc"]
    with torch.no_grad():
        picture = model.eval().encode_image(preprocess(image)[None], normalize=True)
        texts = model.encode_text(tokenizer(names), normalize=True)
    encoder = load_clip("clip_score", str(folder), DEFAULT_WEIGHTS, device="cpu")
    cosines = encoder.cosines([image] * 2, names)
    np.testing.assert_allclose(cosines, (picture @ texts.T)[0], atol=1e-5)
    assert cosines[0] != cosines[1]
    # A second run finds everything done, and another one is refused.
    weights = (folder / "open_clip_model.safetensors").read_bytes()
    assert train(settings, data, tmp_path / "run") == folder
    assert (folder / "open_clip_model.safetensors").read_bytes() == weights
    with pytest.raises(InputError, match=r"holds a run with other loop\.steps"):
        train(replace(settings, loop=replace(LOOP, steps=5)), data, tmp_path / "run")
