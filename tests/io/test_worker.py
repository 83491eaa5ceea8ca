"""What a worker makes of the tasks that it is told of, in this process."""

import json
import os
import signal
import sys
import threading

import pytest

from ric_diffusion.io import worker
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.worker import DONE, FAILED, Worker
from scorers import ScorerError
from scorers.parallel import cores

made = []


def make(start):
    made.append(start)
    return [start]


def count(state, item):
    state.append(item)
    return state[0] + len(state) - 1


def refuse(state, item):
    raise {"input": InputError, "scorer": ScorerError, "other": KeyError}[item](f"no {item}")


def talk(state, item):
    print("talking", flush=True)
    return [item, state[0], cores()]


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


def test_as_a_program_each_line_of_its_input_is_a_call(tmp_path, monkeypatch):
    """What it prints is no line of its output, and it ends with whoever gives the work."""
    calls = [[f"{__name__}:make", {"start": start}, f"{__name__}:talk", "ü"] for start in (1, 2)]
    ended, exits, lines = threading.Event(), [], [json.dumps(call) + "\n" for call in calls]

    def leave(code):
        exits.append(code)
        ended.set()

    class Ending(worker.SimpleQueue):
        """After the last call the program is left, which otherwise waits for the next."""

        taken = 0

        def get(self):
            self.taken += 1
            if self.taken > len(calls):
                raise EOFError
            return super().get()

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker.os, "_exit", leave)
    monkeypatch.setattr(worker, "SimpleQueue", Ending)
    monkeypatch.setattr(sys, "stdin", iter(lines))
    try:
        with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
            monkeypatch.setattr(sys, "stdout", out)
            monkeypatch.setattr(sys, "stderr", err)
            with pytest.raises(EOFError):
                worker.main()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert ended.wait(10) and exits == [1]
    finally:
        signal.signal(signal.SIGINT, before)
    answers = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert answers == [[DONE, ["ü", 1, 1]], [DONE, ["ü", 2, 1]]]
    assert (tmp_path / "err").read_text() == "talking\n" * 2
