"""ric generate: the pictures, and the metadata that each one carries."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from ric_diffusion import RewardSpace
from ric_diffusion.data.scoring import load_scorers, scores_of
from ric_diffusion.rewards import to_targets
from support.numbered import sample_file

TARGETS = ["--targets", "compressibility=1.5", "colorfulness=-0.5"]


def opened(path):
    """Pixels and text chunks; what is JSON is read as such."""
    with Image.open(path) as image:
        image.load()
        metadata = dict(image.text)
        for key in metadata.keys() & {"targets", "scores", "obtained", "seed", "refinement"}:
            metadata[key] = json.loads(metadata[key])
        return np.array(image), metadata


@pytest.fixture
def space(root):
    about = json.loads((root / "embedding" / "adapter" / "ric_adapter.json").read_text())
    return RewardSpace.from_dict(about["reward_space"])


@pytest.fixture
def generate(ric, model, tmp_path):
    """generate(*args): pixels and metadata of the picture of seed 0."""

    def run(*args, seed=0, model=model):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        done = ric("generate", *model, "--prompt", "red apple", "--seed", seed, "--out", out, *args)
        assert done.code == 0, done.err
        return opened(sample_file(out, seed))

    return run


def test_metadata(ric, model, space, root, tmp_path):
    prompt = "Ein roter Äpfel 🍎"
    args = ["--prompt", prompt, "--seed", 3, *TARGETS, "--out", tmp_path]
    done = ric("generate", *model, *args)
    assert done.code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["0001-ein-roter-apfel-seed3.png"]
    pixels, metadata = opened(sample_file(tmp_path, 3))
    assert pixels.shape == (64, 64, 3)
    assert metadata["prompt"] == prompt
    assert metadata["seed"] == 3
    assert metadata["model"] == str(root / "model")
    assert metadata["targets"] == {"compressibility": 1.5, "colorfulness": -0.5}
    # The scores are those of the picture in the file.
    scores = scores_of([Image.open(sample_file(tmp_path, 3))], [""], load_scorers(space))
    assert [metadata["scores"][name] for name in space.names] == pytest.approx(scores[0].tolist())
    z = space.normalize(scores)[0]
    assert [metadata["obtained"][name] for name in space.names] == pytest.approx(z.tolist())
    shown = " ".join(f"{n}={v:+.2f}" for n, v in zip(space.names, z, strict=True))
    assert done.out == f"{sample_file(tmp_path, 3)}  {shown}\n"


def test_same_seed_in_another_process(ric_process, generate, model, tmp_path):
    out = tmp_path / "process"
    args = ["--prompt", "red apple", "--seed", 5, "--count", 2, *TARGETS, "--out", out]
    done = ric_process("generate", *model, *args)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    names = sorted(path.name for path in out.iterdir())
    assert names == ["0001-red-apple-seed5.png", "0002-red-apple-seed6.png"]
    for seed in (5, 6):
        pixels, metadata = generate(*TARGETS, seed=seed)
        others, other_metadata = opened(sample_file(out, seed))
        assert np.array_equal(pixels, others)
        assert metadata == other_metadata
    assert not np.array_equal(opened(sample_file(out, 5))[0], opened(sample_file(out, 6))[0])


def test_what_is_asked_changes_the_picture(generate):
    auto, metadata = generate()
    assert metadata["targets"] == {}
    one, metadata = generate("--targets", "compressibility=2")
    assert metadata["targets"] == {"compressibility": 2.0}
    assert not np.array_equal(auto, one)
    steered, _ = generate(
        "--targets", "compressibility=2", "--negative-targets", "compressibility=-2"
    )
    assert not np.array_equal(one, steered)
    unwanted, _ = generate("--targets", "compressibility=2", "--negative-prompt", "pizza")
    assert not np.array_equal(one, unwanted)


def test_names_over_several_options(generate):
    apart, metadata = generate("--targets", "compressibility=1.5", "--targets", "colorfulness=-0.5")
    assert metadata["targets"] == {"compressibility": 1.5, "colorfulness": -0.5}
    assert np.array_equal(apart, generate(*TARGETS)[0])


@pytest.mark.parametrize("mapping", [None, "linf"])
def test_preference_becomes_targets(generate, space, mapping):
    weights = {"compressibility": 0.3, "colorfulness": 0.7}
    words = [f"{name}={weight}" for name, weight in weights.items()]
    chosen = ["--mapping", mapping] if mapping else []
    _, metadata = generate("--preference", *words, *chosen)
    assert metadata["targets"] == pytest.approx(to_targets(weights, space, mapping or "front"))


def test_refined(ric, model, tmp_path):
    """The tiny model hardly knows its targets: how near it came is told, in the picture too."""
    asked = ["--prompt", "red apple", "--targets", "colorfulness=0.5", "--steps", 1]
    done = ric("generate", *model, *asked, "--refine", 2, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    _, metadata = opened(sample_file(tmp_path / "out"))
    found = metadata["refinement"]
    assert metadata["targets"] == {"colorfulness": 0.5}
    assert found["distance"] == pytest.approx(abs(metadata["obtained"]["colorfulness"] - 0.5))
    passes = found["passes"]
    assert done.out.endswith(f"  refined in {passes} pass{'es' * (passes != 1)}\n")
    assert found["reached"] is (found["distance"] <= 0.05)
    assert ("not within 0.05 z" in done.err) is not found["reached"]
    ric("generate", *model, *asked, "--out", tmp_path / "once")
    once = opened(sample_file(tmp_path / "once"))[1]
    assert found["distance"] <= abs(once["obtained"]["colorfulness"] - 0.5)


def test_text_mode_tells_what_the_words_say(generate, root):
    text = ["--model", root / "model", "--adapter", root / "text" / "adapter"]
    pixels, metadata = generate("--targets", "compressibility=1.26", model=text)
    assert metadata["targets"] == {"compressibility": 1.3}
    assert np.array_equal(pixels, generate("--targets", "compressibility=1.3", model=text)[0])
    assert not np.array_equal(pixels, generate("--targets", "compressibility=-1", model=text)[0])


def test_steps_and_scale_are_the_adapters_unless_given(generate):
    plain, _ = generate(*TARGETS)
    same, _ = generate(*TARGETS, "--steps", 3, "--guidance-scale", 3.0)
    assert np.array_equal(plain, same)
    assert not np.array_equal(plain, generate(*TARGETS, "--steps", 4)[0])
    assert not np.array_equal(plain, generate(*TARGETS, "--guidance-scale", 5)[0])
    assert not np.array_equal(plain, generate(*TARGETS, "--contrast", 1)[0])


def test_without_adapter_it_is_the_stock_pipeline(generate, root):
    settings = ["--steps", 3, "--guidance-scale", 4]
    pixels, metadata = generate(*settings, model=["--model", root / "model"])
    assert metadata["targets"] == {}
    assert not metadata.keys() & {"scores", "obtained"}
    stock = StableDiffusionPipeline.from_pretrained(root / "model", use_safetensors=True)
    stock.set_progress_bar_config(disable=True)
    image = stock(
        "red apple",
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert np.array_equal(pixels, np.array(image))


def test_no_picture_is_ever_replaced(ric, model, tmp_path):
    """The README's own lines one after the other; the first picture was gone."""
    for name in ("0.png", "0001-red-apple-seed0.png", "other"):
        (tmp_path / name).write_bytes(b"old")
    for prompt in ("red apple", "red apple", "pizza"):
        args = ["--prompt", prompt, "--steps", 1, "--out", tmp_path]
        assert ric("generate", *model, *args).code == 0
    new = [f"0002-{RED}", f"0003-{RED}", "0004-pizza-seed0.png"]
    names = ["0.png", f"0001-{RED}", *new, "other"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [opened(tmp_path / name)[1]["prompt"] for name in new] == ["red apple"] * 2 + ["pizza"]
    assert all((tmp_path / name).read_bytes() == b"old" for name in ("0.png", f"0001-{RED}"))


def test_several_prompts(ric, model, tmp_path):
    (tmp_path / "prompts.txt").write_text("# two\npizza\nred apple\n")
    args = ["--prompts", tmp_path / "prompts.txt", "--seed", 4, "--count", 2, "--steps", 1]
    done = ric("generate", *model, *args, "--width", 48, "--height", 32, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "0001-pizza-seed4.png",
        "0002-pizza-seed5.png",
        "0003-red-apple-seed4.png",
        "0004-red-apple-seed5.png",
    ]
    pixels, metadata = opened(tmp_path / "out" / "0004-red-apple-seed5.png")
    assert pixels.shape == (32, 48, 3) and metadata["prompt"] == "red apple"


RED = "red-apple-seed0.png"
BAD = {
    "prompt: give one, or prompts": ["--out", "o"],
    "nowhere.txt: no such file": ["--prompts", "nowhere.txt"],
    "not allowed with argument": ["--prompt", "x", "--prompts", "a_file"],
    "--like a_file: says nothing of how it was made": ["--like", "a_file"],
    "--like gone.png: no such file": ["--like", "gone.png"],
    "--init-image gone.png: no such file": ["--prompt", "x", "--init-image", "gone.png"],
    "--init-image a_file: not a picture": ["--prompt", "x", "--init-image", "a_file"],
    "--strength: says how much of init_image": ["--prompt", "x", "--strength", "0.5"],
    "--strength 1.5: give a number above 0": ["--prompt", "x", "--strength", "1.5"],
    "--device nonsense: not here": ["--prompt", "x", "--device", "nonsense"],
    "width is 50; give": ["--prompt", "x", "--width", "50"],
}


@pytest.mark.parametrize("said", BAD)
def test_what_generate_refuses(refused, said):
    args = BAD[said] if "--like" in BAD[said] else ["--model", "{root}/model", *BAD[said]]
    refused(said, "generate", *args)
