"""What the device can do, and how much of it: where a network runs, in which precision, and on how
much at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from scorers.base import ScorerError, first_line

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]

AMPERE = (8, 0)  # the first compute capability with bfloat16 in hardware
CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16", "sme"}  # x86 and Arm, as Linux names them

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where a scorer's network runs and in which precision, neither ``auto``."""

    device: torch.device
    precision: Precision

    def autocast(self) -> torch.autocast:
        """For the passes. Weights stay float32, and so does what autocast keeps in it: norms,
        softmax and the residual stream, which is what makes scores in half precision steady."""
        import torch

        half = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=half, enabled=self.precision != "fp32")


def resolve_compute(scorer: str, device: str | None, precision: Precision) -> Compute:
    """``auto``: fp16 on a GPU with CUDA, whose rounding is an eighth of bf16's; fp32 elsewhere.

    ScorerError, with the scorer's name, for a half precision that the device has not in hardware.
    """
    target = resolve_device(scorer, device)
    if precision not in get_args(Precision):
        raise ScorerError(
            f"{scorer}: precision={precision!r} is not allowed; give one of "
            f"{', '.join(get_args(Precision))}"
        )
    if precision == "auto":
        return Compute(device=target, precision="fp16" if target.type == "cuda" else "fp32")
    if precision == "fp16" and target.type != "cuda":
        raise ScorerError(
            f"{scorer}: precision=fp16 needs a GPU with CUDA, and this is a {target.type}; "
            f"give auto"
        )
    if precision == "bf16" and not has_bf16(target):
        raise ScorerError(
            f"{scorer}: precision=bf16 is not in this {target.type}'s hardware; give auto"
        )
    return Compute(device=target, precision=precision)


def resolve_device(scorer: str, device: str | None) -> torch.device:
    """None -> cuda where there is one, else cpu; a name -> that device, if it is here."""
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except Exception as error:
        raise ScorerError(
            f"{scorer}: device={device!r} cannot be used here ({first_line(error)}); "
            f"give cpu, or leave it out"
        ) from error
    return target


def has_bf16(device: str | torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_capability(device) >= AMPERE
    if torch.device(device).type == "cpu":
        return _cpu_has_bf16()
    return False


@cache
def _cpu_has_bf16() -> bool:
    import torch

    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        return False  # of what the processor has, torch may be told to use less
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, bool)() for name in asked)
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return bool(CPU_FLAGS & set(flags.split()))


def in_parts(function: Callable[[Any], T], items: Any, size: int) -> list[T]:
    """The function of parts of ``items``, a sequence or tensor, in their order: of ``size`` each,
    and of half as many from where those do not fit into the device's memory.

    What it makes of an item must not depend on those beside it, but for a rounding error.
    """
    import torch

    found: list[T] = []
    start = 0
    while start < len(items):
        part = items[start : start + size]
        try:
            found.append(function(part))
            start += len(part)
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
            size = len(part) // 2
    return found
