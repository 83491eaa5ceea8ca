"""How long labelling takes and how much it writes, from ten thousand pictures to a billion.

    python scripts/sizing.py
    python scripts/sizing.py --scorers aesthetic --pictures 400 --cores 1 8 64

A tar shard with a few pictures of the size asked for is labelled on this machine, and merged. Both
are done once more for a shard with twice as many: the difference is what a picture costs, without
what a run costs that has none. The table multiplies that out; nothing in it was run.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ric_diffusion import api

COUNTS = tuple(10**power for power in range(4, 10))
DIGEST, SCORE = 40, 8  # bytes of memory for each picture in a merge, and for each of its scores
CAPTION = 60  # characters, of which as little can be compressed as of words
CHEAP, TINY, MANY = ("brightness", "colorfulness"), 16, 10  # what a merge is measured with
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What one picture costs: seconds of one core to read, score and copy it, and to merge it;
    bytes of its copy, and of its metadata with what else is listed of it."""

    score: float
    merge: float
    copy: float
    metadata: float


def write_shard(path: Path, count: int, side: int) -> None:
    """Smooth colours with some noise, as JPEG of about the size that photos have, with captions."""
    rng = np.random.default_rng(0)
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for i in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
            noisy = smooth + rng.normal(0, 8, smooth.shape)
            file = io.BytesIO()
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
            _add(tar, f"{i:08d}.jpg", file.getvalue())
            _add(tar, f"{i:08d}.txt", f"a photo of {rng.bytes(CAPTION // 2).hex()}".encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def measure(place: Path, scorers: Sequence[str], count: int, side: int) -> Rates:
    """The rates of this machine, from ``count`` pictures more; that of merging, which takes next to
    nothing of each, from more and small ones."""
    _labelled(
        place / "first", list({*scorers, *CHEAP}), 8, TINY
    )  # imports, and whatever else is once
    rates = _difference(place / "large", scorers, count, side)
    merge = _difference(place / "tiny", CHEAP, MANY * count, TINY).merge
    return replace(rates, merge=merge)


def _difference(place: Path, scorers: Sequence[str], count: int, side: int) -> Rates:
    """What ``count`` pictures more cost, each."""
    few, many = (_labelled(place / str(n), scorers, n, side) for n in (count, 2 * count))
    return Rates(**{name: (getattr(many, name) - getattr(few, name)) / count for name in vars(few)})


def _labelled(place: Path, scorers: Sequence[str], count: int, side: int) -> Rates:
    """As ``Rates``, but of a whole run."""
    write_shard(place / "in" / "00000.tar", count, side)
    out = place / "out"
    score = _core_seconds(lambda: api.label(place / "in", out, scorers, shard=(0, 1)))
    merge = _core_seconds(lambda: api.label(place / "in", out, scorers))
    sizes = {path: path.stat().st_size for path in out.rglob("*") if path.is_file()}
    copy = sum(size for path, size in sizes.items() if path.suffix == ".tar")
    return Rates(score=score, merge=merge, copy=copy, metadata=sum(sizes.values()) - copy)


def _core_seconds(work: Callable[[], object]) -> float:
    """Of all threads of this process together."""
    before = time.process_time()
    work()
    return time.process_time() - before


def table(rates: Rates, cores: Sequence[int], rewards: int) -> str:
    """A line for each number of pictures, in Markdown. Memory is what ``label_folder`` promises of
    a merge, which compares digests and sorts scores."""
    columns = ["pictures", *(f"score, {n} cores" if n > 1 else "score, 1 core" for n in cores)]
    columns += ["merge, 1 core", "its memory", "metadata", "copies"]
    lines = [columns, ["---:"] * len(columns)]
    for count in COUNTS:
        hours = [duration(count * rates.score / n) for n in cores]
        memory = DIGEST + SCORE * rewards
        sizes = (amount(count * size) for size in (memory, rates.metadata, rates.copy))
        lines.append(
            [f"{count:.0e}".replace("+0", ""), *hours, duration(count * rates.merge), *sizes]
        )
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def duration(seconds: float) -> str:
    """In hours, below one in minutes."""
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def amount(size: float) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    power = 0
    while size >= 1000 and power < len(UNITS) - 1:
        size, power = size / 1000, power + 1
    return f"{size:.3g} {UNITS[power]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scorers", nargs="+", default=["compressibility", "colorfulness"])
    parser.add_argument("--pictures", type=int, default=300, help="how many more are measured")
    parser.add_argument("--side", type=int, default=512, help="in pixels")
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 16, 256])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(Path(folder), options.scorers, options.pictures, options.side)
    print(f"Measured here, JPEG of {options.side} x {options.side}, {' + '.join(options.scorers)}:")
    print(f"  {1 / rates.score:.0f} pictures a second and core are read and scored")
    print(f"  {1 / rates.merge:.0f} pictures a second and core are merged")
    print(f"  {rates.metadata:.0f} bytes of metadata a picture, {rates.copy:.0f} of its copy\n")
    print("Reckoned from that, not run:\n")
    print(table(rates, options.cores, len(options.scorers)))


if __name__ == "__main__":
    main()
