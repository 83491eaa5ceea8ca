"""ric online, from the tiny offline adapter to that of its rounds."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

import scorers
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.data.records import read_labelled
from ric_diffusion.models.diffusion.backend import DiffusionBackend


@pytest.fixture(scope="module")
def config(root, tiny):
    def make(mode="embedding", **online):
        data = tiny.config(root, mode)
        loop = data["loop"] | {"steps": 4, "schedule": "constant", "learning_rate": 0.001}
        rounds = {"rounds": 2, "samples": 10, "batch_size": 4, "loop": loop}
        guard = {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0}
        return {
            "model": data["model"],
            "data": data["data"],
            "adapter": str(root / mode / "adapter"),
            "diffusion": data["diffusion"],
            "online": {**rounds, "guard": guard, **online},
        }

    return make


@pytest.fixture
def start(ric, config, tmp_path):
    """start(*arguments, **changes) runs it into tmp_path / "out"."""

    def run(*args, mode="embedding", **changes):
        path = tmp_path / "online.yaml"
        path.write_text(yaml.safe_dump(config(mode) | changes))
        return ric("online", path, "--out", tmp_path / "out", *args)

    return run


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_two_rounds(start, root, tmp_path, mode):
    done = start(mode=mode)
    out = tmp_path / "out"
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == str(out / "adapter")
    for number in (1, 2):
        folder = out / f"round-{number}"
        result = json.loads((folder / "round.json").read_text())
        assert result["samples"] == 10 and result["selected"] + result["replay"] > 0
        assert len(list((folder / "samples").glob("*.png"))) == 10
        with Image.open(folder / "samples" / "000000.png") as image:
            assert image.size == (64, 64)
    offline, online = Adapter.load(root / mode / "adapter"), Adapter.load(out / "adapter")
    assert online.space == offline.space  # nothing is refitted
    assert online.training["rounds"] == 2
    spent = json.loads((out / "cost.json").read_text())
    assert spent["scored"] == 2 * 10 * 2 and spent["forwards"] > 2 * (10 * 2 * 3 + 4 * 4 * 3)


def test_again_does_nothing_again(start, files, tmp_path):
    assert start().code == 0
    before = files(tmp_path / "out")
    refused = start()
    assert refused.code == 2 and "holds a run already; add --resume" in refused.err
    assert start("--resume").code == 0
    assert files(tmp_path / "out") == before


def test_other_settings_are_refused(start, config, files, tmp_path):
    assert start().code == 0
    before = files(tmp_path / "out")
    online = config()["online"] | {"samples": 12}
    done = start("--resume", online=online)
    assert done.code == 2 and "holds a run with other online.samples (10, now 12)" in done.err
    assert files(tmp_path / "out") == before


def test_a_scorer_that_changed_is_not_resumed(start, monkeypatch):
    assert start().code == 0
    load = scorers.load

    def changed(*args, **options):
        scorer = load(*args, **options)
        scorer.fingerprint += " changed"
        return scorer

    monkeypatch.setattr(scorers, "load", changed)
    done = start("--resume")
    assert done.code == 2 and "holds a run with other scorers" in done.err


def test_prompts_from_a_file(start, tmp_path):
    (tmp_path / "prompts.txt").write_text("# mine\nred apple\n\npizza\nred apple\n")
    assert start(prompts=str(tmp_path / "prompts.txt")).code == 0
    requests = json.loads((tmp_path / "out" / "round-1" / "requests.json").read_text())
    assert {request["prompt"] for request in requests} == {"red apple", "pizza"}


def test_the_names_of_the_data_by_default(start, root, tmp_path):
    assert start().code == 0
    requests = json.loads((tmp_path / "out" / "round-1" / "requests.json").read_text())
    records, _ = read_labelled(root / "labelled")
    assert {request["prompt"] for request in requests} == {record.captions[0] for record in records}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter": "gone/none"}, "gone/none: no such folder"),
        ({"data": "gone"}, "gone: no such folder"),
        ({"prompts": "gone.txt"}, "gone.txt: cannot be read"),
        ({"where": {"style": ["round"]}}, "where: no record of the data has style round"),
        ({"diffusion": {"lora": {"rank": 2}}}, "its LoRA rank is 4, this run's 2"),
        ({"diffusion": {"mode": "text", "lora": {"rank": 4}}}, "its mode is embedding"),
        ({"model": "emoji_64"}, "no such folder or bundled model"),
        ({"onlin": {}}, "onlin: unknown field; did you mean 'online'?"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(start, tmp_path, changes, message):
    done = start(**changes)
    assert done.code == 2 and message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_collapse_stops_it(start, config, tmp_path, monkeypatch):
    figures = iter([1.0, 0.2])
    monkeypatch.setattr(
        DiffusionBackend, "prompt_r_precision", lambda self, p, s: np.full(1, next(figures))
    )
    guard = {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.9}
    done = start(online=config()["online"] | {"guard": guard})
    assert done.code == 1 and "round 1: prompt R-precision fell to 0.200 from 1.000" in done.err
