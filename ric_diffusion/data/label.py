"""Labelling: pictures or texts and scorers in, records with scores and a reward space out."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm.auto import tqdm

from ric_diffusion.data.journal import Journal, is_journal
from ric_diffusion.data.pictures import usable_pictures
from ric_diffusion.data.publish import clear_leftovers, publish
from ric_diffusion.data.records import (
    METADATA,
    REWARD_SPACE,
    SCORE_PREFIX,
    Record,
    metadata_bytes,
    read_folder,
)
from ric_diffusion.data.samples import batches
from ric_diffusion.data.scoring import Scoring
from ric_diffusion.data.texts import usable_texts
from ric_diffusion.errors import InputError
from ric_diffusion.rewards import RewardSpace
from scorers import Scorer

JOURNAL = "scores.jsonl"
SKIPPED = "skipped.json"
ORIGINAL = "original"  # the column with the path that a sample had in the folder
USABLE = {"image": usable_pictures, "text": usable_texts}
_NAME_DIGITS = 32


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """What a labelling did.

    Args:
        out: the labelled folder.
        kept: number of records in it.
        medium: what the samples are, "image" or "text".
        skipped: why a sample was left out, by its path in the input folder.
        scored: number of scores computed in this run, by reward; the others were in the journal.
        space: the reward space, fitted on the records kept.
        written: False if all of the output was there already.
    """

    out: Path
    kept: int
    medium: str
    skipped: Mapping[str, str]
    scored: Mapping[str, int]
    space: RewardSpace
    written: bool


def label_folder(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    scorers: Sequence[Scorer],
    *,
    batch_size: int = 64,
    progress: bool = True,
) -> LabelReport:
    """Score the pictures of `folder`, or its texts, and write them, labelled, to `out`.

    Texts are responses to prompts: metadata names their files, with the prompt as caption. Which of
    the two the folder holds, the scorers say.

    `out` gets images/ or texts/, metadata.parquet, reward_space.json and skipped.json, all of them
    or none, and a journal of scores, scores.jsonl: a run that was killed goes on where it stopped
    and ends with the same bytes, and a later run scores only what is new (samples, captions where a
    scorer reads them, scorers, a changed fingerprint). The output holds the rewards of `scorers`
    alone; scores that the records came with are passed through like their other columns.

    Left out, with a reason, are samples that cannot be read, are blank or empty, have no caption,
    are the same as an earlier one, or get no finite score. Scorers see the canonical captions.
    Samples are stored under a digest of what they hold, since `datasets` takes train.png or
    test/a.png for a split; the column `original` has their path in `folder`.

    Raises InputError if the folder, `out` or the scorers cannot be used, if fewer than two samples
    are left, or if a reward does not vary.
    """
    medium = _check_scorers(scorers, batch_size)
    records = read_folder(folder)
    root = Path(os.path.realpath(folder))
    target = _check_out(root, out)
    skipped: dict[str, str] = {}
    with Journal.open(target / JOURNAL) as journal:
        clear_leftovers(target)
        scoring = Scoring(journal, scorers, skipped)
        usable: list[tuple[Record, str]] = []
        with (
            closing(USABLE[medium](root, records, skipped)) as samples,
            tqdm(samples, "label", len(records), unit=medium, disable=not progress) as bar,
        ):
            for batch in batches(bar, batch_size):
                scoring.score(batch)
                usable += [(sample.record, sample.digest) for sample in batch]
        kept = [
            (record, _labelled(record, f"{medium}s", digest, scores))
            for record, digest in usable
            if (scores := scoring.scores(record, digest)) is not None
        ]
        skipped = {r.file: skipped[r.file] for r in records if r.file in skipped}
        if len(kept) < 2:
            raise InputError(_too_few(folder, medium, len(kept), skipped))
        space = _fit(scorers, lambda name: [labelled.scores[name] for _, labelled in kept])
        written = publish(
            target,
            _files([labelled for _, labelled in kept], skipped, space),
            {PurePosixPath(new.file).name: root / old.file for old, new in kept},
            below=f"{medium}s",
        )
    return LabelReport(
        out=Path(out),
        kept=len(kept),
        medium=medium,
        skipped=skipped,
        scored=dict(scoring.computed),
        space=space,
        written=written,
    )


def _check_scorers(scorers: Sequence[Scorer], batch_size: int) -> str:
    """What all of them score, "image" or "text"."""
    names = [scorer.name for scorer in scorers]
    if not names:
        raise InputError("scorers: none given; name at least one")
    if twice := sorted(name for name in set(names) if names.count(name) > 1):
        raise InputError(
            f"scorers: {twice[0]!r} is given twice; names must differ, and a reward_model takes "
            "one: called=NAME"
        )
    if batch_size < 1:
        raise InputError(f"batch_size: must be 1 or more, not {batch_size}")
    # A scorer of another shape says nothing: they were all of pictures once.
    media = {scorer.name: getattr(scorer, "medium", "image") for scorer in scorers}
    if len(set(media.values())) > 1:
        told = ", ".join(f"{name} {medium}s" for name, medium in media.items())
        raise InputError(f"scorers: they must all score the same, but {told}")
    _fit(scorers, lambda name: [0.0, 1.0])  # what a reward space refuses: now, not last
    return media[names[0]]


def _check_out(root: Path, out: str | os.PathLike[str]) -> Path:
    """The real path of `out`, which is new, empty, or was begun by a labelling."""
    target = Path(os.path.realpath(out))
    if target.is_relative_to(root) or root.is_relative_to(target):
        raise InputError(f"out: {out} and the input folder {root} lie in each other; move one out")
    if target.exists() and not target.is_dir():
        raise InputError(f"out: {out} is a file; name a folder")
    others = os.listdir(target) if target.exists() else []
    if others and not is_journal(target / JOURNAL):
        raise InputError(f"out: {out} already holds {min(others)!r}; name a new or empty folder")
    return target


def _labelled(record: Record, place: str, digest: str, scores: dict[str, float]) -> Record:
    """The record of the output: its file under the new name, its other columns kept."""
    columns: dict[str, Any] = {SCORE_PREFIX + name: score for name, score in record.scores.items()}
    columns |= record.extra
    new = {SCORE_PREFIX + name for name in scores}
    return replace(
        record,
        file=f"{place}/{digest[:_NAME_DIGITS]}{PurePosixPath(record.file).suffix.lower()}",
        scores=scores,
        extra={ORIGINAL: record.file} | {k: v for k, v in columns.items() if k not in new},
    )


def _fit(scorers: Sequence[Scorer], scores: Callable[[str], list[float]]) -> RewardSpace:
    """The reward space of `scorers`; `scores` gives the scores of a reward by name."""
    return RewardSpace.fit(
        {s.name: scores(s.name) for s in scorers},
        units={s.name: s.unit for s in scorers},
        # What builds one again is the name of its kind, where its own was chosen.
        scorers={
            s.name: {"name": getattr(s, "kind", s.name), "options": s.options} for s in scorers
        },
        fingerprints={s.name: s.fingerprint for s in scorers},
    )


def _files(
    records: Sequence[Record], skipped: Mapping[str, str], space: RewardSpace
) -> dict[str, bytes]:
    """The files of the output by name, the one that makes it whole first."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, REWARD_SPACE)
        space.save(path)
        space_bytes = path.read_bytes()
    entries = [{"file": file, "reason": reason} for file, reason in skipped.items()]
    return {
        METADATA: metadata_bytes(records),
        REWARD_SPACE: space_bytes,
        SKIPPED: json.dumps(entries, indent=2).encode() + b"\n",
    }


def _too_few(
    folder: str | os.PathLike[str], medium: str, kept: int, skipped: Mapping[str, str]
) -> str:
    file, reason = next(iter(skipped.items()), ("", ""))
    why = f"; {len(skipped)} were skipped, {file!r} first: {reason}" if skipped else ""
    what = "pictures" if medium == "image" else "texts"
    return f"{folder}: {kept} usable {what}, at least 2 are needed{why}"
