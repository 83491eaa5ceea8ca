"""Online rounds: what they ask for, select, leave on disk, and how they go on after a kill."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
import yaml

from ric_diffusion.io.config import from_dict, load_yaml, to_dict
from ric_diffusion.io.errors import CollapseError, InputError
from ric_diffusion.io.journal import Journal
from ric_diffusion.rewards import hypervolume, to_targets
from ric_diffusion.training.guard import FIGURES, GuardConfig, GuardFigures, mean_diversity
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.online import OnlineConfig, RoundResult, run_rounds
from support import rounds
from support.points import NAMES, Points

LOOP = LoopConfig(
    steps=20,
    batch_size=8,
    learning_rate=0.05,
    schedule="constant",
    ema=0.5,
    checkpoint_minutes=0.0,
    precision="fp32",
)
CONFIG = OnlineConfig(rounds=2, samples=48, batch_size=16, loop=LOOP, guard=GuardConfig(samples=8))
NO_GUARD = GuardConfig(samples=8, diversity=0.0, prompt_r_precision=0.0)


@pytest.fixture
def task(tmp_path):
    return rounds.task(tmp_path / "labelled")


def run(task, out, backend=None, config=CONFIG, **given):
    backend = backend or Points()
    out.mkdir(exist_ok=True)
    cost, _ = run_rounds(backend, task, config, out, digest="d", **{"resume": True, **given})
    return backend, cost


TIMED = ("round.json", "start.json", "guard.json", "state.json")


def read(path):
    return json.loads(path.read_text())


def everything(folder):
    """What a run left, without wall times and their digests in manifests, speeds and TensorBoard's
    files; of journals, whose files are named after their processes, the entries."""
    found = {}
    left_out = {"tensorboard", "speed.jsonl"}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not left_out & set(path.parts):
            if path.match("scores-*.jsonl"):
                found[path.parent.relative_to(folder) / "scores"] = timeless(batches(path.parent))
            elif path.name in TIMED:
                found[path.relative_to(folder)] = timeless(read(path))
            elif path.name == "manifest.json":  # of a checkpoint, whose state.json has times
                digests = read(path)["sha256"]
                found[path.relative_to(folder)] = digests | {"state.json": "timed"}
            else:
                found[path.relative_to(folder)] = path.read_bytes()
    return found


def batches(round_folder):
    """The scored batches of a round, in order."""
    return sorted(Journal(round_folder, "scores").entries(), key=lambda batch: batch["first"])


def samples_of(round_folder):
    return [sample for batch in batches(round_folder) for sample in batch["samples"]]


def timeless(value):
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k != "seconds"}
    if isinstance(value, list):
        return [timeless(item) for item in value]
    return value


def test_a_round_says_what_it_asked_made_selected_and_why(task, tmp_path):
    run(task, tmp_path / "out")
    for number in (1, 2):
        folder = tmp_path / "out" / f"round-{number}"
        requests = read(folder / "requests.json")
        result = from_dict(read(folder / "round.json"), RoundResult, "round.json")
        report = read(folder / "selected.json")
        assert len(requests) == len(report["samples"]) == result.samples == 48
        assert len(list((folder / "samples").iterdir())) == 48
        assert report["criterion"] == "fronts"
        assert report["samples"].count("selected") == result.selected == 24
        assert len(report["replay"]) == result.replay == min(24, 20)
        assert set(report["samples"]) == {"selected", "not selected"}
        assert {name: requests[0]["targets"][name] for name in NAMES} == requests[0]["targets"]
        z = task.space.normalize([sample["scores"] for sample in samples_of(folder)])
        assert [*result.mean_z.values()] == pytest.approx(z.mean(axis=0))
        assert (result.round, tuple(result.mean_z)) == (number, NAMES)
        assert result.guard == from_dict(read(folder / "guard.json"), GuardFigures, "guard.json")
    left = {"scores" if p.name.startswith("scores-") else p.name for p in folder.iterdir()}
    assert left == {
        "adapter", "guard.json", "requests.json", "round.json", "samples", "scores",
        "selected.json", "train",
    }  # fmt: skip


def test_targets_lie_near_the_front_and_a_little_beyond(task, tmp_path):
    run(task, tmp_path / "out", config=dataclasses.replace(CONFIG, samples=200))
    requests = read(tmp_path / "out" / "round-1" / "requests.json")
    asked = np.array([[request["targets"][name] for name in NAMES] for request in requests])
    line = np.linspace(0, 1, 201)
    front = np.array(
        [[*to_targets({"x": 1 - w, "y": w}, task.space).values()] for w in line.tolist()]
    )
    beyond = asked[:, None] - front[None]
    near = ((beyond >= -0.02) & (beyond <= CONFIG.exploration + 0.02)).all(axis=2).any(axis=1)
    assert near.all()
    assert len({tuple(row) for row in asked.round(6).tolist()}) == 200
    prompts = [request["prompt"] for request in requests]
    counts = [prompts.count(prompt) for prompt in task.prompts]
    assert max(counts) - min(counts) <= 1
    assert len({request["seed"] for request in requests}) == 200


def test_the_front_holds_what_the_rounds_reach_and_z_stays(task, tmp_path):
    (tmp_path / "out").mkdir()
    _, space = run_rounds(Points(gain=1.3), task, CONFIG, tmp_path / "out", digest="d", resume=True)
    assert space.rewards == task.space.rewards
    spaces = [task.space]
    for number in (1, 2):
        folder = tmp_path / "out" / f"round-{number}"
        z = task.space.normalize([sample["scores"] for sample in samples_of(folder)])
        before, result = spaces[-1], read(folder / "round.json")
        found = before.reaching(z, CONFIG.front_quantile)
        assert result["front"] == [list(point) for point in found.front]
        assert result["corners"] == [list(corner) for corner in found.corners]
        spaces.append(found)
        # Asked near the front and the corners as they were before the round.
        best = np.maximum(np.max(before.front, axis=0), np.diagonal(before.corners))
        for request in read(folder / "requests.json"):
            asked = np.array([request["targets"][name] for name in NAMES])
            assert (asked <= best + CONFIG.exploration + 1e-9).all()
    volumes = [hypervolume(np.array(each.front), np.full(2, -3.0)) for each in spaces]
    assert volumes[0] < volumes[1] <= volumes[2]
    assert space == spaces[2]
    # Read from the folders, it is the same.
    _, again = run_rounds(Points(gain=1.3), task, CONFIG, tmp_path / "out", digest="d", resume=True)
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
    """File names in selected.json and records name the folder they are in; compare them without."""
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


def test_a_torn_line_of_the_journal_is_passed_over(task, tmp_path):
    whole, _ = run(task, tmp_path / "whole")
    with pytest.raises(Stop):
        run(task, tmp_path / "out", Points(on_sample=stop_at(4)))
    (journal,) = (tmp_path / "out" / "round-1").glob("scores-*.jsonl")
    journal.write_bytes(journal.read_bytes() + b'{"first": 32, "samples": [{"sco')
    resumed, _ = run(task, tmp_path / "out")
    assert torch.equal(resumed.gain, whole.gain)


class Spoiled(Points):
    """Every fourth sample is not a number, another far out, a third like the one before."""

    def sample(self, prompts, targets, seeds):
        made = super().sample(prompts, targets, seeds)
        for i in range(0, len(made) - 3, 4):
            made[i] = (float("nan"), 0.0)
            made[i + 1] = (1e6, float(seeds[i]))
            made[i + 3] = made[i + 2]
        return made


def test_what_cannot_be_used_is_never_selected(task, tmp_path):
    config = dataclasses.replace(CONFIG, rounds=1, keep_fraction=1.0, guard=NO_GUARD)
    run(task, tmp_path / "out", Spoiled(), config)
    folder = tmp_path / "out" / "round-1"
    verdicts = read(folder / "selected.json")["samples"]
    assert verdicts == ["not a number", "out of range", "selected", "duplicate"] * 12
    for sample, verdict in zip(samples_of(folder), verdicts, strict=True):
        usable = verdict != "not a number"  # the rest is found when batches are together
        assert sample["reject_reason"] == (None if usable else verdict)
        assert (sample["scores"] is None) == (not usable)


def test_what_leaves_its_prompt_is_rejected_where_that_is_asked_for(task, tmp_path):
    class Wandering(Points):
        """Further out, the prompt is no longer the best of four, the front's most of all."""

        def prompt_r_precision(self, prompts, samples):
            self.net(torch.zeros(len(samples), 2))  # judging takes passes, which cost
            return np.where(np.array(samples)[:, 0] > 1.0, 2 / 3, 1.0)

    def one_round(name, least):
        config = dataclasses.replace(CONFIG, rounds=1, guard=NO_GUARD, prompt_r_precision=least)
        _, cost = run(task, tmp_path / name, Wandering(gain=1.0), config)
        folder = tmp_path / name / "round-1"
        return read(folder / "selected.json")["samples"], read(folder / "round.json"), cost

    verdicts, strict, judged = one_round("strict", 1.0)
    x = [point[0] for point in map(read, sorted((tmp_path / "strict").glob("round-1/samples/*")))]
    assert [verdict == "prompt not followed" for verdict in verdicts] == [one > 1.0 for one in x]
    assert 0 < verdicts.count("prompt not followed") < 48
    for least in (0.0, 2 / 3):
        verdicts, loose, cost = one_round(f"loose-{least}", least)
        assert "prompt not followed" not in verdicts
        assert loose["mean_z"]["x"] > strict["mean_z"]["x"] + 0.3
        assert judged.forwards - cost.forwards == (48 if least == 0 else 0)


def test_nothing_usable_is_said_in_one_line(task, tmp_path):
    class Broken(Points):
        def sample(self, prompts, targets, seeds):
            return [(float("nan"), 0.0) for _ in super().sample(prompts, targets, seeds)]

    config = dataclasses.replace(CONFIG, replay_fraction=0.0, guard=NO_GUARD)
    with pytest.raises(InputError, match=r"none of 48 samples was selected; see selected\.json"):
        run(task, tmp_path / "out", Broken(), config)


@pytest.mark.parametrize("figure", ["diversity", "prompt_r_precision"])
def test_the_guard_stops_a_collapse(task, tmp_path, figure):
    class Collapsing(Points):
        def save(self, folder):
            super().save(folder)
            if figure == "prompt_r_precision":
                self.precision = 0.5
            else:
                self.noise = 0.0

    with pytest.raises(
        CollapseError, match=rf"round 1: {FIGURES[figure]} fell to .* from"
    ) as error:
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


def test_every_round_replays_other_records_and_trains_on_other_noise(task, tmp_path):
    config = dataclasses.replace(CONFIG, replay_fraction=0.1)
    backend, seeds = Points(), []
    loss = backend.loss

    def remembering(batch):
        seeds.append(batch.generator.initial_seed())
        return loss(batch)

    backend.loss = remembering
    run(task, tmp_path / "out", backend, config)
    first, second = (
        read(tmp_path / "out" / f"round-{number}" / "selected.json")["replay"] for number in (1, 2)
    )
    assert len(first) == len(second) == round(24 / 9) and first != second
    assert len(seeds) == len(set(seeds)) == 2 * LOOP.steps


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
        ({"keep_fraction": 0.0}, "keep_fraction is 0"),
        ({"keep_fraction": 1.5}, "keep_fraction is 1.5"),
        ({"replay_fraction": 1.0}, "replay_fraction is 1"),
        ({"exploration": -1.0}, "exploration is -1"),
        ({"front_quantile": 1.0}, "front_quantile is 1"),
        ({"prompt_r_precision": 1.1}, "prompt_r_precision is 1.1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("push", "exploration"),
        ("reach", "front_quantile"),
        ("share", "keep_fraction"),
        ("originals", "replay_fraction"),
        ("guard.prompt", "guard.prompt_r_precision"),
    ],
)
def test_old_keys_are_refused_with_their_new_names(tmp_path, old, new):
    data = to_dict(CONFIG)
    section, _, key = old.rpartition(".")
    (data[section] if section else data)[key] = 0.5
    path = tmp_path / "online.yaml"
    path.write_text(yaml.safe_dump(data))
    called = new.rpartition(".")[2]
    with pytest.raises(InputError, match=rf"{re.escape(old)}: is called {called} now; rename it$"):
        load_yaml(path, OnlineConfig)


def test_the_identity_of_a_run_is_what_decides_its_result():
    same = dataclasses.replace(CONFIG, loop=dataclasses.replace(LOOP, log_every=7))
    assert same.identity() == CONFIG.identity() and "samples" in same.identity()
    for other in (
        dataclasses.replace(CONFIG, samples=49),
        dataclasses.replace(CONFIG, guard=NO_GUARD),
        dataclasses.replace(CONFIG, loop=dataclasses.replace(LOOP, steps=21)),
    ):
        assert other.identity() != CONFIG.identity()


def test_figures_that_are_no_numbers_are_not_guarded_by(task, tmp_path, monkeypatch):
    """No bound would stop them: nothing is below NaN."""
    monkeypatch.setattr(
        Points, "features", lambda self, samples: np.full((len(samples), 2), np.nan)
    )
    with pytest.raises(FloatingPointError, match="the guard's figures of the model: not finite"):
        run(task, tmp_path / "out")
