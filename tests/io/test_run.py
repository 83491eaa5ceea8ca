"""The folder of a run: what it is, whether it may go on, what changed since it began."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ric_diffusion.io import config
from ric_diffusion.io import run as runs
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.run import RUN_FILE, RunFolder, changed

IDENTITY = {"model": "emoji-64", "loop": {"seed": 0, "steps": 9}, "files": ["a", "b"]}


def refused(match, call, *args, **kwargs):
    with pytest.raises(InputError, match=match) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_a_new_run_writes_what_it_is(tmp_path):
    run = RunFolder(tmp_path / "deep" / "run", "train")
    assert not run.begun and not run.path.exists()
    run.check_free(resume=False)
    run.check_same(IDENTITY)
    assert not run.path.exists()  # the checks write nothing
    run.begin(IDENTITY, resume=False)
    assert run.begun
    stored = json.loads((run.path / RUN_FILE).read_text())
    assert stored == {"verb": "train", "identity": IDENTITY}
    assert run.identity == IDENTITY and run.digest == config.digest(IDENTITY)


def test_a_run_goes_on_if_it_is_the_same(tmp_path):
    RunFolder(tmp_path, "train").begin(IDENTITY)
    before = (tmp_path / RUN_FILE).stat().st_mtime_ns
    again = RunFolder(tmp_path, "train")
    again.begin(json.loads(json.dumps(IDENTITY)), resume=True)
    assert again.digest == config.digest(IDENTITY)
    assert (tmp_path / RUN_FILE).stat().st_mtime_ns == before


def test_dataclasses_tuples_and_paths_are_the_same_as_what_json_makes_of_them(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class Loop:
        seed: int = 0
        betas: tuple[float, float] = (0.9, 0.99)

    identity = {"loop": Loop(), "data": Path("a/b")}
    RunFolder(tmp_path, "train").begin(identity)
    again = RunFolder(tmp_path, "train")
    again.begin(identity, resume=True)
    assert again.identity == {"loop": {"seed": 0, "betas": [0.9, 0.99]}, "data": "a/b"}


@pytest.mark.parametrize("resume", [True, False])
def test_of_two_that_begin_at_once_one_does(tmp_path, monkeypatch, resume):
    usual, other = runs.create_json, {**IDENTITY, "files": []}

    def begun_meanwhile(path, run):
        with monkeypatch.context() as patch:
            patch.setattr(runs, "create_json", usual)
            RunFolder(tmp_path, "train").begin(other)
        return usual(path, run)

    monkeypatch.setattr(runs, "create_json", begun_meanwhile)
    run = RunFolder(tmp_path, "train")
    refused("holds a run", run.begin, IDENTITY, resume=resume)
    assert json.loads((tmp_path / RUN_FILE).read_text())["identity"] == other
    assert os.listdir(tmp_path) == [RUN_FILE] and run.identity == {}


def test_a_folder_that_holds_a_run_is_not_free(tmp_path):
    RunFolder(tmp_path, "train").begin(IDENTITY)
    run = RunFolder(tmp_path, "train")
    told = "holds a run already; add --resume, or choose another --out"
    refused(told, run.check_free, resume=False)
    refused(told, run.begin, IDENTITY, resume=False)
    run.check_free(resume=True)


def test_a_run_begins_where_it_writes_over_nothing(tmp_path):
    (tmp_path / "my.yaml").write_text("loop: {}")
    (tmp_path / "adapter").mkdir()
    run = RunFolder(tmp_path, "train", writes=("log.jsonl", "adapter"))
    told = "holds adapter, which this would write over; choose another --out"
    refused(told, run.check_free, resume=True)
    refused(told, run.begin, IDENTITY)
    (tmp_path / "adapter").rmdir()
    run.begin(IDENTITY)
    (tmp_path / "adapter").mkdir()  # its own
    run.begin(IDENTITY)


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_of_another_verb_is_refused_even_to_resume(tmp_path, resume):
    RunFolder(tmp_path, "train").begin(IDENTITY)
    before = (tmp_path / RUN_FILE).read_bytes()
    run = RunFolder(tmp_path, "online")
    refused("holds a run of ric train; choose another --out", run.check_free, resume=resume)
    refused("holds a run of ric train", run.begin, IDENTITY, resume=resume)
    assert (tmp_path / RUN_FILE).read_bytes() == before


def test_a_run_of_a_script_is_named_after_its_file(tmp_path):
    RunFolder(tmp_path, "scripts/sample_responses.py").begin(IDENTITY)
    told = "holds a run of scripts/sample_responses.py; choose another --out"
    refused(told, RunFolder(tmp_path, "train").check_free, resume=True)


def test_advice_about_what_alone_changed_ends_the_line(tmp_path):
    RunFolder(tmp_path, "train").begin(IDENTITY)
    run, advice = RunFolder(tmp_path, "train"), {"loop.steps": "do this"}
    longer = IDENTITY | {"loop": {"seed": 0, "steps": 10}}
    told = r"holds a run with other loop\.steps \(9, now 10\); do this$"
    refused(told, run.check_same, longer, advice=advice)
    told = r"loop\.steps \(9, now 10\); restore that, or choose another --out$"
    refused(told, run.check_same, longer | {"model": "other"}, advice=advice)
    run.check_same(IDENTITY, advice=advice)


def test_what_changed_is_named_with_its_values(tmp_path):
    RunFolder(tmp_path, "train").begin(IDENTITY)
    other = {"model": "emoji-64", "loop": {"seed": 1, "rate": 0.5}, "files": ["a" * 50, "b"]}
    run = RunFolder(tmp_path, "train")
    refused(
        r"holds a run with other loop\.seed \(0, now 1\), loop\.steps \(9, now null\), "
        r"loop\.rate \(null, now 0\.5\), files; restore that, or choose another --out",
        run.begin,
        other,
        resume=True,
    )
    assert run.identity == {}  # nothing begins


def test_changes_by_dotted_names():
    assert list(changed({"a": {"b": 1}}, {"a": {"b": 1}})) == []
    assert list(changed({"a": {"b": 1}}, {"a": {"b": 2}})) == ["a.b (1, now 2)"]
    assert list(changed({"a": {"b": 1}}, {"a": "ä"})) == ['a ({"b": 1}, now "ä")']
    assert list(changed({"a": "x" * 99}, {"a": "y"})) == ["a"]
    assert list(changed({}, {"b": True})) == ["b (null, now true)"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"verb": "train", "ident', r"run\.json: not valid JSON \("),
        (b"", r"run\.json: not valid JSON \("),
        (b"\xff\xfe", r"run\.json: not valid JSON \("),
        (b"[" * 100_000, r"run\.json: not valid JSON \("),
        (b"[1]", r"run\.json: was not written by ric train or ric online"),
        (b'{"verb": 3}', r"run\.json: was not written by ric train or ric online"),
    ],
)
def test_a_damaged_run_file_is_one_line_and_stays(tmp_path, data, told):
    (tmp_path / RUN_FILE).write_bytes(data)
    run = RunFolder(tmp_path, "train")
    refused(told, run.check_free, resume=True)
    refused(told, run.check_same, IDENTITY)
    refused(told, run.begin, IDENTITY, resume=True)
    assert (tmp_path / RUN_FILE).read_bytes() == data


def test_an_identity_that_json_cannot_hold_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        RunFolder(tmp_path, "train").begin({"rate": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_the_digest_is_the_same_in_another_process(tmp_path):
    run = RunFolder(tmp_path, "train")
    run.begin(IDENTITY)
    program = (
        "import sys; from pathlib import Path; from ric_diffusion.io.run import RunFolder;"
        "run = RunFolder(Path(sys.argv[1]), 'train');"
        f"run.begin({IDENTITY!r}); print(run.digest)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.check_output(command, text=True).strip() == run.digest
