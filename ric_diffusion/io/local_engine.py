"""The engine of this machine: this process and others, which share the work.

The others are programs of their own, which get and give JSON by pipes. So they import what they
need and nothing of the program that this is: multiprocessing would run its main module again.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

from ric_diffusion.io.engines import Item, Result, State, name_of
from ric_diffusion.io.errors import InputError, reason_of
from ric_diffusion.io.worker import DONE, FAILED, REFUSALS
from scorers.parallel import on_cores

Answer = tuple[int, str, Any]  # the number of an item, and what a worker says of it

DYING = 1.0  # s that a process may take to end once it has closed its pipes

_log = logging.getLogger(__name__)


class LocalEngine:
    """An Engine of ``workers`` processes, of which this is one. Each keeps to one core.

    What another process fails on is done again here, where an error is raised as it is; a process
    that dies is not replaced, as it may have died for want of memory.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def map(
        self,
        task: Callable[[State, Item], Result],
        items: Sequence[Item],
        *,
        here: State,
        elsewhere: partial[State] | None,
        called: Callable[[Item], str],
    ) -> Iterator[Result]:
        if elsewhere is None:
            raise InputError("workers: this works in one process only; leave them out")
        call = name_of(elsewhere.func), dict(elsewhere.keywords), name_of(task)
        waiting = deque(range(len(items)))
        answers: SimpleQueue[Answer] = SimpleQueue()
        others = [
            _Other(call, items, waiting, answers) for _ in range(min(self.workers, len(items)) - 1)
        ]
        try:
            left = len(items)
            while left:
                number = _next(waiting) if answers.empty() else None
                if number is not None:
                    with on_cores(1):
                        result = task(here, items[number])
                else:
                    number, outcome, result = answers.get()
                    if outcome in REFUSALS:
                        raise REFUSALS[outcome](result)
                    if outcome == FAILED:
                        cause = result.strip().splitlines()[-1]
                        _log.warning("%s: a worker failed, %s", called(items[number]), cause)
                        waiting.appendleft(number)
                        continue
                left -= 1
                yield result
        finally:
            waiting.clear()
            for other in others:
                other.end()


class _Other:
    """Another process, and the thread that hands it one item of those ``waiting`` at a time."""

    def __init__(
        self,
        call: tuple[Any, ...],
        items: Sequence[Any],
        waiting: deque[int],
        answers: SimpleQueue[Answer],
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ric_diffusion.io.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                "OMP_NUM_THREADS": "1",
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            },
        )
        self._thread = threading.Thread(
            target=self._hand_out, args=(call, items, waiting, answers), daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()

    def _hand_out(
        self,
        call: tuple[Any, ...],
        items: Sequence[Any],
        waiting: deque[int],
        answers: SimpleQueue[Answer],
    ) -> None:
        while (number := _next(waiting)) is not None:
            outcome, value = self._ask([*call, items[number]])
            answers.put((number, outcome, value))
            if outcome != DONE:
                break
        self._process.kill()

    def _ask(self, call: Sequence[Any]) -> tuple[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(call) + "\n")
            self._process.stdin.flush()
            outcome, value = json.loads(self._process.stdout.readline())
        except Exception as error:  # whatever it is: this process waits for an answer
            try:
                return FAILED, f"it died with exit code {self._process.wait(timeout=DYING)}"
            except subprocess.TimeoutExpired:  # it lives; the item is none for JSON, say
                return FAILED, reason_of(error)
        return outcome, value


def _next(waiting: deque[int]) -> int | None:
    try:
        return waiting.popleft()
    except IndexError:
        return None
