"""Online rounds: what they ask for, keep, leave on disk, and how they go on after a kill."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch

from ric_diffusion.errors import CollapseError, InputError
from ric_diffusion.rewards import hypervolume, to_targets
from ric_diffusion.training.guard import GuardConfig, mean_diversity
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.online import OnlineConfig, Task, run_rounds
from support import points
from support.points import NAMES, Axis, Points

LOOP = LoopConfig(
    steps=20, batch_size=8, learning_rate=0.05, schedule="constant", ema=0.5, checkpoint_minutes=0.0
)
CONFIG = OnlineConfig(rounds=2, samples=48, batch_size=16, loop=LOOP, guard=GuardConfig(samples=8))


@pytest.fixture
def task(tmp_path):
    folder = tmp_path / "originals"
    folder.mkdir()
    return Task(
        space=points.space(),
        mapping="front",
        prompts=["a", "b", "c"],
        scorers=[Axis(name) for name in NAMES],
        originals=points.originals(folder),
    )


def run(task, out, backend=None, config=CONFIG, **given):
    backend = backend or Points()
    out.mkdir(exist_ok=True)
    cost, _ = run_rounds(backend, task, config, out, key="k", **{"resume": True, **given})
    return backend, cost


TIMED = ("round.json", "scores.jsonl", "start.json", "guard.json", "state.json")


def read(path):
    return json.loads(path.read_text())


def everything(folder):
    """What a run left, without wall times and TensorBoard's files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "tensorboard" not in path.parts:
            data = path.read_bytes()
            if path.name in TIMED:
                data = [timeless(json.loads(line)) for line in whole_json(path)]
            found[path.relative_to(folder)] = data
    return found


def whole_json(path):
    text = path.read_text()
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def timeless(value):
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k != "seconds"}
    return value


def test_a_round_says_what_it_drew_made_kept_and_why(task, tmp_path):
    run(task, tmp_path / "out")
    for number in (1, 2):
        folder = tmp_path / "out" / f"round-{number}"
        drawn, story = read(folder / "drawn.json"), read(folder / "round.json")
        verdicts = read(folder / "kept.json")
        assert len(drawn) == len(verdicts["samples"]) == story["samples"] == 48
        assert len(list((folder / "samples").iterdir())) == 48
        assert verdicts["samples"].count("kept") == story["kept"] == 24
        assert len(verdicts["originals"]) == story["originals"] == min(24, 20)
        assert set(verdicts["samples"]) == {"kept", "not selected"}
        assert {name: drawn[0]["targets"][name] for name in NAMES} == drawn[0]["targets"]
    assert sorted(p.name for p in folder.iterdir()) == [
        "adapter", "drawn.json", "guard.json", "kept.json", "round.json", "samples",
        "scores.jsonl", "train",
    ]  # fmt: skip


def test_targets_lie_near_the_front_and_a_little_beyond(task, tmp_path):
    run(task, tmp_path / "out", config=dataclasses.replace(CONFIG, samples=200))
    drawn = read(tmp_path / "out" / "round-1" / "drawn.json")
    asked = np.array([[wish["targets"][name] for name in NAMES] for wish in drawn])
    line = np.linspace(0, 1, 201)
    front = np.array(
        [[*to_targets({"x": 1 - w, "y": w}, task.space).values()] for w in line.tolist()]
    )
    beyond = asked[:, None] - front[None]
    near = ((beyond >= -0.02) & (beyond <= CONFIG.push + 0.02)).all(axis=2).any(axis=1)
    assert near.all()
    assert len({tuple(row) for row in asked.round(6).tolist()}) == 200
    prompts = [wish["prompt"] for wish in drawn]
    counts = [prompts.count(prompt) for prompt in task.prompts]
    assert max(counts) - min(counts) <= 1
    assert len({wish["seed"] for wish in drawn}) == 200


def test_the_front_holds_what_the_rounds_reach_and_z_stays(task, tmp_path):
    (tmp_path / "out").mkdir()
    _, space = run_rounds(Points(gain=1.3), task, CONFIG, tmp_path / "out", key="k", resume=True)
    assert space.rewards == task.space.rewards
    fronts = [np.array(task.space.front)]
    for number in (1, 2):
        folder = tmp_path / "out" / f"round-{number}"
        batches = [json.loads(line) for line in whole_json(folder / "scores.jsonl")]
        z = np.array([row["z"] for batch in batches for row in batch["rows"]])
        before = dataclasses.replace(task.space, front=fronts[-1].tolist())
        fronts.append(np.array(read(folder / "round.json")["front"]))
        found = before.reaching(z, CONFIG.reach)
        assert np.array_equal(fronts[-1], np.array(found.front))
        for wish in read(folder / "drawn.json"):  # asked near the front as it was before the round
            asked = np.array([wish["targets"][name] for name in NAMES])
            assert (asked <= fronts[number - 1].max(axis=0) + CONFIG.push + 1e-9).all()
    volumes = [hypervolume(front, np.full(2, -3.0)) for front in fronts]
    assert volumes[0] < volumes[1] <= volumes[2]
    assert np.array_equal(np.array(space.front), fronts[2])
    # Read from the folders, it is the same.
    _, again = run_rounds(Points(gain=1.3), task, CONFIG, tmp_path / "out", key="k", resume=True)
    assert again == space


def test_training_is_on_obtained_scores_so_gains_come_nearer_to_one(task, tmp_path):
    backend, _ = run(task, tmp_path / "out")
    assert ((backend.gain > 0.8) & (backend.gain < 1.1)).all()  # 0.5 before


def test_the_cost_is_counted(task, tmp_path):
    _, cost = run(task, tmp_path / "out")
    probe = 8
    assert cost.forwards == probe + 2 * (48 + 3 * LOOP.steps * LOOP.batch_size + probe)
    assert cost.scored == 2 * 48 * len(NAMES)
    assert run(task, tmp_path / "out")[1] == cost  # read from the folders, nothing done again


class Stop(Exception):
    pass


def stop_at(batch):
    def on_sample(count):
        if count == batch:
            raise Stop

    return on_sample


@pytest.mark.parametrize("batch", [1, 2, 4, 5, 6, 8])
def test_stopped_while_sampling_nothing_is_lost_or_drawn_twice(task, tmp_path, batch):
    whole, _ = run(task, tmp_path / "whole")
    stopped = Points(on_sample=stop_at(batch))
    with pytest.raises(Stop):
        run(task, tmp_path / "out", stopped)
    resumed, _ = run(task, tmp_path / "out")
    assert stopped.asked + resumed.asked == whole.asked
    assert torch.equal(resumed.gain, whole.gain)
    assert strip(everything(tmp_path / "out")) == strip(everything(tmp_path / "whole"))


def strip(files):
    """File names in kept.json and records name the folder they are in; compare them without."""
    return {k: str(v).replace("/whole/", "/out/") for k, v in files.items()}


def test_stopped_while_training_it_goes_on_from_the_checkpoint(task, tmp_path):
    whole, cost = run(task, tmp_path / "whole")

    class Weak(Points):
        def loss(self, batch):
            self.losses = getattr(self, "losses", 0) + 1
            if self.losses == 13:
                raise Stop
            return super().loss(batch)

    with pytest.raises(Stop):
        run(task, tmp_path / "out", Weak())
    resumed, again = run(task, tmp_path / "out")
    assert torch.equal(resumed.gain, whole.gain)
    assert (again.forwards, again.scored) == (cost.forwards, cost.scored)
    assert len(resumed.asked) == len(whole.asked) - 8 - 48  # neither probe nor round 1 again


def test_a_torn_line_is_taken_back(task, tmp_path):
    whole, _ = run(task, tmp_path / "whole")
    with pytest.raises(Stop):
        run(task, tmp_path / "out", Points(on_sample=stop_at(4)))
    journal = tmp_path / "out" / "round-1" / "scores.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"rows": [{"sco')
    resumed, _ = run(task, tmp_path / "out")
    assert torch.equal(resumed.gain, whole.gain)


class Faulty(Points):
    """Every fourth sample is not a number, another far out, a third like the one before."""

    def sample(self, prompts, targets, seeds):
        made = super().sample(prompts, targets, seeds)
        for i in range(0, len(made) - 3, 4):
            made[i] = (float("nan"), 0.0)
            made[i + 1] = (1e6, 1e6)
            made[i + 3] = made[i + 2]
        return made


def test_faults_and_duplicates_are_never_kept(task, tmp_path):
    config = dataclasses.replace(
        CONFIG, rounds=1, share=1.0, guard=GuardConfig(samples=8, diversity=0.0, prompt=0.0)
    )
    run(task, tmp_path / "out", Faulty(), config)
    verdicts = read(tmp_path / "out" / "round-1" / "kept.json")["samples"]
    assert verdicts == ["not a number", "out of range", "kept", "duplicate"] * 12


def test_nothing_usable_is_said_in_one_line(task, tmp_path):
    class Broken(Points):
        def sample(self, prompts, targets, seeds):
            return [(float("nan"), 0.0) for _ in super().sample(prompts, targets, seeds)]

    config = dataclasses.replace(
        CONFIG, originals=0.0, guard=GuardConfig(samples=8, diversity=0.0, prompt=0.0)
    )
    with pytest.raises(InputError, match=r"none of 48 samples can be used; see kept\.json"):
        run(task, tmp_path / "out", Broken(), config)


@pytest.mark.parametrize("figure", ["diversity", "prompt"])
def test_the_guard_stops_a_collapse(task, tmp_path, figure):
    class Collapsing(Points):
        def save(self, folder):
            super().save(folder)
            if figure == "prompt":
                self.kept = 0.5
            else:
                self.noise = 0.0

    with pytest.raises(CollapseError, match=rf"round 1: {figure} fell to .* from") as error:
        run(task, tmp_path / "out", Collapsing())
    assert "\n" not in str(error.value)
    folder = tmp_path / "out" / "round-1"
    assert not (folder / "round.json").exists()
    left, start = read(folder / "guard.json"), read(tmp_path / "out" / "start.json")
    assert left[figure] < 0.7 * start[figure] and left["cost"]["forwards"] == 8
    # Again: the same answer, from what was measured.
    again = Points()
    with pytest.raises(CollapseError, match=re.escape(str(error.value))):
        run(task, tmp_path / "out", again)
    assert not again.asked


def test_every_round_mixes_in_other_originals_and_trains_on_other_noise(task, tmp_path):
    config = dataclasses.replace(CONFIG, originals=0.1)
    backend, seeds = Points(), []
    loss = backend.loss

    def remembering(batch):
        seeds.append(batch.generator.initial_seed())
        return loss(batch)

    backend.loss = remembering
    run(task, tmp_path / "out", backend, config)
    first, second = (
        read(tmp_path / "out" / f"round-{number}" / "kept.json")["originals"] for number in (1, 2)
    )
    assert len(first) == len(second) == round(24 / 9) and first != second
    assert len(seeds) == len(set(seeds)) == 2 * LOOP.steps


def test_the_original_space_is_used_for_every_round(task, tmp_path):
    run(task, tmp_path / "out")
    for number in (1, 2):
        folder = tmp_path / "out" / f"round-{number}"
        for line in (folder / "scores.jsonl").read_text().splitlines():
            for row in json.loads(line)["rows"]:
                assert row["z"] == task.space.normalize(np.array([row["scores"]]))[0].tolist()


def test_diversity_by_hand():
    features = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], dtype=np.float32)
    assert mean_diversity(features, ["a", "a", "b", "b"]) == pytest.approx(0.5)
    assert mean_diversity(features, ["a", "a", "a", "a"]) == pytest.approx(0.5)
    assert mean_diversity(features, ["a", "a", "b", "c"]) == pytest.approx(1)  # of "a" alone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"samples": 0}, "samples is 0"),
        ({"share": 0.0}, "share is 0"),
        ({"share": 1.5}, "share is 1.5"),
        ({"originals": 1.0}, "originals is 1"),
        ({"push": -1.0}, "push is -1"),
        ({"reach": 1.0}, "reach is 1"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)
