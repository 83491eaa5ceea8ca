"""What the device can do: where to compute, in which precision, and what to keep weights in."""

from __future__ import annotations

import logging
import sys
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from accelerate import PartialState

from ric_diffusion.io.errors import InputError
from ric_diffusion.io.extras import require
from scorers.hardware import has_bf16

Precision = Literal["auto", "fp32", "bf16", "fp16"]
BasePrecision = Literal["auto", "fp32", "bf16", "fp16", "int8", "nf4"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
QUANTIZED = ("int8", "nf4")

SLOWDOWN = 13  # of emoji-64's U-Net on a CPU with AVX2 alone, bf16 against fp32

_log = logging.getLogger(__name__)


def this_process() -> PartialState:
    """This process among those that were started together; it may be the only one. The first call
    picks its GPU."""
    return PartialState(cpu=not torch.cuda.is_available())


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def peak_memory(device: str | torch.device) -> int | None:
    """The most bytes that tensors took on a GPU, or this process elsewhere, where that is known."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024  # Linux counts in KiB


def check_compiler(device: str | torch.device) -> None:
    """ValueError if torch.compile has no compiler for the device here."""
    if torch.device(device).type == "cuda":
        if find_spec("triton") is None:
            raise ValueError("compile: triton is not installed; install it, or leave this out")
        return
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # of torch's own kind, which has moved between its releases
        raise ValueError(
            "compile: there is no C++ compiler here; install one, or leave this out"
        ) from error


def loaded_dtype(stored: torch.dtype, device: str | torch.device) -> torch.dtype:
    """What weights are loaded as where nobody says: as they are stored, if the device computes in
    that in hardware, else float32. A CPU has no float16 to speak of."""
    kind = torch.device(device).type
    computed = {torch.bfloat16: has_bf16(device), torch.float16: kind != "cpu"}
    return stored if computed.get(stored, False) else torch.float32


def half_precision(device: str | torch.device) -> Literal["bf16", "fp16"]:
    """What half precision is on a device: fp16 on GPUs without bfloat16 in hardware."""
    on_gpu = torch.device(device).type == "cuda"
    return "fp16" if on_gpu and not has_bf16(device) else "bf16"


def resolve_precision(
    asked: Precision, device: str | torch.device, field: str = "precision"
) -> Literal["fp32", "bf16", "fp16"]:
    """``auto``: bf16 where the device has it in hardware, else fp32. bf16 where it has not is
    obeyed, with one warning in a process about the ``field`` of the settings. InputError for fp16
    where there is no GPU: a CPU has no use for it."""
    kind = torch.device(device).type
    if asked == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if asked == "fp16" and kind != "cuda":
        raise InputError(f"precision: fp16 needs a GPU with CUDA, and this is a {kind}; give auto")
    if asked == "bf16" and not has_bf16(device):
        _warn_of_slow_bf16(kind, field)
    return asked


def resolve_base_precision(
    asked: BasePrecision, passes: Precision, device: str | torch.device
) -> tuple[BasePrecision, Precision]:
    """What frozen weights are kept in and what the passes are computed in, neither ``auto``.

    ``auto`` weights are in the precision of the passes on a GPU, with half precision if that is
    ``auto`` as well, and in fp32 elsewhere. ``auto`` passes are in the precision of weights in half
    precision, and in the device's half precision over quantised ones. InputError for weights that
    the device cannot have, and for passes in another precision than such weights.
    """
    kind = torch.device(device).type
    if asked == "auto":
        half = half_precision(device) if passes == "auto" else passes
        asked = half if kind == "cuda" else "fp32"
    if asked == "fp32":
        return asked, resolve_precision(passes, device)
    if kind != "cuda" and asked != "bf16":
        raise InputError(
            f"base_precision: {asked} needs a GPU with CUDA, and this is a {kind}; give bf16, or "
            "leave it out"
        )
    computed: Precision
    if asked == "int8" or asked == "nf4":
        require("quantized", f"base_precision {asked}")
        computed = half_precision(device)
    else:
        computed = asked
    if passes not in ("auto", computed):
        raise InputError(
            f"precision: {passes} is not what weights in {asked} are computed with, which is "
            f"{computed} here; leave it out, or give base_precision: fp32"
        )
    return asked, resolve_precision(computed, device)


@cache
def _warn_of_slow_bf16(device: str, field: str) -> None:
    _log.warning(
        "%s: bf16 is not in this %s's hardware and can take %d times as long as fp32; "
        "leave %s out, or write auto",
        field,
        device,
        SLOWDOWN,
        field,
    )
