"""Reward sliders for diffusion models: rewards in context, after arXiv 2402.10207."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ric_diffusion.diffusion.pipeline import (
        RiCStableDiffusionImg2ImgPipeline,
        RiCStableDiffusionPipeline,
    )
    from ric_diffusion.rewards import RewardSpace

__version__ = "0.1.0"
__all__ = [
    "RewardSpace",
    "RiCStableDiffusionImg2ImgPipeline",
    "RiCStableDiffusionPipeline",
    "__version__",
]

# Resolved on first use: importing torch and diffusers takes seconds, `ric --help` must not.
_HOMES = {
    "RewardSpace": "ric_diffusion.rewards",
    "RiCStableDiffusionImg2ImgPipeline": "ric_diffusion.diffusion.pipeline",
    "RiCStableDiffusionPipeline": "ric_diffusion.diffusion.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
