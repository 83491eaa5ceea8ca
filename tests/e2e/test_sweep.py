"""ric sweep: sweep.json and grid.png."""

import json

import numpy as np
import pytest
from PIL import Image, ImageFont

from ric_diffusion import RewardSpace
from ric_diffusion.evaluation.grid import target_line
from ric_diffusion.evaluation.report.sheet import draw_sheet
from ric_diffusion.rewards import to_targets
from support.numbered import sample_file

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
        metadata = json.loads((out / "sweep.json").read_text())
        files = [point["file"] for point in metadata["points"]]
        assert sorted(path.name for path in out.iterdir()) == [*files, "grid.png", "sweep.json"]
        with Image.open(out / "grid.png") as sheet:
            sheet.load()
        return metadata, sheet

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


@pytest.mark.parametrize("refine", [[], ["--refine", 1]], ids=["drawn once", "refined"])
def test_pictures_are_those_of_generate(sweep, ric, model, tmp_path, refine):
    metadata, sheet = sweep("--points", 2, *refine)
    point = metadata["points"][1]
    with Image.open(tmp_path / "sweep" / point["file"]) as image:
        pixels = np.array(image)
        assert json.loads(image.text["scores"]) == point["scores"]
        tile = image.resize((128, 128), Image.Resampling.BICUBIC)
    left, top = 12 + 136, 12 + 22 + 8
    assert np.array_equal(sheet.crop((left, top, left + 128, top + 128)), tile)

    def generated(*args):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        assert ric("generate", *args, "--out", out).code == 0
        return np.array(Image.open(sample_file(out, 2)))

    targets = [f"{name}={value}" for name, value in point["targets"].items()]
    asked = ["--prompt", "red apple", "--seed", 2, "--targets", *targets, *refine]
    assert np.array_equal(generated(*model, *asked), pixels)
    assert np.array_equal(generated("--like", tmp_path / "sweep" / point["file"]), pixels)


def test_a_second_sweep_replaces_nothing(ric, model, tmp_path):
    args = ["--prompt", "pizza", "--points", 2, "--steps", 1, "--out", tmp_path]
    assert ric("sweep", *model, *args).code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "sweep-0002.json").write_text("mine")
    done = ric("sweep", *model, *args)
    assert done.code == 0 and done.out == f"{tmp_path / 'grid-0003.png'}\n"
    assert all(path.read_bytes() == data for path, data in before.items())
    files = [p["file"] for p in json.loads((tmp_path / "sweep-0003.json").read_text())["points"]]
    assert files == ["0003-pizza-seed0.png", "0004-pizza-seed0.png"]
    assert (tmp_path / "sweep-0002.json").read_text() == "mine"
    assert not (tmp_path / "grid-0002.png").exists()


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
