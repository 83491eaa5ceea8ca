"""Print what labelling tar shards takes: memory by the number of pictures, whether a labelling that
is killed twice ends with the same bytes, pictures per second beside a plain loop over webdataset's
reader, and what a second core brings.

    python scripts/benchmark_labelling.py --folder big/

The pictures are made by seed, as JPEG in the layout of img2dataset (<key>.jpg, .txt, .json), once
for each folder, and are used again if they are there. Each run is a process of its own. Scorers are
compressibility and colorfulness. Memory is measured on pictures of 64 px, speed on those of 64 px,
where Python's own work shows the most, and of 256 px. A quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SCORERS = ("compressibility:resize=none", "colorfulness")
COUNTS = (20_000, 200_000)
OF_SHARD = 1000
SIDES = (64, 256)  # of the pictures that speed is measured on
SPEED_COUNT = 20_000
KILLS = 2
BATCH = 64
MB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs=2, default=COUNTS, metavar="N")
    parser.add_argument("--of-shard", type=int, default=OF_SHARD, metavar="N")
    parser.add_argument("--speed-count", type=int, default=SPEED_COUNT, metavar="N")
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)  # one run, in this process
    options = parser.parse_args()
    if options.only:
        name, source, out = options.only
        print(json.dumps(RUNS[name](Path(source), Path(out))))
        return
    folder, of_shard = options.folder, options.of_shard
    print_memory(folder, options.counts, of_shard)
    print_killed(folder, options.counts[0], of_shard)
    for side in SIDES:
        print_speed(folder, options.speed_count, of_shard, side)


def print_memory(folder: Path, counts: tuple[int, int], of_shard: int) -> None:
    peaks = []
    for count in counts:
        found = run("label", make(folder, count, of_shard, SIDES[0]), folder / "out")
        peaks.append(found["peak_mb"])
        print(
            f"{found['count']} of {count} pictures of {SIDES[0]} px labelled: peak "
            f"{found['peak_mb']:.1f} MB, {count / found['seconds']:.0f} pictures/s",
            flush=True,
        )
    print(f"memory: {peaks[1]:.1f} / {peaks[0]:.1f} MB = {peaks[1] / peaks[0]:.3f}", flush=True)


def print_killed(folder: Path, count: int, of_shard: int) -> None:
    source, whole, out = make(folder, count, of_shard, SIDES[0]), folder / "whole", folder / "out"
    run("label", source, whole)
    shutil.rmtree(out, ignore_errors=True)
    done = []
    for _ in range(KILLS):
        process = subprocess.Popen(command("label", source, out), stdout=subprocess.DEVNULL)
        before = count_whole(out)
        while process.poll() is None and count_whole(out) == before:
            time.sleep(0.001)
        time.sleep(0.05)  # into the next one
        process.send_signal(signal.SIGKILL)
        process.wait()
        done.append(f"{count_whole(out)}")
    subprocess.run(command("label", source, out), stdout=subprocess.DEVNULL, check=True)
    same = contents(out) == contents(whole)
    print(
        f"killed with {' and '.join(done)} of {count_whole(whole)} shards whole: "
        f"{'the same bytes' if same else 'OTHER BYTES'}",
        flush=True,
    )


def print_speed(folder: Path, count: int, of_shard: int, side: int) -> None:
    source, out = make(folder, count, of_shard, side), folder / "out"
    cores = sorted(os.sched_getaffinity(0))
    rate = {}
    for name, using in (("label", cores), ("loop", cores), ("label", cores[:1])):
        found = run(name, source, out, using)
        rate[name, len(using)] = count / found["seconds"]
    ours, loop, one = (
        rate[key] for key in (("label", len(cores)), ("loop", len(cores)), ("label", 1))
    )
    print(
        f"{side} px: {ours:.0f} pictures/s; webdataset and a plain loop {loop:.0f}: "
        f"{ours / loop:.2f}x; {len(cores)} cores / one ({one:.0f}): {ours / one:.2f}x",
        flush=True,
    )


def run(name: str, source: Path, out: Path, cores: list[int] | None = None) -> dict[str, Any]:
    """One run into a new ``out``, in a process of its own, on these cores."""
    shutil.rmtree(out, ignore_errors=True)
    done = subprocess.run(
        command(name, source, out),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def command(name: str, source: Path, out: Path) -> list[str]:
    return [sys.executable, __file__, "--folder", ".", "--only", name, str(source), str(out)]


def label(source: Path, out: Path) -> dict[str, Any]:
    """Label shards as `ric label` does: records, seconds without imports, peak memory."""
    from ric_diffusion.api import label as verb

    began = time.monotonic()
    report = verb(source, out, SCORERS, progress=lambda progress: None)
    seconds = time.monotonic() - began
    # Of this process, and of the largest of those that share its work.
    peaks = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return {
        "count": report.count,
        "seconds": seconds,
        "peak_mb": sum(resource.getrusage(who).ru_maxrss for who in peaks) * 1024 / MB,
    }


def loop(source: Path, out: Path) -> dict[str, Any]:
    """The same scores by webdataset's reader and a loop over batches; nothing is written."""
    import webdataset

    from scorers import load

    using = [load(name) for name in SCORERS]
    began = time.monotonic()
    names = [str(path) for path in sorted(source.glob("*.tar"))]
    samples = webdataset.WebDataset(names, shardshuffle=False).decode("pil").to_tuple("jpg", "txt")
    count = 0
    for images, captions in samples.batched(
        BATCH, collation_fn=lambda rows: zip(*rows, strict=True)
    ):
        scores = [scorer(list(images), list(captions)) for scorer in using]
        count += len(scores[0])
    return {"count": count, "seconds": time.monotonic() - began}


RUNS: Mapping[str, Callable[[Path, Path], dict[str, Any]]] = {"label": label, "loop": loop}


def make(folder: Path, count: int, of_shard: int, side: int) -> Path:
    """A folder of tars with ``count`` pictures, ``of_shard`` in each."""
    source = folder / f"{count}-of-{side}-px"
    source.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, count, of_shard)):
        path = source / f"{number:05}.tar"
        if path.exists():
            continue
        temporary = path.with_suffix(".part")
        with tarfile.open(temporary, "w") as tar:
            for i in range(first, min(first + of_shard, count)):
                for suffix, data in sample(i, side).items():
                    member = tarfile.TarInfo(f"{number:05}{i - first:04}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        temporary.rename(path)
    return source


def sample(i: int, side: int) -> dict[str, bytes]:
    """The i-th sample, by suffix: a few smooth colours with a little noise."""
    rng = np.random.default_rng(i)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.int16)
    pixels = pixels + rng.integers(-8, 9, pixels.shape, dtype=np.int16)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    caption = f"pattern {i} of colours"
    cells = {"caption": caption, "key": f"{i:09}", "width": side, "height": side, "exif": "{}"}
    return {
        "jpg": buffer.getvalue(),
        "txt": caption.encode(),
        "json": json.dumps(cells).encode(),
    }


def count_whole(out: Path) -> int:
    """How many output shards are whole."""
    return len(list((out / "shards").glob("[!.]*.parquet")))


def contents(out: Path) -> dict[str, str]:
    """SHA-256 of every file, by its path."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    main()
