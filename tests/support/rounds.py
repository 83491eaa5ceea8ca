"""Online rounds over points, also as a program that several processes run together."""

import json
import sys
from pathlib import Path

from ric_diffusion.data.standard import records_groups
from ric_diffusion.io.config import from_dict
from ric_diffusion.models.hardware import this_process
from ric_diffusion.training import processes
from ric_diffusion.training.online import OnlineConfig, Task, run_rounds
from support import points
from support.points import NAMES, Axis, Points


def task(folder):
    """On labelled points, which are written to the folder."""
    folder.mkdir()
    space, replay = points.space(), points.labelled_points(folder)
    return Task(
        space=space,
        mapping="front",
        prompts=["a", "b", "c"],
        scorers=[Axis(name) for name in NAMES],
        replay=replay,
        groups=records_groups(replay, space),
        data=folder,
    )


def main():
    out, config = Path(sys.argv[1]), from_dict(json.loads(sys.argv[2]), OnlineConfig, "online")
    process, backend = this_process(), Points()
    labelled = task(out / f"labelled-{process.process_index}")
    cost, _ = run_rounds(backend, labelled, config, out / "run", digest="d", resume=True)
    found = {"gain": backend.gain.tolist(), "asked": backend.asked, "scored": cost.scored}
    (out / f"rank-{process.process_index}.json").write_text(json.dumps(found))
    processes.leave(process)


if __name__ == "__main__":
    main()
