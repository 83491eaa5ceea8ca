"""``score`` and ``label``: what scorers say of pictures, for a person to read or to train on."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

import scorers as library
from ric_diffusion.data.embedded import prompt_in
from ric_diffusion.data.fitting import CentreBy
from ric_diffusion.data.framing import Framing, Rule
from ric_diffusion.data.images import UnreadableImage, open_image, picture_suffix
from ric_diffusion.data.label import LabelReport, label_folder
from ric_diffusion.data.label_engine import score_on, workers_for
from ric_diffusion.data.records import find_beside, find_records
from ric_diffusion.data.samples import BATCH_PIXELS
from ric_diffusion.data.scoring import FailedScorerError, each_alone, load_given, scores_of
from ric_diffusion.data.sidecars import CaptionRule
from ric_diffusion.io.counting import counted
from ric_diffusion.io.engines import LOCAL, EngineConfig, opened
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.io.extras import require
from ric_diffusion.io.paths import check_readable, expanded, expanded_name
from ric_diffusion.io.progress import ProgressCallback, reporting, tracking
from scorers.files import absolute

BATCH = 32

ScorerLike = str | library.Scorer


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """The scores of F pictures by n scorers.

    Attributes:
        files: the F pictures that could be read.
        names: the n scorers' names.
        units: the units of their scores.
        prompts: what the scorers that need prompts read; None if none does.
        scores: (F, n) float64, NaN where a scorer has no number.
        unreadable: why a picture was left out, by its path.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...]
    units: tuple[str, ...]
    prompts: tuple[str | None, ...]
    scores: np.ndarray
    unreadable: Mapping[Path, str]

    def rows(self) -> list[dict[str, Any]]:
        """One dict per picture: ``file``, ``prompt`` if one was read, and the scores by name; None
        for NaN."""
        return [
            {
                "file": str(file),
                **({} if prompt is None else {"prompt": prompt}),
                **{
                    name: value if math.isfinite(value) else None
                    for name, value in zip(self.names, row, strict=True)
                },
            }
            for file, prompt, row in zip(
                self.files, self.prompts, self.scores.tolist(), strict=True
            )
        ]


def score(
    paths: str | Path | Sequence[str | Path],
    scorers: Sequence[ScorerLike],
    *,
    progress: ProgressCallback | None = None,
) -> ScoreTable:
    """Score pictures.

    A picture's prompt, for scorers that read one, is the one in its own file, which programs that
    generate pictures write there; else the caption in a text file beside it or in the metadata of
    its folder. Where a scorer needs one, pictures without are left out.

    Args:
        paths: pictures, and folders with pictures in them or in their subfolders.
        scorers: names with their options (``"compressibility:resize=none"``), classes in files
            (``"greyness.py:Greyness"``), or scorers.

    InputError for a path that does not exist, if no picture can be read, or if a scorer needs
    prompts and no picture has one.
    """
    using = loaded_scorers(scorers)
    names = [scorer.name for scorer in using]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"scorers: {twice[0]} is given twice; score them one after the other")
    readers = [scorer.name for scorer in using if getattr(scorer, "needs_prompts", False)]
    given = [paths] if isinstance(paths, str | Path) else paths
    folders = [expanded(path) for path in given]
    files = pictures_in(folders)
    prompts = _prompts_of(files, folders) if readers else {}
    found: list[Path] = []
    rows: list[np.ndarray] = []
    left_out: dict[Path, str] = {}
    with reporting(progress), tracking("score", len(files), unit="picture") as tracker:
        waiting: list[tuple[Path, Image.Image]] = []

        def scored(pictures: Sequence[tuple[Path, Image.Image]]) -> np.ndarray:
            known = [prompts[path] for path, _ in pictures] if readers else None
            return scores_of([image for _, image in pictures], known, using)

        def score_them() -> None:
            """Those that a scorer fails on are left out, unless it has never worked."""
            try:
                if waiting:
                    rows.append(scored(waiting))
                    found.extend(path for path, _ in waiting)
            except FailedScorerError:
                for (path, _), row in each_alone(lambda one: scored([one]), waiting):
                    if isinstance(row, BaseException):
                        left_out[path] = str(row)
                    else:
                        rows.append(row)
                        found.append(path)
                if not rows:
                    raise
            waiting.clear()

        for path in files:
            if readers and path not in prompts:
                left_out[path] = f"no prompt, which {readers[0]} needs"
            else:
                try:
                    waiting.append((path, open_image(path)))
                except UnreadableImage as error:
                    left_out[path] = str(error)
            pixels = sum(image.width * image.height for _, image in waiting)
            if len(waiting) == BATCH or pixels >= BATCH_PIXELS:
                score_them()
            tracker.advance()
        score_them()
    if readers and not prompts:
        raise InputError(
            f"{given[0]}: {readers[0]} needs prompts, and no picture has one, neither in its file "
            f"nor in a text file beside it nor in metadata; write x.txt for x.png, or leave "
            f"{readers[0]} out"
        )
    if not found:
        path, reason = next(iter(left_out.items()))
        raise InputError(
            f"{given[0]}: none of {counted(len(files), 'files')} is a readable picture; "
            f"{path}: {reason}"
        )
    return ScoreTable(
        files=tuple(found),
        names=tuple(names),
        units=tuple(scorer.unit for scorer in using),
        prompts=tuple(prompts.get(path) for path in found),
        scores=np.concatenate(rows),
        unreadable=left_out,
    )


def _prompts_of(files: Sequence[Path], given: Sequence[Path]) -> dict[Path, str]:
    """What each picture was made from or shows, of those of which it is known."""
    found = {path: prompt for path in files if (prompt := prompt_in(path))}
    if len(found) < len(files):
        alone: dict[Path, list[str]] = {}
        for path in given:
            if not path.is_dir():
                alone.setdefault(path.parent, []).append(path.name)
        records = {path: find_records(path) for path in dict.fromkeys(given) if path.is_dir()}
        for folder, names in alone.items():
            records[folder] = [*records.get(folder, ()), *find_beside(folder, names)]
        for folder, of_folder in records.items():
            for record in of_folder:
                if record.captions:
                    found.setdefault(folder / record.file, record.captions[0])
    return {path: found[path] for path in files if path in found}


def label(
    folder: str | Path,
    out: str | Path,
    scorers: Sequence[ScorerLike],
    *,
    framing: Rule = "square",
    resolution: int | None = None,
    captions: CaptionRule = "whole",
    centre_by: CentreBy | None = None,
    shard: tuple[int, int] | None = None,
    engine: EngineConfig = LOCAL,
    progress: ProgressCallback | None = None,
) -> LabelReport:
    """Score captioned pictures, or responses to prompts, and write a labelled folder to train on.

    Resumable: called again after an interruption, it goes on. What makes the sliders hard to
    learn, as few samples or an outlier, is in the report's ``warnings``.

    Args:
        folder: an imagefolder with metadata, or pictures with captions beside them; or responses.
            Or shards: WebDataset tars (``<key>.jpg``, ``.txt``, ``.json``, and a parquet file
            beside, as img2dataset makes them) or parquet files with a column of pictures, as the
            hub has them, in a folder, itself or in data/, one of them, a pattern as
            ``"{00000..00099}.tar"``, or an address as ``"s3://…"``, whose package for fsspec is
            installed. Then ``out`` gets a shard for each.
        out: a new folder, or one that an earlier call began.
        scorers: names with their options, FILE.py:CLASS of one of your own, or scorers; all of
            pictures, or all of texts.
        framing: what scorers, and later training, see of a picture: ``"square"``, the middle
            square; ``"bucket"``, the middle of the nearest of SDXL's aspect ratios; or
            ``"whole"``, all of it, of which training then cuts a part away.
        resolution: of ``"bucket"``, the side of a square of the area that buckets have, which
            should be that of the training; by default 1024.
        captions: whether a text file beside a picture holds one caption, ``"whole"``, or one to a
            line, ``"lines"``.
        centre_by: what the scores of every reward are compared with: those of ``"all"`` samples, or
            of samples with the same ``"prompt"``, which is the canonical caption. By default as
            each scorer declares: most compare all.
        shard: ``(k, n)`` with 0 ≤ k < n is the part of one of n processes that share the work,
            of shards those numbered k, k + n, k + 2n, …; a last call without it does what is
            missing, merges, and writes the folder.
        engine: where the work is done. On Ray, workers share it, each with scorers of its own, so
            these are given by name. So do several processes of this machine: by default one for
            each core, where the folder is of shards and scorers, given by name, are ``light``.

    InputError if the folder, ``out`` or the scorers cannot be used.
    """
    require("train", "label")
    _check_choice("captions", captions, get_args(CaptionRule))
    if centre_by is not None:
        _check_choice("centre_by", centre_by, get_args(CentreBy))
    seen = _framing(framing, resolution)
    using = loaded_scorers(scorers)  # what is wrong with them is said before anything starts
    source, scored = expanded_name(str(folder)), Counter[str]()
    if engine == LOCAL and shard is None and all(isinstance(one, str) for one in scorers):
        engine = EngineConfig(workers=workers_for(source, using))
    with reporting(progress):
        if engine.name != "local" or (engine.workers or 1) > 1:
            if shard is not None:
                raise InputError("shard: the engine shares the work itself; leave one of them out")
            named = names_of_scorers(scorers)
            with opened(engine) as running:
                scored = score_on(
                    running,
                    source,
                    expanded(out),
                    using,
                    named,
                    framing=seen,
                    captions=captions,
                )
        report = label_folder(
            source,
            expanded(out),
            using,
            framing=seen,
            captions=captions,
            centre_by=centre_by,
            shard=shard,
        )
    scored.update(report.scored)
    return replace(report, scored=dict(scored))


def _framing(rule: Rule, resolution: int | None) -> Framing:
    _check_choice("framing", rule, get_args(Rule))
    if resolution is None:
        return Framing(rule=rule)
    if rule != "bucket":
        raise InputError(f"resolution: framing {rule!r} has none; give it with bucket only")
    try:
        return Framing(rule=rule, resolution=resolution)
    except ValueError as error:
        raise InputError(str(error)) from error


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{name}: {value!r} is unknown{suggest(value, choices)}")


def loaded_scorers(given: Sequence[ScorerLike]) -> list[Any]:
    """Scorers as they are, those that a person named loaded."""
    return [load_given(one) if isinstance(one, str) else one for one in given]


def names_of_scorers(given: Sequence[ScorerLike]) -> list[str]:
    """For workers elsewhere, who load them by name. InputError for one that is not given by it."""
    found = []
    for one in given:
        if not isinstance(one, str):
            raise InputError(
                f"scorers: workers elsewhere load {one.name} by its name; give that as text"
            )
        found.append(absolute(one))
    return found


def pictures_in(paths: Sequence[Path]) -> list[Path]:
    """Pictures named, and those in the folders named, sorted. InputError if there is none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in _files_below(path) if _is_picture(p, path))
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or folder")
    if not found:
        raise InputError(f"{paths[0] if paths else 'paths'}: no pictures in it")
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    check_readable(folder)
    for place, folders, names in os.walk(folder):
        for name in folders:
            if not os.path.islink(path := os.path.join(place, name)):
                check_readable(path)
        yield from (Path(place, name) for name in names)


def _is_picture(path: Path, folder: Path) -> bool:
    """Hidden names are none, among them what a killed process left half written."""
    hidden = any(name.startswith(".") for name in path.relative_to(folder).parts)
    return not hidden and picture_suffix(path) is not None
