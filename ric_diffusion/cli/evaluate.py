"""``ric evaluate``: a model's adapters, or the model alone, measured and compared in one report."""

from __future__ import annotations

import argparse
from typing import Any

from ric_diffusion import api
from ric_diffusion.cli.options import checkpoint_of, engine_of, sampling_of


def run(options: argparse.Namespace) -> None:
    asked: dict[str, Any] = {
        "points": options.points,
        "seeds": options.seeds,
        "scorers": options.scorers,
        "mapping": options.mapping,
        "sampling": sampling_of(options),
        "dtype": options.dtype,
        "engine": engine_of(options),
    }
    if options.calibrate:
        if options.refine:
            raise api.InputError(
                "--refine: goes without --calibrate; evaluate OUT/adapter with it afterwards"
            )
        if len(options.adapter) > 1:
            raise api.InputError(
                "--calibrate: one adapter is calibrated at a time; give it alone with --adapter, "
                f"not {', '.join(options.adapter)}"
            )
        api.calibrate(
            checkpoint_of(options),
            options.prompts,
            options.out,
            adapter=next(iter(options.adapter), None),
            calibration_prompts=options.calibration_prompts,
            **asked,
        )
    else:
        if options.calibration_prompts:
            raise api.InputError(
                "--calibration-prompts: goes with --calibrate; add that, or leave it out"
            )
        api.evaluate(
            checkpoint_of(options),
            options.prompts,
            options.out,
            adapters=options.adapter,
            refine=options.refine,
            **asked,
        )
    if api.is_main_process():
        if options.calibrate and (options.out / "adapter").exists():
            print(options.out / "adapter")
        print(options.out / "index.html")
    api.leave_processes()
