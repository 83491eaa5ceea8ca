"""The CLIP that comes along: real weights, through open_clip's own loading."""

import hashlib
import json
import re
import shutil

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import scorers
from scorers.clip import BUNDLED

FOLDER = BUNDLED["emoji-clip"]
SHAPES = {
    "red circle": ("ellipse", (221, 46, 68)),
    "blue circle": ("ellipse", (85, 172, 238)),
    "green circle": ("ellipse", (120, 177, 89)),
    "yellow square": ("rectangle", (253, 203, 88)),
    "purple square": ("rectangle", (170, 142, 214)),
    "black large square": ("rectangle", (41, 47, 51)),
}


@pytest.fixture(scope="module")
def scorer():
    return scorers.load("clip_score:clip=emoji-clip", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def shapes():
    """A picture for each name, in sizes other than the network's."""
    images = []
    for side, (shape, colour) in enumerate(SHAPES.values(), 60):
        image = Image.new("RGB", (side, side), "white")
        getattr(ImageDraw.Draw(image), shape)((4, 4, side - 5, side - 5), fill=colour)
        images.append(image)
    return images


def table(scorer, images, prompts):
    """Score of every picture with every prompt, (N, M)."""
    pairs = [(image, prompt) for image in images for prompt in prompts]
    return scorer(*zip(*pairs, strict=True)).reshape(len(images), len(prompts))


def test_the_right_name_comes_first(scorer, shapes):
    scores = table(scorer, shapes, list(SHAPES))
    assert scores.argmax(axis=1).tolist() == list(range(len(SHAPES)))
    right = np.diag(scores)
    wrong = scores[~np.eye(len(SHAPES), dtype=bool)]
    assert right.min() > 30 and right.mean() > wrong.mean() + 20
    assert (table(scorer, shapes, ["octopus", "birthday cake"]) < right[:, None] - 10).all()


def test_as_open_clip_has_it(scorer, shapes):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{FOLDER}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{FOLDER}")
    with torch.no_grad():
        pixels = torch.stack([preprocess(image) for image in shapes])
        pictures = model.eval().encode_image(pixels, normalize=True)
        texts = model.encode_text(tokenizer(list(SHAPES)), normalize=True)
    expected = 100 * (pictures @ texts.T).clamp(min=0).numpy()
    np.testing.assert_allclose(table(scorer, shapes, list(SHAPES)), expected, atol=1e-3)


def test_batch_equals_one_by_one(scorer, shapes):
    names = list(SHAPES)
    one_by_one = [scorer([image], [name])[0] for image, name in zip(shapes, names, strict=True)]
    np.testing.assert_allclose(scorer(shapes, names), one_by_one, atol=1e-3)
    assert np.array_equal(scorer(shapes, names), scorer(shapes, names))


def test_temperature_and_cosines_are_those_of_a_trained_clip():
    with safe_open(FOLDER / "open_clip_model.safetensors", "pt") as file:
        scale = file.get_tensor("logit_scale").float().exp().item()
        assert {file.get_tensor(name).dtype for name in file.keys()} <= {  # noqa: SIM118
            torch.float16, torch.int64,
        }  # fmt: skip
    assert 5 < scale <= 100


def test_clip_iqa_works_on_it(shapes):
    iqa = scorers.load(
        "clip_iqa", positive="red circle", negative="blue circle", clip="emoji-clip", device="cpu"
    )
    red, blue, *_ = iqa(shapes)
    assert red > 0.9 and blue < 0.1


def test_fingerprint_and_options(scorer):
    assert scorer.options["clip"] == "emoji-clip"
    assert "clip-tokens-ced583e2@55e80f8c396b " in scorer.fingerprint
    assert scorers.load("clip_score", **scorer.options).fingerprint == scorer.fingerprint


def test_the_card_names_the_weights():
    card = (FOLDER / "README.md").read_text("utf-8")
    weights = (FOLDER / "open_clip_model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in re.findall(r"[0-9a-f]{64}", card)
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 8e6
    assert not [f for f in FOLDER.iterdir() if f.suffix not in (".json", ".md", ".safetensors")]


def test_a_folder_may_be_moved_and_is_known_by_what_it_holds(scorer, shapes, tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "mine")
    found = scorers.load("clip_score", clip=str(folder), device="cpu", precision="fp32")
    assert found.fingerprint == scorer.fingerprint
    assert np.array_equal(found(shapes, list(SHAPES)), scorer(shapes, list(SHAPES)))

    other = shutil.copytree(FOLDER, tmp_path / "other")
    plain = json.loads((other / "tokenizer.json").read_text("utf-8"))
    plain["model"]["merges"] = plain["model"]["merges"][:100]
    (other / "tokenizer.json").write_text(json.dumps(plain), "utf-8")
    reads = scorers.load("clip_score", clip=str(other), device="cpu", precision="fp32")
    assert reads.fingerprint != scorer.fingerprint


def refused(**options):
    with pytest.raises(scorers.ScorerError) as caught:
        scorers.load("clip_score", device="cpu", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_folders_are_one_line(tmp_path):
    assert "leave clip_weights out" in refused(clip="emoji-clip", clip_weights="laion2b")
    assert "did you mean 'emoji-clip'" in refused(clip="emojiclip")
    folder = shutil.copytree(FOLDER, tmp_path / "mine")
    state = load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    assert "has no open_clip_model.safetensors" in refused(clip=str(folder))
    del state["visual.bn1.weight"]
    save_file(state, folder / "open_clip_model.safetensors")
    assert "is no set of weights" in refused(clip=str(folder))


def test_code_beside_a_folders_tokenizer_is_not_run(tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "mine")
    config = json.loads((folder / "open_clip_config.json").read_text("utf-8"))
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    (folder / "open_clip_config.json").write_text(json.dumps(config), "utf-8")
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    tokenizer |= {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": [None, "mine.Mine"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), "utf-8")
    trap = tmp_path / "trap"
    (folder / "mine.py").write_text(f"open({str(trap)!r}, 'w')\nclass Mine: pass\n", "utf-8")
    message = refused(clip=str(folder))
    assert "mine" in message and not trap.exists()
