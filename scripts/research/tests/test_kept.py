"""What parts of a benchmark found, written and read back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kept
from kept import METHODS_FILE, Kept, read_kept, write_kept
from ric_diffusion.io import config as configs
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Cost
from support.scores import NAMES, base_of, calibrated_scores, calibration_of, config_of, scores_of

CONFIG = config_of(2, held_out=["aesthetic"])


def test_all_there_is_comes_back(tmp_path):
    found = calibration_of(CONFIG, NAMES[0], gain=0.4)
    scores = calibrated_scores(CONFIG, found, gain=0.4)
    scores.scores[0, 0, 0] = np.nan  # a sample that was rejected
    scores = replace(scores, rejected={"blank": 1})
    curve = np.arange(3) + 1, np.array([0.25, 0.5, 0.75])
    kept = [
        Kept(
            scores=scores,
            cost=Cost(forwards=3, scored=2, seconds=1.5),
            plain="plain",
            calibration=found,
            parameters=7,
            curves={"both alike": curve},
        ),
        Kept(scores=base_of(CONFIG), variant=True),
    ]
    write_kept(tmp_path, kept)
    first, second = read_kept(tmp_path, CONFIG, ".png")
    assert second.variant and second.scores.points == tuple(kept[1].scores.points)
    assert (first.cost, first.plain, first.parameters) == (kept[0].cost, "plain", 7)
    assert first.calibration.curves == found.curves
    assert tuple(first.calibration.seeds) == tuple(found.seeds)
    assert np.array_equal(first.curves["both alike"], curve)
    mine, theirs = first.scores, scores
    for name in ("scores", "held_out", "diversity", "prompt_r_precision"):
        before, after = getattr(theirs, name), getattr(mine, name)
        np.testing.assert_allclose(after, before, rtol=1e-5)
    assert (mine.rejected, mine.space, mine.cost) == (theirs.rejected, theirs.space, theirs.cost)
    seed = CONFIG.grid(theirs.points).seeds[1][0]
    assert mine.files[2][1][0] == f"samples/002/0001-{seed}.png"


def test_nothing_was_kept(tmp_path):
    assert read_kept(tmp_path, CONFIG, ".png") is None


@pytest.mark.parametrize("text", ["[", "{}", '[{"name": "ours"}]'])
def test_what_is_malformed_is_named(tmp_path, text):
    write_kept(tmp_path, [Kept(scores=scores_of(CONFIG, name="ours"))])
    (tmp_path / METHODS_FILE).write_text(text)
    with pytest.raises(InputError, match=METHODS_FILE):
        read_kept(tmp_path, CONFIG, ".png")


def test_numbers_that_are_missing_are_told(tmp_path):
    write_kept(tmp_path, [Kept(scores=scores_of(CONFIG, name="ours"))])
    (stored,) = json.loads((tmp_path / METHODS_FILE).read_text())
    stored["scores"]["values"].pop()
    (tmp_path / METHODS_FILE).write_text(json.dumps([stored]))
    with pytest.raises(InputError, match=r"scores: values are .* not of shape"):
        read_kept(tmp_path, CONFIG, ".png")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("scores", {"shape": [2], "values": [1, 2]}, r"scores are of shape \(2,\); give"),
        ("points", [], "points are 0, the scores have"),
        ("diversity", {"shape": [1], "values": [0]}, "are not of the same points, prompts"),
        ("held_out", {"shape": [0, 1, 1, 1], "values": []}, "are not of the same points, prompts"),
        ("calibration", {"names": []}, "calibration: has no curves"),
    ],
)
def test_what_does_not_go_together_is_named(tmp_path, name, value, said):
    write_kept(tmp_path, [Kept(scores=scores_of(CONFIG, name="ours"))])
    (stored,) = json.loads((tmp_path / METHODS_FILE).read_text())
    (tmp_path / METHODS_FILE).write_text(json.dumps([stored | {name: value}]))
    with pytest.raises(InputError, match=said) as error:
        read_kept(tmp_path, CONFIG, ".png")
    assert METHODS_FILE in str(error.value)


COME_ALONG = sorted(
    file.parent for file in (Path(kept.__file__).parent / "scores").glob("*/*/run.json")
)


@pytest.mark.parametrize("folder", COME_ALONG, ids=lambda folder: folder.name)
def test_those_that_come_along_are_whole_and_name_no_place(folder):
    text = (folder / METHODS_FILE).read_text()
    identity = json.loads((folder / "run.json").read_text())["identity"]
    methods = configs.from_dict(json.loads(text), list[kept._Stored], folder.name)
    assert methods and "/tmp" not in text + json.dumps(identity)
    for one in methods:
        points, prompts, seeds, rewards = one.scores.array.shape
        assert (points, seeds) == (len(one.points), len(identity["seeds"]))
        assert rewards == len(identity["scorers"])
        sweep = one.held_out.array.shape
        assert sweep[1:] == (prompts, seeds, len(identity["held_out"]))
        assert np.isfinite(one.scores.array).mean() > 0.9
