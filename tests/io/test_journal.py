"""A journal of several processes: nothing is lost but what was being written."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest

from ric_diffusion.io import journal as module
from ric_diffusion.io.journal import Journal, read_lines

PROGRAM = """
import os, signal, sys
from pathlib import Path
from ric_diffusion.io.journal import Journal

folder, me, count, end = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
journal = Journal(folder, "work")
print("ready", flush=True)
sys.stdin.readline()
for i in range(count):
    journal.append({"by": me, "i": i, "text": "ü" * 3000})
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""
TWO = b'["%b", 2]\n' % hashlib.blake2b(b"2", digest_size=8).hexdigest().encode()


def test_what_one_process_writes_comes_back_in_order(tmp_path):
    journal = Journal(tmp_path / "new", "work")
    assert journal.entries() == []
    assert not (tmp_path / "new").exists()  # reading makes nothing
    entries = [{"i": i, "name": "naïve\n"} for i in range(5)] + [[1, None], "text", 2.5]
    for entry in entries:
        journal.append(entry)
        assert journal.entries()[-1] == entry  # it is there as soon as append returns
    journal.close()
    assert Journal(tmp_path / "new", "work").entries() == entries
    (file,) = (tmp_path / "new").iterdir()
    assert file.name.startswith(f"work-{os.getpid()}-") and file.suffix == ".jsonl"


def test_no_file_is_written_to_by_two(tmp_path):
    first, second = Journal(tmp_path, "work"), Journal(tmp_path, "work")
    first.append(1)
    second.append(2)
    first.append(3)
    assert len(list(tmp_path.iterdir())) == 2
    assert sorted(first.entries()) == sorted(second.entries()) == [1, 2, 3]
    first.close()
    first.append(4)  # in a new file
    assert len(list(tmp_path.iterdir())) == 3 and sorted(second.entries()) == [1, 2, 3, 4]
    first.close()
    second.close()
    second.close()


def test_journals_of_other_names_are_apart(tmp_path):
    for name in ("work", "work-more", "other"):
        journal = Journal(tmp_path, name)
        journal.append(name)
        journal.close()
    (tmp_path / "work-1.jsonl").write_text('"not ours"\n')
    for name in ("work", "work-more", "other"):
        assert Journal(tmp_path, name).entries() == [name]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_several_processes_at_once_one_of_them_killed(tmp_path):
    count = 40
    ends = ["killed", "well", "well"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path), str(number), str(count), end],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, end in enumerate(ends)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process, end in zip(processes, ends, strict=True):
        process.communicate(timeout=120)
        assert process.returncode == (-signal.SIGKILL if end == "killed" else 0)
    entries = Journal(tmp_path, "work").entries()
    assert len(list(tmp_path.iterdir())) == len(ends)
    assert len(entries) == count * len(ends)
    for number in range(len(ends)):
        assert [e["i"] for e in entries if e["by"] == str(number)] == list(range(count))


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (TWO[:-3], [0, 1]),  # torn
        (TWO[:-1], [0, 1]),  # whole, but without its end
        (b"2\n" + TWO, [0, 1, 2]),  # JSON without a checksum
        (b"\0\0\0\n" + TWO, [0, 1, 2]),
        (b"\xff\xfe\n" + TWO, [0, 1, 2]),
        (b"\n\n" + TWO, [0, 1, 2]),
        (b"[" * 100_000 + b"\n" + TWO, [0, 1, 2]),
        (b"", [0, 1]),
    ],
)
def test_damaged_lines_are_skipped_and_the_file_is_left_alone(tmp_path, damage, left, caplog):
    journal = Journal(tmp_path, "work")
    journal.append(0)
    journal.append(1)
    journal.close()
    (file,) = tmp_path.iterdir()
    with file.open("ab") as stream:
        stream.write(damage)
    data = file.read_bytes()
    again = Journal(tmp_path, "work")
    assert again.entries() == again.entries() == left
    whole_lines = damage.count(b"\n") - damage.endswith(TWO)
    lines = "1 damaged line" if whole_lines == 1 else f"{whole_lines} damaged lines"
    said = f"{file}: {lines}; what was told there is done again"
    assert caplog.messages == [said] * (whole_lines > 0)  # once; a torn line is no surprise
    again.append("more")
    again.close()
    assert file.read_bytes() == data
    assert sorted(map(str, again.entries())) == sorted(map(str, [*left, "more"]))


def test_every_flipped_bit_costs_the_lines_it_is_in(tmp_path):
    """No entry is ever another one: what is left are those of the other lines, in their order."""
    journal = Journal(tmp_path, "work")
    entries = [{"key": "ü", "score": 1.25}, {"key": "b", "score": None}, {"key": "c", "score": -2}]
    journal.extend(entries)
    journal.close()
    (file,) = tmp_path.iterdir()
    data, ends = file.read_bytes(), []
    for line in data.splitlines(keepends=True):
        ends.append((ends[-1] if ends else 0) + len(line))
    for place in range(len(data)):
        number = sum(end <= place for end in ends)
        lost = {number, number + 1} if place + 1 == ends[number] else {number}
        expected = [entry for i, entry in enumerate(entries) if i not in lost]
        for bit in range(8):
            flipped = data[place] ^ (1 << bit)
            file.write_bytes(data[:place] + bytes([flipped]) + data[place + 1 :])
            assert Journal(tmp_path, "work").entries() == expected, (place, bit)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_journal(tmp_path):
    os.mkfifo(tmp_path / "work-1-00000000.jsonl")
    with pytest.raises(OSError, match="not a regular file"):
        Journal(tmp_path, "work").entries()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {1, 2}, "\ud800"])
def test_what_json_cannot_hold_is_refused_and_leaves_no_trace(tmp_path, bad):
    journal = Journal(tmp_path, "work")
    journal.append(1)
    with pytest.raises((ValueError, TypeError)):
        journal.append({"a": bad})
    journal.append(2)
    journal.close()
    assert Journal(tmp_path, "work").entries() == [1, 2]
    assert len(list(tmp_path.iterdir())) == 1


def test_after_a_write_that_failed_the_next_entry_is_whole(tmp_path):
    journal = Journal(tmp_path, "work")
    journal.append(1)

    class Full:
        """Takes half a line, then the disk is full."""

        def __getattr__(self, name):
            return getattr(usual, name)

        def write(self, data):
            if len(data) < 9:
                raise OSError(errno.ENOSPC, "No space left on device")
            return usual.write(data[:5])

    usual = journal._file
    journal._file = Full()
    with pytest.raises(OSError, match="No space left"):
        journal.append("12345678")
    assert usual.closed
    journal.append(2)
    journal.close()
    assert sorted(Journal(tmp_path, "work").entries()) == [1, 2]


def test_short_writes_are_continued(tmp_path, monkeypatch):
    journal = Journal(tmp_path, "work")
    journal.append(1)

    class Slow:
        def __getattr__(self, name):
            return getattr(usual, name)

        def write(self, data):
            return usual.write(data[:3])

    usual = journal._file
    monkeypatch.setattr(journal, "_file", Slow())
    journal.append({"a": "long enough"})
    journal.close()
    assert Journal(tmp_path, "work").entries() == [1, {"a": "long enough"}]


def test_an_entry_is_on_the_disk_when_append_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(module.os, "fsync", lambda descriptor: synced.append(descriptor))
    journal = Journal(tmp_path, "work")
    journal.append(1)
    assert len(synced) == 2  # the entry, and the folder that the file is new in
    journal.append(2)
    journal.close()
    assert len(synced) == 3


def test_read_lines_of_a_file(tmp_path):
    assert read_lines(tmp_path / "none.jsonl") == []
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\r\n[2]\nbad\n3')
    assert read_lines(tmp_path / "a.jsonl") == [{"a": 1}, [2]]
    assert json.dumps(read_lines(tmp_path / "a.jsonl")) == '[{"a": 1}, [2]]'


def test_the_first_entry_makes_all_folders_on_the_way(tmp_path):
    journal = Journal(tmp_path / "some" / "new" / "place", "work")
    journal.append(1)
    assert Journal(tmp_path / "some" / "new" / "place", "work").entries() == [1]
