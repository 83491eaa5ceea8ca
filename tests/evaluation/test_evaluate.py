"""An evaluation draws every cell once, whoever stops it and however many processes share it."""

import dataclasses
import json

import numpy as np
import pytest

from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.evaluate import (
    draw_cells,
    evaluate,
    judge_cells,
    read_drawn,
    read_judged,
    read_outcome,
)
from ric_diffusion.evaluation.subject import (
    Point,
    Setup,
    Subject,
    by_targets,
    folder_of,
    slider_points,
)
from ric_diffusion.rewards import to_targets
from support.points import NAMES, Axis, Points, space

PROMPTS = ["a", "bb", "ccc"]
SEEDS = [5, 6]
SPACE = space()


def seed_of(q, s):
    """5 and 6 for the first prompt, 7 and 8 for the second, 9 and 10 for the third."""
    return SEEDS[s] + 2 * q


POINTS = slider_points(SPACE, "front", 4)
CELLS = len(POINTS) * len(PROMPTS) * len(SEEDS)
BATCH = 7


class Drawer(Points):
    """Points that depend on the prompt too. Remembers what it was asked for; ``broken`` (prompt,
    seed) pairs come out as no number."""

    def __init__(self, broken=(), **options):
        super().__init__(**options)
        self.broken, self.drawn, self.read_files = broken, [], []

    def sample(self, prompts, targets, seeds):
        points = super().sample(prompts, targets, seeds)
        cells = list(zip(map(repr, targets), prompts, seeds, strict=True))
        self.drawn += cells
        return [
            (float("nan"), y) if (prompt, seed) in self.broken else (x + len(prompt) / 10, y)
            for (x, y), (_, prompt, seed) in zip(points, cells, strict=True)
        ]

    def read(self, path):
        self.read_files.append(path)
        return super().read(path)

    def prompt_kept(self, prompts, samples):
        return np.array([len(prompt) / 4 for prompt in prompts])


class Sum:
    """A scorer that no one was trained on."""

    name, unit, fingerprint = "sum", "z", "sum-1"

    def __call__(self, samples, prompts):
        return np.array([x + y + len(p) for (x, y), p in zip(samples, prompts, strict=True)])


def setup_of(**changes):
    given = {
        "space": SPACE,
        "prompts": PROMPTS,
        "seeds": SEEDS,
        "scorers": [Axis(name) for name in NAMES],
        "held_out": [Sum()],
        "batch_size": BATCH,
    }
    return Setup(**given | changes)


def subject_of(drawer, **changes):
    given = {
        "name": "points",
        "points": POINTS,
        "draw": by_targets(drawer),
        "sampler": drawer,
        "about": {"gain": drawer.gain.tolist()},
        "space": SPACE,
    }
    return Subject(**given | changes)


def same(one, other):
    """Equal outcomes, but for the time they took."""
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert np.array_equal(a, b, equal_nan=True), field.name
        elif field.name == "cost":
            assert (a.forwards, a.scored) == (b.forwards, b.scored)
        else:
            assert a == b, field.name


@pytest.fixture
def whole(tmp_path):
    return evaluate(subject_of(Drawer()), setup_of(), tmp_path / "whole")


def test_every_cell_is_drawn_once_and_kept(tmp_path):
    drawer = Drawer()
    outcome = evaluate(subject_of(drawer), setup_of(), tmp_path)
    assert len(drawer.drawn) == len(set(drawer.drawn)) == CELLS
    assert {(prompt, seed) for _, prompt, seed in drawer.drawn} == {
        ("a", 5), ("a", 6), ("bb", 7), ("bb", 8), ("ccc", 9), ("ccc", 10)
    }  # fmt: skip
    assert outcome.scores.shape == (len(POINTS), 3, 2, 2)
    assert outcome.held_out.shape == (4, 3, 2, 1)
    for p, point in enumerate(POINTS):
        for q, prompt in enumerate(PROMPTS):
            for s in range(len(SEEDS)):
                (sample,) = Drawer().sample([prompt], [point.targets], [seed_of(q, s)])
                assert outcome.scores[p, q, s].tolist() == pytest.approx(sample)
                file = tmp_path / outcome.files[p][q][s]
                assert json.loads(file.read_text()) == pytest.approx(sample)
                if p < 4:
                    expected = sum(sample) + len(prompt)
                    assert outcome.held_out[p, q, s, 0] == pytest.approx(expected)
    assert outcome.faults == {}
    assert outcome.kept.tolist() == [[[0.25] * 2, [0.5] * 2, [0.75] * 2]] * 4
    assert outcome.cost.forwards > 0 and outcome.cost.scored == 0


def test_diversity_is_that_of_the_seeds_of_a_prompt(tmp_path):
    drawer = Drawer()
    outcome = evaluate(subject_of(drawer), setup_of(), tmp_path)
    assert outcome.diversity.shape == (4, 3)
    pair = [Drawer().sample(["bb"], [POINTS[1].targets], [seed_of(1, s)])[0] for s in (0, 1)]
    features = drawer.features(pair)
    assert outcome.diversity[1, 1] == pytest.approx(1 - features[0] @ features[1], abs=1e-6)
    assert len(drawer.read_files) == 4 * 6  # only the preference sweep is judged


def test_run_again_draws_nothing(whole, tmp_path):
    drawer = Drawer()
    same(evaluate(subject_of(drawer), setup_of(), tmp_path / "whole"), whole)
    assert drawer.drawn == [] and drawer.read_files == []


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_stopped_while_drawing(whole, tmp_path, batch):
    def stop(number):
        if number == batch:
            raise KeyboardInterrupt

    first, second = Drawer(on_sample=stop), Drawer()
    with pytest.raises(KeyboardInterrupt):
        evaluate(subject_of(first), setup_of(), tmp_path / "out")
    same(evaluate(subject_of(second), setup_of(), tmp_path / "out"), whole)
    assert len(first.drawn) == BATCH * (batch - 1)
    assert len(first.drawn + second.drawn) == len({*first.drawn, *second.drawn}) == CELLS


def test_stopped_between_drawing_and_the_journal(whole, tmp_path, monkeypatch):
    """The one batch that was not noted yet is all that is drawn again."""

    class Stops(Axis):
        calls = 0

        def __call__(self, samples, prompts):
            self.calls += 1
            if self.calls == 4:
                raise KeyboardInterrupt
            return super().__call__(samples, prompts)

    stopping = setup_of(scorers=[Stops("x"), Axis("y")])
    first, second = Drawer(), Drawer()
    with pytest.raises(KeyboardInterrupt):
        evaluate(subject_of(first), stopping, tmp_path / "out")
    same(evaluate(subject_of(second), setup_of(), tmp_path / "out"), whole)
    assert len(first.drawn + second.drawn) == CELLS + BATCH


def test_stopped_while_judging(whole, tmp_path, monkeypatch):
    first, second = Drawer(), Drawer()

    def stop(prompts, samples):
        if len(first.read_files) > 2 * 6:
            raise KeyboardInterrupt
        return Drawer.prompt_kept(first, prompts, samples)

    monkeypatch.setattr(first, "prompt_kept", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate(subject_of(first), setup_of(), tmp_path / "out")
    same(evaluate(subject_of(second), setup_of(), tmp_path / "out"), whole)
    assert second.drawn == [] and len(second.read_files) == 2 * 6


def test_torn_line_costs_its_batch_only(whole, tmp_path):
    journal = tmp_path / "whole" / "drawn-0.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    drawer = Drawer()
    same(evaluate(subject_of(drawer), setup_of(), tmp_path / "whole"), whole)
    assert len(drawer.drawn) == CELLS % BATCH


def test_lost_sample_is_drawn_again(whole, tmp_path):
    (tmp_path / "whole" / whole.files[0][0][0]).unlink()
    drawer = Drawer()
    same(evaluate(subject_of(drawer), setup_of(), tmp_path / "whole"), whole)
    assert len(drawer.drawn) == BATCH
    assert (tmp_path / "whole" / whole.files[0][0][0]).exists()


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_work(whole, tmp_path, world):
    out, drawers = tmp_path / "shared", [Drawer() for _ in range(world)]
    for rank, drawer in enumerate(drawers):
        draw_cells(subject_of(drawer), setup_of(), out, {}, rank=rank, world=world)
    for rank, drawer in enumerate(drawers):
        judge_cells(subject_of(drawer), setup_of(), out, {}, rank=rank, world=world)
    same(read_outcome(subject_of(Drawer()), setup_of(), out), whole)
    drawn = [cell for drawer in drawers for cell in drawer.drawn]
    assert len(drawn) == len(set(drawn)) == CELLS
    assert max(len(d.drawn) for d in drawers) - min(len(d.drawn) for d in drawers) <= BATCH
    assert len({len(d.read_files) for d in drawers}) <= 2


def test_another_number_of_processes_goes_on(whole, tmp_path):
    out, first, second = tmp_path / "shared", Drawer(), Drawer()
    draw_cells(subject_of(first), setup_of(), out, {}, rank=1, world=3)
    same(evaluate(subject_of(second), setup_of(), out), whole)
    assert len(first.drawn + second.drawn) == len({*first.drawn, *second.drawn}) == CELLS


def test_parts_that_are_missing_are_not_passed_over(tmp_path):
    drawer = Drawer()
    draw_cells(subject_of(drawer), setup_of(), tmp_path, {}, rank=0, world=2)
    with pytest.raises(InputError, match="parts of the evaluation are not there"):
        read_outcome(subject_of(drawer), setup_of(), tmp_path)


@pytest.mark.parametrize(
    "said, changes, about",
    [
        ("other prompts;", {"prompts": ["a", "bb", "dd"]}, {}),
        ("other seeds;", {"seeds": [5, 7]}, {}),
        ("other batch size;", {"batch_size": 8}, {}),
        ("other held-out scorers;", {"held_out": []}, {}),
        ("other model;", {}, {"about": {"gain": 7}}),
        ("other points;", {}, {"points": POINTS[:-1]}),
        ("other model, seeds;", {"seeds": [5]}, {"about": {}}),
    ],
)
def test_other_settings_are_refused(whole, tmp_path, said, changes, about):
    drawer = Drawer()
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    with pytest.raises(InputError, match=said) as error:
        evaluate(subject_of(drawer, **about), setup_of(**changes), tmp_path / "whole")
    assert "\n" not in str(error.value)
    assert drawer.drawn == []
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("text", ["", "[]", '{"model": 1', "null"])
def test_settings_that_cannot_be_read_are_refused(tmp_path, text):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(InputError, match="holds an evaluation with other"):
        evaluate(subject_of(Drawer()), setup_of(), tmp_path)


def test_faulty_samples_have_no_scores(tmp_path):
    drawer = Drawer(broken={("bb", seed_of(1, 1))})
    outcome = evaluate(subject_of(drawer), setup_of(), tmp_path)
    assert outcome.faults == {"not a number": len(POINTS)}
    assert np.isnan(outcome.scores[:, 1, 1]).all() and np.isnan(outcome.held_out[:, 1, 1]).all()
    assert np.isfinite(np.delete(outcome.scores.reshape(-1, 6, 2), 3, axis=1)).all()
    assert np.isnan(outcome.diversity[:, 1]).all()  # of a pair of which one is missing


def test_model_without_sliders_has_one_point(tmp_path):
    drawer = Drawer()
    subject = subject_of(drawer, points=[Point()], space=None)
    outcome = evaluate(subject, setup_of(held_out=[]), tmp_path)
    assert outcome.scores.shape == (1, 3, 2, 2) and outcome.held_out.shape == (1, 3, 2, 0)
    assert {targets for targets, _, _ in drawer.drawn} == {"{}"}


def test_one_seed_has_no_diversity(tmp_path):
    outcome = evaluate(subject_of(Drawer()), setup_of(seeds=[5]), tmp_path)
    assert np.isnan(outcome.diversity).all()
    assert np.isfinite(outcome.kept).all()


def test_what_is_done_is_read_back(whole, tmp_path):
    folder = tmp_path / "whole"
    assert len(read_drawn(subject_of(Drawer()), setup_of(), folder)) == -(-CELLS // BATCH)
    assert sorted(read_judged(folder)) == [(p, (0, 1, 2)) for p in range(4)]


def test_points_of_two_rewards():
    preferences = [point for point in POINTS if point.along is None]
    assert POINTS[:4] == preferences
    assert [p.preference["x"] for p in preferences] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    for point in preferences:
        assert point.targets == to_targets(point.preference, SPACE, "front")
    for name in NAMES:
        alone = [point.targets for point in POINTS if point.along == name]
        assert [list(targets) for targets in alone] == [[name]] * 4
        ends = SPACE.quantile(name, 0.05), SPACE.quantile(name, 0.95)
        assert (alone[0][name], alone[-1][name]) == pytest.approx(ends)


def test_points_of_one_reward():
    points = slider_points(SPACE.subset(["y"]), "linear", 3)
    assert [point.along for point in points] == [None, "y", "y", "y"]
    assert points[0].preference == {"y": 1.0}


@pytest.mark.parametrize("name", ["a b", "../../etc", "..", "", "a/b", "ümlaut", "con\n"])
def test_folder_of_any_name_stays_inside(tmp_path, name):
    folder = folder_of(tmp_path, name)
    assert folder.parent == tmp_path / "models"
    assert folder.name.isascii() and folder.name.strip(".")
