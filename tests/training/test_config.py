"""The loop's settings: which of them make a run what it is, and which precision `auto` is."""

import dataclasses
import json
import logging

import pytest
import torch

from ric_diffusion.io.config import from_dict
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models import hardware
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.optimizers import OptimizerConfig
from ric_diffusion.training.trainer import Trainer

CONFIG = LoopConfig(steps=2, batch_size=3)
TRAINS_NOTHING = {"log_every": 7, "checkpoint_minutes": 9.0, "validate_every": 3, "trackers": ()}
TRAINS = {
    "steps": 4,
    "batch_size": 4,
    "accumulate": 2,
    "learning_rate": 1e-3,
    "schedule": "constant",
    "warmup": 1,
    "optimizer": OptimizerConfig(arguments={"weight_decay": 0.0}),
    "schedule_arguments": {"num_cycles": 1.5},
    "max_grad_norm": 2.0,
    "ema": 0.5,
    "precision": "bf16",
    "seed": 1,
}


def test_settings_that_train_nothing_are_no_part_of_the_identity():
    assert dataclasses.replace(CONFIG, **TRAINS_NOTHING).identity() == CONFIG.identity()
    for name, value in TRAINS.items():
        assert dataclasses.replace(CONFIG, **{name: value}).identity() != CONFIG.identity()
    assert {field.name for field in dataclasses.fields(LoopConfig)} == {*TRAINS, *TRAINS_NOTHING}
    assert json.loads(json.dumps(CONFIG.identity())) == CONFIG.identity()


def test_a_run_goes_on_under_another_log_every_and_names_other_steps(tmp_path):
    folder = RunFolder(tmp_path, "train")
    folder.begin({"loop": CONFIG.identity()}, resume=False)
    quieter = dataclasses.replace(CONFIG, **TRAINS_NOTHING)
    RunFolder(tmp_path, "train").begin({"loop": quieter.identity()})
    longer = dataclasses.replace(CONFIG, steps=3)
    with pytest.raises(InputError, match=r"holds a run with other loop\.steps \(2, now 3\)"):
        RunFolder(tmp_path, "train").begin({"loop": longer.identity()})


@pytest.mark.parametrize(("has", "found"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_the_device_has_and_stands_in_the_identity(monkeypatch, has, found):
    monkeypatch.setattr(hardware, "has_bf16", lambda device: has)
    assert CONFIG.precision == "auto"
    resolved = CONFIG.resolved("cpu")
    assert resolved == dataclasses.replace(CONFIG, precision=found)
    assert resolved.identity()["precision"] == found
    assert resolved.resolved("cpu") == resolved


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_trains_in_what_the_device_has_and_logs_it_once(
    toy, tmp_path, monkeypatch, caplog, has, dtype
):
    monkeypatch.setattr(hardware, "has_bf16", lambda device: has)
    caplog.set_level(logging.INFO, "ric_diffusion")
    seen = set()

    class Recording(toy.Toy):
        def loss(self, batch):
            seen.add((self.x[:1] @ self.w[:, None]).dtype)
            return super().loss(batch)

    config = CONFIG.resolved("cpu")
    Trainer(Recording(), toy.COUNT, config, tmp_path, digest="d").run()
    assert seen == {dtype}
    logged = [message for message in caplog.messages if message.startswith("precision")]
    assert logged == [f"precision: {'bf16' if has else 'fp32'} on this cpu"]


def test_a_precision_that_is_none_is_refused():
    data = {"steps": 1, "batch_size": 1, "precision": "fp8"}
    with pytest.raises(InputError, match="precision: 'fp8' is not one of the choices"):
        from_dict(data, LoopConfig, "c.yaml")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": OptimizerConfig(name="adafactor")}, "loop.optimizer: adafactor reads whole"),
        ({"precision": "fp16"}, "loop.precision: fp16 is not for FSDP"),
    ],
)
def test_what_trains_no_shards_is_refused(changes, said):
    dataclasses.replace(CONFIG, precision="fp32").check_shards()
    with pytest.raises(InputError, match=said):
        dataclasses.replace(CONFIG, **changes).check_shards()
