"""Plain SFT: which data, that it trains, repeats, resumes and never sees a reward."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from baselines.families import lora_file
from baselines.sft import best_records, best_records_for, train_sft
from ric_diffusion.adapters.format import read_diffusers
from ric_diffusion.data.records import Record
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Cost
from ric_diffusion.models.diffusion.families.sd import FAMILY
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer

LOOP = LoopConfig(steps=4, batch_size=3, learning_rate=1e-2, log_every=1, checkpoint_minutes=0)
LORA = lora_file(FAMILY)


@pytest.fixture
def train(model, pictures, space, config):
    folder, records = pictures

    def run(out, loop=LOOP, of=records, **given):
        return train_sft(model, of, folder, space, config, loop, out, **given)

    return run


def points(*scores):
    return [
        Record(file=f"{i}.png", scores=dict(zip(("bright", "warm"), pair, strict=True)))
        for i, pair in enumerate(scores)
    ]


def names(records):
    return [int(record.file.removesuffix(".png")) for record in records]


def test_fronts_first(space):
    records = points((100, 0), (140, 10), (120, 20), (130, 5), (90, -5), (110, 15))
    assert names(best_records(records, space, 1 / 3)) == [1, 2]
    assert names(best_records(records, space, 4 / 6)) == [1, 2, 3, 5]
    assert names(best_records(records, space, 1.0)) == [0, 1, 2, 3, 4, 5]


def test_the_top_fraction_for_a_preference(space):
    records = points((100, 0), (140, -10), (120, 20), (130, 5))
    assert names(best_records_for(records, space, {"bright": 1.0}, 0.5)) == [1, 3]
    assert names(best_records_for(records, space, {"warm": 2.0}, 0.5)) == [2, 3]
    assert names(best_records_for(records, space, {"bright": 1.0, "warm": 1.0}, 0.2)) == [2]


@pytest.mark.parametrize("fraction", [0.0, 1.1, -1.0])
def test_what_is_no_fraction(space, fraction):
    with pytest.raises(InputError, match=f"fraction {fraction}: give a number above 0, at most 1"):
        best_records(points((1, 2)), space, fraction)


def test_training_moves_the_lora_and_says_what_it_cost(train, tmp_path):
    cost = train(tmp_path)
    made = read_diffusers(tmp_path / LORA)
    assert made.scale == 2.0
    assert all(made.delta(name).abs().max() > 0 for name in made.modules)
    assert (cost.forwards, cost.scored) == (4 * 3 * 3, 0) and cost.seconds > 0
    assert Cost.from_dict(json.loads((tmp_path / "cost.json").read_text())) == cost


def test_it_repeats_and_never_sees_the_scores(train, pictures, tmp_path):
    _, records = pictures
    rng = np.random.default_rng(0)
    scrambled = [
        replace(r, scores={name: float(rng.normal()) for name in r.scores}) for r in records
    ]
    torch.manual_seed(1)
    train(tmp_path / "a")
    torch.manual_seed(2)
    train(tmp_path / "b", of=scrambled)
    one, other = (load_file(tmp_path / run / LORA) for run in "ab")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_resumed_it_is_the_same_run(train, tmp_path, monkeypatch):
    whole = train(tmp_path / "whole")
    real, calls = Trainer.step, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut")
    with pytest.raises(InputError, match="holds a run already"):
        train(tmp_path / "cut")
    cost = train(tmp_path / "cut", resume=True)
    assert len(calls) == 3 + 2
    assert cost.forwards == whole.forwards
    one, other = (load_file(tmp_path / run / LORA) for run in ("whole", "cut"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    with pytest.raises(InputError, match=r"other loop\.learning_rate \(0\.01, now 0\.001\)"):
        train(tmp_path / "cut", replace(LOOP, learning_rate=1e-3), resume=True)
