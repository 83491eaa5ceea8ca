"""Runs one after another in the processes of one launch, which hold the denoiser in shards:

sharded.py OUT '[{"verb": "train", "config": {…}, "out": …}, …]'

Each process writes ``OUT/rank-K.json``, a list of what it held in each run. In one process the same
runs hold everything."""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import torch

from ric_diffusion.api import leave_processes
from ric_diffusion.api.runs import OnlineRun, TrainConfig, online, train
from ric_diffusion.io.config import from_dict
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.diffusion.backend import DiffusionBackend
from ric_diffusion.models.hardware import this_process
from ric_diffusion.models.sharding import is_sharded, local
from ric_diffusion.training.trainer import Trainer

VERBS = {"train": (train, TrainConfig), "online": (online, OnlineRun)}


class Stopped(Exception):
    """A run was killed."""


def held(trainer):
    """How many numbers this process has of those in shards, and how many there are: of the
    denoiser's weights, their average and the optimizer's moments."""
    state = trainer.state
    tensors = {
        "weights": list(trainer.backend.network().parameters()),
        "average": list(state.average.values()),
        "moments": [
            moment
            for moments in state.optimizer.state.values()
            for moment in moments.values()
            if torch.is_tensor(moment)
        ],
    }
    sharded = {name: list(filter(is_sharded, some)) for name, some in tensors.items()}
    return {
        name: [sum(local(t).numel() for t in some), sum(t.numel() for t in some)]
        for name, some in sharded.items()
    }


def run(given):
    """One run; ``resume`` as the verbs have it; ``stop_at``: the loss at which it is killed;
    ``digest``: of the run whose checkpoint it goes on from; ``environment``: what is set for it."""
    verb, kind = VERBS[given["verb"]]
    config = from_dict(given["config"], kind, "config")
    found, losses = {}, []
    loss, save, begin = DiffusionBackend.loss, Trainer.save, Trainer.__init__
    check_free = RunFolder.check_free

    def counted(self, batch):
        if len(losses) == given.get("stop_at"):
            raise Stopped
        losses.append(batch)
        return loss(self, batch)

    def measured(self):
        save(self)
        found.update(held(self))

    def of_another(self, *args, digest, **options):
        begin(self, *args, digest=given.get("digest", digest), **options)

    def of_a_copy(self, *, resume):
        """Of the other run there are checkpoints alone: its run.json names its processes."""
        if "digest" not in given:
            check_free(self, resume=resume)

    with (
        patch.object(RunFolder, "check_free", of_a_copy),
        patch.object(DiffusionBackend, "loss", counted),
        patch.object(Trainer, "save", measured),
        patch.object(Trainer, "__init__", of_another),
        patch.dict(os.environ, given.get("environment", {})),
        suppress(Stopped),
    ):
        verb(config, out=given["out"], resume=given.get("resume", False))
    return found


def main():
    torch.set_num_threads(1)
    out, runs = Path(sys.argv[1]), json.loads(sys.argv[2])
    found = [run(given) for given in runs]
    (out / f"rank-{this_process().process_index}.json").write_text(json.dumps(found))
    leave_processes()


if __name__ == "__main__":
    main()
