"""``evaluate`` and ``calibrate``: adapters measured and compared in one report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ric_diffusion.api.alone import alone_in
from ric_diffusion.api.engines import working
from ric_diffusion.api.evaluation_worker import evaluation_worker
from ric_diffusion.api.labelling import ScorerLike, loaded_scorers, names_of_scorers
from ric_diffusion.api.models import (
    Dtype,
    Prompts,
    check_adapters,
    check_mapping,
    load,
    prompts_of,
    sampling_arguments,
)
from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.evaluation.compare import NONE, calibrate_adapter, evaluate_adapters
from ric_diffusion.evaluation.report.schema import EvaluationResult
from ric_diffusion.evaluation.report.write import check_report
from ric_diffusion.io.bounds import MOST_PER_PROMPT, MOST_POINTS, MOST_SAMPLES, check_count
from ric_diffusion.io.config import to_dict
from ric_diffusion.io.engines import LOCAL, EngineConfig, Workers
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.paths import expanded, expanded_name
from ric_diffusion.io.progress import ProgressCallback, reporting
from ric_diffusion.models.checkpoint import Checkpoint, ModelName
from ric_diffusion.models.hardware import this_process


def evaluate(
    model: ModelName,
    prompts: Prompts,
    out: str | Path,
    *,
    adapters: Sequence[str | Path] = (),
    points: int = 11,
    seeds: int = 4,
    scorers: Sequence[ScorerLike] = (),
    mapping: str | None = None,
    refine: int | None = None,
    sampling: Mapping[str, Any] | None = None,
    dtype: Dtype = "float32",
    engine: EngineConfig = LOCAL,
    progress: ProgressCallback | None = None,
) -> EvaluationResult:
    """Measure a model's adapters on the same prompts and seeds, and write a report.

    Resumable: called again after an interruption, it goes on.

    Args:
        model: what ``load`` takes.
        prompts: a file with one prompt to a line, or the prompts.
        out: the report's folder: metrics.json, plots, index.html and all samples.
        adapters: folders or hub ids; ``"none"`` is the model alone. By default the model's own.
        points: how many preferences are swept, and how many targets of each reward.
        seeds: how many for each prompt.
        scorers: more scorers, ones that no adapter was trained on; and those of its rewards that
            are not installed, as FILE.py:CLASS.
        refine: every adapter is measured a second time, refined in so many passes.
        engine: where samples are drawn, scored and judged. On Ray, each worker has the model and
            the scorers, which are given by name. It may be another one when a call is repeated.

    ``mapping``, ``sampling`` and ``dtype`` are as ``generate`` has them.

    Returns what metrics.json holds. InputError for what cannot be compared, before anything is
    written.
    """
    return _report(
        partial(evaluate_adapters, refine=refine),
        model,
        prompts,
        expanded(out),
        adapters=adapters,
        points=points,
        seeds=seeds,
        scorers=scorers,
        mapping=mapping,
        sampling=sampling,
        dtype=dtype,
        engine=engine,
        progress=progress,
    )


def calibrate(
    model: ModelName,
    prompts: Prompts,
    out: str | Path,
    *,
    adapter: str | Path | None = None,
    calibration_prompts: Prompts | None = None,
    points: int = 11,
    seeds: int = 4,
    scorers: Sequence[ScorerLike] = (),
    mapping: str | None = None,
    sampling: Mapping[str, Any] | None = None,
    dtype: Dtype = "float32",
    engine: EngineConfig = LOCAL,
    progress: ProgressCallback | None = None,
) -> EvaluationResult:
    """Measure how far the samples of one adapter miss their targets, write to OUT/adapter one that
    corrects for it, and compare the two in a report.

    Args:
        adapter: folder or hub id; by default the model's own.
        calibration_prompts: what to calibrate on; the same prompts with other seeds by default.

    The other arguments are as ``evaluate`` has them.
    """
    others = None if calibration_prompts is None else prompts_of(calibration_prompts)
    return _report(
        partial(calibrate_adapter, calibration_prompts=others),
        model,
        prompts,
        expanded(out),
        adapters=() if adapter is None else (adapter,),
        points=points,
        seeds=seeds,
        scorers=scorers,
        mapping=mapping,
        sampling=sampling,
        dtype=dtype,
        engine=engine,
        progress=progress,
    )


def _report(
    measure: Callable[..., EvaluationResult],
    model: ModelName,
    prompts: Prompts,
    out: Path,
    *,
    adapters: Sequence[str | Path],
    scorers: Sequence[ScorerLike],
    mapping: str | None,
    sampling: Mapping[str, Any] | None,
    dtype: Dtype,
    engine: EngineConfig,
    progress: ProgressCallback | None,
    **counts: int,
) -> EvaluationResult:
    """A report by ``evaluate_adapters`` or ``calibrate_adapter``."""
    check_mapping(mapping)
    check_out_folder(out)
    check_report(out)
    asked, held_out = prompts_of(prompts), loaded_scorers(scorers)
    if not asked:
        raise InputError("prompts: none there; give one or more")
    check_count("points", counts["points"], MOST_POINTS)
    check_count("seeds", counts["seeds"], MOST_PER_PROMPT)
    if (samples := math.prod(counts.values()) * len(asked)) > MOST_SAMPLES:
        raise InputError(
            f"points, seeds: {samples} samples for {len(asked)} prompts; ask for {MOST_SAMPLES} or "
            "fewer"
        )
    names = names_of_scorers(scorers) if engine.name != "local" else []
    process = this_process()  # first: it picks the GPU
    named = [expanded_name(str(adapter)) for adapter in adapters]
    check_adapters(model, [adapter for adapter in named if adapter != NONE])
    checkpoint, loaded = Checkpoint.of(model), load(model, dtype=dtype)
    options = sampling_arguments(loaded.family, sampling)
    of_report = {
        "checkpoint": to_dict(checkpoint),
        "dtype": dtype,
        "adapters": named,
        "sampling": options,
        "scorers": names,
    }
    with reporting(progress), alone_in(out), working(engine) as running:
        workers = Workers(
            engine=running, elsewhere=partial(evaluation_worker, run=json.dumps(of_report))
        )
        result = measure(
            loaded,
            checkpoint.model,
            named,
            prompts=asked,
            scorers=held_out,
            mapping=mapping,
            sampling=options,
            revision=checkpoint.revision,
            out=out,
            workers=workers,
            **counts,
        )
        process.wait_for_everyone()  # the first has the folder for all of them
    return result
