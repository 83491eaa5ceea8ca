"""Two runs into one folder: the second is told who has it, and changes nothing."""

import os
import platform
import shutil

import pytest

from ric_diffusion.io.files import sibling
from ric_diffusion.io.lock import held


@pytest.fixture
def arguments(root, tiny, model, tmp_path):
    """The command of each verb that writes a run, without --out."""
    config = tiny.config(root, "embedding")
    rounds = {name: config[name] for name in ("model", "data", "diffusion")}
    rounds |= {"adapter": str(root / "embedding" / "adapter")}
    rounds |= {"online": {"rounds": 1, "samples": 4, "loop": {**config["loop"], "steps": 1}}}
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red apple\n")
    report = [*model, "--prompts", prompts, "--points", 2, "--seeds", 1]
    return {
        "train": ["train", tiny.write_config(tmp_path / "train.yaml", config)],
        "online": ["online", tiny.write_config(tmp_path / "online.yaml", rounds)],
        "evaluate": ["evaluate", *report],
        "calibrate": ["evaluate", *report, "--calibrate"],
    }


@pytest.mark.parametrize("verb", ["train", "online", "evaluate", "calibrate"])
def test_the_second_is_told_who_has_the_folder(ric, arguments, tmp_path, verb):
    out = tmp_path / "out"
    with held(out):
        done = ric(*arguments[verb], "--out", out)
        assert (done.code, done.out) == (2, "")
        assert done.err.splitlines()[-1] == (
            f"ric {arguments[verb][0]}: {out}: process {os.getpid()} on {platform.node()} is at "
            "work here; wait for it, or choose another --out"
        )
        assert os.listdir(out) == [".lock"]
    assert not out.exists()


def test_what_a_dead_run_left_half_written_is_cleared_by_the_next(
    ric, root, copy_run, monkeypatch, files
):
    before = files(copy_run)
    for place in (copy_run, copy_run / "cache", copy_run / "checkpoints"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 2**22 + 1)  # more than Linux gives out
            dead = sibling(place / "file")
        dead.mkdir()
        (dead / "half").touch()
        sibling(place / "file").touch()  # of a process that runs
    assert ric("train", root / "embedding.yaml", "--out", copy_run, "--resume").code == 0
    left = [path for path in copy_run.rglob(".tmp-*")]
    assert len(left) == 3 and all(f"-{os.getpid()}-" in path.name for path in left)
    assert files(copy_run / "adapter") == {
        path.relative_to("adapter"): data
        for path, data in before.items()
        if path.parts[0] == "adapter"
    }


@pytest.fixture
def copy_run(root, tmp_path):
    return shutil.copytree(root / "embedding", tmp_path / "run")
