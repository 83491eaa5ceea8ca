"""What draws, scores and judges for a report in another process, made from plain data there.

From method to method the adapter is another one, and the model stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ric_diffusion.api.models import load
from ric_diffusion.data.scoring import load_named
from ric_diffusion.evaluation.compare import choice_of, choose, method_of, shared_config
from ric_diffusion.evaluation.config import EvaluationConfig
from ric_diffusion.evaluation.grid import Point
from ric_diffusion.evaluation.runner import EvaluationWorker
from ric_diffusion.io import config
from ric_diffusion.models.checkpoint import Checkpoint


def evaluation_worker(
    *, run: str, method: Mapping[str, Any], shared: Mapping[str, Any]
) -> EvaluationWorker:
    """What draws, scores and judges for one method of a report.

    Args:
        run: JSON of ``checkpoint``, ``dtype``, ``adapters``, ``sampling`` and ``scorers``, as
            ``evaluate`` has them.
        method: its ``points``, the choice of its adapter as plain data, and ``refine``.
        shared: ``prompts``, ``seeds``, ``batch_size``, and whether scorers are ``held_out``.
    """
    model, found, base = _measured(run)
    asked = EvaluationConfig(
        space=found.space,
        prompts=shared["prompts"],
        seeds=shared["seeds"],
        scorers=found.scorers,
        held_out=found.held_out if shared["held_out"] else (),
        batch_size=shared["batch_size"],
    )
    points = config.from_dict(method["points"], list[Point], "points")
    choice = choice_of(model, method)
    made = method_of(
        model,
        choice,
        base,
        name="",
        points=points,
        refine=method["refine"],
        scorers=found.scorers,
    )
    made.prepare()
    return EvaluationWorker(method=made, config=asked)


@lru_cache(maxsize=1)
def _measured(run: str) -> tuple[Any, EvaluationConfig, list[str]]:
    """The model of a report, what measures it, and the digests of its parts."""
    given = json.loads(run)
    checkpoint = config.from_dict(given["checkpoint"], Checkpoint, "checkpoint")
    model = load(checkpoint, dtype=given["dtype"])
    measure, _ = choose(
        model, checkpoint.model, given["adapters"], given["sampling"], checkpoint.revision
    )
    shared, base = shared_config(model, measure, (), 1, load_named(given["scorers"]))
    return model, shared, base
