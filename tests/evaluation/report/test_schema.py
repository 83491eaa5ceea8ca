"""The result of a report survives its file, and a file that is none is refused in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ric_diffusion.evaluation.calibration import Calibration
from ric_diffusion.evaluation.report.schema import SCHEMA_VERSION, EvaluationResult
from ric_diffusion.evaluation.report.summary import summarise
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Cost
from ric_diffusion.rewards import Curve
from support.scores import base_of, config_of, scores_of


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


@pytest.fixture(scope="module")
def result():
    """With all there can be: a calibration, held-out scorers, rejected samples, costs of training,
    a method without sliders."""
    config = config_of(held_out=["aesthetic"])
    found = [
        scores_of(config, name="plain", rejected={"blank": 2}),
        scores_of(config, name="calibrated", seed=1),
        base_of(config),
    ]
    found[0].scores[0] = float("nan")
    curve = Curve(requested=(-1.0, 1.0), obtained=(-0.4, 0.6))
    calibration = Calibration(
        curves={"colorfulness": curve}, prompts=["a crow"], seeds=[7, 8], cost=Cost(forwards=9)
    )
    whole = summarise(
        found, config, Path("out"), model="m", versions={"torch": "2"}, calibration=calibration
    )
    first, *others = whole.methods
    trained = replace(first, training_cost=Cost(forwards=5, scored=3, seconds=1.5))
    return replace(whole, methods=(trained, *others))


@pytest.fixture
def path(result, tmp_path):
    result.save(tmp_path / "metrics.json")
    return tmp_path / "metrics.json"


def test_what_is_saved_is_loaded(result, path):
    assert EvaluationResult.load(path) == result
    stored = json.loads(path.read_text(), parse_constant=refuse)
    assert stored["schema_version"] == SCHEMA_VERSION == 2
    assert [method["name"] for method in stored["methods"]] == ["plain", "calibrated", "no adapter"]
    assert stored["methods"][0]["points"][0]["obtained"]["colorfulness"]["value"] is None
    assert stored["calibration"]["rewards"][0]["curve"] == {
        "requested": [-1.0, 1.0],
        "obtained": [-0.4, 0.6],
        "prompt": None,
    }


def test_methods_and_sweeps_by_name(result):
    assert result.method("calibrated") is result.methods[1]
    assert result.method("gone") is None
    assert result.methods[0].control_of("colorfulness") is result.methods[0].control[1]
    assert result.method("no adapter").control_of("colorfulness") is None
    without, calibrated = result.calibration_errors("colorfulness")
    assert without is result.methods[0].control[1].error
    assert calibrated is result.methods[1].control[1].error


def changed(stored, *keys, to):
    """The same JSON with one value changed, by the keys that lead to it."""
    *way, last = keys
    place = stored
    for key in way:
        place = place[key]
    place[last] = to
    return stored


@pytest.mark.parametrize(
    "said, text",
    [
        ("not valid JSON", "{"),
        ("schema_version is None", "[]"),
        (
            "schema_version is None, and this release reads 2; make the report again",
            '{"models": []}',
        ),
        ("schema_version is 3,", '{"schema_version": 3}'),
        ("model: missing", '{"schema_version": 2}'),
    ],
)
def test_files_of_something_else_are_refused(tmp_path, said, text):
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as error:
        EvaluationResult.load(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "said, keys, to",
    [
        (r"methods\[1\]\.samples: 'many' is not a whole number", ("methods", 1, "samples"), "many"),
        (r"methods\[0\]\.hypervolume\.low", ("methods", 0, "hypervolume", "low"), "x"),
        (
            r"methods\[0\]\.control\[0\]\.reachable: ",
            ("methods", 0, "control", 0, "reachable"),
            [1],
        ),
        ("prompts", ("prompts",), "red apple"),
        ("kept: unknown field", ("methods", 0, "kept"), 1),
        ("must be 2 to 1001 numbers that rise",
         ("calibration", "rewards", 0, "curve", "obtained"), [1, 0]),
    ],
)  # fmt: skip
def test_malformed_reports_are_refused_by_their_field(path, said, keys, to):
    path.write_text(json.dumps(changed(json.loads(path.read_text()), *keys, to=to)))
    with pytest.raises(InputError, match=said) as error:
        EvaluationResult.load(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_no_report(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.json: cannot be read .*ric evaluate"):
        EvaluationResult.load(tmp_path / "metrics.json")
