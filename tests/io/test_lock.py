"""A folder for one process: others are told who has it, and nothing of it is left."""

import os
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ric_diffusion.io import lock
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.lock import held

HOLDER = """
import sys
from pathlib import Path
from ric_diffusion.io.lock import held

with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that has the folder tmp_path / "run" until it reads a line."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_told_who_has_it(holder, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(InputError) as caught, held(run):
        raise AssertionError("both have it")
    assert str(caught.value) == (
        f"{run}: process {holder.pid} on {platform.node()} is at work here; wait for it, or choose "
        "another --out"
    )
    holder.communicate("\n")
    assert not run.exists()  # nothing was put into it
    with held(run):
        pass


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_one_that_was_killed_has_it_no_more(holder, tmp_path):
    holder.kill()
    holder.wait()
    run = tmp_path / "run"
    assert (run / lock.LOCK).exists()
    with held(run):
        (run / "file").touch()
        assert (run / lock.LOCK).read_text() == f"process {os.getpid()} on {platform.node()}"
    assert os.listdir(run) == ["file"]


def test_what_was_there_stays(tmp_path):
    empty = tmp_path / "a" / "b"
    empty.mkdir(parents=True)
    with pytest.raises(KeyError), held(empty / "c" / "d"):
        raise KeyError
    assert os.listdir(empty) == []
    with held(empty):
        pass
    assert empty.is_dir()


def test_what_is_no_folder_is_said_at_once(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError), held(tmp_path / name):
            pass


def test_never_two_at_once_however_often_it_changes_hands(tmp_path):
    """The file is removed and made again all the time, which must not let two in."""
    inside, most, entered = 0, 0, 0
    guard = threading.Lock()

    def work():
        nonlocal inside, most, entered
        for _ in range(300):
            try:
                with held(tmp_path / "run"):
                    with guard:
                        inside += 1
                        entered += 1
                        most = max(most, inside)
                    with guard:
                        inside -= 1
            except InputError:
                continue

    with ThreadPoolExecutor(4) as threads:
        for worker in [threads.submit(work) for _ in range(4)]:
            worker.result()
    assert most == 1 and entered >= 4
