"""A report as ``ric evaluate`` writes it, as far as the app reads it."""

import json
from pathlib import Path


def metrics(names, *, mapping="front", count=5):
    """Two models: one without sliders, and one with ``count`` preferences between the first two
    rewards."""
    points = []
    for i in range(count):
        weight = 1 - i / (count - 1)
        weights = dict(zip(names, [weight, 1 - weight], strict=True))
        z = {names[0]: weight - 0.5, names[1]: 1.1 - weight}
        points.append(
            {
                "preference": weights,
                "targets": z,
                "obtained": {name: {"value": value} for name, value in z.items()},
                "on_front": i != 1,
            }
        )
    bare = {"preference": None, "targets": {}, "obtained": points[0]["obtained"], "on_front": True}
    return {
        "rewards": [{"name": name} for name in names],
        "models": [
            {"name": "no adapter", "about": {}, "points": [bare]},
            {"name": "ours", "about": {"mapping": mapping}, "points": points},
        ],
    }


def write_report(folder: Path, names, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics(names, **changes)))
    return folder
