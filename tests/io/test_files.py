"""Old or new, never half: through exceptions, and through SIGKILL at any moment."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ric_diffusion.io import files
from ric_diffusion.io.files import (
    clear_all_leftovers,
    clear_leftovers,
    copy,
    create_json,
    replacing,
    replacing_folder,
    sibling,
    stamp,
    write_bytes,
    write_json,
    write_text,
)


def test_writers(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b" / "raw.bin", b"\x00\xff")
    write_text(tmp_path / "a" / "text.md", "é\r\nx\n")
    write_json(str(tmp_path / "data.json"), {"name": "é", "values": [1, 0.5, None]})
    assert (tmp_path / "a" / "b" / "raw.bin").read_bytes() == b"\x00\xff"
    assert (tmp_path / "a" / "text.md").read_bytes() == "é\r\nx\n".encode()
    text = (tmp_path / "data.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "name": "é",\n') and text.endswith("}\n")
    assert json.loads(text) == {"name": "é", "values": [1, 0.5, None]}
    write_json(tmp_path / "data.json", 2)
    assert (tmp_path / "data.json").read_text() == "2\n"


@pytest.mark.parametrize("bad", [math.nan, math.inf, object()])
def test_refused_json_leaves_the_old_file(tmp_path: Path, bad: object) -> None:
    write_json(tmp_path / "data.json", 1)
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "data.json", {"a": bad})
    assert (tmp_path / "data.json").read_text() == "1\n"


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_created_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # as a file system without links does

    if not links:
        monkeypatch.setattr(files.os, "link", refuse)
    assert create_json(tmp_path / "a" / "data.json", {"first": 1})
    assert not create_json(tmp_path / "a" / "data.json", {"second": 2})
    assert json.loads((tmp_path / "a" / "data.json").read_text()) == {"first": 1}
    assert os.listdir(tmp_path / "a") == ["data.json"]


@pytest.mark.parametrize("cloned", [True, False])
def test_a_copy_has_bytes_and_time_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cloned: bool
) -> None:
    if not cloned:
        monkeypatch.setattr(files, "_clone", lambda *descriptors: False)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"old" * 5000)
    os.utime(source, ns=(1, 123456789))
    copy(source, target)
    assert stamp(target) == stamp(source) == (15000, 123456789)
    source.write_bytes(b"new")
    assert target.read_bytes() == b"old" * 5000 and not target.samefile(source)


def test_replacing_keeps_the_suffix_and_fits_long_names(tmp_path: Path) -> None:
    name = "🍎" * 60 + ".safetensors"  # 252 bytes of at most 255
    with replacing(tmp_path / name) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".tmp-") and temporary.suffix == ".safetensors"
        temporary.write_text("new")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_failure_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(error), replacing(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_writing_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file.txt"):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("can_exchange", [True, False])
def test_folder_is_replaced_whole(
    tmp_path: Path, can_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    target = tmp_path / "runs" / "adapter"
    for round_ in range(3):
        with replacing_folder(target) as folder:
            assert folder.parent == target.parent and not any(folder.iterdir())
            write_text(folder / "sub" / f"{round_}.txt", "x")
            (folder / "link").symlink_to("nowhere")
    assert sorted(path.name for path in target.rglob("*")) == ["2.txt", "link", "sub"]
    assert os.listdir(target.parent) == ["adapter"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_what_was_left_to_its_owner_alone_is_as_new_files_are(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "model") as folder:
        write_text(folder / "new.txt", "x")
        for name, mode in (("private.bin", 0o600), ("tool.sh", 0o750)):
            write_text(folder / "part" / name, "x")
            (folder / "part" / name).chmod(mode)
    found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.*")}
    assert found["private.bin"] == found["new.txt"]
    assert found["tool.sh"] == 0o750


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_failure_leaves_the_old_folder(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "adapter"
    write_text(target / "old.txt", "old")
    with pytest.raises(error), replacing_folder(target) as folder:
        write_text(folder / "new.txt", "half")
        raise error
    assert os.listdir(target) == ["old.txt"]
    assert os.listdir(tmp_path) == ["adapter"]


def test_failed_second_rename_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "adapter"
    write_text(target / "old.txt", "old")
    rename = os.rename

    def refuse_new(source: Path, destination: Path) -> None:
        if destination == target and not (source / "old.txt").exists():
            raise OSError("no")
        rename(source, destination)

    monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    monkeypatch.setattr(os, "rename", refuse_new)
    with pytest.raises(OSError, match="no"), replacing_folder(target) as folder:
        write_text(folder / "new.txt", "new")
    assert os.listdir(target) == ["old.txt"]
    assert os.listdir(tmp_path) == ["adapter"]


def test_a_linked_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    with replacing_folder(tmp_path / "link") as folder:
        write_text(folder / "a.txt", "a")
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "disk") == ["a.txt"]


def test_a_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    target.write_text("a file")
    with pytest.raises(NotADirectoryError, match="is a file"), replacing_folder(target):
        pytest.fail("the body must not run")


HALF = """
import sys, time
from pathlib import Path
from ric_diffusion.io.files import replacing, replacing_folder
with replacing(sys.argv[1] + "/file.txt") as file, replacing_folder(sys.argv[1] + "/folder") as new:
    file.write_text("half")
    (new / "half.txt").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""

LOOP = """
import sys
from ric_diffusion.io.files import replacing_folder, write_json
print("ready", flush=True)
for n in range(1, 10**6):
    write_json(sys.argv[1] + "/file.txt", [n] * 20_000)
    with replacing_folder(sys.argv[1] + "/folder") as new:
        write_json(new / "a.json", n)
        write_json(new / "b.json", n)
"""


def run_and_kill(code: str, folder: Path, seconds: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_kill_in_the_middle_leaves_the_old(tmp_path: Path) -> None:
    write_text(tmp_path / "file.txt", "old")
    write_text(tmp_path / "folder" / "old.txt", "old")
    run_and_kill(HALF, tmp_path, 0)
    assert (tmp_path / "file.txt").read_text() == "old"
    assert os.listdir(tmp_path / "folder") == ["old.txt"]
    shown = [name for name in os.listdir(tmp_path) if not name.startswith(".tmp-")]
    assert sorted(shown) == ["file.txt", "folder"]


def test_kill_at_any_moment_leaves_old_or_new(tmp_path: Path) -> None:
    write_json(tmp_path / "file.txt", [0] * 20_000)
    with replacing_folder(tmp_path / "folder") as folder:
        write_json(folder / "a.json", 0)
        write_json(folder / "b.json", 0)
    for trial in range(12):
        run_and_kill(LOOP, tmp_path, 0.02 + 0.013 * trial)
        numbers = json.loads((tmp_path / "file.txt").read_text())
        assert len(numbers) == 20_000 and len(set(numbers)) == 1
        assert sorted(os.listdir(tmp_path / "folder")) == ["a.json", "b.json"]
        pair = {(tmp_path / "folder" / name).read_text() for name in ("a.json", "b.json")}
        assert len(pair) == 1


# What killed processes leave behind.


def leftover(folder: Path, pid: int, *, host: str | None = None, age: float = 0) -> Path:
    """A temporary file as the process ``pid`` makes it, last changed ``age`` seconds ago."""
    name = sibling(folder / "a.json").name
    mine = f".tmp-{name.split('-')[1]}-{os.getpid()}-"
    assert name.startswith(mine)
    path = folder / name.replace(mine, f".tmp-{host or name.split('-')[1]}-{pid}-")
    path.write_text("half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def gone() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


HOUR, DAY = 3600, 24 * 3600


def test_what_a_dead_process_left_is_cleared_at_once(tmp_path: Path) -> None:
    path = leftover(tmp_path, gone())
    folder = path.with_name(path.name.replace("a.json", "images"))
    folder.mkdir()
    (folder / "a.png").touch()
    (tmp_path / "a.json").write_text("mine")
    clear_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_a_live_process_is_at_work_on_stays(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        paths = [leftover(tmp_path, pid, age=HOUR) for pid in (os.getpid(), process.pid)]
        clear_leftovers(tmp_path)
        assert all(path.exists() for path in paths)
        process.communicate(b"\n")
    clear_leftovers(tmp_path)
    assert [path.exists() for path in paths] == [True, False]


def test_what_another_machine_is_at_work_on_stays_for_a_day(tmp_path: Path) -> None:
    young, old = (leftover(tmp_path, gone(), host="abcdef", age=a) for a in (HOUR, DAY + HOUR))
    (tmp_path / ".tmp-from-an-earlier-release").touch()
    clear_leftovers(tmp_path)
    assert young.exists() and not old.exists()
    assert (tmp_path / ".tmp-from-an-earlier-release").exists()


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "a").touch()
    path = leftover(tmp_path, gone())
    path.unlink()
    path.symlink_to(tmp_path / "precious")
    clear_leftovers(tmp_path)
    assert not path.is_symlink() and (tmp_path / "precious" / "a").exists()


def test_there_may_be_nothing_to_clear(tmp_path: Path) -> None:
    clear_leftovers(tmp_path / "none")
    clear_leftovers(tmp_path)


def test_all_below_a_folder_is_cleared_but_what_is_at_work(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    at_work = sibling(tmp_path / "being written")
    at_work.mkdir()
    dead = [leftover(place, gone()) for place in (tmp_path, tmp_path / "a", deep, at_work)]
    (deep / "mine").touch()
    clear_all_leftovers(tmp_path)
    assert [path.exists() for path in dead] == [False, False, False, True]
    assert (deep / "mine").exists() and at_work.is_dir()
    clear_all_leftovers(tmp_path / "none")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux swaps two names in one step")
def test_two_names_are_swapped_in_one_step(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    assert files._exchange(tmp_path / "a", tmp_path / "b")
    assert [(tmp_path / name / "file").read_text() for name in ("a", "b")] == ["b", "a"]
    assert not files._exchange(tmp_path / "a", tmp_path / "none")
