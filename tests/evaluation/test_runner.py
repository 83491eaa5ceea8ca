"""An evaluation draws every cell once, whoever stops it and however many processes share it."""

import dataclasses
import json
import re

import numpy as np
import pytest

from ric_diffusion.evaluation.config import EvaluationConfig
from ric_diffusion.evaluation.grid import Point, slider_points
from ric_diffusion.evaluation.method import Method, by_targets
from ric_diffusion.evaluation.runner import (
    check_folder,
    draw_cells,
    evaluate,
    evaluate_methods,
    folder_of,
    judge_cells,
    read_drawn,
    read_judged,
    read_scores,
)
from ric_diffusion.io.errors import InputError
from support.points import NAMES, Axis, PointFiles, Points, space

PROMPTS = ["a", "bb", "ccc"]
SEEDS = [5, 6]
SPACE = space()


def seed_of(q, s):
    """5 and 6 for the first prompt, 7 and 8 for the second, 9 and 10 for the third."""
    return SEEDS[s] + 2 * q


POINTS = slider_points(SPACE, "front", 4)
CELLS = len(POINTS) * len(PROMPTS) * len(SEEDS)
BATCH = 7


class Reading(PointFiles):
    """Remembers which files were read."""

    def __init__(self, files):
        self.files = files

    def read(self, path):
        self.files.append(path)
        return super().read(path)


class Drawer(Points):
    """Points that depend on the prompt too. Remembers what it was asked for; ``broken`` (prompt,
    seed) pairs come out as no number."""

    def __init__(self, broken=(), **options):
        super().__init__(**options)
        self.broken, self.drawn, self.read_files = broken, [], []
        self.medium = Reading(self.read_files)

    def sample(self, prompts, targets, seeds):
        points = super().sample(prompts, targets, seeds)
        cells = list(zip(map(repr, targets), prompts, seeds, strict=True))
        self.drawn += cells
        return [
            (float("nan"), y) if (prompt, seed) in self.broken else (x + len(prompt) / 10, y)
            for (x, y), (_, prompt, seed) in zip(points, cells, strict=True)
        ]

    def prompt_r_precision(self, prompts, samples):
        return np.array([len(prompt) / 4 for prompt in prompts])


class Sum:
    """A scorer that no one was trained on."""

    name, unit, fingerprint = "sum", "z", "sum-1"

    def __call__(self, samples, prompts):
        return np.array([x + y + len(p) for (x, y), p in zip(samples, prompts, strict=True)])


def config_of(**changes):
    given = {
        "space": SPACE,
        "prompts": PROMPTS,
        "seeds": SEEDS,
        "scorers": [Axis(name) for name in NAMES],
        "held_out": [Sum()],
        "batch_size": BATCH,
    }
    return EvaluationConfig(**given | changes)


def method_of(drawer, **changes):
    given = {
        "name": "points",
        "points": POINTS,
        "draw": by_targets(drawer),
        "sampler": drawer,
        "about": {"gain": drawer.gain.tolist()},
        "space": SPACE,
    }
    return Method(**given | changes)


def same(one, other):
    """Equal scores, but for the time they took."""
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
    return evaluate(method_of(Drawer()), config_of(), tmp_path / "whole")


def test_every_cell_is_drawn_once_and_stored(tmp_path):
    drawer = Drawer()
    scores = evaluate(method_of(drawer), config_of(), tmp_path)
    assert len(drawer.drawn) == len(set(drawer.drawn)) == CELLS
    assert {(prompt, seed) for _, prompt, seed in drawer.drawn} == {
        ("a", 5), ("a", 6), ("bb", 7), ("bb", 8), ("ccc", 9), ("ccc", 10)
    }  # fmt: skip
    assert scores.scores.shape == (len(POINTS), 3, 2, 2)
    assert scores.held_out.shape == (4, 3, 2, 1)
    for p, point in enumerate(POINTS):
        for q, prompt in enumerate(PROMPTS):
            for s in range(len(SEEDS)):
                (sample,) = Drawer().sample([prompt], [point.targets], [seed_of(q, s)])
                assert scores.scores[p, q, s].tolist() == pytest.approx(sample)
                file = tmp_path / scores.files[p][q][s]
                assert json.loads(file.read_text()) == pytest.approx(sample)
                if p < 4:
                    expected = sum(sample) + len(prompt)
                    assert scores.held_out[p, q, s, 0] == pytest.approx(expected)
    assert scores.rejected == {}
    assert scores.prompt_r_precision.tolist() == [[[0.25] * 2, [0.5] * 2, [0.75] * 2]] * 4
    assert scores.cost.forwards > 0 and scores.cost.scored == 0


def test_diversity_is_that_of_the_seeds_of_a_prompt(tmp_path):
    drawer = Drawer()
    scores = evaluate(method_of(drawer), config_of(), tmp_path)
    assert scores.diversity.shape == (4, 3)
    pair = [Drawer().sample(["bb"], [POINTS[1].targets], [seed_of(1, s)])[0] for s in (0, 1)]
    features = drawer.features(pair)
    assert scores.diversity[1, 1] == pytest.approx(1 - features[0] @ features[1], abs=1e-6)
    assert len(drawer.read_files) == 4 * 6  # only the preference sweep is judged


def test_run_again_draws_nothing(whole, tmp_path):
    drawer = Drawer()
    same(evaluate(method_of(drawer), config_of(), tmp_path / "whole"), whole)
    assert drawer.drawn == [] and drawer.read_files == []


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_stopped_while_drawing(whole, tmp_path, batch):
    def stop(number):
        if number == batch:
            raise KeyboardInterrupt

    first, second = Drawer(on_sample=stop), Drawer()
    with pytest.raises(KeyboardInterrupt):
        evaluate(method_of(first), config_of(), tmp_path / "out")
    same(evaluate(method_of(second), config_of(), tmp_path / "out"), whole)
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

    stopping = config_of(scorers=[Stops("x"), Axis("y")])
    first, second = Drawer(), Drawer()
    with pytest.raises(KeyboardInterrupt):
        evaluate(method_of(first), stopping, tmp_path / "out")
    same(evaluate(method_of(second), config_of(), tmp_path / "out"), whole)
    assert len(first.drawn + second.drawn) == CELLS + BATCH


def test_stopped_while_judging(whole, tmp_path, monkeypatch):
    first, second = Drawer(), Drawer()

    def stop(prompts, samples):
        if len(first.read_files) > 2 * 6:
            raise KeyboardInterrupt
        return Drawer.prompt_r_precision(first, prompts, samples)

    monkeypatch.setattr(first, "prompt_r_precision", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate(method_of(first), config_of(), tmp_path / "out")
    same(evaluate(method_of(second), config_of(), tmp_path / "out"), whole)
    assert second.drawn == [] and len(second.read_files) == 2 * 6


def test_torn_line_costs_its_batch_only(whole, tmp_path):
    (journal,) = (tmp_path / "whole").glob("drawn-*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-30])
    drawer = Drawer()
    same(evaluate(method_of(drawer), config_of(), tmp_path / "whole"), whole)
    assert len(drawer.drawn) == CELLS % BATCH


def test_lost_sample_is_drawn_again(whole, tmp_path):
    (tmp_path / "whole" / whole.files[0][0][0]).unlink()
    drawer = Drawer()
    same(evaluate(method_of(drawer), config_of(), tmp_path / "whole"), whole)
    assert len(drawer.drawn) == BATCH
    assert (tmp_path / "whole" / whole.files[0][0][0]).exists()


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_work(whole, tmp_path, world):
    out, drawers = tmp_path / "shared", [Drawer() for _ in range(world)]
    for rank, drawer in enumerate(drawers):
        draw_cells(method_of(drawer), config_of(), out, rank=rank, world=world)
    for rank, drawer in enumerate(drawers):
        judge_cells(method_of(drawer), config_of(), out, rank=rank, world=world)
    same(read_scores(method_of(Drawer()), config_of(), out), whole)
    drawn = [cell for drawer in drawers for cell in drawer.drawn]
    assert len(drawn) == len(set(drawn)) == CELLS
    assert max(len(d.drawn) for d in drawers) - min(len(d.drawn) for d in drawers) <= BATCH
    assert len({len(d.read_files) for d in drawers}) <= 2


def test_another_number_of_processes_goes_on(whole, tmp_path):
    out, first, second = tmp_path / "shared", Drawer(), Drawer()
    draw_cells(method_of(first), config_of(), out, rank=1, world=3)
    same(evaluate(method_of(second), config_of(), out), whole)
    assert len(first.drawn + second.drawn) == len({*first.drawn, *second.drawn}) == CELLS


def test_parts_that_are_missing_are_not_passed_over(tmp_path):
    drawer = Drawer()
    draw_cells(method_of(drawer), config_of(), tmp_path, rank=0, world=2)
    with pytest.raises(InputError, match="9 parts of the evaluation missing"):
        read_scores(method_of(drawer), config_of(), tmp_path)


@pytest.mark.parametrize(
    "said, changes, about",
    [
        ("other prompts (", {"prompts": ["a", "bb", "dd"]}, {}),
        ("other seeds (", {"seeds": [5, 7]}, {}),
        ("other batch_size (7, now 8);", {"batch_size": 8}, {}),
        ('other held_out (["sum-1"], now []);', {"held_out": []}, {}),
        ("other method.gain ([0.5, 0.5], now 7);", {}, {"about": {"gain": 7}}),
        ("other points;", {}, {"points": POINTS[:-1]}),
        ("other method.gain ([0.5, 0.5], now null), seeds (", {"seeds": [5]}, {"about": {}}),
    ],
)
def test_other_settings_are_refused(whole, tmp_path, said, changes, about):
    drawer = Drawer()
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    with pytest.raises(InputError, match=re.escape(said)) as error:
        evaluate(method_of(drawer, **about), config_of(**changes), tmp_path / "whole")
    assert "\n" not in str(error.value)
    assert drawer.drawn == []
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("text", ["", "[]", '{"verb": 1', "null", '{"verb": "train"}'])
def test_runs_of_something_else_are_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    drawer = Drawer()
    with pytest.raises(InputError, match="choose another --out"):
        evaluate(method_of(drawer), config_of(), tmp_path)
    assert drawer.drawn == [] and [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_methods_have_folders_of_their_own_and_are_prepared_before_they_draw(tmp_path):
    said, drawers = [], {name: Drawer(gain=i / 2) for i, name in enumerate("ab")}
    for name, drawer in drawers.items():
        drawer.on_sample = lambda number, name=name: said.append(f"draw {name}")
    methods = [
        method_of(drawer, name=name, prepare=lambda name=name: said.append(f"prepare {name}"))
        for name, drawer in drawers.items()
    ]
    first, second = evaluate_methods(methods, config_of(), tmp_path)
    batches = -(-CELLS // BATCH)
    assert said == [*("prepare a", *["draw a"] * batches), *("prepare b", *["draw b"] * batches)]
    assert {path.name for path in (tmp_path / "methods").iterdir()} == {"a", "b"}
    assert not np.array_equal(first.scores, second.scores)


def test_all_folders_are_checked_before_anything_is_drawn(tmp_path):
    drawer = Drawer()
    other = method_of(Drawer(), name="b", about={"gain": 9})
    evaluate_methods([other], config_of(), tmp_path)
    methods = [method_of(drawer, name="a"), method_of(drawer, name="b")]
    with pytest.raises(InputError, match="b: holds a run with other"):
        evaluate_methods(methods, config_of(), tmp_path)
    assert drawer.drawn == [] and not folder_of(tmp_path, "a").exists()


def test_a_check_writes_nothing(tmp_path):
    check_folder(method_of(Drawer()), config_of(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_rejected_samples_have_no_scores(tmp_path):
    drawer = Drawer(broken={("bb", seed_of(1, 1))})
    scores = evaluate(method_of(drawer), config_of(), tmp_path)
    assert scores.rejected == {"not a number": len(POINTS)}
    assert np.isnan(scores.scores[:, 1, 1]).all() and np.isnan(scores.held_out[:, 1, 1]).all()
    assert np.isfinite(np.delete(scores.scores.reshape(-1, 6, 2), 3, axis=1)).all()
    assert np.isnan(scores.diversity[:, 1]).all()  # of a pair of which one is missing


def test_model_without_sliders_has_one_point(tmp_path):
    drawer = Drawer()
    method = method_of(drawer, points=[Point()], space=None)
    scores = evaluate(method, config_of(held_out=[]), tmp_path)
    assert scores.scores.shape == (1, 3, 2, 2) and scores.held_out.shape == (1, 3, 2, 0)
    assert {targets for targets, _, _ in drawer.drawn} == {"{}"}


def test_one_seed_has_no_diversity(tmp_path):
    scores = evaluate(method_of(Drawer()), config_of(seeds=[5]), tmp_path)
    assert np.isnan(scores.diversity).all()
    assert np.isfinite(scores.prompt_r_precision).all()


def test_what_is_done_is_read_back(whole, tmp_path):
    folder = tmp_path / "whole"
    assert len(read_drawn(method_of(Drawer()), config_of(), folder)) == -(-CELLS // BATCH)
    assert sorted(read_judged(folder)) == [(p, (0, 1, 2)) for p in range(4)]


@pytest.mark.parametrize("name", ["a b", "../../etc", "..", "", "a/b", "ümlaut", "con\n"])
def test_folder_of_any_name_stays_inside(tmp_path, name):
    folder = folder_of(tmp_path, name)
    assert folder.parent == tmp_path / "methods"
    assert folder.name.isascii() and folder.name.strip(".")
