"""Runs are made once, and never taken for others."""

import json

import pytest

from baselines.runs import due, spent
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Cost
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.optimizers import OptimizerConfig

ADAM = OptimizerConfig(arguments={"betas": (0.9, 0.99)})
SETTINGS = {
    "fraction": 0.2,
    "loop": LoopConfig(steps=3, batch_size=2, optimizer=ADAM),
}


def finish(folder, cost):
    folder.mkdir()
    (folder / "cost.json").write_text(json.dumps(cost.to_dict()))


def test_due_until_its_cost_is_known(tmp_path):
    assert due(tmp_path, "sft", SETTINGS, "abc")
    assert due(tmp_path, "sft", SETTINGS, "abc")
    stored = json.loads((tmp_path / "parts" / "sft" / "run.json").read_text())["identity"]
    assert stored["settings"]["fraction"] == 0.2 and stored["settings"]["loop"]["steps"] == 3
    finish(tmp_path / "sft", Cost(forwards=5))
    assert not due(tmp_path, "sft", SETTINGS, "abc")
    assert due(tmp_path, "other", SETTINGS, "abc")


def test_other_settings_or_data_are_refused(tmp_path):
    due(tmp_path, "sft", SETTINGS, "abc")
    file = tmp_path / "parts" / "sft" / "run.json"
    before = file.read_bytes()
    for settings, basis, named in (
        ({**SETTINGS, "fraction": 0.3}, "abc", r"other settings\.fraction \(0\.2, now 0\.3\)"),
        (SETTINGS, "abd", r'other basis \("abc", now "abd"\)'),
    ):
        with pytest.raises(InputError, match=f"sft: holds a run with {named}"):
            due(tmp_path, "sft", settings, basis)
    assert file.read_bytes() == before


def test_a_run_of_which_nothing_is_known_is_none_of_these(tmp_path):
    """Its record was removed to be rid of other settings, and it was not."""
    finish(tmp_path / "sft", Cost(forwards=5))
    with pytest.raises(InputError, match=r"sft: holds a run, but .*parts/sft does not say of what"):
        due(tmp_path, "sft", SETTINGS, "abc")
    assert not (tmp_path / "parts").exists()


def test_costs_add_up(tmp_path):
    finish(tmp_path / "a", Cost(forwards=5, scored=1, seconds=0.5))
    finish(tmp_path / "b", Cost(forwards=7, scored=2, seconds=1.0))
    assert spent(tmp_path, ["a", "b"]) == Cost(forwards=12, scored=3, seconds=1.5)
    assert spent(tmp_path, []) == Cost()
