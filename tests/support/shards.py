"""Small tar and parquet shards, as img2dataset and the hub have them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def jpeg(seed: int, size: tuple[int, int] = (16, 12)) -> bytes:
    """A noisy picture of its own for each seed."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60 + 20 * (seed % 10), (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def sample(key: str, seed: int, **cells: object) -> list[tuple[str, bytes]]:
    """The members of one sample, in the order of img2dataset."""
    caption = f"picture {seed}"
    told = {"caption": caption, "url": f"http://{seed}", "key": key, "width": 16, **cells}
    return [
        (f"{key}.jpg", jpeg(seed)),
        (f"{key}.json", json.dumps(told).encode()),
        (f"{key}.txt", caption.encode()),
    ]


def write_shards(folder: Path, seeds: list[list[int]]) -> Path:
    """A tar for each list, with a sample for each seed in it."""
    for number, of_shard in enumerate(seeds):
        members = [
            member
            for i, seed in enumerate(of_shard)
            for member in sample(f"{number:05}{i:04}", seed)
        ]
        write_tar(folder / f"{number:05}.tar", members)
    return folder


def write_parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
