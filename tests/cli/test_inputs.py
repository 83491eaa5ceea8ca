"""Paths that are not there are told before anything is imported that could load a model."""

import subprocess
import sys

import pytest

from ric_diffusion.cli.inputs import check_inputs
from ric_diffusion.cli.parser import build_parser
from ric_diffusion.io.errors import InputError

DRAW = ["generate", "--prompt", "x"]
MEASURE = ["evaluate", "--prompts", "prompts.txt"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "prompts.txt").write_text("red apple\n")
    (tmp_path / "adapter").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "args, said",
    [
        ([*DRAW, "--adapter", "./gone"], "adapter ./gone: no such folder"),
        ([*DRAW, "--adapter", "gone"], "adapter gone: no such folder"),
        ([*DRAW, "--adapter", "runs/mine/adapter"], "adapter runs/mine/adapter: no such folder"),
        ([*DRAW, "--adapter", "~/gone"], "adapter ~/gone: no such folder"),
        ([*DRAW, "--adapter", "./prompts.txt"], "adapter ./prompts.txt: no such folder"),
        ([*DRAW, "--model", "runs/a/model"], "model runs/a/model: no such file or folder"),
        ([*DRAW, "--model", "~/a.safetensors"], "model ~/a.safetensors: no such file or folder"),
        ([*DRAW, "--model", "emoji"], "did you mean 'emoji-64'?"),
        ([*DRAW, "--base-config", "./gone"], "base_config ./gone: no such file or folder"),
        (["evaluate", "--prompts", "p.txt"], "prompts p.txt: no such file"),
        (["evaluate", "--prompts", "adapter"], "prompts adapter: a folder; name a file"),
        ([*MEASURE, "--adapter", "none", "./gone"], "adapter ./gone: no such folder"),
        ([*MEASURE, "--calibration-prompts", "gone"], "calibration_prompts gone: no such file"),
        (["train", "gone.yaml"], "gone.yaml: no such file"),
        (["score", "gone.png", "--scorers", "warmth"], "gone.png: no such file or folder"),
        (["label", "gone", "--scorers", "warmth", "--out", "y"], "gone: no such file or folder"),
        (["app", "--report", "prompts.txt"], "report prompts.txt: a file; name a folder"),
        (["serve-scorer", "warmth", "--root", "adapter", "x"], "root x: no such folder"),
    ],
)
def test_what_is_not_there(args, said):
    with pytest.raises(InputError) as error:
        check_inputs(build_parser().parse_args(args))
    assert said in str(error.value)


@pytest.mark.parametrize(
    "args",
    [
        DRAW,
        [*DRAW, "--adapter", "adapter"],
        [*DRAW, "--adapter", "user/name", "--model", "user/model.v2"],
        [*DRAW, "--model", "https://huggingface.co/a/b/blob/main/x.safetensors"],
        [*DRAW, "--model", "hf.co/a/b/x.safetensors"],
        [*MEASURE, "--adapter", "none", "./adapter"],
        ["score", "prompts.txt", "--scorers", "warmth"],
        ["label", "s3://bucket/{00..12}.tar", "--scorers", "warmth", "--out", "y"],
        ["label", "shards/*.tar", "--scorers", "warmth", "--out", "y"],
    ],
)
def test_what_is_there_or_may_be_on_the_hub(args):
    check_inputs(build_parser().parse_args(args))


def test_nothing_heavy_is_imported_to_say_so():
    code = (
        "import sys; from ric_diffusion.cli import main; "
        "code = main(['generate', '--prompt', 'x', '--adapter', './gone']); "
        "sys.exit(code if not {'torch', 'numpy', 'diffusers'} & set(sys.modules) else 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "ric generate: --adapter ./gone: no such folder\n"
    assert done.returncode == 2
