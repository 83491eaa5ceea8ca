"""Runs of DDPO: their folder, log, checkpoints and reward curve."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.base import Preference, plain_backend
from baselines.ddpo import DdpoConfig, OnePreference, RunState, Task, encoded, iterate
from baselines.families import save_run
from baselines.policy import Policy, denoising_chain
from ric_diffusion.evaluation.method import weights_of
from ric_diffusion.io import config as configs
from ric_diffusion.io.files import write_json
from ric_diffusion.io.journal import read_lines
from ric_diffusion.io.progress import tracking
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.cost import COST, Cost, Meter
from ric_diffusion.models.diffusion.backend import DiffusionConfig
from ric_diffusion.models.hardware import resolve_precision
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.training import checkpoint
from ric_diffusion.training.log import Log


def train_ddpo(
    model: str,
    space: RewardSpace,
    preference: Preference,
    prompts: Sequence[str],
    scorers: Sequence[Any],
    config: DdpoConfig,
    out: Path,
    *,
    resume: bool = False,
    device: str | torch.device = "cpu",
) -> Cost:
    """Train a LoRA for one preference; returns the cost. See ``train_policy``.

    Leaves the LoRA in ``out``, where ``lora_file`` says.
    """
    run = RunFolder(out, "ddpo")
    run.check_free(resume=resume)
    weights = weights_of(preference, space)
    settings = DiffusionConfig(lora=config.lora, base_precision="fp32")
    return train_policy(
        run,
        plain_backend(model, space, settings, seed=config.seed, device=device),
        partial(OnePreference, preference=weights),
        prompts,
        scorers,
        config,
        history=np.full((len(prompts), config.history), np.nan),
        identity={"preference": dict(zip(space.names, weights.tolist(), strict=True))},
        resume=resume,
    )


def train_policy(
    run: RunFolder,
    backend: Any,
    task: Callable[..., Task],
    prompts: Sequence[str],
    scorers: Sequence[Any],
    config: DdpoConfig,
    *,
    history: np.ndarray,
    identity: Mapping[str, Any],
    policy: type[Policy] = Policy,
    resume: bool,
) -> Cost:
    """Improve what the new ``backend`` trains, in a folder that is free for it; returns the cost.

    ``task`` is given the fields that all tasks have; ``history`` is what it begins with, and
    ``identity`` what tells it from others. Leaves the adapter in the folder, where ``save_run``
    says, ``log.jsonl`` with a line per iteration and ``cost.json``. ``resume`` goes on after an
    interruption, bit for bit, or with more ``iterations`` than before. InputError if the folder
    holds another run.
    """
    pipe, space, out = backend.pipe, backend.adapter.space, run.path
    config = replace(config, precision=resolve_precision(config.precision, backend.device))
    parameters = dict(backend.named_parameters())
    # No moving average: the policy that draws is the one that is kept.
    state = RunState(
        parameters,
        torch.optim.AdamW(
            parameters.values(), lr=config.learning_rate, weight_decay=0.0, fused=True
        ),
        history=history,
    )
    settings = configs.to_dict(config)
    del settings["iterations"], settings["checkpoint_minutes"]  # a run may be made longer
    run.begin(
        {
            "ddpo": settings,
            "reward_space": configs.digest(space.to_dict()),
            **identity,
            "prompts": list(prompts),
            "weights": configs.digest(pipe.family.digests(pipe)),
        },
        resume=resume,
    )
    meter = Meter(checkpoint.resume(out / checkpoint.FOLDER, state, digest=run.digest))
    acting = policy(
        pipe=pipe,
        chain=denoising_chain(pipe.scheduler, config.num_inference_steps, config.eta),
        empty=encoded(pipe, [""]),
        guidance_scale=config.guidance_scale,
        batch_size=config.minibatch,
        precision=config.precision,
    )
    ours = task(
        pipe=pipe,
        policy=acting,
        config=config,
        space=space,
        prompts=prompts,
        scorers=meter.metered(scorers),
    )
    with meter.running(pipe.denoiser):
        _run(ours, state, meter, run)
    save_run(backend, out)
    write_json(out / COST, meter.read().to_dict())
    return meter.read()


def _run(task: Task, state: RunState, meter: Meter, run: RunFolder) -> None:
    """Iterations from where ``state`` is to the last, with log and checkpoints in the folder."""
    task.pipe.denoiser.eval()
    saved, total = time.monotonic(), task.config.iterations
    with (
        Log(run.path, state.step) as log,
        tracking(run.verb, total, unit="iteration", initial=state.step) as progress,
    ):
        while state.step < total:
            scalars = iterate(task, state)
            state.step += 1
            log(state.step, **scalars)
            progress.advance(1, reward=f"{scalars['reward']:.3f}")
            waited = time.monotonic() - saved > 60 * task.config.checkpoint_minutes
            if waited or state.step == total:
                folder = run.path / checkpoint.FOLDER
                checkpoint.save(folder, state, digest=run.digest, cost=meter.read())
                saved = time.monotonic()


def reward_curve(out: Path) -> tuple[np.ndarray, np.ndarray]:
    """Iterations (T,) and the mean reward of what each of them drew (T,), in weighted z."""
    points = read_lines(out / "log.jsonl")
    return np.array([p["step"] for p in points]), np.array([p["reward"] for p in points])
