"""Reward sliders for diffusion models: rewards in context, after arXiv 2402.10207."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ric_diffusion.api import (
        adopt,
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
    from ric_diffusion.models.diffusion.pipeline import RiCPipeline
    from ric_diffusion.rewards import RewardSpace

__version__ = "0.1.0"
__all__ = [
    "RewardSpace",
    "RiCPipeline",
    "__version__",
    "adopt",
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
_HOMES = {
    "RewardSpace": "ric_diffusion.rewards",
    "RiCPipeline": "ric_diffusion.models.diffusion.pipeline",
    "adopt": _API,
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
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name.startswith("RiC") and (found := _pipelines().get(name)):
        value = found
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _pipelines() -> dict[str, Any]:
    """The classes of all families of pipelines, RiCStableDiffusionPipeline and so on, by name."""
    from ric_diffusion.models.family import families

    classes = (cls for family in families() for cls in getattr(family, "pipelines", {}).values())
    return {cls.__name__: cls for cls in classes}


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
