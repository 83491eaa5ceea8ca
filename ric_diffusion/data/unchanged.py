"""Whether a labelled folder still holds what was labelled: cheap to ask, and exact where it must
be."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from ric_diffusion.data.framing import Framing
from ric_diffusion.data.medium import Medium
from ric_diffusion.data.records import Record
from ric_diffusion.data.samples import in_threads, sample_digest, seen
from ric_diffusion.io.counting import counted
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import full_stamp, read_file, write_text
from ric_diffusion.io.progress import tracking

STAMPS = "stamps.json"  # of a labelled folder: size and time of change of each file; of a cache
SHOWN = 1000  # files, from which on reading them takes so long that a person watches
DIGEST = "digest"  # the column that has it of members of tar files
NAME_DIGITS = 32  # of a sample's digest, which its file is named after


def check_unchanged(folder: Path, records: Sequence[Record], medium: Medium, cache: Path) -> None:
    """InputError, by its name, for a file of a labelled folder that was damaged or changed since.

    Read are only the files whose size or time of change is another than when they were labelled:
    after the folder was copied, all of them, once. What was seen of them is noted in ``cache``,
    with the time of any change, and files that have another one the next time are read then: also
    those that were put in their places with their sizes and times. What is read has to have the
    digest that is the file's name, or of a member of a tar file the digest in the metadata.
    """
    noted, labelled = _stamps(cache / STAMPS), _stamps(folder / STAMPS)
    now = {r.container: r.stamp or full_stamp(folder / r.container) for r in records}
    new = {file: its for file, its in now.items() if noted.get(file) != its}
    differ = {f for f, its in new.items() if f in noted or labelled.get(f) != its[:2]}
    changed = [record for record in records if record.container in differ]
    look = partial(_problem, folder, medium, Framing.read(folder))
    problems = {}
    with tracking("check", len(changed), unit=medium.name, show=len(changed) > SHOWN) as tracker:
        for record, problem in zip(changed, in_threads(look, changed), strict=True):
            if problem:
                problems[record.file] = problem
            tracker.advance()
    if problems:
        file, problem = next(iter(problems.items()))
        more = len(problems) - 1
        others = f" (and {counted(more, 'other files')} likewise)" if more else ""
        raise InputError(f"{folder / file}: {problem}{others}; run `ric label` again")
    if new:
        # In one line: nobody reads it, and it may be long.
        write_text(cache / STAMPS, json.dumps(noted | dict(sorted(new.items()))))


def _stamps(path: Path) -> dict[str, tuple[int, ...]]:
    """By file; none where there is no such file, or a damaged one: the samples are read then."""
    try:
        return {file: tuple(stamp) for file, stamp in json.loads(read_file(path)).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _problem(folder: Path, medium: Medium, framing: Framing, record: Record) -> str | None:
    """Why a file does not hold what was labelled, or None."""
    try:
        suffix = PurePosixPath(record.file).suffix
        content = seen(record.source(folder), medium, framing, suffix)
    except ValueError as error:
        return str(error)
    name = str(record.extra.get(DIGEST, "")) if record.span else PurePosixPath(record.file).stem
    if not re.fullmatch(f"[0-9a-f]{{{NAME_DIGITS}}}", name):  # not stored by us: it says nothing
        return None
    same = sample_digest(content, record, medium).startswith(name)
    return None if same else f"not the {medium.name} that was labelled"
