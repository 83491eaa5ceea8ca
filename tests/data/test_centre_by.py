"""Labelling rewards that compare only within a prompt."""

import json

import numpy as np
import pytest
from PIL import Image

import scorers
from ric_diffusion.data.fitting import fit_space
from ric_diffusion.data.label import label_folder
from ric_diffusion.data.label_warnings import warnings_of
from ric_diffusion.data.records import read_labelled
from ric_diffusion.data.standard import records_groups, records_z
from ric_diffusion.io.errors import InputError

PROMPTS, EACH = 20, 5


class Liked(scorers.BaseScorer):
    """What a prompt is worth, which its digits say, and how bright a picture's first pixel is."""

    name, unit, fingerprint, needs_prompts = "liked", "points", "liked-1", True

    def __init__(self, compares_within=None):
        self.options = {}
        if compares_within:
            self.compares_within = compares_within

    def _score(self, images, prompts):
        return [
            10 * int(prompt.split()[1]) + part(image)
            for image, prompt in zip(images, prompts, strict=True)
        ]


def part(image):
    return image.getpixel((0, 0))[0] / 32


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """EACH pictures of each of PROMPTS prompts."""
    folder = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(PROMPTS * EACH):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": f"prompt {i // EACH}"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(folder, out, scorer, **changes):
    return label_folder(folder, out, [scorer], progress=False, **changes)


def test_z_is_of_the_picture_within_its_prompt_and_of_the_prompt_over_all(pictures, tmp_path):
    found = {}
    for centre_by in ("prompt", "all"):
        report = run(pictures, tmp_path / "out", Liked(), centre_by=centre_by)  # scored once
        records, space = read_labelled(tmp_path / "out")
        assert space == report.space
        parts = [part(Image.open(tmp_path / "out" / record.file)) for record in records]
        z = records_z(records, space)[:, 0]
        found[centre_by] = np.corrcoef(z, parts)[0, 1]
    assert report.scored == {"liked": 0}
    assert found["prompt"] > 0.85 and abs(found["all"]) < 0.2


def test_by_default_each_scorer_is_asked(pictures, tmp_path):
    assert run(pictures, tmp_path / "a", Liked()).space.centred == ()
    assert run(pictures, tmp_path / "b", Liked("prompt")).space.centred == ("liked",)
    report = run(pictures, tmp_path / "b", Liked("prompt"), centre_by="all")
    assert report.space.centred == () and len(report.warnings) == 1  # few pictures


def test_shards_are_merged_to_the_same_bytes(pictures, tmp_path):
    whole, split = tmp_path / "whole", tmp_path / "split"
    run(pictures, whole, Liked("prompt"))
    for k in (2, 0):
        run(pictures, split, Liked("prompt"), shard=(k, 3), batch_size=2)
    run(pictures, split, Liked("prompt"), batch_size=7)
    for name in ("reward_space.json", "metadata.parquet"):
        assert (whole / name).read_bytes() == (split / name).read_bytes()


@pytest.fixture
def alone(pictures, tmp_path):
    """Every picture with a prompt of its own."""
    folder = tmp_path / "alone"
    folder.mkdir()
    for i in range(30):
        (folder / f"{i}.png").write_bytes((pictures / f"{i}.png").read_bytes())
        (folder / f"{i}.txt").write_text(f"prompt {i}")
    return folder


def test_prompts_of_one_picture_have_nothing_to_compare(alone, tmp_path):
    with pytest.raises(InputError, match="liked: no prompt has two samples to compare"):
        run(alone, tmp_path / "out", Liked(), centre_by="prompt")
    report = run(alone, tmp_path / "out", Liked("prompt"))
    assert report.space.centred == ()
    [said] = [line for line in report.warnings if line.startswith("liked")]
    assert "no prompt has two pictures" in said and "`ric sample-prompts`" in said
    assert not [line for line in run(alone, tmp_path / "b", Liked()).warnings if "prompt" in line]


def test_many_pictures_alone_are_warned_of(alone, tmp_path):
    (alone / "1.txt").write_text("prompt 0")
    report = run(alone, tmp_path / "out", Liked("prompt"))
    assert report.space.centred == ("liked",)
    assert any(
        "28 of 30 pictures have a prompt that no other has" in line for line in report.warnings
    )


def test_an_outlier_is_one_within_its_prompt():
    # What prompts are worth hides it over all.
    rng = np.random.default_rng(0)
    prompts = [f"prompt {i // 20}" for i in range(200)]
    scores = np.repeat(1000 * rng.normal(size=10), 20) + rng.normal(size=200)
    scores[7] += 3000

    def told(centre_by):
        space = fit_space([Liked()], {"liked": scores.tolist()}, prompts, centre_by)
        files = [f"{i}.png" for i in range(200)]
        return warnings_of(space, {"liked": scores}, prompts, files, "pictures")

    assert any("7.png" in line for line in told("prompt"))
    assert not any("7.png" in line for line in told("all"))


def test_some_records_are_compared_with_all(pictures, tmp_path):
    run(pictures, tmp_path / "out", Liked("prompt"))
    records, space = read_labelled(tmp_path / "out")
    some = [0, 3, 50]
    few = records_z([records[i] for i in some], space, records_groups(records, space))
    assert few == pytest.approx(records_z(records, space)[some])
