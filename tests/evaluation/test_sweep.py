"""A sweep in memory: what is asked where, whatever the batches."""

import numpy as np
import pytest
from PIL import Image

from ric_diffusion.evaluation.grid import Point
from ric_diffusion.evaluation.report.sheet import sweep_captions
from ric_diffusion.evaluation.runner import run_sweep
from ric_diffusion.io.progress import reporting

TARGETS = [{"bright": -1.0}, {"bright": 0.5, "dark": 0.0}, {}]
POINTS = [Point(targets=targets) for targets in TARGETS]
PROMPTS = ["a", "abcd"]
SEEDS = [0, 7]


def test_grid_order_and_shapes(painter, space, fake_scorers):
    sweep = run_sweep(painter, space, POINTS, PROMPTS, SEEDS, fake_scorers)
    assert sweep.points == POINTS
    assert (sweep.prompts, sweep.seeds) == (PROMPTS, SEEDS)
    assert sweep.scores.shape == sweep.z.shape == (3, 2, 2, 2)
    asked = [120 + 20 * target.get("bright", 0.0) for target in TARGETS]
    levels = np.array(
        [[[round(a + 3 * len(p) + s) for s in SEEDS] for p in PROMPTS] for a in asked]
    )
    assert sweep.scores[..., 0].tolist() == levels.tolist()
    assert sweep.scores[..., 1] == pytest.approx(-levels / 100)
    drawn = [[[s.getpixel((0, 0)) for s in row] for row in plane] for plane in sweep.samples]
    assert drawn == levels.tolist()
    assert sweep.z[..., 0] == pytest.approx((levels - space.means[0]) / space.stds[0])
    assert sweep.z[..., 1] == pytest.approx((-levels / 100 - space.means[1]) / space.stds[1])


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_batch_size_changes_nothing_but_the_calls(painter, space, fake_scorers, batch_size):
    whole = run_sweep(painter, space, POINTS, PROMPTS, SEEDS, fake_scorers)
    assert painter.calls == [12]
    painter.calls.clear()
    sweep = run_sweep(painter, space, POINTS, PROMPTS, SEEDS, fake_scorers, batch_size=batch_size)
    assert max(painter.calls) <= batch_size and sum(painter.calls) == 12
    assert np.array_equal(sweep.scores, whole.scores)
    assert np.array_equal(sweep.z, whole.z)


def test_a_rejected_sample_has_no_scores(painter, space, fake_scorers):
    drawn = painter.sample

    def sample(prompts, targets, seeds):
        return [Image.new("L", (8, 8)), *drawn(prompts, targets, seeds)[1:]]

    whole = run_sweep(painter, space, POINTS, PROMPTS, SEEDS, fake_scorers)
    painter.sample = sample
    sweep = run_sweep(painter, space, POINTS, PROMPTS, SEEDS, fake_scorers)
    for found, complete in ((sweep.scores, whole.scores), (sweep.z, whole.z)):
        assert np.isnan(found[0, 0, 0]).all() and np.isfinite(found).sum() == found.size - 2
        assert np.array_equal(found.reshape(-1, 2)[1:], complete.reshape(-1, 2)[1:])
    captions = sweep_captions(sweep, space)
    assert captions[0] == ["bright", "-1.0 » none", "dark", "auto » none"]
    assert captions[2][1] == f"auto » {sweep.z[2, 0, 0, 0]:+.1f}"


def test_each_batch_is_progress(painter, space, fake_scorers):
    told = []
    with reporting(lambda progress: told.append((progress.stage, progress.done, progress.total))):
        run_sweep(painter, space, POINTS, PROMPTS, SEEDS, fake_scorers, batch_size=5, stage="mine")
    assert told == [("mine", done, 12) for done in (0, 5, 10, 12)]
