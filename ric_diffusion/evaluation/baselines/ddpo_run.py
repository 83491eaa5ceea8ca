"""A DDPO run: its folder, log, checkpoints and reward curve."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ric_diffusion import config as configs
from ric_diffusion.cost import Cost, Meter
from ric_diffusion.diffusion.backend import DiffusionConfig
from ric_diffusion.diffusion.latents import base_digests
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.baselines.base import Preference, plain_backend
from ric_diffusion.evaluation.baselines.ddpo import DdpoConfig, RunState, Task, encoded, iterate
from ric_diffusion.evaluation.baselines.kinds import DIFFUSION
from ric_diffusion.evaluation.baselines.policy import Policy, denoising_chain
from ric_diffusion.evaluation.methods import weights_of
from ric_diffusion.files import write_json
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.training import checkpoint
from ric_diffusion.training.loop import Log


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
    """Train a LoRA for one preference; returns the cost.

    Leaves ``out/pytorch_lora_weights.safetensors``, ``log.jsonl`` with a line per iteration and
    ``cost.json``. ``resume`` goes on after an interruption, bit for bit, or with more
    ``iterations`` than before.
    """
    last = checkpoint.newest(out / "checkpoints")
    if last and not resume:
        raise InputError(f"{out}: holds a run already; resume it, or choose another folder")
    weights = weights_of(preference, space)
    backend = plain_backend(
        model, space, DiffusionConfig(lora=config.lora), seed=config.seed, device=device
    )
    pipe = backend.pipe
    parameters = list(backend.parameters())
    state = RunState(
        parameters,
        [],  # no moving average: the policy that draws is the one that is kept
        torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0, fused=True),
        history=np.full((len(prompts), config.history), np.nan),
    )
    digest = configs.digest(
        [
            configs.to_dict(replace(config, iterations=1)),  # a run may be made longer
            space.to_dict(),
            weights.tolist(),
            list(prompts),
            base_digests(pipe),
        ]
    )
    meter = Meter(checkpoint.load(last, state, digest=digest) if last else None)
    policy = Policy(
        unet=pipe.unet,
        chain=denoising_chain(pipe.scheduler, config.num_inference_steps, config.eta),
        empty=encoded(pipe, [""]),
        guidance_scale=config.guidance_scale,
        batch_size=config.minibatch,
        precision=config.precision,
    )
    task = Task(
        pipe=pipe,
        policy=policy,
        config=config,
        space=space,
        weights=weights,
        prompts=prompts,
        scorers=meter.metered(scorers),
    )
    write_json(out / "config.json", configs.to_dict(config))
    with meter.running(pipe.unet):
        _run(task, state, meter, out, digest)
    DIFFUSION.save(backend, out)
    write_json(out / "cost.json", meter.read().to_dict())
    return meter.read()


def _run(task: Task, state: RunState, meter: Meter, out: Path, digest: str) -> None:
    """Iterations from where ``state`` is to the last, with log and checkpoints in ``out``."""
    task.pipe.unet.eval()
    saved, total = time.monotonic(), task.config.iterations
    log = Log(out, state.step)
    try:
        with tqdm(total=total, initial=state.step, desc="ddpo", unit="iteration") as bar:
            while state.step < total:
                scalars = iterate(task, state)
                state.step += 1
                log(state.step, **scalars)
                bar.update()
                bar.set_postfix(reward=f"{scalars['reward']:.3f}")
                waited = time.monotonic() - saved > 60 * task.config.checkpoint_minutes
                if waited or state.step == total:
                    folder = out / "checkpoints"
                    checkpoint.save(folder, state, digest=digest, cost=meter.read())
                    saved = time.monotonic()
    finally:
        log.close()


def reward_curve(out: Path) -> tuple[np.ndarray, np.ndarray]:
    """Iterations (T,) and the mean reward of what each of them drew (T,), in weighted z."""
    lines = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    points = [json.loads(line) for line in lines if line.endswith("}")]  # a kill may tear the last
    return np.array([p["step"] for p in points]), np.array([p["reward"] for p in points])
