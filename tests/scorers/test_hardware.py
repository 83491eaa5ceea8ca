"""In which precision a scorer computes, and how much at a time. What a processor has in hardware is
tested beside the precisions of models."""

import pytest
import torch

import scorers
from scorers import hardware
from scorers.hardware import in_parts, resolve_compute


def test_what_does_not_fit_is_done_in_halves():
    asked = []

    def function(items):
        asked.append(items)
        if len(items) > 3:
            raise torch.OutOfMemoryError
        return [10 * i for i in items]

    found = [x for part in in_parts(function, list(range(17)), 12) for x in part]
    assert found == [10 * i for i in range(17)]
    assert [len(items) for items in asked] == [12, 6, 3, 3, 3, 3, 3, 2]
    assert [len(x) for x in in_parts(torch.Tensor.clone, torch.zeros(5, 2), 2)] == [2, 2, 1]


def test_one_that_does_not_fit_is_an_error():
    def function(items):
        raise torch.OutOfMemoryError("too little")

    with pytest.raises(torch.OutOfMemoryError, match="too little"):
        in_parts(function, [1, 2, 3], 3)


@pytest.mark.parametrize(
    ("device", "asked", "has", "found"),
    [
        ("cpu", "auto", True, "fp32"),  # half precision only where it is asked for
        ("cpu", "fp32", False, "fp32"),
        ("cpu", "bf16", True, "bf16"),
        ("cpu", "bf16", False, "not in this cpu's hardware; give auto"),
        ("cpu", "fp16", True, "needs a GPU with CUDA, and this is a cpu; give auto"),
        ("cpu", "half", True, "give one of auto, fp32, bf16, fp16"),
        ("cuda", "auto", True, "fp16"),
        ("cuda", "fp16", False, "fp16"),
        ("cuda", "bf16", False, "not in this cuda's hardware"),
    ],
)
def test_precision(monkeypatch, device, asked, has, found):
    monkeypatch.setattr(hardware, "has_bf16", lambda device: has)
    monkeypatch.setattr(hardware, "resolve_device", lambda scorer, device: torch.device(device))
    if found in ("fp32", "bf16", "fp16"):
        compute = resolve_compute("aesthetic", device, asked)
        assert (compute.device.type, compute.precision) == (device, found)
    else:
        with pytest.raises(
            scorers.ScorerError, match=f"^aesthetic: precision={asked}.*{found}|{asked!r}.*{found}"
        ):
            resolve_compute("aesthetic", device, asked)


def test_autocast_is_the_precision():
    x = torch.ones(2, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        compute = hardware.Compute(device=torch.device("cpu"), precision=precision)
        with compute.autocast():
            assert (x @ x).dtype == dtype
