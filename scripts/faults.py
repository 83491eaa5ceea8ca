"""See that nothing is lost by kills, damage, full disks and hostile files: a table of all of it.

    python scripts/faults.py --out runs/faults                  # an hour on two cores; make faults
    python scripts/faults.py --out runs/faults --only train --kills 5
    python scripts/faults.py --out runs/faults --only bits hostile

On a tiny model that is made here:

- Each verb is run once without a fault. Then, --kills times, it is killed (SIGKILL) at a moment
  drawn by --seed, at any point of the first run's time, inside writes too, and run again to its
  end. Every file that is its result has to have the same bytes as the first run's: adapter,
  records, samples, logs; wall times, and journals, whose order is no result, are left out.
- Bits of files are flipped and their ends cut off, --flips times each: scripts/damage.py.
- Training runs out of disk on file systems of several sizes, and meets one that it may only read;
  with room it goes on to the same adapter. For that it mounts small disks, which only root may.
- Two of a verb run into one folder: one of them ends with what one alone would have ended with.
- The folder of scripts/hostile_pictures.py is labelled: each file for its reason.
- Tests that attack something are run and counted.

Prints a table, and writes it to OUT/faults.md. What is done already is not done again: delete OUT
to begin anew.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree  # reads what pytest wrote here

import numpy as np
from tqdm import tqdm

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE / "research")]

import damage  # noqa: E402
import hostile_pictures  # noqa: E402
from ric_diffusion.data.skipped import FILE, REASON, SKIPPED  # noqa: E402
from ric_diffusion.io.files import write_json, write_text  # noqa: E402
from support import shards, tiny  # noqa: E402
from support.processes import ENVIRONMENT  # noqa: E402

# One thread; the time that imports take is no part of the run. The marker says when they are done.
PROGRAM = """
import pathlib, sys
import torch
import ric_diffusion.api.runs, ric_diffusion.data.label, ric_diffusion.models.diffusion.family
from ric_diffusion.cli import main

torch.set_num_threads(1)
pathlib.Path(sys.argv[1]).touch()
sys.exit(main(sys.argv[2:]))
"""
PATIENCE = 600  # s for one run
DISKS, PAIRS = 8, 5
TALLY = "tally.json"
TESTS = {  # what pytest is told to run, by the row of the table
    "canaries: no code in a file is run": (
        "faults/test_canaries.py",
        "faults/test_foreign_code.py",
    ),
    "adapters of strangers: refused in one line": ("faults/test_hostile_adapters.py",),
    "bad numbers and strings: refused in one line": (
        "io/test_bounds.py",
        "e2e/test_bad_input.py",
        "e2e/test_bad_evaluate.py",
        "faults/test_numbers.py",
    ),
    "attacks on the app and the servers: refused or harmless, alive after each": (
        "api/http/test_guard.py",
        "api/test_serve.py",
        "api/test_serving.py",
        "app/test_server.py",
        "-mattack",
    ),
    "hubs that do not answer, three commands each: one line within 15 s": (
        "faults/test_offline.py",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One line of the table: its arguments without --out, those to go on with, and which files of
    its folder are the result, by patterns."""

    name: str
    arguments: Sequence[str]
    again: Sequence[str] = ()
    result: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many faults hit something, and how many of those it survived."""

    tried: int
    survived: int
    problems: tuple[str, ...]

    @classmethod
    def of(cls, tried: int, problems: Sequence[str]) -> Tally:
        return cls(tried=tried, survived=tried - len(problems), problems=tuple(problems))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: its ``name``, how many faults it has, None where that is only known
    when they were tried, and what makes them in a folder of its own."""

    name: str
    count: int | None
    run: Callable[[Path, Callable[[], object]], Tally]


def verbs(root: Path) -> list[Verb]:
    """What is killed, with inputs made under ``root``."""
    loop = {"steps": 12, "checkpoint_minutes": 0, "log_every": 3, "validate_every": 0}
    training = tiny.config(root, "embedding", prompts=[])
    training["loop"] |= loop
    rounds = tiny.config(root, "embedding")
    online = {
        "model": rounds["model"],
        "data": rounds["data"],
        "adapter": str(root / "embedding" / "adapter"),
        "diffusion": rounds["diffusion"],
        "online": {
            "rounds": 2,
            "samples": 8,
            "batch_size": 2,
            "loop": rounds["loop"] | loop | {"steps": 4, "schedule": "constant"},
            "guard": {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0},
        },
    }
    train = tiny.write_config(root / "train.yaml", training)
    rounds_file = tiny.write_config(root / "online.yaml", online)
    many = root / "many"
    if not many.exists():
        shards.write_shards(many, [list(range(40 * i, 40 * i + 40)) for i in range(6)])
    scorers = ("--scorers", *tiny.SCORERS)
    records = ("metadata.parquet", "reward_space.json", "images/**/*", "shards/**/*")
    return [
        Verb(name="label", arguments=("label", str(root / "pictures"), *scorers), result=records),
        Verb(name="label, tar shards", arguments=("label", str(many), *scorers), result=records),
        Verb(
            name="train",
            arguments=("train", str(train)),
            again=("--resume",),
            result=("adapter/*", "log.jsonl"),
        ),
        Verb(
            name="online",
            arguments=("online", str(rounds_file)),
            again=("--resume",),
            result=("adapter/*", "round-*/samples/*", "round-*/selected.json", "round-*/adapter/*",
                    "round-*/requests.json"),
        ),
        Verb(
            name="evaluate",
            arguments=("evaluate", "--model", str(root / "model"), "--adapter",
                       str(root / "embedding" / "adapter"), "--prompts", str(root / "prompts.txt"),
                       "--points", "3", "--seeds", "1"),
            result=("front.png", "control.png", "grid.png"),
        ),
    ]  # fmt: skip


def start(marker: Path, arguments: Sequence[str]) -> subprocess.Popen[str]:
    marker.unlink(missing_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(marker), *arguments],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(marker: Path, arguments: Sequence[str]) -> tuple[float, int, str]:
    """Run to the end: seconds after the imports, exit code, and the last line on stderr."""
    process = start(marker, arguments)
    began = wait(marker, process)
    _, said = process.communicate(timeout=PATIENCE)
    last = said.strip().splitlines()[-1] if said.strip() else ""
    return time.monotonic() - began, process.returncode, last


def wait(marker: Path, process: subprocess.Popen[str]) -> float:
    deadline = time.monotonic() + PATIENCE
    while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return time.monotonic()


def result_of(folder: Path, patterns: Sequence[str]) -> Mapping[str, bytes]:
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


def difference(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> str:
    """Which file is not what it was to be; empty if all are."""
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            return f"{name} is {'other' if name in found and name in expected else 'missing'}"
    return ""


def kill(verb: Verb, kills: int, seed: int, out: Path, show: Callable[[], object]) -> Tally:
    """Kill ``verb`` so many times, each in a run of its own."""
    marker, whole = out / "marker", out / "whole"
    seconds, code, said = finish(marker, [*verb.arguments, "--out", str(whole)])
    if code:
        raise RuntimeError(f"{verb.name}: ends with {code} without a fault: {said}")
    expected = result_of(whole, verb.result)
    rng, hit, problems = np.random.default_rng(seed), 0, []
    while hit < kills:
        folder = out / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        arguments = [*verb.arguments, "--out", str(folder)]
        process, moment = start(marker, arguments), rng.uniform(0, seconds)
        wait(marker, process)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            continue  # it was done already
        hit += 1
        show()
        begun = (folder / "run.json").exists()
        _, code, said = finish(marker, [*arguments, *(verb.again if begun else ())])
        problem = f"exit {code}: {said}" if code else difference(
            result_of(folder, verb.result), expected
        )  # fmt: skip
        if not problem and (left := sorted(p.name for p in folder.rglob(".tmp-*"))):
            problem = f"{left[0]} is left"
        if problem:
            problems.append(f"{verb.name}, killed after {moment:.2f} s: {problem}")
    return Tally.of(hit, problems)


@contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of that size. PermissionError if it may not be mounted."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        raise PermissionError("only root may mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def full_disks(train: Verb, out: Path, sizes: int, show: Callable[[], object]) -> Tally:
    """Training on disks that are full before it ends, then on one that may only be read."""
    marker, whole, problems = out / "marker", out / "whole", []
    finish(marker, [*train.arguments, "--out", str(whole)])
    expected = result_of(whole, train.result)
    needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()) // 1024
    for i in range(sizes):
        read_only = i == sizes - 1
        share = 2.0 if read_only else (i + 1) / sizes
        with disk(out / f"disk-{i}", int(needed * share)) as folder:
            if read_only:
                subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            run = folder / "run"
            _, code, said = finish(marker, [*train.arguments, "--out", str(run)])
            roomy = out / f"roomy-{i}"
            if run.exists():
                shutil.copytree(run, roomy)
        # What may not be written is told before anything begins, as wrong input.
        told = code == (2 if read_only else 1) and said.startswith("ric train: ")
        problem = "" if told else f"exit {code}: {said}"
        if not problem:
            again = train.again if (roomy / "run.json").exists() else ()
            _, code, said = finish(marker, [*train.arguments, "--out", str(roomy), *again])
            problem = said if code else difference(result_of(roomy, train.result), expected)
        if problem:
            problems.append(f"disk {i}: {problem}")
        show()
    return Tally.of(sizes, problems)


def two_at_once(verb: Verb, out: Path, count: int, show: Callable[[], object]) -> Tally:
    """Two into one folder, so many times."""
    marker, whole, problems = out / "marker", out / "whole", []
    finish(marker, [*verb.arguments, "--out", str(whole)])
    expected = result_of(whole, verb.result)
    for i in range(count):
        folder = out / f"both-{i}"
        both = [start(out / f"marker-{n}", [*verb.arguments, "--out", str(folder)]) for n in "ab"]
        said = [one.communicate(timeout=PATIENCE)[1].strip().splitlines()[-1:] for one in both]
        codes = [one.returncode for one in both]
        problem = difference(result_of(folder, verb.result), expected)
        if 0 not in codes or not set(codes) <= {0, 2}:
            problem = f"exits {codes}: {said}"
        for code, line in zip(codes, said, strict=True):
            if code == 2 and not (line and line[0].startswith(f"ric {verb.arguments[0]}: ")):
                problem = f"exit 2: {line}"
        if problem:
            problems.append(f"{verb.name}, two at once: {problem}")
        show()
    return Tally.of(count, problems)


def hostile(out: Path, show: Callable[[], object]) -> Tally:
    """Every kind of hostile file, labelled."""
    reasons = hostile_pictures.write(out / "pictures")
    scorers = ("--scorers", "colorfulness")
    folder = out / "labelled"
    _, code, said = finish(
        out / "marker", ["label", str(out / "pictures"), *scorers, "--out", str(folder)]
    )
    if code:
        return Tally.of(len(reasons), [f"exit {code}: {said}"] * len(reasons))
    entries = json.loads((folder / SKIPPED).read_text("utf-8"))
    left_out = {entry[FILE]: entry[REASON] for entry in entries}
    problems = []
    for name, reason in reasons.items():
        found = left_out.get(name)
        expected = found is not None and found.startswith(reason) if reason else found is None
        if not expected:
            problems.append(f"{name!a}: {found!a}, not {reason!a}")
        show()
    return Tally.of(len(reasons), problems)


def tested(arguments: Sequence[str], out: Path, show: Callable[[], object]) -> Tally:
    """What tests of this repository find; those that are skipped here are not counted."""
    report, tests = out / "tests.xml", HERE.parent / "tests"
    paths = [one if one.startswith("-") else str(tests / one) for one in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *paths],
        cwd=HERE.parent,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
    )
    if not report.is_file():
        raise RuntimeError(f"pytest {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr}")
    cases = list(ElementTree.parse(report).iter("testcase"))
    tried = [case for case in cases if case.find("skipped") is None]
    problems = [
        f"{case.get('classname')}: {case.get('name')}"
        for case in tried
        if case.find("failure") is not None or case.find("error") is not None
    ]
    show()
    return Tally.of(len(tried), problems)


def rows(root: Path, options: argparse.Namespace) -> Iterator[Row]:
    """All of the table."""
    seed, kills, flips = options.seed, options.kills, options.flips
    by_name = {verb.name: verb for verb in verbs(root)}
    for verb in by_name.values():
        yield Row(
            name=f"{verb.name}: kills survived, byte by byte",
            count=kills,
            run=lambda out, show, verb=verb: kill(verb, kills, seed, out, show),
        )
    for what, make in {
        "a checkpoint": damage.of_checkpoint,
        "a latents cache": damage.of_cache,
        "an adapter": lambda out: damage.of_adapter(out, root / "embedding" / "adapter"),
        "a labelled folder": lambda out: damage.of_labelled(out, root / "labelled"),
        "a journal": damage.of_journal,
    }.items():

        def flip(out: Path, show: Callable[[], object], make: Any = make) -> Tally:
            victims, look = make(out / "damaged")
            found = damage.tried(victims, look, count=flips, seed=seed, show=show)
            return Tally.of(flips, found)

        yield Row(name=f"bits and ends of {what}: damage noticed", count=flips, run=flip)
    yield Row(name="hostile pictures: left out for their reason", count=_kinds(), run=hostile)
    yield Row(
        name="disks full or read-only under train: one line, then the same adapter",
        count=DISKS,
        run=lambda out, show: full_disks(by_name["train"], out, DISKS, show),
    )
    for name in ("label", "train"):
        yield Row(
            name=f"two of {name} at once: one result",
            count=PAIRS,
            run=lambda out, show, name=name: two_at_once(by_name[name], out, PAIRS, show),
        )
    for name, arguments in TESTS.items():
        yield Row(
            name=name,
            count=None,
            run=lambda out, show, arguments=arguments: tested(arguments, out, show),
        )


def _kinds() -> int:
    return sum(1 for _ in hostile_pictures.cases())


def done_before(row: Row, folder: Path) -> Tally | None:
    """What an earlier call found."""
    path = folder / TALLY
    if not path.exists():
        return None
    found = json.loads(path.read_text("utf-8"))
    tally = Tally(**{**found, "problems": tuple(found["problems"])})
    return tally if row.count in (None, tally.tried) else None


def table(tallies: Mapping[str, Tally]) -> str:
    lines = ["| what | survived | of |", "| --- | --- | --- |"]
    lines += [f"| {name} | {one.survived} | {one.tried} |" for name, one in tallies.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=25, help="of each verb (default: 25)")
    parser.add_argument("--flips", type=int, default=300, help="of each kind (default: 300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="rows by the first words of their lines")
    options = parser.parse_args()
    out = options.out.resolve()
    root = out / "made"
    out.mkdir(parents=True, exist_ok=True)
    tiny.make(root)
    write_text(root / "prompts.txt", "red apple\npizza\n")
    chosen = [
        row
        for row in rows(root, options)
        if not options.only or any(row.name.startswith(word) for word in options.only)
    ]
    if not chosen:
        parser.error(f"--only {' '.join(options.only)}: no row begins so")
    tallies: dict[str, Tally] = {}
    with tqdm(total=sum(row.count or 1 for row in chosen), unit="fault") as bar:
        for row in chosen:
            bar.set_description(row.name.partition(":")[0])
            folder = out / re.sub(r"\W+", "-", row.name.partition(":")[0])
            tally = done_before(row, folder)
            if tally:
                bar.update(row.count or 1)
            else:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                try:
                    tally = row.run(folder, bar.update)
                except PermissionError as error:
                    bar.write(f"{row.name}: not tried, {error}")
                    continue
                write_json(folder / TALLY, asdict(tally))
            tallies[row.name] = tally
    text = table(tallies)
    write_text(out / "faults.md", f"{text}\n")
    write_json(out / "faults.json", {name: asdict(one) for name, one in tallies.items()})
    print(text)
    problems = [line for one in tallies.values() for line in one.problems]
    print(*problems, sep="\n")
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
