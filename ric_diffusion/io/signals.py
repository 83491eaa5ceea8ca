"""Ctrl+C and the signals that ask a process to end, heeded where nothing is lost by it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")
               if hasattr(signal, name))  # fmt: skip


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end. One line: what was saved, and how to go on; empty where
    there is nothing to say."""

    def __init__(self, number: int, line: str = "") -> None:
        super().__init__(line)
        self.number = number


@contextmanager
def heeded() -> Iterator[None]:
    """Inside, a signal that asks the process to end raises Stopped, so that ``finally`` clauses
    run, and so does what some library makes of that; in a thread, which gets no signals, nothing
    changes."""
    found = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal found
        found = number
        _stop(number, frame)

    with _handling(stop):
        try:
            yield
        except Exception as error:  # of an import that was interrupted, a RecursionError even
            if found:
                raise Stopped(found) from error
            raise


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


@contextmanager
def noted() -> Iterator[Callable[[], int]]:
    """Inside, the first signal that asks the process to end is only noted, and the next one ends
    it. Yields what tells the number of that signal, 0 before there is one; always 0 in a thread.
    """
    found = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal found
        if found:
            _stop(number, frame)
        found = number

    with _handling(note):
        yield lambda: found


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ASKING}
    for number, old in before.items():
        if old is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
