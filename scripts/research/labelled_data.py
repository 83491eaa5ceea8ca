"""The labelled data of a benchmark, and what tables of its scores have to know of them where the
data themselves are not there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ric_diffusion.api.runs import first_captions, records_digest, selected
from ric_diffusion.data.records import Record, read_labelled
from ric_diffusion.io import config as configs
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import read_file, write_text
from ric_diffusion.rewards import RewardSpace

DATA_FILE = "data.json"  # beside the parts that are kept


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """The ``count`` records that are trained on, and their space; ``names``: their first captions,
    each once; ``digest``: of all that training reads of them. Of what was kept there are no
    ``records``."""

    space: RewardSpace
    names: Sequence[str]
    digest: str
    count: int
    records: list[Record] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Stored:
    space: Mapping[str, Any]
    names: tuple[str, ...]
    digest: str
    count: int


def labelled_data(folder: Path, where: Mapping[str, Any]) -> LabelledData:
    """The records of a labelled folder that ``where`` lets through."""
    records, space = read_labelled(folder)
    records = selected(records, where)
    return LabelledData(
        space=space,
        names=first_captions(records),
        digest=records_digest(records),
        count=len(records),
        records=records,
    )


def kept_data(scores: Path) -> LabelledData:
    """What ``keep_data`` wrote; InputError if it did not, or it is malformed."""
    stored = _read(scores / DATA_FILE)
    return LabelledData(
        space=RewardSpace.from_dict(stored.space),
        names=stored.names,
        digest=stored.digest,
        count=stored.count,
    )


def _read(path: Path) -> _Stored:
    try:
        found = json.loads(read_file(path))
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; leave out --kept") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable ({error}); restore it") from error
    return configs.from_dict(found, _Stored, str(path))


def keep_data(data: LabelledData, scores: Path) -> None:
    """Write what ``kept_data`` reads, once. InputError if other data were kept there."""
    stored = _Stored(
        space=data.space.to_dict(), names=tuple(data.names), digest=data.digest, count=data.count
    )
    text = json.dumps(configs.to_dict(stored), indent=1) + "\n"
    path = scores / DATA_FILE
    if not path.exists():
        write_text(path, text)
    elif json.loads(text) != configs.to_dict(_read(path)):
        raise InputError(
            f"{path}: is of other data; restore those, or choose another folder for the scores"
        )
