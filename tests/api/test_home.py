"""A tilde is the home folder, whichever door a path comes in by."""

from pathlib import Path

import pytest

from ric_diffusion import RiCPipeline, api
from ric_diffusion.api import Checkpoint, InputError, LoopConfig, TrainConfig
from support.numbered import sample_file


@pytest.fixture
def home(root, monkeypatch, tmp_path):
    """The tiny model's folder; the working folder is another, and nothing is written there."""
    monkeypatch.setenv("HOME", str(root))
    monkeypatch.setenv("USERPROFILE", str(root))
    monkeypatch.chdir(tmp_path)
    yield root
    assert not list(tmp_path.iterdir())


def test_models_and_adapters_by_name(home):
    assert Checkpoint(model="~/model", base_config=None).model == str(home / "model")
    pipe = RiCPipeline.from_pretrained("~/model")
    pipe.load_adapter("~/text/adapter")
    assert pipe.adapter is not None and pipe.adapter.conditioner.mode == "text"
    assert pipe.reward_space.names == ("compressibility", "colorfulness")
    with pytest.raises(InputError, match="~/nothing: no such folder"):
        pipe.load_adapter("~/nothing")


@pytest.mark.parametrize("kind", [str, Path])
def test_a_run_from_python(home, kind, tmp_path_factory):
    settings = TrainConfig(
        model="~/model", data=kind("~/labelled"), loop=LoopConfig(steps=1, batch_size=2)
    )
    assert settings.data == home / "labelled"
    assert settings.checkpoint.model == str(home / "model")


def test_what_verbs_write(home, monkeypatch, tmp_path_factory):
    files = tmp_path_factory.mktemp("home")
    (files / "labelled").symlink_to(home / "labelled")
    (files / "text").symlink_to(home / "text")
    (files / "model").symlink_to(home / "model")
    monkeypatch.setenv("HOME", str(files))
    api.export("~/text/adapter", "~/out.safetensors")
    picture = next((home / "labelled" / "images").iterdir()).name
    table = api.score(f"~/labelled/images/{picture}", ["colorfulness"])
    assert table.files == (files / "labelled" / "images" / picture,)
    sampling = {"steps": 1}
    request = {"adapter": "~/text/adapter", "sampling": sampling}
    [drawn] = api.generate("~/model", "pizza", out="~/drawn", **request)
    assert drawn.path == sample_file(files / "drawn") and drawn.model == str(files / "model")
    api.sweep("~/model", "pizza", points=2, out=Path("~/swept"), **request)
    assert (files / "swept" / "grid.png").exists() and (files / "out.safetensors").exists()


def test_options_and_configs(home, ric, tmp_path_factory, tiny, monkeypatch):
    files = tmp_path_factory.mktemp("home")
    data = {"model": "~/tiny/model", "data": "~/tiny/labelled", "out": "~/run", "prompts": []}
    loop = {"steps": 1, "batch_size": 2, "precision": "fp32"}
    (files / "tiny").symlink_to(home)
    tiny.write_config(files / "c.yaml", tiny.config(home, "text", loop=loop, **data))
    monkeypatch.setenv("HOME", str(files))
    done = ric("train", "~/c.yaml")
    assert (done.code, done.out) == (0, f"{files / 'run' / 'adapter'}\n")
    done = ric("train", "~/c.yaml", "--out", "~/again")
    assert (done.code, done.out) == (0, f"{files / 'again' / 'adapter'}\n")
