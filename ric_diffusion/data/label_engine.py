"""Labelling by the workers of an engine, who do a shard at a time: one of the input's where it lies
in shards, else a part of the folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ric_diffusion.data.framing import Framing
from ric_diffusion.data.input_shards import find_shards
from ric_diffusion.data.label import label_folder
from ric_diffusion.data.scoring import load_named
from ric_diffusion.data.sidecars import CaptionRule
from ric_diffusion.io import config
from ric_diffusion.io.engines import Engine
from ric_diffusion.io.progress import tracking
from scorers import Scorer
from scorers.parallel import cores

# Bytes of input, below which other processes would take longer to start than all the work takes.
WORTH = 8 * 2**20
SHARDS = 4  # of a folder to each worker: one that dies loses no more than a part of its work


def score_on(
    engine: Engine,
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    scorers: Sequence[Scorer],
    specs: Sequence[str],
    *,
    framing: Framing,
    captions: CaptionRule,
) -> Counter[str]:
    """Have the workers of an engine do the shards of `label_folder`, one at a time; what is left is
    a `label_folder` without a shard, which merges. Workers elsewhere load the scorers by their
    names, `specs`. Returns how many scores were computed, by reward.
    """
    count = len(find_shards(folder)) or SHARDS * engine.workers
    shared = {
        "folder": _absolute(folder),
        "out": os.path.abspath(out),
        "framing": config.to_dict(framing),
        "captions": captions,
    }
    results = engine.map(
        label_shard,
        [{**shared, "shard": [number, count]} for number in range(count)],
        here=scorers,
        elsewhere=partial(load_named, specs=list(specs)),
        called=lambda item: "shard {}/{}".format(*item["shard"]),
    )
    scored = Counter[str]()
    with tracking("label", count, unit="shard") as tracker:
        for found in results:
            scored.update(found)
            tracker.advance()
    return scored


def workers_for(folder: str | os.PathLike[str], scorers: Sequence[Scorer]) -> int:
    """How many processes of this machine label the input fastest: one for each core, if it lies in
    shards and is not small, and if the scorers are light; else this one alone, with its threads."""
    if cores() == 1 or not all(getattr(scorer, "light", False) for scorer in scorers):
        return 1
    shards = find_shards(folder)
    sizes = (os.path.getsize(shard.address) if shard.local else WORTH for shard in shards)
    return min(cores(), len(shards)) if sum(sizes) >= WORTH else 1


def _absolute(folder: str | os.PathLike[str]) -> str:
    """As it is named everywhere; what is no path here is left as it is."""
    return os.path.abspath(folder) if os.path.exists(folder) else str(folder)


def label_shard(scorers: Sequence[Scorer], item: Mapping[str, Any]) -> dict[str, int]:
    """`label_folder` of one shard, from and to plain data: how many scores were computed."""
    report = label_folder(
        item["folder"],
        item["out"],
        scorers,
        framing=config.from_dict(item["framing"], Framing, "framing"),
        captions=item["captions"],
        shard=tuple(item["shard"]),
        progress=False,
    )
    return dict(report.scored)
