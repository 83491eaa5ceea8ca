"""ric app: what is refused before anything is served, and a language model behind it."""

import importlib.util
import socket

import numpy as np
import pytest
import torch

from ric_diffusion import app
from ric_diffusion.api.work import Stopped, WorkQueue
from ric_diffusion.app.choice import ModelChoice
from ric_diffusion.app.engine import Engine
from ric_diffusion.app.jobs import Job
from ric_diffusion.io import extras
from support.report import write_report


@pytest.mark.parametrize(
    "said, args",
    [
        ("'0': give a whole number above 0", ["--port", "0"]),
        ("--port 99999: cannot be used, choose another", ["--port", "99999"]),
        ("--model emoji_64: no such folder or bundled model", ["--model", "emoji_64"]),
        ("has no adapter of its own; give one", ["--model", "{root}/model"]),
        (
            "--report empty: has no metrics.json; make a report with ric evaluate",
            ["--model", "{root}/model", "--adapter", "{root}/embedding/adapter",
             "--report", "empty"],
        ),
    ],
)  # fmt: skip
def test_refused(refused, said, args):
    pytest.importorskip("gradio")
    refused(said, "app", *args)


def test_without_gradio(refused, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "gradio" else found(name))
    refused("app: gradio is not installed; pip install 'ric-diffusion[app]'", "app")


def test_a_port_in_use(refused):
    pytest.importorskip("gradio")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused(f"--port {port}: cannot be used, choose another", "app", "--port", port)


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """A tiny language model with an adapter that has learned nothing."""
    from ric_diffusion.adapters.adapter import Adapter
    from ric_diffusion.conditioning.conditioner import TextConditioner
    from ric_diffusion.conditioning.grammar import Grammar
    from ric_diffusion.models.causal_lm.model import RiCCausalLM
    from ric_diffusion.rewards import RewardSpace
    from support.lm import write_lm

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    scorers = ("brevity", "length")
    space = RewardSpace.fit(
        {name: rng.normal(size=50) for name in scorers},
        units={name: "words" for name in scorers},
        scorers={name: {"name": name} for name in scorers},
    )
    model = RiCCausalLM.from_pretrained(str(write_lm(tmp_path_factory.mktemp("lm"))))
    model.adapter = Adapter(
        family="causal-lm",
        base_model="tiny",
        space=space,
        conditioner=TextConditioner(Grammar.words(space.names)),
        sampling={"response_tokens": 8},
    )
    return Engine(model, ModelChoice.of("tiny"))


def test_a_language_model_responds(lm):
    request = lm.request("how do i bake a cake?", 3, targets={"brevity": 1.0})
    job = Job()
    drawn = lm.draw(request, job)
    assert isinstance(drawn.sample, str) and drawn.targets == {"brevity": 1.0}
    assert drawn.scores["length"] == len(drawn.sample.split())
    assert job.total == 8 >= job.done > 0
    again = lm.request("how do i bake a cake?", 4, targets={"brevity": 1.0})
    job = Job()
    job.stop()
    with pytest.raises(Stopped):
        lm.draw(again, job)


def test_its_page(lm, tmp_path):
    pytest.importorskip("gradio")
    from ric_diffusion.app.front import read_front
    from ric_diffusion.app.handlers import Handlers
    from ric_diffusion.app.layout import build
    from ric_diffusion.app.presets import Presets

    front = read_front(write_report(tmp_path / "report", lm.space.names), lm.adapter)
    presets = Presets(tmp_path / "presets.json")
    handlers = Handlers(lm, front, tmp_path, WorkQueue(), presets, lambda choice: None)
    page = build(handlers).get_config_file()
    shown = [part["props"] for part in page["components"] if part["props"].get("visible", True)]
    labels = [props.get("label") for props in shown]
    assert "Ask" in labels and "Response" in labels and "Front" in labels
    assert not {"Sweep", "Image to image", "Negative prompt", "Steps"} & set(labels)


def test_it_opens_where_somebody_sits_in_front_of_it(monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(app.webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    app.started("http://127.0.0.1:7860")  # what is captured is no terminal
    monkeypatch.setattr(app.sys.stdout, "isatty", lambda: True, raising=False)
    app.started("http://127.0.0.1:7861")
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(app.sys, "platform", "linux")
    app.started("http://127.0.0.1:7862")
    assert opened == ["http://127.0.0.1:7861"]
    assert capsys.readouterr().out.count("http://127.0.0.1:786") == 3
