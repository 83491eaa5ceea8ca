"""Several processes of this machine: results, errors, and a process that dies."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from ric_diffusion.io.engines import EngineConfig, opened
from ric_diffusion.io.errors import InputError
from scorers import ScorerError
from support import tasks


@pytest.fixture
def run(tmp_path):
    """What two processes make of a task and items; each holds 10."""

    def run(task, items):
        elsewhere = partial(tasks.held, number=10, log=str(tmp_path / "made"))
        with opened(EngineConfig(workers=2)) as engine:
            assert engine.workers == 2
            yield from engine.map(
                task, items, here=10, elsewhere=elsewhere, called="item {}".format
            )

    return run


def test_this_process_and_another_share_the_work(run, tmp_path):
    found = list(run(tasks.process, [0.05] * 4))
    assert len(found) == 4 and len(set(found)) == 2 and os.getpid() in found
    assert len((tmp_path / "made").read_text().split()) == 1  # what the other one holds, once


def test_each_keeps_to_one_core_and_what_it_prints_is_no_answer(run, capfd):
    assert sorted(map(tuple, run(tasks.prints, [1, 2, 3]))) == [(10, 1), (20, 1), (30, 1)]


def test_what_kills_a_worker_is_done_here(run, caplog):
    items = [{"number": number, "process": os.getpid()} for number in range(4)]
    assert sorted(run(tasks.dies_elsewhere, items)) == [10 * number for number in range(4)]
    (said,) = caplog.messages
    assert said.endswith("a worker failed, it died with exit code -9") and said.startswith("item {")


@pytest.mark.parametrize(
    ("kind", "error"), [("input", InputError), ("scorer", ScorerError), ("bug", KeyError)]
)
def test_errors_are_raised_as_they_are(run, tmp_path, kind, error):
    items = [{"log": str(tmp_path / "log"), "kind": kind}] * 4
    with pytest.raises(error, match="so it is"):
        list(run(tasks.fails, items))


def test_no_process_is_left_behind(tmp_path):
    """Of a program that is killed, too: the others see that nobody wants their results."""
    program = """if True:
        import os, sys
        from functools import partial
        from ric_diffusion.io.local_engine import LocalEngine
        from support import tasks
        elsewhere = partial(tasks.held, number=1, log=sys.argv[1])
        found = LocalEngine(2).map(
            tasks.process, [0.05] * 10_000, here=1, elsewhere=elsewhere, called=str
        )
        while (other := next(found)) == os.getpid():
            pass
        print(other, flush=True)
        os.kill(os.getpid(), 9)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(tmp_path / "made")]
    # Items enough for as long as the other process may take to start on a machine that is busy.
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, timeout=300)
    other, end = Path(f"/proc/{int(done.stdout)}"), time.monotonic() + 60
    while other.exists():
        assert time.monotonic() < end, "the other process goes on"
        time.sleep(0.05)


def test_work_of_one_process_only():
    with (
        opened(EngineConfig(workers=2)) as engine,
        pytest.raises(InputError, match="workers: this works in one"),
    ):
        list(engine.map(tasks.product, [1], here=1, elsewhere=None, called=str))


def test_the_other_goes_on_after_its_first_item(run):
    """While this process is held up, it does all the rest."""
    found = list(run(tasks.process, [0.2] * 40))
    other = {process for process in found if process != os.getpid()}
    assert len(other) == 1 and sum(process in other for process in found) > 1


def test_what_cannot_be_told_to_another_is_done_here(run, caplog):
    found = list(run(tasks.product, [1 + 2j] * 2000))  # JSON has no complex numbers
    assert found == [10 + 20j] * 2000
    [said] = caplog.messages
    assert "a worker failed, Object of type complex" in said
