"""Supervised fine-tuning: the one trainer of every backend."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL.Image import Image

from ric_diffusion.io.config import digest as config_digest
from ric_diffusion.io.progress import tracking
from ric_diffusion.io.signals import Stopped, noted
from ric_diffusion.models.cost import Cost, Meter
from ric_diffusion.models.hardware import DTYPES
from ric_diffusion.models.protocol import Batch, Trainable
from ric_diffusion.models.sharding import apart, local
from ric_diffusion.training import checkpoint
from ric_diffusion.training.figures import LevelTally, StepFigures, finite, summary
from ric_diffusion.training.log import Log, Speed
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.processes import agreed, average_gradients, clip_gradients
from ric_diffusion.training.schedule import (
    Batches,
    batch_generator,
    ema_decay,
    learning_rate,
    micro_batches,
)

IN_A_ROW = 3  # steps whose loss or gradient is not finite

_log = logging.getLogger(__name__)


class Trainer:
    """Trains ``backend`` on ``count`` prepared records, in as many processes as there are.

    ``digest`` names settings and data together: a checkpoint in ``out`` with another digest is
    refused. With ``resume`` a run that was interrupted, anywhere, continues bit for bit as if it
    had not been. ``validate(step)`` is called with the averaged weights in place; the pictures that
    it returns, by name, go to the trackers. A running ``meter`` is kept with the checkpoints, so
    that it goes on counting where it was, and counts what all processes spend. ``sharded``: a pass
    of the network takes all processes, so that they validate and save together, and parameters may
    be in shards.

    InputError if a checkpoint is of another run or model.
    """

    def __init__(
        self,
        backend: Trainable,
        count: int,
        config: LoopConfig,
        out: Path,
        *,
        digest: str,
        resume: bool = False,
        validate: Callable[[int], Mapping[str, Image]] | None = None,
        meter: Meter | None = None,
        sharded: bool = False,
    ) -> None:
        # Precision is the config's, not the process's: accelerate fixes its own once for all runs.
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.backend = backend
        self.config = config.resolved(self.accelerator.device)
        buckets = np.zeros(count) if backend.buckets is None else backend.buckets
        self.batches = Batches(self.config, buckets)
        self.out, self.digest = out, digest
        self.validate, self.meter, self.sharded = validate, meter, sharded
        parameters = dict(backend.named_parameters())
        optimizer = config.optimizer.create(parameters.values(), config.learning_rate)
        average = {name: p.detach().clone() for name, p in parameters.items()}
        scaler = torch.amp.GradScaler(
            self.accelerator.device.type, enabled=self.config.precision == "fp16"
        )
        self.state = checkpoint.State(parameters, optimizer, average, scaler)
        if resume:
            spent = checkpoint.resume(out / checkpoint.FOLDER, self.state, digest=digest)
            if meter and spent:
                meter.add(spent)
        self._counted = meter.read() if meter else Cost()  # of all processes
        self._asked: Callable[[], int] = lambda: 0  # the signal that asked to stop
        self.stopping = False  # whether any process was asked to
        self._in_a_row = 0  # of the latest steps those that were left out

    def run(self) -> None:
        """Train to the last step; leaves the averaged weights in the backend.

        FloatingPointError if loss or gradient are not finite in IN_A_ROW steps, or in the last one,
        with the step and the cause; none of them has changed a parameter, and the last checkpoint
        is before them.
        Stopped once a signal asked for it, in all processes after the same step, which a checkpoint
        is written of; a second signal does not wait for that.
        """
        config, state, first = self.config, self.state, self.accelerator.is_main_process
        if first:
            _log.info("precision: %s on this %s", config.precision, self.accelerator.device.type)
        saved, speed = time.monotonic(), Speed(self.accelerator.device)
        with (
            noted() as self._asked,
            self._log() if first else nullcontext() as log,
            tracking(
                "train", config.steps, unit="step", initial=state.step, show=first
            ) as progress,
        ):
            while state.step < config.steps:
                with speed.measured():
                    loss = self.step()
                speed.samples += state.since_log[-1].samples
                progress.advance(1, loss=f"{loss:.4f}")
                last = state.step == config.steps
                if last and self._in_a_row:
                    raise FloatingPointError(f"so it is at the last step: {self._cause('loss')}")
                logged = last or state.step % config.log_every == 0
                figures, state.since_log = state.since_log, [] if logged else state.since_log
                if log and logged:
                    rate = state.optimizer.param_groups[0]["lr"]
                    log(state.step, **summary(figures), learning_rate=rate)
                    log.speed(state.step, **speed.read())
                if not (first or self.sharded):
                    if self.stopping:
                        raise self._stopped()
                    continue
                due = config.validate_every and state.step % config.validate_every == 0
                if self.validate and due:
                    with self.averaged():
                        sheets = self.validate(state.step)
                    if log:
                        log.images(state.step, sheets)
                # After validation, which is part of the cost that a resumed run begins with.
                # Steps that are left out may end the run: the last checkpoint is before them.
                overdue = (
                    time.monotonic() - saved > 60 * config.checkpoint_minutes and not self._in_a_row
                )
                if last or self.stopping or (agreed(overdue) if self.sharded else overdue):
                    self.save()
                    saved = time.monotonic()
                if self.stopping:
                    raise self._stopped()
            if self._asked() and self.accelerator.num_processes == 1:  # since the last step began
                raise self._stopped()
        _copy(state.average, state.parameters)

    def _stopped(self) -> Stopped:
        line = f"stopped after step {self.state.step}, of which there is a checkpoint"
        return Stopped(self._asked() or signal.SIGTERM, line)

    def _log(self) -> Log:
        name = config_digest([self.digest, str(self.out.absolute())])[:16]
        return Log(self.out, self.state.step, trackers=self.config.trackers, run=name)

    def step(self) -> float:
        """One update of parameters and average; returns the mean loss of its micro-batches. A step
        whose gradient overflows in float16 changes nothing but the scale of the next loss, and one
        whose loss or gradient is not finite changes no parameter."""
        config, state = self.config, self.state
        parameters = list(state.parameters.values())
        # The gradients of those in shards are means already.
        figures = [float(self._asked() > 0), *self._backward()]
        stopping, loss, samples, *levels = self._averaged_over_processes(
            apart(parameters)[0], figures
        )
        self.stopping = stopping > 0
        state.scaler.unscale_(state.optimizer)
        norm = clip_gradients(parameters, config.max_grad_norm)
        # While the scale can still fall, gradients of float16 that overflow are no fault.
        settled = not state.scaler.is_enabled() or state.scaler.get_scale() < 1
        useful = self._is_finite(loss, norm if settled else 0.0)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(config, state.step)
        if useful:
            state.scaler.step(state.optimizer)
        else:
            levels = [0.0] * len(levels)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(
            [local(average) for average in state.average.values()],
            [local(p.detach()) for p in parameters],
            1.0 - ema_decay(config, state.step),
        )
        state.step += 1
        half = len(levels) // 2
        state.since_log.append(
            StepFigures(
                loss=finite(loss),
                samples=round(samples * self.accelerator.num_processes),
                gradient_norm=finite(norm),
                sums=levels[:half],
                counts=levels[half:],
            )
        )
        return loss

    def _averaged_over_processes(
        self, parameters: Sequence[torch.nn.Parameter], figures: Sequence[float]
    ) -> list[float]:
        """The figures and, in place, the gradients, as their means over all processes. The meter of
        each process then has what all of them spent."""
        spent = self.meter.read() - self._counted if self.meter else Cost()
        own = (spent.forwards, spent.scored, spent.seconds)
        means = average_gradients(parameters, [*figures, *own], self.accelerator)
        if self.meter and (processes := self.accelerator.num_processes) > 1:
            forwards, scored, seconds = (processes * mean for mean in means[len(figures) :])
            self.meter.add(Cost(round(forwards), round(scored), seconds) - spent)
            self._counted = self.meter.read()
        return means[: len(figures)]

    def _backward(self) -> list[float]:
        """Pass this process's micro-batches of the step forward and backward: their mean loss, how
        many samples they have, and what the tally of noise levels reads."""
        config, accelerator, total, tally = self.config, self.accelerator, 0.0, LevelTally()
        samples = 0
        process, processes = accelerator.process_index, accelerator.num_processes
        for micro in micro_batches(config, self.state.step, process=process, processes=processes):
            batch = Batch(
                indices=self.batches.indices(micro),
                generator=batch_generator(config, micro),
                note=tally,
            )
            half = config.precision != "fp32"
            with torch.autocast(accelerator.device.type, DTYPES[config.precision], enabled=half):
                loss = self.backend.loss(batch) / config.accumulate
            # A batch that is smaller, as the last of a bucket is, weighs as much less.
            weight = len(batch.indices) / config.batch_size
            accelerator.backward(self.state.scaler.scale(loss * weight))
            total += loss.item()
            samples += len(batch.indices)
        return [total, samples, *tally.read()]

    def _is_finite(self, loss: float, norm: float) -> bool:
        """Whether a step is of any use; FloatingPointError if it is the last of IN_A_ROW that are
        of none."""
        broken = {"loss": loss, "gradient": norm}
        name = next((name for name, value in broken.items() if not math.isfinite(value)), None)
        if name is None:
            self._in_a_row = 0
            return True
        self._in_a_row += 1
        line = f"{name} is {broken[name]} at step {self.state.step}"
        if self._in_a_row < IN_A_ROW:
            _log.warning("%s, which is left out", line)
            return False
        raise FloatingPointError(f"{line}, as in the {IN_A_ROW - 1} before: {self._cause(name)}")

    def _cause(self, name: str) -> str:
        """Why the loss, or the gradient, is not finite, and what to do about it."""
        for parameter, value in self.state.parameters.items():
            if not local(value.detach()).isfinite().all():
                return f"{parameter}, which is trained, is not finite; lower the learning rate"
        if name == "gradient":
            return "it overflows on the way back; lower the learning rate or use precision fp32"
        return (
            "what is trained is finite, so the model's own weights are not, or overflow on this "
            "data; use fp32, or fetch the model again"
        )

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights stand in for the trained ones inside the block."""
        parameters = self.state.parameters
        trained = {name: p.detach().clone() for name, p in parameters.items()}
        _copy(self.state.average, parameters)
        try:
            yield
        finally:
            _copy(trained, parameters)

    def save(self) -> None:
        """Write a checkpoint of this step, in place of the one before. Where parameters are in
        shards all processes do this together."""
        cost = self.meter.read() if self.meter else None
        checkpoint.save(self.out / checkpoint.FOLDER, self.state, digest=self.digest, cost=cost)


@torch.no_grad()
def _copy(source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in source.items():
        target[name].copy_(tensor)
