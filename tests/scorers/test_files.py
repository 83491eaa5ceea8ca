"""Scorers in a file of the user's own, which only the user can name."""

import sys

import numpy as np
import pytest
from PIL import Image

import scorers
from scorers import ScorerError
from scorers.files import absolute

SOURCE = """
import numpy as np
from dataclasses import dataclass

import scorers

@dataclass(frozen=True)
class Gain:
    value: float

class Greyness(scorers.BaseScorer):
    name = "greyness"
    unit = "grey level"

    def __init__(self, *, gain: float = 1.0):
        self.options = {"gain": gain}
        self.fingerprint = f"greyness gain={gain}"

    def _score(self, images, prompts):
        return [Gain(self.options["gain"]).value * np.mean(scorers.to_rgb(i)) for i in images]

class Nameless(scorers.BaseScorer):
    unit = "grey level"
    _score = Greyness._score

class Colorfulness(Greyness):
    name = "colorfulness"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "grey.py"
    path.write_text(SOURCE)
    return path


def test_a_class_in_a_file_is_a_scorer(file):
    scorer = scorers.load_given(f"{file}:Greyness:gain=2")
    assert (scorer.name, scorer.unit, scorer.options) == ("greyness", "grey level", {"gain": 2})
    image = Image.new("RGB", (4, 4), (30, 30, 30))
    assert np.allclose(scorer([image, image]), 60)
    assert list(file.parent.iterdir()) == [file]  # nothing is written beside it


def test_an_edited_file_is_another_scorer(file):
    first = scorers.load_given(f"{file}:Greyness")
    again = scorers.load_given(f"{file}:Greyness")
    assert first.fingerprint == again.fingerprint and first.fingerprint.startswith(
        "greyness gain=1"
    )
    file.write_text(SOURCE.replace("np.mean", "2 * np.mean"))
    edited = scorers.load_given(f"{file}:Greyness")
    assert edited.fingerprint != first.fingerprint
    image = [Image.new("RGB", (4, 4), (30, 30, 30))]
    assert edited(image)[0] == 2 * first(image)[0]


def test_other_names_are_those_of_installed_scorers():
    assert scorers.load_given("compressibility:quality=90").options["quality"] == 90
    with pytest.raises(ScorerError, match="did you mean 'warmth'"):
        scorers.load_given("warmt")


@pytest.mark.parametrize(
    "spec, said",
    [
        ("{}:Grayness", "no such class or function in the file; did you mean 'Greyness'?"),
        ("{}:Nameless", 'has no name; write name = "…" in the class'),
        ("{}:Colorfulness", "'colorfulness' is the name of an installed scorer; choose another"),
        ("{}:SOURCE", "no such class"),
        ("{}:Greyness:gian=2", "no option 'gian'; did you mean 'gain'?"),
        ("gone.py:Greyness", "the file cannot be read (No such file or directory)"),
    ],
)
def test_what_is_wrong_is_one_line(file, spec, said):
    with pytest.raises(ScorerError) as error:
        scorers.load_given(spec.format(file))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_fails_is_one_line_and_tried_again(file):
    file.write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(
            ScorerError, match="the file fails: ZeroDivisionError: division by zero"
        ):
            scorers.load_given(f"{file}:Greyness")


def test_load_runs_no_file(file):
    """It is what stored names go to."""
    file.write_text("import sys\nsys.modules['was_run'] = sys\n" + SOURCE)
    for spec in (f"{file}:Greyness", f"{file}"):
        with pytest.raises(ScorerError):
            scorers.load(spec)
        with pytest.raises(ScorerError):
            scorers.load(spec, gain=1.0)
        assert np.isnan(scorers.stand_in(str(file), gain=1.0)([None])).all()
    assert "was_run" not in sys.modules


def test_absolute_means_the_same_from_elsewhere(file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert absolute("grey.py:Greyness:gain=2") == f"{file}:Greyness:gain=2"
    assert absolute("warmth") == "warmth"
