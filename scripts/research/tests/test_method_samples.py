"""The sheet of methods: the samples that were drawn for the same, none chosen."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

import method_samples

TURNED = [{"a": 1.0, "b": 0.0}, {"a": 0.5, "b": 0.5}, {"a": 0.0, "b": 1.0}]
PROMPTS = ["a cat", "a dog"]
NUMBERS = {"One": 60, "another one": 200}  # the grey of a method's first sample


@pytest.fixture
def out(tmp_path):
    for name, grey in NUMBERS.items():
        folder = tmp_path / "methods" / name.replace(" ", "-")
        points = [{"targets": {"a": 1.0}, "preference": None, "along": "a"}]
        points += [{"targets": {}, "preference": one, "along": None} for one in TURNED]
        asked = {"points": points, "prompts": PROMPTS, "seeds": [[7, 8], [9, 10]]}
        for point in range(4):
            (folder / f"samples/{point:03d}").mkdir(parents=True)
            for q, seed in ((0, 7), (0, 8), (1, 9), (1, 10)):
                level = grey + 10 * point + q if seed in (7, 9) else 0
                picture = Image.new("RGB", (64, 64), (level,) * 3)
                picture.save(folder / f"samples/{point:03d}/{q:04d}-{seed}.png")
        identity = {"method": {"name": name}, **asked}
        (folder / "run.json").write_text(json.dumps({"verb": "evaluate", "identity": identity}))
    return tmp_path


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["method_samples.py", *map(str, arguments)])
    method_samples.main()


def test_a_row_for_each_end_and_the_middle_of_each_method(out, monkeypatch):
    sheet = out / "sheet.png"
    call(monkeypatch, "--report", out, "--out", sheet, "--methods", *NUMBERS)
    shown = np.asarray(Image.open(sheet).convert("L"))
    expected = {
        grey + 10 * point + q for grey in NUMBERS.values() for point in (1, 2, 3) for q in (0, 1)
    }
    large = {int(v) for v, n in zip(*np.unique(shown, return_counts=True), strict=True) if n > 5000}
    assert large - {255} == expected  # neither second seeds nor what has no preference


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--methods", "One", "Two"],
            "has no samples of Two in methods/; give a method that it has",
        ),
        (["--methods", "One", "--prompts", "0"], "--prompts 0: give 1 to 32"),
        (["--methods", "One", "--out", "."], "out .: a folder; name a file in it"),
    ],
)
def test_what_is_not_there_is_one_line(out, monkeypatch, capsys, arguments, said):
    sheet = out / "sheet.png"
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, "--report", out, "--out", sheet, *arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert not sheet.exists()


def test_methods_that_were_asked_for_something_else_are_not_beside_each_other(
    out, monkeypatch, capsys
):
    path = out / "methods/another-one/run.json"
    path.write_text(path.read_text().replace("a cat", "a cow"))
    with pytest.raises(SystemExit):
        call(monkeypatch, "--report", out, "--out", out / "sheet.png", "--methods", *NUMBERS)
    assert "another one: was not asked for the same as One" in capsys.readouterr().err


def test_a_method_without_preferences_has_no_ends(out, monkeypatch, capsys):
    path = out / "methods/One/run.json"
    run = json.loads(path.read_text())
    run["identity"]["points"] = run["identity"]["points"][:1]
    path.write_text(json.dumps(run))
    with pytest.raises(SystemExit):
        call(monkeypatch, "--report", out, "--out", out / "sheet.png", "--methods", "One")
    assert "One: was asked for no preference; leave it out" in capsys.readouterr().err


def test_a_run_of_something_else_is_one_line(out, monkeypatch, capsys):
    path = out / "methods/One/run.json"
    path.write_text(json.dumps({"verb": "train", "identity": {}}))
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, "--report", out, "--out", out / "sheet.png", "--methods", "One")
    assert stopped.value.code == 2
    assert "train" in capsys.readouterr().err


def test_a_missing_sample_is_named(out, monkeypatch, capsys):
    (out / "methods/One/samples/002/0001-9.png").unlink()
    with pytest.raises(SystemExit):
        call(monkeypatch, "--report", out, "--out", out / "sheet.png", "--methods", "One")
    assert "002/0001-9.png" in capsys.readouterr().err
