"""Labelling of tar and parquet shards: an output shard for each, whole or not there.

Reader, scorers and writer work on one shard at a time and know nothing of the others, so it makes
no difference who does which. What compares samples of several shards is left to the merge.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ric_diffusion.data.fitting import CentreBy
from ric_diffusion.data.framing import FRAMING, Framing
from ric_diffusion.data.input_shards import PARQUET, InputShard
from ric_diffusion.data.label import LabelReport, framing_bytes
from ric_diffusion.data.medium import IMAGE
from ric_diffusion.data.merge import merge
from ric_diffusion.data.metadata import CAPTIONS
from ric_diffusion.data.output_shard import SHARDS, Accepted, OutputShard
from ric_diffusion.data.parquet import from_parquet
from ric_diffusion.data.parquet_reader import read_parquet, read_table
from ric_diffusion.data.records import SCORE_PREFIX
from ric_diffusion.data.samples import Unread, batches, usable_samples
from ric_diffusion.data.score_journal import BatchScoring, ScoreJournal, score_key
from ric_diffusion.data.sidecars import CaptionRule
from ric_diffusion.data.skipped import SKIPPED, Skipped
from ric_diffusion.data.tables import count_rows
from ric_diffusion.data.tar_reader import BrokenShard, read_tar
from ric_diffusion.data.unchanged import DIGEST
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import clear_leftovers
from ric_diffusion.io.progress import Tracker, tracking
from scorers import Scorer

JOURNALS = "scores"  # a folder with the scores of shards that are not whole yet
SECONDS = 5.0  # of scoring that a killed process may lose: cheap scores need no journal
_log = logging.getLogger(__name__)


def label_shards(
    shards: Sequence[InputShard],
    out: Path,
    scorers: Sequence[Scorer],
    *,
    source: str,
    framing: Framing,
    captions: CaptionRule,
    centre_by: CentreBy | None,
    part: tuple[int, int] | None,
    batch_size: int,
    progress: bool,
) -> LabelReport:
    """Label the shards of ``source``, and make the labelled folder `out` of them; of a part (k, n),
    the shards k, k + n, k + 2n, … and nothing more. As `label_folder`, which has checked it all."""
    chosen = shards if part is None else shards[part[0] :: part[1]]
    work = _Labelling(
        out=out,
        scorers=scorers,
        framing=framing,
        captions=captions,
        batch_size=batch_size,
    )
    work.label(chosen, progress=progress)
    outputs = [OutputShard(out=out, name=shard.name) for shard in chosen]
    if part is not None:
        return LabelReport(
            out=out,
            count=sum(count_rows(output.metadata) for output in outputs),
            medium=IMAGE.name,
            skipped=Skipped(output.skipped for output in outputs),
            scored=dict(work.computed),
            space=None,
            warnings=(),
            written=False,
        )
    merged = merge(
        source,
        out,
        outputs,
        scorers,
        {FRAMING: framing_bytes(framing)},
        centre_by=centre_by,
        progress=progress,
    )
    _remove_others(out, outputs)
    return LabelReport(
        out=out,
        count=merged.count,
        medium=IMAGE.name,
        skipped=Skipped([out / SKIPPED]),
        scored=dict(work.computed),
        space=merged.space,
        warnings=merged.warnings,
        written=merged.written,
    )


def _remove_others(out: Path, outputs: Sequence[OutputShard]) -> None:
    """Remove the files of shards that the input no longer has."""
    wanted = {path.name for output in outputs for path in output.files}
    for path in (out / SHARDS).iterdir():
        if path.name not in wanted and not path.name.startswith(".tmp-"):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class _Labelling:
    """How the shards of one input are labelled, into the folder `out`, one after the other.

    ``computed`` counts the scores that were computed, by reward.
    """

    out: Path
    scorers: Sequence[Scorer]
    framing: Framing
    captions: CaptionRule
    batch_size: int
    computed: Counter[str] = field(default_factory=Counter)

    def label(self, shards: Sequence[InputShard], *, progress: bool = True) -> None:
        """Label those of the shards that are not whole, or were made of other files or by other
        scorers. One that cannot be read to its end is listed as left out, all of it."""
        for place in (SHARDS, JOURNALS):
            clear_leftovers(self.out / place)
        with tracking("label", len(shards), unit="shard", show=progress) as tracker:
            for shard in shards:
                note = self._note(shard)
                output = OutputShard(out=self.out, name=shard.name)
                if output.note() != note:
                    self._label(shard, output, note, tracker)
                tracker.advance()
        with suppress(OSError):  # others may be at work in it
            (self.out / JOURNALS).rmdir()

    def _note(self, shard: InputShard) -> dict[str, Any]:
        """All that the output shard depends on, beside the run's identity."""
        source = shard.stamp()
        if source is None:
            raise InputError(f"{shard.address}: no such file")
        return {
            "source": source,
            "table": shard.beside(PARQUET).stamp() if shard.is_tar else None,
            "captions": self.captions,
            "scorers": [[scorer.name, scorer.fingerprint] for scorer in self.scorers],
        }

    def _label(self, shard: InputShard, output: OutputShard, note: Any, tracker: Tracker) -> None:
        with closing(ScoreJournal(self.out / JOURNALS, shard.name, seconds=SECONDS)) as journal:
            self._keep(output, journal)
            output.begin()
            skipped: dict[str, str] = {}
            scoring = BatchScoring(journal, self.scorers, skipped, self.computed)
            accepted = self._accepted(shard, scoring, skipped, tracker)
            stored = {"note": note, "changed_ns": shard.changed_ns}
            try:
                with closing(accepted):
                    output.write(accepted, skipped, **stored)
            except BrokenShard as error:
                _log.warning("%s: %s; all of it is left out", shard.address, error)
                output.write((), {shard.file: str(error)}, **stored)
            journal.remove()

    def _keep(self, output: OutputShard, journal: ScoreJournal) -> None:
        """Journal the scores of a shard that is written anew, where they are of the same scorer."""
        noted = (output.note() or {}).get("scorers", [])
        for scorer in self.scorers:
            if [scorer.name, scorer.fingerprint] in noted:
                text, column = CAPTIONS[0], SCORE_PREFIX + scorer.name
                known = {
                    score_key(scorer, row[text], row[DIGEST]): row[column]
                    for row in from_parquet(output.metadata, [DIGEST, text, column])
                }
                if known:
                    journal.append(scorer, known)
        journal.write()

    def _accepted(
        self,
        shard: InputShard,
        scoring: BatchScoring,
        skipped: dict[str, str],
        tracker: Tracker,
    ) -> Generator[Accepted, None, None]:
        """The samples that have all scores, in order; ``skipped`` gets the others."""
        with shard.open() as file:
            samples = usable_samples(self._unread(shard, file), IMAGE, self.framing, skipped)
            with closing(samples):
                found = (sample for sample in samples if sample is not None)
                for batch in batches(found, self.batch_size):
                    scoring.score(batch)
                    for sample in batch:
                        scores = scoring.scores(sample.record, sample.digest)
                        if scores is not None:
                            yield Accepted(
                                record=sample.record,
                                data=sample.data,
                                digest=sample.digest,
                                scores=scores,
                            )
                    tracker.advance(0, shard=shard.name)

    def _unread(self, shard: InputShard, file: IO[bytes]) -> Iterator[Unread]:
        if not shard.is_tar:
            return read_parquet(file, shard.file)
        table: Mapping[str, Mapping[str, Any]] = {}
        beside = shard.beside(PARQUET)
        if beside.stamp() is not None:
            with beside.open() as rows:
                try:
                    table = read_table(rows, shard.file)
                except BrokenShard as error:
                    raise BrokenShard(f"{beside.file} beside it: {error}") from error
        return read_tar(file, shard.file, self.captions, table)
