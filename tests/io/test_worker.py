"""What a worker makes of the tasks that it is told of, in this process."""

import os

import pytest

from ric_diffusion.io import worker
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.worker import DONE, FAILED, Worker
from scorers import ScorerError

made = []


def make(start):
    made.append(start)
    return [start]


def count(state, item):
    state.append(item)
    return state[0] + len(state) - 1


def refuse(state, item):
    raise {"input": InputError, "scorer": ScorerError, "other": KeyError}[item](f"no {item}")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.clear()
    held = Worker(str(tmp_path))
    return lambda start, task, item: held.run(
        f"{__name__}:make", {"start": start}, f"{__name__}:{task.__name__}", item
    )


def test_what_it_holds_is_made_once_and_kept(run):
    assert [run(5, count, "x") for _ in range(3)] == [(DONE, n) for n in (6, 7, 8)]
    assert run(1, count, "y") == (DONE, 2)
    assert made == [5, 1]


def test_what_is_wrong_comes_as_plain_data(run):
    assert run(0, refuse, "input") == ("InputError", "no input")
    assert run(0, refuse, "scorer") == ("ScorerError", "no scorer")
    kind, said = run(0, refuse, "other")
    assert kind == FAILED and said.startswith("Traceback") and "KeyError: 'no other'" in said
    assert set(worker.REFUSALS) == {"InputError", "ScorerError"}
    assert run(0, count, "x") == (DONE, 1) and made == [0]  # what it holds stays


def test_paths_mean_what_they_mean_to_the_driver(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    Worker(str(tmp_path / "there"))
    assert os.getcwd() == str(tmp_path / "there")
    Worker(str(tmp_path / "on another machine"))
    assert os.getcwd() == str(tmp_path / "there")
