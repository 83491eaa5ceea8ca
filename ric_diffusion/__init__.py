"""Reward sliders for diffusion models: rewards in context, after arXiv 2402.10207."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ric_diffusion.api import (
        calibrate,
        evaluate,
        export,
        generate,
        label,
        online,
        score,
        sweep,
        train,
    )
    from ric_diffusion.models.diffusion.families.sd import (
        RiCStableDiffusionImg2ImgPipeline,
        RiCStableDiffusionPipeline,
    )
    from ric_diffusion.models.diffusion.families.sdxl import (
        RiCStableDiffusionXLImg2ImgPipeline,
        RiCStableDiffusionXLPipeline,
    )
    from ric_diffusion.models.diffusion.pipeline import RiCPipeline
    from ric_diffusion.rewards import RewardSpace

__version__ = "0.1.0"
__all__ = [
    "RewardSpace",
    "RiCPipeline",
    "RiCStableDiffusionImg2ImgPipeline",
    "RiCStableDiffusionPipeline",
    "RiCStableDiffusionXLImg2ImgPipeline",
    "RiCStableDiffusionXLPipeline",
    "__version__",
    "calibrate",
    "evaluate",
    "export",
    "generate",
    "label",
    "online",
    "score",
    "sweep",
    "train",
]

# Resolved on first use: importing torch and diffusers takes seconds, `ric --help` must not.
_API = "ric_diffusion.api"
_FAMILIES = "ric_diffusion.models.diffusion.families"
_HOMES = {
    "RewardSpace": "ric_diffusion.rewards",
    "RiCPipeline": "ric_diffusion.models.diffusion.pipeline",
    "RiCStableDiffusionImg2ImgPipeline": f"{_FAMILIES}.sd",
    "RiCStableDiffusionPipeline": f"{_FAMILIES}.sd",
    "RiCStableDiffusionXLImg2ImgPipeline": f"{_FAMILIES}.sdxl",
    "RiCStableDiffusionXLPipeline": f"{_FAMILIES}.sdxl",
    "calibrate": _API,
    "evaluate": _API,
    "export": _API,
    "generate": _API,
    "label": _API,
    "online": _API,
    "score": _API,
    "sweep": _API,
    "train": _API,
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
