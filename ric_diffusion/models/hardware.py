"""What the device can do: where to compute, and in which precision."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]

AMPERE = (8, 0)  # the first compute capability with bfloat16 in hardware
CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16", "sme"}  # x86 and Arm, as Linux names them
SLOWDOWN = 13  # of emoji-64's U-Net on a CPU with AVX2 alone, bf16 against fp32

_log = logging.getLogger(__name__)


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_bf16(device: str | torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_capability(device) >= AMPERE
    if torch.device(device).type == "cpu":
        return _cpu_has_bf16()
    return False


@cache
def _cpu_has_bf16() -> bool:
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        return False  # of what the processor has, torch may be told to use less
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, bool)() for name in asked)
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return bool(CPU_FLAGS & set(flags.split()))


def loaded_dtype(stored: torch.dtype, device: str | torch.device) -> torch.dtype:
    """What weights are loaded as where nobody says: as they are stored, if the device computes in
    that in hardware, else float32. A CPU has no float16 to speak of."""
    kind = torch.device(device).type
    computed = {torch.bfloat16: has_bf16(device), torch.float16: kind != "cpu"}
    return stored if computed.get(stored, False) else torch.float32


def resolve_precision(asked: Precision, device: str | torch.device) -> Literal["fp32", "bf16"]:
    """``auto``: bf16 where the device has it in hardware, else fp32. bf16 where it has not is
    obeyed, with one warning in a process."""
    if asked == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if asked == "bf16" and not has_bf16(device):
        _warn_of_slow_bf16(torch.device(device).type)
    return asked


@cache
def _warn_of_slow_bf16(device: str) -> None:
    _log.warning(
        "precision: bf16 is not in this %s's hardware and can take %d times as long as fp32; "
        "leave precision out, or write auto",
        device,
        SLOWDOWN,
    )
