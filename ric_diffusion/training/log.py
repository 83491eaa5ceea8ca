"""The log of a run: figures by step, as lines of JSON and for the trackers that people look at."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from PIL.Image import Image

from ric_diffusion.io.files import write_text
from ric_diffusion.io.journal import read_lines
from ric_diffusion.models.hardware import peak_memory

Tracker = Literal["tensorboard", "wandb", "trackio"]
LOGS = ("log.jsonl", "speed.jsonl")
PROJECT = "ric-diffusion"  # under which services list runs


def check_installed(trackers: Sequence[Tracker]) -> None:
    """ValueError for a tracker whose package is missing."""
    for name in trackers:
        if find_spec(name) is None:
            raise ValueError(f"trackers: {name} is not installed; pip install {name}")


class Log:
    """Figures to ``log.jsonl``, what the machine took for them to ``speed.jsonl``, and all of it to
    trackers; closed at the end of a with block. TensorBoard's files lie in ``tensorboard``.

    ``log.jsonl`` has only what is the same whenever the run is repeated. A log that is there goes
    on behind ``step``: what was logged of later steps is dropped, since a resumed run does them
    again. ``run`` is how a service knows the run when it is resumed.
    """

    def __init__(
        self, out: Path, step: int, *, trackers: Sequence[Tracker] = ("tensorboard",), run: str = ""
    ) -> None:
        self._hook = threading.excepthook
        self._files = [_continued(out / name, step) for name in LOGS]
        self._trackers = [_tracker(name, out, step, run) for name in trackers]
        threading.excepthook = self._note_thread
        for tracker in self._trackers:
            tracker.start()

    def __call__(self, step: int, **figures: float) -> None:
        self._write(self._files[0], step, figures)

    def speed(self, step: int, **figures: float) -> None:
        """What depends on the machine."""
        self._write(self._files[1], step, figures)

    def images(self, step: int, images: Mapping[str, Image]) -> None:
        """Pictures by name, to the trackers."""
        if not images:
            return
        for tracker in self._trackers:
            if tracker.name == "tensorboard":
                batches = {name: np.asarray(one)[None] for name, one in images.items()}
                tracker.log_images(batches, step=step, dataformats="NHWC")
            elif tracker.name == "wandb":
                tracker.log_images({name: [one] for name, one in images.items()}, step=step)
            else:  # accelerate has no log_images for it
                import trackio

                tracker.log({n: trackio.Image(one) for n, one in images.items()}, step=step)

    def _write(self, file: Any, step: int, figures: Mapping[str, float]) -> None:
        file.write(_line({"step": step, **figures}))
        for tracker in self._trackers:
            tracker.log(dict(figures), step=step)

    def close(self) -> None:
        try:
            for file in self._files:
                file.close()
            for tracker in self._trackers:
                tracker.finish()
        finally:
            threading.excepthook = self._hook

    def _note_thread(self, what: threading.ExceptHookArgs) -> None:
        """Of what ends a thread TensorBoard's writer is passed over: when its disk is full, the
        next call to it raises that, and a traceback on the terminal is one too many."""
        if not type(what.thread).__module__.startswith("tensorboard."):
            self._hook(what)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Speed:
    """How fast training is, and the memory that it takes on ``device``; ``samples`` are those of
    the blocks that were measured."""

    def __init__(self, device: torch.device) -> None:
        self.samples, self._device, self._seconds = 0, device, 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count the time that the block takes."""
        start = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Since the last reading. The memory, in GiB, is the peak of the process."""
        found = {"samples_per_second": self.samples / self._seconds}
        self.samples, self._seconds = 0, 0.0
        memory = peak_memory(self._device)
        return found if memory is None else {**found, "memory_gib": memory / 2**30}


def _tracker(name: Tracker, out: Path, step: int, run: str) -> Any:
    """One of accelerate's, not yet started."""
    from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker

    if name == "tensorboard":
        return TensorBoardTracker("tensorboard", out, purge_step=step + 1)
    if name == "wandb":
        return WandBTracker(PROJECT, name=out.name, dir=str(out), id=run, resume="allow")
    return TrackioTracker(PROJECT, name=f"{out.name}-{run}", resume="allow")


def _continued(path: Path, step: int) -> Any:
    """A file of lines, open behind those up to ``step``."""
    lines = [_line(entry) for entry in read_lines(path) if entry["step"] <= step]
    write_text(path, "".join(lines))
    return path.open("a", encoding="utf-8", buffering=1)


def _line(entry: Mapping[str, float]) -> str:
    return json.dumps(entry) + "\n"
