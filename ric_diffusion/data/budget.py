"""How much memory pictures take that are decoded at once, whatever their number and that of
threads: each asks before it is decoded, and waits until others have given theirs back."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

TOTAL = 192 * 2**20  # bytes; one picture may take more, alone
LARGE = 32 * 2**20  # bytes, above which the time that decoding takes hides that of trimming


class Ended(Exception):
    """Nobody waits for what would be decoded."""


class Budget:
    """Bytes that are lent to threads. One who asks for more than ``total`` gets it when all is
    there, or where there is a line, when it is his turn."""

    def __init__(self, total: int = TOTAL) -> None:
        self._total, self._lent = total, 0
        self._changed = threading.Condition()
        self._first: Place | None = None
        self._ended = False

    def take(self, size: int, place: Place | None = None) -> None:
        """Wait for so many bytes. Ended if nobody wants them any more."""

        def free() -> bool:
            if self._ended or self._lent + size <= self._total:
                return True
            return not self._lent if self._first is None else place is self._first

        with self._changed:
            self._changed.wait_for(free)
            if self._ended:
                raise Ended
            self._lent += size
        if size >= LARGE:
            _trim()

    def give(self, size: int) -> None:
        with self._changed:
            self._lent -= size
            self._changed.notify_all()

    def prefer(self, place: Place) -> None:
        """From here on this place waits for nobody: what others hold is taken after its own."""
        with self._changed:
            self._first = place
            self._changed.notify_all()

    def end(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()


@functools.cache
def _trimmer() -> Callable[[int], object] | None:
    """The C library's malloc_trim, where it has one (glibc)."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


def _trim() -> None:
    """Have the C library give back what pictures before left: it keeps that for each thread."""
    if trim := _trimmer():
        trim(0)


class Place:
    """Somebody whose pictures stay in memory when they are decoded, until ``close``."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self.held = budget, 0

    @contextmanager
    def decoding(self, size: int, decoded: int) -> Iterator[None]:
        self._budget.take(size, self)
        left = 0
        try:
            yield
            left = decoded
        finally:
            self.held += left
            self._budget.give(size - left)

    def close(self) -> None:
        self._budget.give(self.held)
        self.held = 0


_here: ContextVar[Place | None] = ContextVar("place", default=None)
_others = Budget()


@contextmanager
def decoding(size: int, decoded: int) -> Iterator[None]:
    """Around the decoding of one picture, which takes ``size`` bytes: waits until there is memory
    for it. In the block of a place, the bytes of the ``decoded`` picture then stay lent to it."""
    if place := _here.get():
        with place.decoding(size, decoded):
            yield
        return
    _others.take(size)
    try:
        yield
    finally:
        _others.give(size)


@contextmanager
def holding(place: Place) -> Iterator[None]:
    """In the block, what this thread decodes is this place's."""
    token = _here.set(place)
    try:
        yield
    finally:
        _here.reset(token)


@contextmanager
def one_picture() -> Iterator[None]:
    """A block that decodes one picture and has done with it at its end."""
    place = Place(_others)
    try:
        with holding(place):
            yield
    finally:
        place.close()
