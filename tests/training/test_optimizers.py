"""The optimizers by name: their arguments are those of their classes, and runs with them resume."""

import dataclasses
import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from ric_diffusion.io import extras
from ric_diffusion.io.config import from_dict
from ric_diffusion.io.errors import InputError
from ric_diffusion.training import checkpoint
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.optimizers import OptimizerConfig
from ric_diffusion.training.trainer import Trainer

KINDS = {
    "adamw": (0.01, {"betas": (0.8, 0.99), "weight_decay": 0.1, "amsgrad": True}),
    "adamw8bit": (0.01, {"weight_decay": 0.1}),
    "prodigy": (1.0, {"d_coef": 2.0, "weight_decay": 0.01, "slice_p": 3}),
    "adafactor": (0.01, {"beta1": 0.9}),
}
PACKAGES = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}


def needs(name):
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])


class Matrices:
    """Two matrices, large enough for 8 bits and with rows and columns, and a bias."""

    buckets = None

    def __init__(self, stop_at=0):
        generator = torch.Generator().manual_seed(0)
        self.parameters = {
            name: torch.nn.Parameter(0.1 * torch.randn(shape, generator=generator))
            for name, shape in (("a", (64, 64)), ("b", (80, 64)), ("bias", (64,)))
        }
        self.stop_at, self.calls = stop_at, 0

    def named_parameters(self):
        return self.parameters

    def loss(self, batch):
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        x = torch.randn(len(batch.indices), 64, generator=batch.generator)
        a, b, bias = self.parameters.values()
        return ((x @ a + bias).tanh() @ b.T - x.sum(1, keepdim=True)).square().mean()


def run(name, out, *, stop_at=0, resume=False):
    rate, arguments = KINDS[name]
    config = LoopConfig(
        steps=12,
        batch_size=2,
        learning_rate=rate,
        optimizer=OptimizerConfig(name=name, arguments=arguments),
        precision="fp32",
        log_every=5,
        checkpoint_minutes=0.0,
        trackers=(),
    )
    model = Matrices(stop_at)
    Trainer(model, 8, config, out, digest="d", resume=resume).run()
    folder = checkpoint.newest(out / "checkpoints")
    return load_file(folder / "state.safetensors"), (folder / "state.json").read_text()


@pytest.mark.parametrize("name", KINDS)
def test_stopped_and_resumed_it_is_the_same_run_to_the_bit(name, tmp_path):
    needs(name)
    tensors, numbers = run(name, tmp_path / "whole")
    for call in (5, 4):  # of the process
        with pytest.raises(KeyboardInterrupt):
            run(name, tmp_path / "out", stop_at=call, resume=True)
    found, again = run(name, tmp_path / "out", resume=True)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in tensors.items())
    assert again == numbers
    logs = [(tmp_path / one / "log.jsonl").read_bytes() for one in ("whole", "out")]
    assert logs[0] == logs[1]


def test_what_each_carries_is_in_the_checkpoint(tmp_path):
    tensors, numbers = run("adafactor", tmp_path / "adafactor")
    assert tensors["optimizer.b.exp_avg_sq_row"].shape == (80,)
    assert json.loads(numbers)["optimizer"]["moments"]["b"] == {"step": 12}
    needs("prodigy")
    tensors, numbers = run("prodigy", tmp_path / "prodigy")
    (group,) = json.loads(numbers)["optimizer"]["groups"]
    assert group["k"] == 12 and group["d"] > 1e-6  # the step size that it found
    assert tensors["optimizer.a.p0"].shape == (-(-64 * 64 // 3),)


def test_in_8_bits_the_moments_take_8_bits(tmp_path):
    needs("adamw8bit")
    tensors, _ = run("adamw8bit", tmp_path)
    assert tensors["optimizer.a.state1"].dtype == torch.uint8
    assert tensors["optimizer.bias.state1"].dtype == torch.float32  # too small to be worth it


def test_the_default_is_torchs_fused_adamw():
    parameter = torch.nn.Parameter(torch.zeros(3))
    made = LoopConfig(steps=1, batch_size=1).optimizer.create([parameter], 0.5)
    assert type(made) is torch.optim.AdamW
    own = torch.optim.AdamW([parameter], lr=0.5, fused=True)
    assert made.defaults == own.defaults


def test_adafactor_follows_the_rate_of_the_run():
    parameter = torch.nn.Parameter(torch.ones(3))
    made = OptimizerConfig(name="adafactor").create([parameter], 0.25)
    parameter.grad = torch.ones(3)
    made.step()
    assert parameter.tolist() == pytest.approx([0.75] * 3)


def loop(**values):
    return from_dict({"steps": 4, "batch_size": 1, **values}, LoopConfig, "c.yaml")


def test_arguments_come_from_yaml_as_numbers():
    given = {"arguments": {"eps": "1e-6", "betas": [0.5, 0.9], "amsgrad": True}}
    found = loop(optimizer=given).optimizer
    assert found.arguments == {"eps": 1e-6, "betas": (0.5, 0.9), "amsgrad": True}
    group = found.create([torch.nn.Parameter(torch.zeros(1))], 0.1).param_groups[0]
    assert (group["eps"], group["betas"], group["amsgrad"]) == (1e-6, (0.5, 0.9), True)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"optimizer": {"name": "adam"}},
            "loop.optimizer.name: 'adam' is not one of the choices; did you mean 'adamw'?",
        ),
        (
            {"optimizer": {"arguments": {"beta": [0.9, 0.99]}}},
            "optimizer: arguments.beta: adamw has no such argument; did you mean 'betas'?",
        ),
        ({"optimizer": {"arguments": {"lr": 0.1}}}, "arguments.lr: adamw has no such argument"),
        (
            {"optimizer": {"arguments": {"betas": [0.9, 2]}}},
            "adamw does not run with these arguments (Invalid beta parameter at index 1: 2.0)",
        ),
        ({"optimizer": {"arguments": {"betas": 0.9}}}, "adamw does not run with these arguments"),
        ({"betas": [0.9, 0.99]}, "write optimizer: {arguments: {betas: [0.9, 0.999]}}"),
        ({"weight_decay": 0.0}, "write optimizer: {arguments: {weight_decay: 0.01}}"),
    ],
)
def test_what_an_optimizer_does_not_take_is_one_line(given, told):
    with pytest.raises(InputError) as error:
        from_dict({"loop": {"steps": 4, "batch_size": 1, **given}}, Holder, "c.yaml")
    assert told in str(error.value) and "\n" not in str(error.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
    loop: LoopConfig


def test_prodigy_wants_a_factor_for_a_learning_rate():
    needs("prodigy")
    with pytest.raises(InputError, match=r"learning_rate is 0\.0001, a factor .* give 1$"):
        loop(optimizer={"name": "prodigy"})
    assert loop(optimizer={"name": "prodigy"}, learning_rate=1.0)


def test_prodigy_prints_nothing(capsys):
    needs("prodigy")
    OptimizerConfig(name="prodigy", arguments={"weight_decay": 0.1})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("adamw8bit", "bitsandbytes", "quantized"), ("prodigy", "prodigyopt", "optimizers")],
)
def test_a_package_that_is_missing_is_named(monkeypatch, name, package, extra):
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    told = rf"{name}: {package} is not installed; pip install 'ric-diffusion\[{extra}\]'"
    with pytest.raises(InputError, match=told):
        loop(optimizer={"name": name}, learning_rate=1.0)


def test_8_bits_that_do_not_run_here_are_one_line(monkeypatch):
    needs("adamw8bit")

    class Broken(torch.optim.SGD):
        def step(self):
            raise RuntimeError("no kernel for this device\nand much more")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys.modules["bitsandbytes.optim"], "AdamW8bit", Broken)
    with pytest.raises(InputError, match=r"adamw8bit does not run .*\(no kernel for this device\)"):
        loop(optimizer={"name": "adamw8bit"})
