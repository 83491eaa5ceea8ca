"""Python in processes of its own, which tests interrupt and kill."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ric_diffusion

HOME = Path(ric_diffusion.__file__).parents[1]
ENVIRONMENT = {"PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
# Runs a program in two processes; on a CPU `accelerate launch` starts several only through MPI.
LAUNCH = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--local_addr", "localhost"]
LAUNCH += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]


@contextmanager
def starter() -> Iterator[Callable[..., Any]]:
    """``start(*arguments)`` runs Python with them; what still runs at the end is killed."""
    started: list[Any] = []

    def start(*arguments: object, **options: Any) -> Any:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.PIPE,
            text=True,
            **{"stderr": subprocess.PIPE, **options},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
