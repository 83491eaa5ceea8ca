"""What draws the samples of online rounds in another process, made from plain data there.

From round to round the adapter is another one, and the model stays.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ric_diffusion.data.scoring import load_named, load_scorers
from ric_diffusion.io import config
from ric_diffusion.models.checkpoint import Checkpoint
from ric_diffusion.models.family import family_of
from ric_diffusion.models.hardware import this_process
from ric_diffusion.models.protocol import Backend
from ric_diffusion.training.sampling import SampleWorker


def sample_worker(*, run: str, adapter: str) -> SampleWorker:
    """What draws the samples of a round.

    Args:
        run: JSON of ``checkpoint``, the family's ``settings``, the ``seed`` of the run,
            ``start``, the folder of the adapter that it starts from, and the ``scorers`` that its
            config names.
        adapter: the folder of the round's.
    """
    backend, scorers = _backend(run)
    backend.load(Path(adapter))
    return SampleWorker(backend=backend, scorers=scorers)


@lru_cache(maxsize=1)
def _backend(run: str) -> tuple[Backend, list[Any]]:
    """The backend of a run, and the scorers of its rewards."""
    given = json.loads(run)
    checkpoint = config.from_dict(given["checkpoint"], Checkpoint, "checkpoint")
    family = family_of(checkpoint)
    space = family.read_adapter(Path(given["start"]))[0].space
    backend = family.create_backend(
        checkpoint,
        space,
        config.from_dict(given["settings"], family.settings, family.section),
        seed=given["seed"],
        device=this_process().device,
        sampled=True,
    )
    return backend, load_scorers(space, given=load_named(given["scorers"]))
