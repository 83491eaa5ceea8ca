"""ric sweep: sweep.json and grid.png."""

import json

import numpy as np
import pytest
from PIL import Image, ImageFont

from ric_diffusion import RewardSpace
from ric_diffusion.evaluation.grid import target_line
from ric_diffusion.evaluation.report.sheet import draw_sheet
from ric_diffusion.rewards import to_targets

REWARDS = ["compressibility", "colorfulness"]


@pytest.fixture
def space(root):
    about = json.loads((root / "embedding" / "adapter" / "ric_adapter.json").read_text())
    return RewardSpace.from_dict(about["reward_space"])


@pytest.fixture
def sweep(ric, model, tmp_path):
    """sweep(*args): sweep.json, the sheet and what was printed."""

    def run(*args, model=model, prompt="red apple"):
        out = tmp_path / "sweep"
        done = ric("sweep", *model, "--prompt", prompt, "--seed", 2, "--out", out, *args)
        assert done.code == 0, done.err
        assert done.out == f"{out / 'grid.png'}\n"
        assert sorted(path.name for path in out.iterdir()) == ["grid.png", "sweep.json"]
        with Image.open(out / "grid.png") as sheet:
            sheet.load()
        return json.loads((out / "sweep.json").read_text()), sheet

    return run


def check_obtained(points, space):
    for point in points:
        assert list(point["scores"]) == list(point["obtained"]) == REWARDS
        z = space.normalize([[point["scores"][name] for name in REWARDS]])[0]
        assert list(point["obtained"].values()) == pytest.approx(z.tolist())


def test_preferences(sweep, space, root):
    metadata, sheet = sweep("--points", 11)
    assert {key: metadata[key] for key in ("model", "prompt", "seed", "units")} == {
        "model": str(root / "model"),
        "prompt": "red apple",
        "seed": 2,
        "units": {"compressibility": "kB", "colorfulness": "M3"},
    }
    points = metadata["points"]
    assert len(points) == 11
    weights = [point["preference"] for point in points]
    assert [w["compressibility"] for w in weights] == pytest.approx(np.linspace(1, 0, 11))
    assert [w["colorfulness"] for w in weights] == pytest.approx(np.linspace(0, 1, 11))
    for point in points:
        assert point["targets"] == pytest.approx(to_targets(point["preference"], space, "front"))
    check_obtained(points, space)
    tiles = [[Image.new("RGB", (64, 64))] * 11]
    captions = [["compressibility", "+0.0 » +0.0", "colorfulness", "+0.0 » +0.0"]] * 11
    assert sheet.size == draw_sheet(tiles, title="red apple · seed 2", captions=captions).size


def test_pictures_are_those_of_generate(sweep, ric, model, tmp_path):
    metadata, sheet = sweep("--points", 2)
    targets = [f"{name}={value}" for name, value in metadata["points"][1]["targets"].items()]
    args = ["--prompt", "red apple", "--seed", 2, "--targets", *targets]
    assert ric("generate", *model, *args, "--out", tmp_path).code == 0
    with Image.open(tmp_path / "2.png") as image:
        # Another batch size rounds differently: a pixel by one, a JPEG by a few bytes.
        scores = pytest.approx(metadata["points"][1]["scores"], abs=0.01)
        assert json.loads(image.text["scores"]) == scores
        tile = image.resize((128, 128), Image.Resampling.BICUBIC)
    left, top = 12 + 136, 12 + 22 + 8
    shown = sheet.crop((left, top, left + 128, top + 128))
    difference = np.array(shown).astype(int) - np.array(tile)
    assert np.abs(difference).max() <= 2  # another batch size rounds differently


def test_mapping(sweep, space):
    metadata, _ = sweep("--points", 3, "--mapping", "linear")
    for point in metadata["points"]:
        assert point["targets"] == pytest.approx(to_targets(point["preference"], space, "linear"))


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_along_one_reward(sweep, space, root, mode):
    chosen = ["--model", root / "model", "--adapter", root / mode / "adapter"]
    metadata, _ = sweep("--points", 4, "--along", "colorfulness", "--steps", 2, model=chosen)
    targets = [point["targets"] for point in metadata["points"]]
    assert targets == target_line(space, "colorfulness", 4)
    assert not any("preference" in point for point in metadata["points"])
    check_obtained(metadata["points"], space)
    scores = [tuple(point["scores"].values()) for point in metadata["points"]]
    assert len(set(scores)) > 1


def test_prompt_of_several_lines(sweep):
    metadata, _ = sweep("--points", 2, prompt="red apple\non a table " + "very " * 60)
    assert metadata["prompt"].startswith("red apple\non")


def test_every_character_of_a_caption_can_be_drawn():
    font = ImageFont.load_default(12)
    missing = bytes(font.getmask("\uffff"))
    for character in "+-0123456789.»·aut":
        assert bytes(font.getmask(character)) != missing
