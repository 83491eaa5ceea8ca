"""Supervised fine-tuning: the one loop that trains every backend."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from tqdm.auto import tqdm

from ric_diffusion.backend import Batch, Trainable
from ric_diffusion.config import above_zero, at_least
from ric_diffusion.cost import Meter
from ric_diffusion.files import write_text
from ric_diffusion.training import checkpoint


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How to optimise. One step is one update: ``accumulate`` micro-batches on each process."""

    steps: int
    batch_size: int
    accumulate: int = 1
    learning_rate: float = 1e-4
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema: float = 0.999
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    checkpoint_minutes: float = 5.0
    log_every: int = 50
    validate_every: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "batch_size", "accumulate", "log_every")
        at_least(self, 0, "warmup", "weight_decay", "checkpoint_minutes", "validate_every", "seed")
        above_zero(self, "learning_rate", "max_grad_norm")
        for name, values in (("ema", (self.ema,)), ("betas", self.betas)):
            if not all(0 <= value < 1 for value in values):
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more, below 1")


def learning_rate(config: LoopConfig, step: int) -> float:
    """Linear warm-up from 0, then constant or a cosine to 0 at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


def ema_decay(config: LoopConfig, step: int) -> float:
    """The average forgets faster at the start, when the weights are still far from any use."""
    return min(config.ema, (1.0 + step) / (10.0 + step))


def batch_indices(config: LoopConfig, count: int, micro: int) -> tuple[int, ...]:
    """The records of micro-batch number ``micro`` of the whole run, over all processes.

    Every epoch is its own seeded permutation and batches run across epoch borders, so any batch
    can be named without having drawn those before it: that is what makes resuming exact.
    """
    first = micro * config.batch_size
    chosen: list[int] = []
    while len(chosen) < config.batch_size:
        epoch, offset = divmod(first + len(chosen), count)
        order = np.random.default_rng([config.seed, epoch]).permutation(count)
        chosen += order[offset : offset + config.batch_size - len(chosen)].tolist()
    return tuple(chosen)


def batch_generator(config: LoopConfig, micro: int) -> torch.Generator:
    """The generator of one micro-batch: noise, timesteps, dropout and augmentation."""
    seed = np.random.SeedSequence([config.seed, micro, 1]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed) & (2**63 - 1))


class Log:
    """Scalars to ``log.jsonl`` and, beside it, to TensorBoard."""

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        out.mkdir(parents=True, exist_ok=True)
        path = out / "log.jsonl"
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= step]
        write_text(path, "".join(kept))
        self.file: IO[str] = path.open("a", buffering=1)
        self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def __call__(self, step: int, **scalars: float) -> None:
        self.file.write(json.dumps({"step": step, **scalars}) + "\n")
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.file.close()
        self.writer.close()


def _lines(path: Path) -> list[str]:
    """Whole lines of a log; a kill can leave the last one torn."""
    text = path.read_text() if path.exists() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("}\n")]


def fit(
    backend: Trainable,
    count: int,
    config: LoopConfig,
    out: Path,
    *,
    digest: str,
    resume: bool = False,
    validate: Callable[[int], Any] | None = None,
    meter: Meter | None = None,
) -> None:
    """Train ``backend`` on ``count`` prepared records; leaves the averaged weights in it.

    ``digest`` names settings and data together: a checkpoint with another digest is refused.
    ``validate(step)`` is called with the averaged weights in place. A running ``meter`` is
    kept with the checkpoints, so that it goes on counting where it was. Interrupt it anywhere: with
    ``resume`` the run continues bit for bit as if it had not been stopped.
    """
    # Precision is the config's, not the process's: accelerate fixes its own once for all runs.
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    parameters = list(backend.parameters())
    optimizer = torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )
    average = [p.detach().clone() for p in parameters]
    state = checkpoint.State(parameters, average, optimizer)
    checkpoints = out / "checkpoints"
    if resume and (last := checkpoint.newest(checkpoints)):
        spent = checkpoint.load(last, state, digest=digest)
        if meter:
            meter.add(spent)
    log = Log(out, state.step) if accelerator.is_main_process else None
    try:
        _run(backend, count, config, checkpoints, digest, state, accelerator, log, validate, meter)
    finally:
        if log:
            log.close()
    _copy(average, parameters)


def leave(process: PartialState) -> None:
    """All processes leave their group together: one that dies before the other aborts it at its
    exit."""
    process.wait_for_everyone()
    process.destroy_process_group()


def _run(
    backend: Trainable,
    count: int,
    config: LoopConfig,
    checkpoints: Path,
    digest: str,
    state: checkpoint.State,
    accelerator: Accelerator,
    log: Log | None,
    validate: Callable[[int], Any] | None,
    meter: Meter | None,
) -> None:
    saved = time.monotonic()
    with tqdm(
        total=config.steps, initial=state.step, desc="train", unit="step", disable=log is None
    ) as bar:
        while state.step < config.steps:
            state.losses.append(update(backend, count, config, state, accelerator))
            state.step += 1
            last = state.step == config.steps
            bar.update()
            if log and (state.step % config.log_every == 0 or last):
                loss = sum(state.losses) / len(state.losses)
                log(state.step, loss=loss, learning_rate=state.optimizer.param_groups[0]["lr"])
                bar.set_postfix(loss=f"{loss:.4f}")
                state.losses.clear()
            due = config.validate_every and state.step % config.validate_every == 0
            if log and validate and due:
                with averaged(state):
                    validate(state.step)
            # After validation, which is part of the cost that a resumed run begins with.
            if log and (last or time.monotonic() - saved > 60 * config.checkpoint_minutes):
                cost = meter.read() if meter else None
                checkpoint.save(checkpoints, state, digest=digest, cost=cost)
                saved = time.monotonic()


def update(
    backend: Trainable,
    count: int,
    config: LoopConfig,
    state: checkpoint.State,
    accelerator: Accelerator,
) -> float:
    """One optimizer step; returns the mean loss over its micro-batches on this process."""
    parameters = state.parameters
    total = 0.0
    for i in range(config.accumulate):
        micro = state.step * config.accumulate + i
        micro = micro * accelerator.num_processes + accelerator.process_index
        batch = Batch(
            indices=batch_indices(config, count, micro),
            generator=batch_generator(config, micro),
        )
        bf16 = config.precision == "bf16"
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=bf16):
            loss = backend.loss(batch) / config.accumulate
        accelerator.backward(loss)
        total += loss.item()
    if not math.isfinite(total):
        raise FloatingPointError(
            f"loss is {total} at step {state.step}: lower the learning rate or use fp32"
        )
    grads = [p.grad for p in parameters if p.grad is not None]
    if accelerator.num_processes > 1:
        for grad in grads:
            grad.copy_(accelerator.reduce(grad, reduction="mean"))
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm).item()
    if not math.isfinite(norm):  # the next loss would say so, but a checkpoint may come before it
        raise FloatingPointError(
            f"gradient is {norm} at step {state.step}: lower the learning rate or use fp32"
        )
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, state.step)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    torch._foreach_lerp_(
        state.average, [p.detach() for p in parameters], 1.0 - ema_decay(config, state.step)
    )
    return total


@contextmanager
def averaged(state: checkpoint.State) -> Any:
    """The averaged weights stand in for the trained ones inside the block."""
    raw = [p.detach().clone() for p in state.parameters]
    _copy(state.average, state.parameters)
    try:
        yield
    finally:
        _copy(raw, state.parameters)


@torch.no_grad()
def _copy(source: Any, target: Any) -> None:
    for a, b in zip(source, target, strict=True):
        b.copy_(a)
