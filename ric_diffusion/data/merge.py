"""From the shards of a labelling to one labelled folder: duplicates, reward space, metadata.

Of all samples only digests and scores are in memory, as arrays; the rest is streamed, shard by
shard, in the order of the input. So the result does not depend on who labelled which shard.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ric_diffusion.data.fitting import CentreBy, compares_within_prompt, fit_space
from ric_diffusion.data.label_warnings import too_few, warnings_of
from ric_diffusion.data.labelled import ORIGINAL
from ric_diffusion.data.metadata import CAPTIONS
from ric_diffusion.data.output_shard import SHARDS, OutputShard
from ric_diffusion.data.publish import publish_files, space_bytes
from ric_diffusion.data.records import METADATA, REWARD_SPACE, SCORE_PREFIX
from ric_diffusion.data.skipped import SKIPPED, Skipped, read_skipped, write_skipped
from ric_diffusion.data.tables import JoinedSchema, count_rows, read_columns, write_joined
from ric_diffusion.data.unchanged import DIGEST, STAMPS
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import sibling, stamp
from ric_diffusion.io.manifest import MANIFEST, manifest_bytes
from ric_diffusion.io.progress import Tracker, tracking
from ric_diffusion.rewards import RewardSpace
from scorers import Scorer


@dataclass(frozen=True, kw_only=True)
class Merged:
    """``count``: records in the folder. ``written``: whether it changed."""

    count: int
    space: RewardSpace
    warnings: tuple[str, ...]
    written: bool


def merge(
    source: str,
    out: Path,
    shards: Sequence[OutputShard],
    scorers: Sequence[Scorer],
    files: Mapping[str, bytes],
    *,
    centre_by: CentreBy | None,
    progress: bool,
) -> Merged:
    """Make a labelled folder of the shards of ``source``, which are whole, and put ``files`` there
    as well.

    Of equal pictures the first counts, in the order of the shards; the others stay in their tars,
    and are listed as left out. InputError if fewer than two are left, or if a reward does not vary.
    """
    with tracking("merge", 2 * len(shards), unit="shard", show=progress) as tracker:
        found = _Samples(shards, [scorer.name for scorer in scorers], tracker)
        kept = found.kept
        if (count := int(kept.sum())) < 2:
            skipped = Skipped(shard.skipped for shard in shards)
            raise InputError(too_few(source, "pictures", count, skipped))
        scores = {name: column[kept] for name, column in found.scores.items()}
        within = centre_by == "prompt" or any(map(compares_within_prompt, scorers))
        prompts = list(itertools.compress(found.column(CAPTIONS[0]), kept)) if within else []
        space = fit_space(scorers, scores, prompts, centre_by)
        declared = [] if centre_by else [s.name for s in scorers if compares_within_prompt(s)]
        warnings = warnings_of(
            space, scores, prompts, _Originals(found), "pictures", declared=declared
        )
        temporary = [sibling(out / METADATA), sibling(out / SKIPPED)]
        try:
            masks = np.split(kept, found.starts[1:-1])
            parts = ((shard.metadata, mask) for shard, mask in zip(shards, masks, strict=True))
            write_joined(temporary[0], found.schema, _advancing(parts, tracker))
            write_skipped(temporary[1], found.skipped())
            stamps = {f"{SHARDS}/{shard.tar.name}": stamp(shard.tar) for shard in shards}
            whole: dict[str, bytes | Path] = {
                METADATA: temporary[0],
                REWARD_SPACE: space_bytes(space),
                SKIPPED: temporary[1],
                STAMPS: json.dumps(stamps).encode(),
                **files,
            }
            written = publish_files(out, {**whole, MANIFEST: manifest_bytes(whole)})
        finally:
            for path in temporary:
                path.unlink(missing_ok=True)
    return Merged(count=count, space=space, warnings=warnings, written=written)


class _Samples:
    """The samples of all shards, by index in the order of the input: N of them.

    Attributes:
        starts: (S + 1,) the index of the first sample of each of S shards, and N.
        scores: (N,) by reward.
        kept: (N,) False for those whose picture is that of an earlier one.
        schema: the columns of all shards.
    """

    def __init__(
        self, shards: Sequence[OutputShard], rewards: Sequence[str], tracker: Tracker
    ) -> None:
        self._shards = shards
        counts = [count_rows(shard.metadata) for shard in shards]
        self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        total = int(self.starts[-1])
        digests = np.empty((2, total), np.uint64)  # halves, for numpy has no larger numbers
        self.scores = {name: np.empty(total) for name in rewards}
        joined = JoinedSchema()
        for shard, start, end in zip(shards, self.starts, self.starts[1:], strict=False):
            joined.add(shard.metadata)
            if end > start:
                columns = read_columns(
                    shard.metadata, [DIGEST, *(SCORE_PREFIX + name for name in rewards)]
                )
                halves = np.frombuffer(bytes.fromhex("".join(columns[DIGEST])), ">u8")
                digests[:, start:end] = halves.reshape(-1, 2).T
                for name in rewards:
                    self.scores[name][start:end] = columns[SCORE_PREFIX + name]
            tracker.advance()
        self.schema = joined.schema
        self._doubles, self._firsts = repeated(*digests)
        self.kept = np.ones(total, bool)
        self.kept[self._doubles] = False

    def column(self, name: str) -> Iterator[Any]:
        """The values of all samples in one column."""
        for i in range(len(self._shards)):
            yield from self._column(i, name)

    def skipped(self) -> Iterator[tuple[str, str]]:
        """Pairs of file and reason: of each shard those it left out, then those that are kept in
        an earlier shard."""
        wanted = np.unique(self._firsts)
        names = dict(zip(wanted.tolist(), self._originals(wanted), strict=True))
        doubles = zip(self._originals(self._doubles), self._firsts.tolist(), strict=True)
        ends = np.searchsorted(self._doubles, self.starts[1:])
        for shard, count in zip(self._shards, np.diff(ends, prepend=0), strict=True):
            yield from read_skipped(shard.skipped)
            for file, first in itertools.islice(doubles, int(count)):
                yield file, f"same as {names[first]}"

    def original(self, index: int) -> str:
        """What a person knows the sample by."""
        (name,) = self._originals(np.array([index]))
        return name

    def _originals(self, indices: NDArray[np.int64]) -> Iterator[str]:
        """Those of samples in rising order."""
        within = np.searchsorted(self.starts, indices, side="right") - 1
        for shard in np.unique(within):
            names = self._column(int(shard), ORIGINAL)
            for index in indices[within == shard] - self.starts[shard]:
                yield str(names[index])

    def _column(self, shard: int, name: str) -> Sequence[Any]:
        if self.starts[shard] == self.starts[shard + 1]:
            return []
        values: Sequence[Any] = read_columns(self._shards[shard].metadata, [name])[name]
        return values


class _Originals(Sequence[str]):
    """What a person knows the samples by that are kept; read when one is asked for."""

    def __init__(self, samples: _Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return int(self._samples.kept.sum())

    def __getitem__(self, index: Any) -> Any:
        return self._samples.original(int(np.flatnonzero(self._samples.kept)[index]))


def repeated(
    high: NDArray[np.uint64], low: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of N digests, given by halves, (N,) each, are equal to an earlier one: their indices,
    (D,), rising, and those of the first that each is equal to."""
    order = np.argsort(high, kind="stable")
    near = np.flatnonzero(high[order[1:]] == high[order[:-1]])  # few, and whole digests of few
    some = np.sort(order[np.union1d(near, near + 1)])
    some = some[np.lexsort((low[some], high[some]))]  # equal ones by index, for that is stable
    same = (high[some[1:]] == high[some[:-1]]) & (low[some[1:]] == low[some[:-1]])
    first = np.arange(len(some))
    first[1:][same] = 0
    first = np.maximum.accumulate(first)
    doubles, firsts = some[1:][same], some[first][1:][same]
    rising = np.argsort(doubles)
    return doubles[rising], firsts[rising]


def _advancing(
    parts: Iterator[tuple[Path, NDArray[np.bool_]]], tracker: Tracker
) -> Iterator[tuple[Path, NDArray[np.bool_]]]:
    for part in parts:
        yield part
        tracker.advance()
