"""A reward whose scorer is a class in a file of the user's, from labels to online rounds; and that
nobody else's adapter can have a file run."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ric_diffusion.io.journal import Journal

SOURCE = """
import numpy as np
import scorers

class Greyness(scorers.BaseScorer):
    name = "greyness"
    unit = "grey level"

    def __init__(self):
        self.options = {}
        self.fingerprint = "greyness"

    def _score(self, images, prompts):
        return [np.mean(scorers.to_rgb(image)) for image in images]
"""
MISSING = "greyness: no scorer of that name is installed; install its package, or give FILE.py:"


@pytest.fixture(scope="module")
def home(root, tiny, tmp_path_factory):
    """grey.py, prompts.txt, and run/adapter, trained on what grey.py scored."""
    from ric_diffusion.cli import main

    folder = tmp_path_factory.mktemp("grey")
    (folder / "grey.py").write_text(SOURCE)
    (folder / "prompts.txt").write_text("red apple\npizza\n")
    scorers = ["--scorers", f"{folder / 'grey.py'}:Greyness", "colorfulness"]
    label = ["label", root / "pictures", *scorers, "--out", folder / "labelled"]
    assert main(list(map(str, label))) == 0
    data = tiny.config(root, "embedding", data=str(folder / "labelled"), prompts=[])
    config = tiny.write_config(folder / "config.yaml", data)
    assert main(["train", str(config), "--out", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def steps(root, home):
    """Arguments: the tiny model with that adapter, and few steps."""
    return ["--model", root / "model", "--adapter", home / "run" / "adapter", "--steps", 1]


def test_what_is_stored_names_no_file(home):
    about = (home / "run" / "adapter" / "ric_adapter.json").read_text()
    [greyness, _] = json.loads(about)["reward_space"]["rewards"]
    assert greyness["scorer"] == {"name": "greyness", "options": {}}
    assert "grey.py" not in about and greyness["fingerprint"].startswith("greyness file-")


def test_sliders_need_no_scores(ric, steps, tmp_path):
    asked = ["--prompt", "red apple", "--targets", "greyness=1", "--out", tmp_path]
    done = ric("generate", *steps, *asked)
    assert done.code == 0, done.err
    assert f"ric generate: {MISSING}" in done.err and "scores are left out" in done.err
    assert "greyness=none" in done.out and "colorfulness=none" not in done.out


def test_evaluate_takes_the_class_for_the_reward(ric, steps, home, tmp_path):
    asked = ["evaluate", *steps, "--prompts", home / "prompts.txt", "--points", 2, "--seeds", 1]
    refused = ric(*asked, "--out", tmp_path / "none")
    assert refused.code == 2 and MISSING in refused.err and not (tmp_path / "none").exists()
    given = ["--scorers", f"{home / 'grey.py'}:Greyness", "warmth"]
    done = ric(*asked, *given, "--out", tmp_path / "report")
    assert done.code == 0, done.err
    assert "may differ" not in done.err  # it is the code that labelled
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert "greyness" in json.dumps(metrics["methods"]) and "warmth" in json.dumps(metrics)


def test_online_takes_it_from_its_config(ric, root, tiny, home, tmp_path):
    data = tiny.config(root, "embedding")
    loop = data["loop"] | {"steps": 1, "schedule": "constant"}
    guard = {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0}
    config = {
        "model": data["model"],
        "data": str(home / "labelled"),
        "adapter": str(home / "run" / "adapter"),
        "diffusion": data["diffusion"],
        "online": {"rounds": 1, "samples": 4, "batch_size": 4, "loop": loop, "guard": guard},
    }
    path = tiny.write_config(tmp_path / "online.yaml", config)
    refused = ric("online", path, "--out", tmp_path / "out")
    assert refused.code == 2 and MISSING in refused.err and not (tmp_path / "out").exists()
    tiny.write_config(path, config | {"scorers": [f"{home / 'grey.py'}:Greyness"]})
    ric("online", path, "--out", tmp_path / "out")  # nothing that this model draws is selected
    journal = Journal(tmp_path / "out" / "round-1", "scores")
    scores = journal.entries()[0]["samples"][0]["scores"]
    with Image.open(tmp_path / "out" / "round-1" / "samples" / "000000.png") as image:
        assert scores[0] == pytest.approx(np.mean(image), abs=1e-3)


def test_an_adapter_cannot_have_a_file_run(ric, root, home, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(home / "run" / "adapter", folder)
    (folder / "manifest.json").unlink()
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + SOURCE)
    for name in (f"{tmp_path / 'evil.py'}:Greyness", str(tmp_path / "evil.py")):
        about = json.loads((folder / "ric_adapter.json").read_text())
        about["reward_space"]["rewards"][0]["scorer"]["name"] = name
        (folder / "ric_adapter.json").write_text(json.dumps(about))
        model = ["--model", root / "model", "--adapter", folder, "--steps", 1]
        done = ric("generate", *model, "--prompt", "x", "--out", tmp_path / "out")
        assert done.code == 0 and "greyness=none" in done.out, done.err
    assert not (tmp_path / "ran").exists()
