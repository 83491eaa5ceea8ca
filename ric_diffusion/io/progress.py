"""Progress of long work: a bar in the terminal, or whatever a caller wants to do with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """``done`` of ``total`` units ("step", "sample") of one stage ("train", "label")."""

    stage: str
    done: int
    total: int
    unit: str


ProgressCallback = Callable[[Progress], None]

_callback: ContextVar[ProgressCallback | None] = ContextVar("progress", default=None)


@contextmanager
def reporting(callback: ProgressCallback | None) -> Iterator[None]:
    """Inside the block progress goes to ``callback`` instead of bars; None leaves things as they
    are. An exception of the callback stops the work."""
    token = _callback.set(_callback.get() if callback is None else callback)
    try:
        yield
    finally:
        _callback.reset(token)


class Tracker:
    """The progress of one stage."""

    def __init__(self, bar: tqdm[Any], callback: ProgressCallback | None) -> None:
        self._bar, self._callback = bar, callback
        self._tell()

    def advance(self, count: int = 1, **shown: str) -> None:
        """``count`` more units are done; ``shown`` stands beside the bar, by name."""
        if shown:
            self._bar.set_postfix(shown, refresh=False)
        self._bar.n += count  # update() would pass over what a disabled bar counts
        self._bar.update(0)
        self._tell()

    def _tell(self) -> None:
        if self._callback is not None:
            bar = self._bar
            done, total = int(bar.n), int(bar.total or 0)
            self._callback(Progress(stage=bar.desc or "", done=done, total=total, unit=bar.unit))


@contextmanager
def tracking(
    stage: str, total: int, *, unit: str = "it", initial: int = 0, show: bool = True
) -> Iterator[Tracker]:
    """Progress of a stage of ``total`` units, of which ``initial`` were done before. ``show`` is
    False on all processes but the first."""
    callback = _callback.get() if show else None
    quiet = not show or callback is not None
    with tqdm(total=total, initial=initial, desc=stage, unit=unit, disable=quiet) as bar:
        bar.n, bar.total, bar.desc, bar.unit = initial, total, stage, unit  # also if disabled
        yield Tracker(bar, callback)


def tracked(items: Iterable[Item], stage: str, *, unit: str = "it") -> Iterator[Item]:
    """The items, with progress; they must have a length."""
    assert isinstance(items, Sized)
    with tracking(stage, len(items), unit=unit) as tracker:
        for item in items:
            yield item
            tracker.advance()
