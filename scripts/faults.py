"""Kill `ric` at random moments, and see that what it ends with is what it would have ended with.

    python scripts/faults.py --out runs/faults                  # an hour on two cores; make faults
    python scripts/faults.py --out runs/faults --only train --kills 5

On a tiny model that is made here, each verb is run once without a fault. Then, --kills times, it is
killed (SIGKILL) at a moment drawn by --seed, at any point of the first run's time, inside writes
too, and run again to its end. Every file that is its result has to have the same bytes as the first
run's: adapter, records, samples, logs; wall times, and journals, whose order is no result, are left
out. Prints a table, and writes it to OUT/faults.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE / "research")]

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
    """How many of the kills hit a run that was under way, and how many of those it survived."""

    kills: int
    survived: int
    problems: tuple[str, ...]


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
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
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
    return Tally(kills=hit, survived=hit - len(problems), problems=tuple(problems))


def table(tallies: Mapping[str, Tally]) -> str:
    lines = ["| kills survived, byte by byte | of |", "| --- | --- |"]
    lines += [f"| {name}: {one.survived} | {one.kills} |" for name, one in tallies.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=25, help="of each verb (default: 25)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="verbs by the first words of their lines")
    options = parser.parse_args()
    out = options.out.resolve()
    root = out / "made"
    out.mkdir(parents=True, exist_ok=True)
    tiny.make(root)
    write_text(root / "prompts.txt", "red apple\npizza\n")
    chosen = [
        verb
        for verb in verbs(root)
        if not options.only or any(verb.name.startswith(word) for word in options.only)
    ]
    tallies: dict[str, Tally] = {}
    with tqdm(total=options.kills * len(chosen), unit="kill") as bar:
        for verb in chosen:
            bar.set_description(verb.name)
            folder = out / verb.name.replace(", ", "-").replace(" ", "-")
            tallies[verb.name] = kill(verb, options.kills, options.seed, folder, bar.update)
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
