"""Records on disk: a folder of captioned pictures, or of responses to prompts, labelled or not."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ric_diffusion.data import metadata
from ric_diffusion.data.images import picture_suffix
from ric_diffusion.data.names import folded
from ric_diffusion.data.prompts import NO_TEXT, is_utf16
from ric_diffusion.data.sidecars import CaptionRule, Sidecars, UnreadableCaption, read_captions
from ric_diffusion.io.counting import counted
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_bytes
from ric_diffusion.io.manifest import DamagedError, check_manifest
from ric_diffusion.io.paths import check_readable
from ric_diffusion.rewards import RewardSpace

if TYPE_CHECKING:
    from ric_diffusion.data.parquet import Kind

METADATA = "metadata.parquet"
REWARD_SPACE = "reward_space.json"
PLAIN = re.compile(r"(\w[\w -]*/)*\w[\w -]*(\.\w+)?")  # a path that leads nowhere else
SCORE_PREFIX = "score_"  # the column of reward `x` is `score_x`
TAR_OFFSET, TAR_SIZE = "tar_offset", "tar_size"  # columns: where a tar file holds a member's bytes
_LIST = re.compile(r'\s*\[\s*(["\]]|null)')  # how a JSON list of texts begins
_PLACE = {metadata.FILE, TAR_OFFSET, TAR_SIZE}  # columns that say where a sample is
TAR = ".tar/"  # in the path of a member
Stamp = tuple[int, int, int]  # size in bytes, time of change in ns, and that of any change
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One sample: a picture and what it shows, or a text and what it responds to, and its scores
    once it is labelled.

    Args:
        file: path relative to the folder, with forward slashes.
        captions: the canonical caption first, which of a text is its prompt, then the alternatives;
            empty if it has none.
        scores: raw score by reward name.
        extra: the other columns of the metadata, untouched; a null cell is left out.
        span: first byte and number of bytes of a sample that is a member of a tar file, whose path
            is what ``file`` begins with.
        stamp: of the file that is named or that the sample is a part of, as it was when metadata
            that names it was read; None if it is not there, or if no metadata names it.
        problem: why what is said of it cannot be read, in words for the user; "" if it can.
    """

    file: str
    captions: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    span: tuple[int, int] | None = None
    stamp: Stamp | None = field(default=None, compare=False)
    problem: str = ""

    @property
    def container(self) -> str:
        """The path of the file that holds the sample."""
        return self.file if self.span is None else _tar_of(self.file)

    def source(self, folder: Path) -> Path | bytes:
        """What to read the sample from: a file, or the bytes of one that is in a tar file."""
        if self.span is None:
            return folder / self.file
        start, size = self.span
        with (folder / self.container).open("rb") as file:
            file.seek(start)
            return file.read(size)


def read_folder(folder: str | os.PathLike[str], *, captions: CaptionRule = "whole") -> list[Record]:
    """The records of a folder: an imagefolder with metadata, captions beside pictures, or both.

    Subfolders are included, hidden names and links to folders are not; a metadata file speaks for
    the folder it is in.
    Records come in the order of the metadata, then by name those it doesn't mention, with what
    `x.txt` or `x.caption` holds as the caption of `x.png`, or with `captions` "lines" each of its
    lines as one. Rows about one file become one record. A record may lack captions or, with a
    warning, its file, or its captions may not be text, which is its problem: who opens it reports
    that.

    Raises InputError if the folder is missing, not to be read, empty or without any caption, if
    metadata is malformed, or if a path leads out of the folder.
    """
    root = _existing(folder)
    found = find_records(folder, captions=captions)
    if not found:
        raise InputError(f"{folder}: no pictures in it; name a folder of PNG, JPEG or WebP files")
    if not any(record.captions for record in found):
        if problem := next((record.problem for record in found if record.problem), ""):
            raise InputError(f"{folder}: no captions that can be read: {problem}")
        raise InputError(
            f"{folder}: no captions; add metadata.jsonl with file_name and text, or x.txt to x.png"
        )
    if missing := [r.file for r in found if r.stamp is None and not os.path.isfile(root / r.file)]:
        _log.warning(
            "%s: %d of %d files missing, %r first", folder, len(missing), len(found), missing[0]
        )
    return found


def find_records(
    folder: str | os.PathLike[str], *, captions: CaptionRule = "whole"
) -> list[Record]:
    """The same, where a folder may also be empty or without captions."""
    root = _existing(folder)
    pictures, metadata_files = _walk(root)
    records = _from_metadata(root, metadata_files)
    if unknown := records.keys() - set(pictures):
        records = _under_real_names(root, records, unknown, pictures)
    for file in pictures:
        records.setdefault(file, Record(file=file))
    return _with_sidecars(root, list(records.values()), captions)


def find_beside(folder: str | os.PathLike[str], names: Iterable[str]) -> list[Record]:
    """The records of some files of a folder, of which nothing else is looked at but its metadata
    and the text files beside these."""
    root = _existing(folder)
    tables = [root / name for name in metadata.NAMES if (root / name).is_file()]
    known = _from_metadata(root, tables) if tables else {}
    return _with_sidecars(root, [known.get(name, Record(file=name)) for name in names], "whole")


def read_labelled(folder: str | os.PathLike[str]) -> tuple[list[Record], RewardSpace]:
    """Records and reward space as `ric label` left them; every record has every score. InputError
    that names a file which is no longer what it wrote; pictures are looked at by
    `check_unchanged`."""
    root = _existing(folder)
    for name in (METADATA, REWARD_SPACE):
        if not (root / name).is_file():
            raise InputError(f"{folder}: {name} is missing; `ric label` makes such a folder")
    check_written(root)
    space = RewardSpace.load(root / REWARD_SPACE)
    records = list(_from_metadata(root, [root / METADATA], space.names).values())
    for record in records:
        for name in space.names:
            if not math.isfinite(record.scores.get(name, math.nan)):
                raise InputError(f"{folder}: {record.file!r} has no {name}; run `ric label` again")
    if missing := [record.file for record in records if record.stamp is None]:
        gone = (
            f"{len(missing)} of {counted(len(records), 'pictures')} missing, {missing[0]!r} first"
        )
        raise InputError(f"{folder}: {gone}; run `ric label` again")
    return records, space


def check_written(folder: Path) -> None:
    """InputError that names a file of a labelled folder, its samples aside, which is no longer
    what `ric label` wrote."""
    try:
        check_manifest(folder, [METADATA, REWARD_SPACE])
    except DamagedError as error:
        raise InputError(f"{error}; run `ric label` again") from error


def write_metadata(folder: str | os.PathLike[str], records: Sequence[Record]) -> None:
    """Write `metadata.parquet` into `folder`, in one move."""
    write_bytes(Path(folder) / METADATA, metadata_bytes(records))


def metadata_bytes(
    records: Sequence[Record], kinds: Mapping[str, Kind] = MappingProxyType({}), note: str = ""
) -> bytes:
    """What `write_metadata` writes: `datasets` loads it, and `read_folder` gives `records` back.

    Columns: file_name, text (the canonical caption), captions (all of them), score_<reward> as
    float64, then whatever the records carry in `extra`, of which ``kinds`` are there in any case.
    ``note`` is kept beside them.
    """
    from ric_diffusion.data.parquet import to_parquet  # here: a model needs records alone

    text = metadata.CAPTIONS[0]
    own: dict[str, Kind] = {metadata.FILE: "text", text: "text", metadata.ALTERNATIVES: "texts"}
    for record in records:
        own |= {SCORE_PREFIX + name: "number" for name in record.scores}
    rows: list[dict[str, Any]] = []
    for record in records:
        if taken := own.keys() & record.extra.keys():
            raise InputError(f"{record.file}: extra holds a column {min(taken)!r}; rename it")
        row: dict[str, Any] = {
            metadata.FILE: record.file,
            text: next(iter(record.captions), None),
            metadata.ALTERNATIVES: list(record.captions),
        }
        row |= {SCORE_PREFIX + name: score for name, score in record.scores.items()}
        if record.span is not None:
            row |= {TAR_OFFSET: record.span[0], TAR_SIZE: record.span[1]}
        rows.append(row | dict(record.extra))
    return to_parquet(rows, {**own, **kinds}, note)


def _existing(folder: str | os.PathLike[str]) -> Path:
    """The real path of a folder that exists."""
    root = Path(os.path.realpath(folder))
    if not root.exists():
        raise InputError(f"{folder}: no such folder")
    if not root.is_dir():
        raise InputError(f"{folder}: a file; name the folder it is in")
    check_readable(root)
    return root


def _walk(root: Path) -> tuple[list[str], list[Path]]:
    """Pictures by relative path and metadata files under `root`, both sorted."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})")

    pictures: list[str] = []
    metadata_files: list[Path] = []
    for place, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(place)
        for name in folders:
            _check_inside(root, here / name, f"{root}: {name!r}")
        for name in names:
            path = here / name
            if name in metadata.NAMES:
                _check_inside(root, path, str(path))
                metadata_files.append(path)
            elif not name.startswith(".") and picture_suffix(path):
                _check_inside(root, path, str(path))
                pictures.append(path.relative_to(root).as_posix())
    counts = Counter(path.parent for path in metadata_files)
    if twice := [place for place, count in counts.items() if count > 1]:
        raise InputError(f"{twice[0]}: more than one of {', '.join(metadata.NAMES)}; keep one")
    return sorted(pictures), sorted(metadata_files)


def _check_inside(root: Path, path: Path, where: str) -> None:
    if not Path(os.path.realpath(path)).is_relative_to(root):
        raise InputError(f"{where}: leads out of {root}; copy the file into the folder")


class _Place:
    """Where the files of one metadata file are, and the same look at many of them, for which each
    folder and each tar file is looked at once."""

    def __init__(self, root: Path, file: Path) -> None:
        self.root, self.folder, self.written = root, file.parent, file.suffix == ".csv"
        below = self.folder.relative_to(root).as_posix()
        self.prefix = "" if below == "." else f"{below}/"
        self._folders: dict[str, bool] = {}
        self._tars: dict[str, Stamp | None] = {}

    def look(self, path: str, where: str, file: str, *, member: bool) -> Stamp | None:
        """The stamp of a file, or with ``member`` of the tar file that it is in; None if it is not
        there. InputError if it leads out of the folder."""
        if member:
            path = _tar_of(path)
            if path not in self._tars:
                self._tars[path] = self.look(path, where, file, member=False)
            return self._tars[path]
        folder = os.path.dirname(path)
        if folder not in self._folders:
            self._folders[folder] = Path(os.path.realpath(folder)).is_relative_to(self.root)
        try:
            status = os.lstat(path)
            link = stat.S_ISLNK(status.st_mode)
            if link:
                status = os.stat(path)
        except (OSError, ValueError):
            status, link = None, os.path.islink(path)
        if link or not self._folders[folder]:
            _check_inside(self.root, Path(path), f"{where}: {file!r}")
        if status is None or not stat.S_ISREG(status.st_mode):
            return None
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _from_metadata(
    root: Path, paths: Iterable[Path], names: Sequence[str] | None = None
) -> dict[str, Record]:
    """Records by file, in the order in which the metadata files first name them, with the scores of
    ``names``, or all."""
    records: dict[str, Record] = {}
    for path in paths:
        place = _Place(root, path)
        for where, cells, problem in metadata.read_rows(path):
            record = _from_row(place, where, _mended(cells) if problem else cells, names)
            if names is None and is_utf16("".join(record.captions)):
                problem = f"{where}: {NO_TEXT}"
            _add(records, replace(record, captions=(), problem=problem) if problem else record)
    return records


def _mended(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Cells with question marks for what is no UTF-8, so that a file can be named."""
    return {name: metadata.to_utf8(v) if isinstance(v, str) else v for name, v in cells.items()}


def _add(records: dict[str, Record], record: Record) -> None:
    """Add a record; to one about the same file, its captions."""
    if (first := records.get(record.file)) is not None:
        captions = tuple(dict.fromkeys(first.captions + record.captions))
        record = replace(first, captions=captions)
    records[record.file] = record


def _under_real_names(
    root: Path, records: Mapping[str, Record], unknown: Collection[str], pictures: Sequence[str]
) -> dict[str, Record]:
    """Records of metadata that was written on another system, by the names that their files have
    here. One of the ``unknown`` names, of which there is no file, stands for the picture whose name
    differs in nothing that matters, if there is one such."""
    fitting: dict[str, list[str]] = {}
    for picture in pictures:
        fitting.setdefault(folded(picture), []).append(picture)
    found: dict[str, Record] = {}
    for file, record in records.items():
        if file in unknown and not os.path.isfile(root / file):
            names = fitting.get(folded(file), [])
            record = replace(record, file=names[0]) if len(names) == 1 else record
        _add(found, record)
    return found


def _from_row(
    place: _Place, where: str, cells: dict[str, Any], names: Sequence[str] | None
) -> Record:
    """One row of a metadata file, about a file relative to that one's folder."""
    span = _span(where, cells.get(TAR_OFFSET), cells.get(TAR_SIZE))
    file, stamp = _relative(place, where, cells.get(metadata.FILE), member=span is not None)
    if span is not None and stamp is not None and sum(span) > stamp[0]:
        stamp = None  # the tar file was cut short
    return from_cells(
        file, where, cells, names=names, written=place.written, span=span, stamp=stamp
    )


def from_cells(
    file: str,
    where: str,
    cells: Mapping[str, Any],
    *,
    names: Sequence[str] | None = None,
    written: bool = False,
    span: tuple[int, int] | None = None,
    stamp: Stamp | None = None,
) -> Record:
    """The record of `file`, made of the cells of a row. Scores of other rewards than ``names``, if
    they are given, stay columns. ``written``: numbers stand there as text. InputError, which begins
    with ``where``, for captions that are no text."""
    extra = {name: value for name, value in cells.items() if name not in _PLACE}
    captions: list[Any] = []
    columns = [name for name in metadata.CAPTIONS if name in extra]
    for column in columns:  # the first that is not blank
        captions = [extra.pop(column)]
        if not _is_blank(captions[0]):
            break
    captions += _alternatives(where, extra.pop(metadata.ALTERNATIVES, ()))
    scores = {}
    for name in [name for name in extra if name.startswith(SCORE_PREFIX)]:
        reward = name.removeprefix(SCORE_PREFIX)
        if names is not None and reward not in names:
            continue
        if (number := _number(extra[name], written=written)) is not None:
            scores[reward] = number
            del extra[name]
    # A dictionary that lost entries stays as large as it was, and so does a plain copy.
    others = {name: value for name, value in extra.items()}
    return Record(
        file=file,
        captions=clean(where, captions),
        scores=scores,
        extra=others,
        span=span,
        stamp=stamp,
    )


def _span(where: str, start: Any, size: Any) -> tuple[int, int] | None:
    if start is None and size is None:
        return None
    if not all(isinstance(n, int) and n >= 0 for n in (start, size)):
        raise InputError(f"{where}: {TAR_OFFSET} is {start!r} and {TAR_SIZE} {size!r}; label again")
    return start, size


def _tar_of(file: str) -> str:
    """The tar file that a member's path begins with."""
    return file[: file.index(TAR) + len(TAR) - 1]


def _relative(place: _Place, where: str, file: Any, *, member: bool) -> tuple[str, Stamp | None]:
    """The path of a row's file relative to `root`, refused unless it stays inside `place`, and the
    file's stamp. ``member``: of one in a tar file."""
    if not isinstance(file, str) or not file or "\0" in file or file != metadata.to_utf8(file):
        raise InputError(f"{where}: {metadata.FILE} is {file!r}; give the picture's path")
    if member and TAR not in file:
        raise InputError(f"{where}: {metadata.FILE} {file!r} is in no tar file; label again")
    if PLAIN.fullmatch(file):  # of what most files are called, without the cost of path objects
        path = f"{place.root}/{place.prefix}{file}"
        return place.prefix + file, place.look(path, where, file, member=member)
    pure = PurePosixPath(file)
    if pure.is_relative_to(place.folder):
        pure = pure.relative_to(place.folder)
    if pure.is_absolute() or PureWindowsPath(file).drive or ".." in pure.parts:
        raise InputError(f"{where}: {metadata.FILE} {file!r} leads out of the folder; refused")
    inside = place.folder / pure
    stamp = place.look(str(inside), where, file, member=member)
    return inside.relative_to(place.root).as_posix(), stamp


def _alternatives(where: str, cell: Any) -> list[Any]:
    """A list of captions; in CSV, which has no lists, a JSON list. What only begins with a bracket,
    as "[V] dog", is one caption."""
    if isinstance(cell, str) and _LIST.match(cell):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: captions is not a JSON list ({error})") from error
    if not isinstance(cell, (str, list, tuple)):
        raise InputError(f"{where}: captions is {cell!r}; give a list of texts")
    return [cell] if isinstance(cell, str) else list(cell)


def _is_blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def clean(where: str, captions: Iterable[Any]) -> tuple[str, ...]:
    """Captions without blanks and repeats, as UTF-8 can hold them."""
    found = []
    for caption in captions:
        if caption is not None and not isinstance(caption, str):
            raise InputError(f"{where}: {caption!r} is no caption; captions are text")
        found.append(metadata.to_utf8((caption or "").strip()))
    return tuple(dict.fromkeys(caption for caption in found if caption))


def _number(cell: Any, *, written: bool) -> float | None:
    """A score: a number, or with `written` also its text, all that CSV has. None for the rest."""
    kinds = (int, float, str) if written else (int, float)
    if isinstance(cell, bool) or not isinstance(cell, kinds):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None


def _with_sidecars(root: Path, records: Sequence[Record], rule: CaptionRule) -> list[Record]:
    """The records, with captions from text files where they have none."""
    sidecars = Sidecars()
    return [r if r.captions or r.problem else _told(root, r, sidecars, rule) for r in records]


def _told(root: Path, record: Record, sidecars: Sidecars, rule: CaptionRule) -> Record:
    """The record with what the first text file beside its sample holds that is not blank."""
    for path in sidecars.beside(root / record.file):
        _check_inside(root, path, str(path))
        try:
            captions = clean(str(path), read_captions(path, rule))
        except UnreadableCaption as error:
            return replace(record, problem=f"its caption {path.name} cannot be read ({error})")
        if captions:
            return replace(record, captions=captions)
    return record
