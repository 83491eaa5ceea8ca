"""Labelling: pictures or texts and scorers in, records with scores and a reward space out.

One process does all of it, or several share the work: each is a worker that scores its part, of a
folder of files into a journal of its own, of tar or parquet shards into an output shard for each; a
run without a part then scores what is missing, merges and publishes. Nothing is locked: any of them
may be killed and run again.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ric_diffusion.data.fitting import CentreBy, compares_within_prompt, fit_space
from ric_diffusion.data.framing import FRAMING, Framing
from ric_diffusion.data.images import picture_suffix
from ric_diffusion.data.input_shards import InputShard, find_shards
from ric_diffusion.data.label_warnings import too_few, warnings_of
from ric_diffusion.data.labelled import labelled
from ric_diffusion.data.medium import IMAGE, MEDIA, Medium
from ric_diffusion.data.publish import publish, space_bytes
from ric_diffusion.data.records import (
    METADATA,
    REWARD_SPACE,
    Record,
    metadata_bytes,
    read_folder,
)
from ric_diffusion.data.samples import Sample, Unread, batches, usable_samples
from ric_diffusion.data.score_journal import BatchScoring, ScoreJournal
from ric_diffusion.data.sidecars import CaptionRule
from ric_diffusion.data.skipped import FILE, REASON, SKIPPED
from ric_diffusion.data.unchanged import NAME_DIGITS, STAMPS
from ric_diffusion.io import config
from ric_diffusion.io.bounds import MOST_SAMPLES
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.io.files import clear_leftovers
from ric_diffusion.io.manifest import MANIFEST, manifest_bytes
from ric_diffusion.io.progress import Tracker, tracking
from ric_diffusion.io.run import RunFolder
from ric_diffusion.rewards import RewardSpace
from scorers import Scorer


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """What a labelling did.

    Args:
        out: the labelled folder.
        count: number of records in it; of a part, the number of its samples that have all scores.
        medium: what the samples are, "image" or "text".
        skipped: why a sample was left out, by its path in the input; of shards, read from the
            output when it is asked for.
        scored: number of scores computed in this run, by reward; the others were in the journal.
        space: the reward space, fitted on the records; None of a part.
        warnings: what makes the sliders hard to learn, a line each; nothing of a part.
        written: whether the output changed: False if all of it was there already, and of a part.
    """

    out: Path
    count: int
    medium: str
    skipped: Mapping[str, str]
    scored: Mapping[str, int]
    space: RewardSpace | None
    warnings: tuple[str, ...]
    written: bool


def label_folder(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    scorers: Sequence[Scorer],
    *,
    framing: Framing | None = None,
    captions: CaptionRule = "whole",
    centre_by: CentreBy | None = None,
    shard: tuple[int, int] | None = None,
    batch_size: int = 64,
    progress: bool = True,
) -> LabelReport:
    """Score the pictures of `folder`, or its texts, and write them, labelled, to `out`. It may
    also be what `find_shards` takes: tar or parquet files, in a folder, by a pattern or an address.

    Texts are responses to prompts: metadata names their files, with the prompt as caption. Which of
    the two are read follows from the scorers.

    Scorers see of a picture what training sees of it: its frame by `framing`, the middle square
    unless it says otherwise. A frame also decides whether a picture is blank or the same as another
    one. `captions`: whether a text file beside a picture holds one caption or one to a line.
    `centre_by`: what scores are compared with, as `fit_space` has it.

    `out` gets images/ or texts/, metadata.parquet, reward_space.json, skipped.json, stamps.json and
    of pictures framing.json, with a manifest.json of these files, all of them or none, and a
    journal of scores, a file scores-….jsonl for each process: a run that was killed goes on where
    it stopped and ends with the same bytes, and a later run scores only what is new (samples,
    captions where a scorer reads them, scorers, a changed fingerprint). The output holds the
    rewards of `scorers` alone; scores that the records came with are passed through like their
    other columns.

    With ``shard=(k, n)``, 0 ≤ k < n, only the blocks k, k + n, k + 2n, … of `batch_size` records
    are scored, into the journal, and nothing else is written. Run that for every k, on as many
    machines as see the folder, at once or not; then run without it, which scores what is missing
    and writes the output.

    Of shards in, shards come out: shards/ has for each a tar with the accepted samples, a parquet
    file with a row for each, and a list of the others, and metadata.parquet has the rows of all,
    with where in its tar each picture is. A shard that is whole is not touched again. Nothing of a
    broken one is labelled, and it is listed by its name. ``shard=(k, n)`` writes the shards k,
    k + n, k + 2n, … and memory does not grow with the number of pictures, but for 40 bytes each and
    8 for each score.

    Left out, with a reason, are samples that cannot be read, are blank or empty, have no caption,
    are the same as an earlier one, or get no finite score, and pictures that are too wide or too
    narrow for the framing. Scorers see the canonical captions. Samples are copied as they are, and
    stored under a digest of what is seen of them, since `datasets` takes train.png or
    test/a.png for a split; the column `original` has their path in `folder`.

    Raises InputError if the folder, `out` or the scorers cannot be used, if fewer than two samples
    are left, or if a reward does not vary.
    """
    medium = _check_scorers(scorers, batch_size)
    # What a reward space refuses: now, not last.
    fit_space(scorers, {s.name: [0.0, 1.0] for s in scorers}, ["", ""], centre_by)
    check_shard(shard)
    framing = framing or Framing()
    # Other scorers or samples make no other run: what the output has of them is used.
    identity: dict[str, Any] = {"medium": medium.name}
    if medium is IMAGE:
        identity["framing"] = config.to_dict(framing)
    if shards := find_shards(folder):
        if medium is not IMAGE:
            raise InputError(f"{folder}: shards hold pictures; {scorers[0].name} scores texts")
        target = _check_out_of_shards(folder, shards, out)
        RunFolder(target, "label").begin({**identity, "layout": "shards"})
        clear_leftovers(target)
        from ric_diffusion.data.label_shards import label_shards  # here: it needs parquet

        return label_shards(
            shards,
            target,
            scorers,
            source=str(folder),
            framing=framing,
            captions=captions,
            centre_by=centre_by,
            part=shard,
            batch_size=batch_size,
            progress=progress,
        )
    records = read_folder(folder, captions=captions)
    root = Path(os.path.realpath(folder))
    target = _check_out(root, out)
    RunFolder(target, "label").begin(identity)
    clear_leftovers(target)
    if shard is not None:
        part, count = shard
        records = [r for i, r in enumerate(records) if i // batch_size % count == part]
    unread = (Unread(record=record, source=root / record.file) for record in records)
    skipped: dict[str, str] = {}
    with closing(ScoreJournal(target)) as journal:
        scoring = BatchScoring(journal, scorers, skipped)
        usable: list[tuple[Record, str, tuple[int, int]]] = []
        with (
            closing(usable_samples(unread, medium, framing, skipped)) as samples,
            tracking("label", len(records), unit=medium.name, show=progress) as tracker,
        ):
            for batch in batches(_counted(samples, tracker), batch_size):
                scoring.score(batch)
                usable += [(sample.record, sample.digest, sample.stamp) for sample in batch]
        journal.reload()  # for the same scores as others that label this folder now
    done = [
        (record, labelled(record, _stored_as(root, record, digest, medium), scores), stamp)
        for record, digest, stamp in usable
        if (scores := scoring.scores(record, digest)) is not None
    ]
    skipped = {r.file: skipped[r.file] for r in records if r.file in skipped}
    space, written = None, False
    warnings: tuple[str, ...] = ()
    if shard is None:
        if len(done) < 2:
            raise InputError(too_few(folder, medium.plural, len(done), skipped))
        columns = {s.name: [new.scores[s.name] for _, new, _ in done] for s in scorers}
        prompts = [new.captions[0] for _, new, _ in done]
        space = fit_space(scorers, columns, prompts, centre_by)
        originals = [old.file for old, _, _ in done]
        declared = [] if centre_by else [s.name for s in scorers if compares_within_prompt(s)]
        warnings = warnings_of(space, columns, prompts, originals, medium.plural, declared=declared)
        files = _files([new for _, new, _ in done], skipped, space)
        stamps = {new.file: stamp for _, new, stamp in done}
        files[STAMPS] = json.dumps(stamps).encode()  # nobody reads it, and it may be long
        if medium is IMAGE:
            files[FRAMING] = framing_bytes(framing)
        files[MANIFEST] = manifest_bytes(files)
        written = publish(
            target,
            files,
            {PurePosixPath(new.file).name: root / old.file for old, new, _ in done},
            below=f"{medium.name}s",
        )
    return LabelReport(
        out=Path(out),
        count=len(done),
        medium=medium.name,
        skipped=skipped,
        scored=dict(scoring.computed),
        space=space,
        warnings=warnings,
        written=written,
    )


def _counted(samples: Iterable[Sample | None], tracker: Tracker) -> Iterator[Sample | None]:
    for sample in samples:
        yield sample
        tracker.advance()


def _check_scorers(scorers: Sequence[Scorer], batch_size: int) -> Medium:
    """What all of them score."""
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
    # Scorers of other packages need not have the attribute: it came with scorers of texts.
    media = {scorer.name: getattr(scorer, "medium", "image") for scorer in scorers}
    if len(set(media.values())) > 1:
        listed = ", ".join(f"{name} {medium}s" for name, medium in media.items())
        raise InputError(f"scorers: they must all score the same, but {listed}")
    if media[names[0]] not in MEDIA:
        raise InputError(
            f"{names[0]}: it scores an unknown medium {media[names[0]]!r}"
            f"{suggest(media[names[0]], MEDIA)}"
        )
    return MEDIA[media[names[0]]]


def check_shard(shard: tuple[int, int] | None) -> None:
    """InputError unless it is one."""
    if shard is not None and not 0 <= shard[0] < shard[1] <= MOST_SAMPLES:
        raise InputError(
            f"shard: no shard {shard[0]} of {shard[1]}; n shards are numbered from 0 to n - 1, "
            f"{MOST_SAMPLES} at most"
        )


def _check_out(root: Path, out: str | os.PathLike[str]) -> Path:
    """The real path of `out`, which is new, empty, or was begun by a run."""
    target = Path(os.path.realpath(out))
    if target.is_relative_to(root) or root.is_relative_to(target):
        raise InputError(
            f"out: {out} and the input folder {root}: one is inside the other; choose another"
        )
    return _check_begun(target, out)


def _check_out_of_shards(
    source: str | os.PathLike[str], shards: Sequence[InputShard], out: str | os.PathLike[str]
) -> Path:
    """The same for shards: in a folder of their own, or among other files."""
    if os.path.isdir(source):
        return _check_out(Path(os.path.realpath(source)), out)
    target = Path(os.path.realpath(out))
    for shard in shards:
        if shard.local and Path(os.path.realpath(shard.address)).is_relative_to(target):
            raise InputError(f"out: {shard.address} lies in {out}; name another folder")
    return _check_begun(target, out)


def _check_begun(target: Path, out: str | os.PathLike[str]) -> Path:
    if target.exists() and not target.is_dir():
        raise InputError(f"out: {out} is a file; name a folder")
    # Listed before the question whether a run began: another process may begin one now.
    names = os.listdir(target) if target.exists() else []
    others = [name for name in names if not name.startswith(".tmp-")]
    if others and not RunFolder(target, "label").begun:
        raise InputError(f"out: {out} already holds {min(others)!r}; name a new or empty folder")
    return target


def _stored_as(root: Path, record: Record, digest: str, medium: Medium) -> str:
    """Its path in the output. A picture gets a suffix that says what it is, if its own does not."""
    path = root / record.file
    suffix = (picture_suffix(path) if medium is IMAGE else None) or path.suffix.lower()
    return f"{medium.name}s/{digest[:NAME_DIGITS]}{suffix}"


def _files(
    records: Sequence[Record], skipped: Mapping[str, str], space: RewardSpace
) -> dict[str, bytes]:
    """The files of the output by name, the one that makes it whole first."""
    entries = [{FILE: file, REASON: reason} for file, reason in skipped.items()]
    return {
        METADATA: metadata_bytes(records),
        REWARD_SPACE: space_bytes(space),
        SKIPPED: _json(entries),
    }


def framing_bytes(framing: Framing) -> bytes:
    """The file that says what is seen of the pictures of a labelled folder."""
    return _json(config.to_dict(framing))


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
