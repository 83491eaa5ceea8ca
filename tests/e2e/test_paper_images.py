"""The paper's image experiment at toy size: its config, and the table that its script prints."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from ric_diffusion import RiCPipeline, train
from ric_diffusion.api import TrainConfig
from ric_diffusion.data.scoring import load_scorers, scores_of
from ric_diffusion.io import config
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from support.processes import HOME

SCRIPT = HOME / "scripts" / "paper_images.py"
CONFIG = HOME / "scripts" / "configs" / "paper-sd15.yaml"
PROMPTS = ["red apple", "pizza", "rocket"]
ASKED = ["--steps", "2", "--guidance-scale", "2", "--batch-size", "2", "--seed", "7"]
DRAWN = {"num_inference_steps": 2, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def paper(root, tmp_path_factory):
    """Two steps of the paper's config, on the tiny model."""
    settings, out = config.load_yaml(CONFIG, TrainConfig), tmp_path_factory.mktemp("paper")
    toy = replace(
        settings,
        model=str(root / "model"),
        data=root / "labelled",
        loop=replace(settings.loop, steps=2, batch_size=2),
        diffusion=replace(settings.diffusion, resolution=None),
    )
    (out / "prompts.txt").write_text("\n".join(PROMPTS))
    train(toy, out=out / "run", progress=lambda _: None)
    return out


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(script, paper, out, *more):
    model = paper / "run" / "model"
    given = ["--model", model, "--prompts", paper / "prompts.txt", "--out", out]
    return script(SCRIPT, *given, *ASKED, *more)


def test_the_config_is_the_papers_protocol():
    settings = config.load_yaml(CONFIG, TrainConfig)
    loop, diffusion = settings.loop, settings.diffusion
    assert (loop.learning_rate, loop.schedule, loop.warmup) == (1e-5, "constant", 0)
    assert loop.ema == 0.9999 and diffusion.train == "full" and diffusion.resolution == 512
    dropout = diffusion.dropout
    assert (dropout.prompt, dropout.everything, dropout.reward) == (0.0, 0.1, 0.0)
    assert (diffusion.mode, diffusion.grammar, diffusion.mapping) == (
        "text",
        "upstream",
        "quantile",
    )
    assert diffusion.sampling == {"num_inference_steps": 50, "guidance_scale": 7.5}
    assert diffusion.min_snr_gamma is None


def test_the_table_is_the_mean_z_at_every_preference_and_of_the_base_model(
    paper, root, script, tmp_path
):
    code, said, err = run(script, paper, tmp_path)
    assert code == 0, err
    lines = said.splitlines()
    assert len(lines) == 2 + 11 + 1 and lines[-1].startswith("| base model |  |  | ")
    assert (tmp_path / "table.md").read_text() == said
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["prompts"] == 3 and len(table["rows"]) == 12
    preferences = [row["preference"] for row in table["rows"][:-1]]
    assert [p["compressibility"] for p in preferences] == pytest.approx(np.linspace(1, 0, 11))
    assert table["rows"][-1]["preference"] is None

    pipe = quiet(RiCPipeline.from_pretrained(paper / "run" / "model"))
    stock = quiet(StableDiffusionPipeline.from_pretrained(root / "model", use_safetensors=True))
    space = pipe.adapter.space
    targets = pipe.adapter.mapped(preferences[3])
    assert targets == table["rows"][3]["targets"]
    words = "".join(f"<rm{i + 1}> {round(targets[name], 1)}" for i, name in enumerate(space.names))
    by_hand = DiffusionSampler(pipe, DRAWN).sample(PROMPTS, [targets] * 3, [7, 8, 9])
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8, 9)]
    plain = stock(PROMPTS, generator=generators, **DRAWN).images
    text = pipe.texts(PROMPTS, [pipe.adapter.model_targets(targets)] * 3)[0][0]
    assert text == f"red apple{words}"
    for row, pictures in ((3, by_hand), (11, plain)):
        z = space.normalize(scores_of(pictures, PROMPTS, load_scorers(space)))
        found = table["rows"][row]["mean_z"]
        assert [found[name] for name in space.names] == pytest.approx(z.mean(axis=0), abs=0.02)
    assert f"{table['rows'][11]['mean_z'][space.names[0]]:+.3f}" in lines[-1]


def test_killed_it_goes_on_to_the_same_table(paper, script, tmp_path, monkeypatch):
    code, said, _ = run(script, paper, tmp_path / "whole", "--points", "2")
    assert code == 0
    sample, calls = DiffusionSampler.sample, []

    def killed(self, *args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sample(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionSampler, "sample", killed)
        with pytest.raises(KeyboardInterrupt):
            run(script, paper, tmp_path / "cut", "--points", "2")
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(DiffusionSampler, "sample", lambda *a: calls.append(a) or sample(*a))
        code, again, _ = run(script, paper, tmp_path / "cut", "--points", "2")
    assert (code, again) == (0, said) and len(calls) == 6 - 2
    code, _, err = run(script, paper, tmp_path / "cut", "--points", "3")
    assert code == 2 and "holds a run with other rows" in err


def test_an_adapter_is_compared_with_the_model_it_is_for(root, paper, script, tmp_path):
    given = ["--model", root / "model", "--prompts", paper / "prompts.txt", "--out", tmp_path]
    given += ["--adapter", root / "text" / "adapter", "--points", "2"]
    code, said, err = script(SCRIPT, *given, *ASKED)
    assert code == 0, err
    code, whole, _ = run(script, paper, tmp_path / "full", "--points", "2")
    assert code == 0 and said.splitlines()[-1] == whole.splitlines()[-1]  # one base model


def test_what_it_cannot_use_is_one_line(root, paper, script, tmp_path):
    prompts = ["--prompts", paper / "prompts.txt", "--out", tmp_path / "out"]
    code, _, err = script(SCRIPT, "--model", root / "model", *prompts)
    assert code == 2 and "has no adapter of its own" in err.splitlines()[-1]
    gone = ["--prompts", tmp_path / "gone.txt", "--out", tmp_path / "out"]
    code, _, err = script(SCRIPT, "--model", paper / "run" / "model", *gone)
    assert code == 2 and "gone.txt: cannot be read" in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
