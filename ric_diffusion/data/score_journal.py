"""Scores as they come, in the journal of a labelling: a killed run loses one batch at most."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ric_diffusion.data.records import Record
from ric_diffusion.data.samples import Sample
from ric_diffusion.data.scoring import ask, each_alone, may_be_the_sample, named, no_memory
from ric_diffusion.io.journal import Journal
from scorers import Scorer

JOURNAL = "scores"
KEY_DIGITS = 32  # of a sample's digest


class ScoreJournal:
    """Scores by scorer and sample, of all processes that label into a folder.

    An entry is one batch of one scorer: {"scorer": …, "fingerprint": …, "scores": {key: score}},
    with null for a score that is not finite. ``seconds``: how long entries may wait for others to
    go to the disk with; a killed process loses those.
    """

    def __init__(self, folder: Path, name: str = JOURNAL, *, seconds: float = 0.0) -> None:
        self._journal = Journal(folder, name)
        self._seconds = seconds
        self._written = time.monotonic()
        self._waiting: list[Any] = []
        self._scores: dict[tuple[str, str], dict[str, float]] = {}
        self.reload()

    def reload(self) -> None:
        """Read what all processes have written by now. Of several scores of one sample the first
        counts, in an order that is the same for every reader."""
        self._scores = {}
        for entry in self._journal.entries():
            self._add(entry)

    def get(self, scorer: Scorer) -> Mapping[str, float]:
        """The scores of one scorer by key; NaN where it gave no finite one."""
        return self._scores.get((scorer.name, scorer.fingerprint), {})

    def append(self, scorer: Scorer, scores: Mapping[str, float]) -> None:
        """Add the scores of one batch by key; when this returns, they are on the disk, unless they
        may wait."""
        finite = {key: score if math.isfinite(score) else None for key, score in scores.items()}
        entry = {"scorer": scorer.name, "fingerprint": scorer.fingerprint, "scores": finite}
        self._waiting.append(entry)
        self._add(entry)
        if time.monotonic() - self._written >= self._seconds:
            self.write()

    def write(self) -> None:
        """Bring to the disk what waits."""
        if self._waiting:
            self._journal.extend(self._waiting)
        self._waiting, self._written = [], time.monotonic()

    def remove(self) -> None:
        """Remove what all processes have written, once it stands elsewhere."""
        self._waiting = []
        self._journal.remove()

    def close(self) -> None:
        try:
            self.write()
        finally:
            self._journal.close()

    def _add(self, entry: Any) -> None:
        try:
            key = (str(entry["scorer"]), str(entry["fingerprint"]))
            scores = {
                name: math.nan if score is None else float(score)
                for name, score in entry["scores"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError):
            return  # damaged: its samples are scored again
        known = self._scores.setdefault(key, {})
        for name, score in scores.items():
            known.setdefault(name, score)


class BatchScoring:
    """Scores batches with several scorers, each sample once: what the journal has is not computed.

    `skipped` gets the samples that a scorer fails on, by file with the reason. `computed` counts
    the scores computed, by reward; a counter that is given goes on.
    """

    def __init__(
        self,
        journal: ScoreJournal,
        scorers: Sequence[Scorer],
        skipped: dict[str, str],
        computed: Counter[str] | None = None,
    ) -> None:
        self._journal = journal
        self._scorers = scorers
        self._skipped = skipped
        self.computed: Counter[str] = Counter() if computed is None else computed
        for scorer in scorers:
            self.computed.setdefault(scorer.name, 0)

    def score(self, batch: Sequence[Sample]) -> None:
        """Have every scorer score what the journal lacks of a batch, and journal it."""
        for scorer in self._scorers:
            done = self._journal.get(scorer)
            todo = {score_key(scorer, s.record.captions[0], s.digest): s for s in batch}
            todo = {key: sample for key, sample in todo.items() if key not in done}
            if not todo:
                continue
            worked = bool(done) or self.computed[scorer.name] > 0
            with named(scorer):
                scores = self._call(scorer, todo, worked=worked)
            if scores:
                self._journal.append(scorer, scores)
            self.computed[scorer.name] += len(scores)

    def scores(self, record: Record, digest: str) -> dict[str, float] | None:
        """The scores of one sample by reward; None, with the reason noted, unless all finite."""
        found = {}
        for scorer in self._scorers:
            key = score_key(scorer, record.captions[0], digest)
            score = self._journal.get(scorer).get(key, math.nan)
            if not math.isfinite(score):
                self._skipped.setdefault(record.file, f"{scorer.name}: score is not finite")
                return None
            found[scorer.name] = score
        return found

    def _call(self, scorer: Scorer, todo: dict[str, Sample], *, worked: bool) -> dict[str, float]:
        """Scores by key. Where a batch fails, its samples are tried alone and bad ones left out.

        A scorer that has never worked and fails on every sample is broken: its error is raised.
        """
        try:
            return _ask(scorer, todo)
        except (Exception, SystemExit) as error:
            # What a batch has no memory for, its samples one by one may have.
            if not (may_be_the_sample(error) or (no_memory(error) and len(todo) > 1)):
                raise
            scores: dict[str, float] = {}
            alone = each_alone(lambda one: _ask(scorer, dict([one])), todo.items())
            for (_, sample), found in alone:
                if isinstance(found, BaseException):
                    reason = f"{scorer.name} fails on it ({type(found).__name__}: {found})"
                    self._skipped[sample.record.file] = " ".join(reason.split())
                else:
                    scores |= found
            if not scores and not worked and len(todo) > 1:
                raise
            return scores


def score_key(scorer: Scorer, caption: str, digest: str) -> str:
    """What a score depends on beside the scorer: what it is, and the caption if that is read."""
    key = digest[:KEY_DIGITS]
    if getattr(scorer, "needs_prompts", True):  # a scorer of another shape may well read them
        key += "-" + hashlib.sha256(caption.encode()).hexdigest()[:KEY_DIGITS]
    return key


def _ask(scorer: Scorer, todo: dict[str, Sample]) -> dict[str, float]:
    contents = [sample.content for sample in todo.values()]
    captions = [sample.record.captions[0] for sample in todo.values()]
    return dict(zip(todo, ask(scorer, contents, captions).tolist(), strict=True))
