"""Tasks for an engine's workers, which import them by name, and a scorer that kills its process."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from ric_diffusion.io.errors import InputError
from scorers import BaseScorer, ScorerError
from scorers.parallel import cores

DEADLY = "TESTS_DEADLY"  # names the file that is made by the process which kills itself


def held(*, number, log):
    """What a worker holds; the log has a line for each that was made."""
    note(log, os.getpid())
    return number


def product(number, item):
    return number * item


def process(number, item):
    time.sleep(item)
    return os.getpid()


def dies_of_three(number, item):
    """As ``product``, but that 3 ends its process the first time, if ``item`` names a file to tell
    that by, or always."""
    if item["number"] == 3 and (item["once"] is None or first_time(item["once"])):
        os.kill(os.getpid(), signal.SIGKILL)
    return number * item["number"]


def dies_elsewhere(number, item):
    """As ``product``, but that it ends any process but the one of that id."""
    if os.getpid() != item["process"]:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return number * item["number"]


def prints(number, item):
    print("no answer")
    return number * item, cores()


def fails(number, item):
    note(item["log"], item["kind"])
    raise {"input": InputError, "scorer": ScorerError, "bug": KeyError}[item["kind"]]("so it is")


def note(log, line):
    with open(log, "a") as file:
        file.write(f"{line}\n")


def first_time(path):
    try:
        Path(path).open("x").close()
    except FileExistsError:
        return False
    return True


class Deadly(BaseScorer):
    """Mean grey level. Where the environment names a file, the process that makes it is killed in
    the middle of a shard, and no other."""

    name, unit, fingerprint, options = "deadly", "level", "deadly-1", {}

    def _score(self, images, prompts):
        if (path := os.environ.get(DEADLY)) and first_time(path):
            os.kill(os.getpid(), signal.SIGKILL)
        return [np.mean(image) for image in images]
