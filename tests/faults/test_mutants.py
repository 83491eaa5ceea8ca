"""What scripts/mutants.py makes of what mutmut leaves."""

import json
import subprocess

import pytest

import mutants


def test_the_table(tmp_path, monkeypatch, capsys):
    found = {"ric_diffusion.io.a__mutmut_1": 1, "ric_diffusion.io.a__mutmut_2": 0}
    found |= {"ric_diffusion.data.b__mutmut_1": 36, "ric_diffusion.data.b__mutmut_2": 33}
    folder = tmp_path / "mutants" / "ric_diffusion"
    folder.mkdir(parents=True)
    (folder / "a.py.meta").write_text(json.dumps({"exit_code_by_key": found}))
    left = {"ric_diffusion.data.b__mutmut_3": 2, "ric_diffusion.data.b__mutmut_4": None}
    (folder / "b.py.meta").write_text(json.dumps({"exit_code_by_key": left}))
    tried = []

    def run(names):
        tried.extend(names)
        (folder / "b.py.meta").write_text(json.dumps({"exit_code_by_key": dict.fromkeys(left, 1)}))

    monkeypatch.setattr(mutants, "run", run)
    monkeypatch.setattr(mutants, "find_spec", lambda name: name)
    monkeypatch.setattr("sys.argv", ["mutants.py", "--count", "6"])
    monkeypatch.chdir(tmp_path)
    mutants.main()
    assert sorted(tried) == sorted(left)  # what was stopped, too
    assert capsys.readouterr().out.splitlines() == [
        "no test comes by: ric_diffusion.data.b__mutmut_2",
        "not noticed: ric_diffusion.io.a__mutmut_2",
        "| room | mutants tried | noticed | share |",
        "| --- | --- | --- | --- |",
        "| data | 4 | 3 | 75.0% |",
        "| io | 2 | 1 | 50.0% |",
        "| all | 6 | 4 | 66.7% |",
    ]


@pytest.mark.parametrize(
    ("count", "installed", "said"),
    [("9", False, "not installed"), ("9", True, "--count 9: give 1 to 1"), ("1", True, "failed")],
)
def test_what_it_cannot_do_is_one_line(tmp_path, monkeypatch, capsys, count, installed, said):
    def run(names):
        raise subprocess.CalledProcessError(1, names)

    (tmp_path / "mutants").mkdir()
    about = {"exit_code_by_key": {"ric_diffusion.io.a__mutmut_1": None}}
    (tmp_path / "mutants" / "a.py.meta").write_text(json.dumps(about))
    monkeypatch.setattr(mutants, "run", run)
    monkeypatch.setattr(mutants, "find_spec", lambda name: name if installed else None)
    monkeypatch.setattr("sys.argv", ["mutants.py", "--count", count])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        mutants.main()
    [line] = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and said in line
