"""What a labelling makes of a record: the file under its new name, scores, its other columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ric_diffusion.data.records import SCORE_PREFIX, Record

ORIGINAL = "original"  # the column with the path that a sample had in the input


def labelled(
    record: Record,
    file: str,
    scores: Mapping[str, float],
    *,
    span: tuple[int, int] | None = None,
    **columns: Any,
) -> Record:
    """The record as it stands in the output: columns that it came with are kept, scores of other
    rewards among them, but those that ``scores`` and ``columns`` replace."""
    others: dict[str, Any] = {SCORE_PREFIX + name: score for name, score in record.scores.items()}
    others |= record.extra
    new = {SCORE_PREFIX + name for name in scores} | columns.keys()
    others = {name: value for name, value in others.items() if name not in new}
    first = {ORIGINAL: others.pop(ORIGINAL, record.file)}
    extra = {**first, **columns, **others}
    return replace(record, file=file, scores=scores, extra=extra, span=span)
