"""What a worker elsewhere does: the tasks that it is told of, one at a time.

As a program it is a worker of ``local_engine``: each line of its input is JSON, the arguments of
one call of ``Worker.run``, and each line of its output what that returns.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from pkgutil import resolve_name
from queue import SimpleQueue
from typing import Any

from ric_diffusion.io.errors import InputError
from scorers import ScorerError
from scorers.parallel import on_cores

DONE, FAILED = "done", "failed"
REFUSALS: dict[str, type[Exception]] = {"InputError": InputError, "ScorerError": ScorerError}


class Worker:
    """In a process of its own: does tasks with what it holds, which the first of them has made."""

    def __init__(self, folder: str) -> None:
        # Relative paths mean what they mean to the driver, where the machines share its folder.
        if os.path.isdir(folder):
            os.chdir(folder)
        self._made: Any = None
        self._state: Any = None

    def run(self, make: str, arguments: dict[str, Any], task: str, item: Any) -> tuple[str, Any]:
        """What came of it, and the result or what is wrong, as plain data."""
        try:
            if self._made != (make, arguments):
                self._made = self._state = None  # two models at once may not fit
                self._state = resolve_name(make)(**arguments)
                self._made = make, arguments
            return DONE, resolve_name(task)(self._state, item)
        except InputError as error:
            return "InputError", str(error)
        except ScorerError as error:
            return "ScorerError", str(error)
        except Exception:
            return FAILED, traceback.format_exc()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever gives the work ends this process, too
    calls: SimpleQueue[list[Any]] = SimpleQueue()
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a task prints is no answer
        threading.Thread(target=_listen, args=(calls,), daemon=True).start()
        worker = Worker(os.getcwd())
        with on_cores(1):
            while True:
                answers.write(json.dumps(worker.run(*calls.get())) + "\n")
                answers.flush()


def _listen(calls: SimpleQueue[list[Any]]) -> None:
    """Also while a task is done: where nobody is left to give work, nobody wants its result."""
    for line in sys.stdin:
        calls.put(json.loads(line))
    os._exit(1)


if __name__ == "__main__":
    main()
