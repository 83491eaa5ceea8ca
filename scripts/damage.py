"""What scripts/faults.py damages, one bit or one end at a time, and what has to come of it: every
damage is named, or what was there before is read, or nothing differs."""

from __future__ import annotations

import copy
import io
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from ric_diffusion.data.images import open_image, pixel_digest
from ric_diffusion.data.medium import IMAGE
from ric_diffusion.data.records import read_labelled
from ric_diffusion.data.unchanged import check_unchanged
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.journal import Journal
from ric_diffusion.io.manifest import MANIFEST, DamagedError
from ric_diffusion.models.diffusion.families.sd import FAMILY
from ric_diffusion.models.diffusion.shards import Shards, keys_of
from ric_diffusion.training import checkpoint

Look = Callable[[Path], str]  # what is wrong with how damage to this file was met, "" if nothing


@contextmanager
def damaged(path: Path, rng: np.random.Generator) -> Iterator[str]:
    """Inside the block a bit of the file is flipped, or its end is cut off; yields what was done.
    The file is whole again behind it."""
    whole = path.read_bytes()
    cut = bool(rng.integers(2))
    place = int(rng.integers(len(whole)))
    if cut:
        path.write_bytes(whole[:place])
        yield f"{path.name} cut to {place} bytes"
    else:
        bit = 1 << int(rng.integers(8))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        yield f"{path.name}, byte {place}, bit {bit}"
    path.write_bytes(whole)


def tried(
    victims: Callable[[], list[Path]],
    look: Look,
    *,
    count: int,
    seed: int,
    show: Callable[[], object],
) -> list[str]:
    """Damage ``count`` times a file drawn from the victims, and look; what went wrong."""
    rng, problems = np.random.default_rng(seed), []
    for _ in range(count):
        files = victims()
        path = files[int(rng.integers(len(files)))]
        with damaged(path, rng) as done:
            try:
                problem = look(path)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            if problem:
                problems.append(f"{done}: {problem}")
        show()
    return problems


def _names(path: Path, said: str) -> bool:
    """Whether a damaged file is named, or where it is the manifest, one that it speaks of."""
    return str(path.parent if path.name == MANIFEST else path) in said


@contextmanager
def listening() -> Iterator[io.StringIO]:
    """What our modules say in the block."""
    said = io.StringIO()
    handler, logger = logging.StreamHandler(said), logging.getLogger("ric_diffusion")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def of_checkpoint(folder: Path) -> tuple[Callable[[], list[Path]], Look]:
    """The last of two checkpoints: the one before is read, and the damaged file named."""
    parameters = {"a": torch.nn.Parameter(torch.ones(500)), "b": torch.nn.Parameter(torch.ones(9))}
    state = checkpoint.State(parameters, torch.optim.AdamW(parameters.values()), {})
    for step in (1, 2):
        with torch.no_grad():
            for parameter in parameters.values():
                parameter += step
        state.step = step
        checkpoint.save(folder, state, digest="d")

    def look(path: Path) -> str:
        found = copy.deepcopy(state)
        with listening() as said:
            checkpoint.resume(folder, found, digest="d")
        values = {1: 2.0, 2: 4.0}[found.step]
        if not all(torch.all(one == values) for one in found.parameters.values()):
            return "other values are read"
        if found.step == 2:
            return "not noticed"
        return "" if _names(path, said.getvalue()) else f"not named: {said.getvalue()!r}"

    return lambda: sorted((folder / "step-2").iterdir()), look


def of_cache(folder: Path) -> tuple[Callable[[], list[Path]], Look]:
    """Latents: what is damaged is named and its rows made anew; no other values are read."""
    keys = keys_of([(i,) for i in range(64)])
    rows = torch.arange(64 * 16, dtype=torch.float32).reshape(64, 16)
    shards = Shards(folder)
    folder.mkdir(parents=True)
    for start in range(0, 64, 16):
        shards.write(keys[start : start + 16], {"moments": rows[start : start + 16]})

    def look(path: Path) -> str:
        with listening() as said:
            found = Shards(folder)
        if found.damaged != [path] or str(path) not in said.getvalue():
            return f"not named: {said.getvalue()!r}"
        return "" if len(found) == 48 else f"{len(found)} rows of 48 are left"

    return lambda: sorted(folder.iterdir()), look


def of_labelled(folder: Path, source: Path) -> tuple[Callable[[], list[Path]], Look]:
    """A labelled folder: the damaged file is named, pictures among them."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("scores-*", "run.json"))
    cache = folder.parent / f"{folder.name}-cache"
    cache.mkdir()

    def look(path: Path) -> str:
        try:
            records, _ = read_labelled(folder)
            check_unchanged(folder, records, IMAGE, cache)
        except InputError as error:
            return "" if _names(path, str(error)) else f"not named: {error}"
        if path.parent.name == "images" and pixel_digest(open_image(path)).startswith(path.stem):
            return ""  # of no pixel
        return "not noticed"

    return lambda: sorted(path for path in folder.rglob("*") if path.is_file()), look


def of_adapter(folder: Path, source: Path) -> tuple[Callable[[], list[Path]], Look]:
    """An adapter without its card, which is written on by hand: the damaged file is named."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("README.md"))

    def look(path: Path) -> str:
        try:
            FAMILY.read_adapter(folder)
        except DamagedError as error:
            return "" if _names(path, str(error)) else f"not named: {error}"
        return "not noticed"

    return lambda: sorted(folder.iterdir()), look


def of_journal(folder: Path) -> tuple[Callable[[], list[Path]], Look]:
    """A journal: what it still has was written, and what is lost is a line, or its end."""
    journal = Journal(folder, "scores")
    written = [{"key": f"{i:032x}", "scores": {"a": i / 7, "b": -i}} for i in range(200)]
    journal.extend(written)
    journal.close()
    known = [json.dumps(entry) for entry in written]
    size = sum(path.stat().st_size for path in folder.iterdir())

    def look(path: Path) -> str:
        with listening() as said:
            found = [json.dumps(entry) for entry in Journal(folder, "scores").entries()]
        if not set(found) <= set(known) or found != [one for one in known if one in set(found)]:
            return "other entries are read"
        if len(found) == len(known):
            return "not noticed"
        data = path.read_bytes()
        if len(data) == size:  # a bit: at most it joins two lines, or parts one
            return "" if len(found) >= len(known) - 2 and "damaged" in said.getvalue() else "lost"
        lines = data.count(b"\n")
        return "" if len(found) == lines else f"{len(found)} of {lines} whole lines are read"

    return lambda: sorted(folder.iterdir()), look
