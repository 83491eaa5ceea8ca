"""The verbs as functions: what the command line, the app, ComfyUI, notebooks and scripts call.

    from ric_diffusion import generate, train
    result = train("config.yaml", out="runs/mine")
    [found] = generate("emoji-64", "red apple", preference={"colorfulness": 1})

Paths may be given as text. Where a model is named, a loaded one (``load``) does as well. Each
function that works for long takes ``progress``, which is called with io.progress.Progress instead
of bars being shown. What is wrong with the input is one line of InputError that begins with the
argument.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ric_diffusion.io.extras import require

if TYPE_CHECKING:
    from ric_diffusion.api.adapters import ExportedPrompt, export, prompt_text, push
    from ric_diffusion.api.adoption import AdoptResult, adopt
    from ric_diffusion.api.catalogue import (
        BundledModel,
        ListedFamily,
        bundled_models,
        listed_families,
    )
    from ric_diffusion.api.labelling import ScoreTable, label, score
    from ric_diffusion.api.models import load
    from ric_diffusion.api.picture_settings import PictureMetadata, PictureSettings, read_metadata
    from ric_diffusion.api.prompt_samples import sample_prompts
    from ric_diffusion.api.recipes import RECIPES, recipe
    from ric_diffusion.api.refinement import Refinement
    from ric_diffusion.api.reports import calibrate, evaluate
    from ric_diffusion.api.runs import (
        OnlineResult,
        OnlineRun,
        TrainConfig,
        TrainResult,
        is_main_process,
        leave_processes,
        online,
        train,
    )
    from ric_diffusion.api.samples import GeneratedSample, generate, measure
    from ric_diffusion.api.serving import serve, serve_scorers
    from ric_diffusion.api.sweeps import SweepPoint, SweepResult, contact_sheet, sweep
    from ric_diffusion.data.label import LabelReport
    from ric_diffusion.data.responses import write_responses
    from ric_diffusion.evaluation.report.schema import EvaluationResult
    from ric_diffusion.io.engines import EngineConfig
    from ric_diffusion.io.errors import InputError
    from ric_diffusion.io.progress import Progress, ProgressCallback
    from ric_diffusion.models.causal_lm.backend import LlmConfig
    from ric_diffusion.models.causal_lm.generation import Sampling
    from ric_diffusion.models.checkpoint import Checkpoint
    from ric_diffusion.models.diffusion.backend import DiffusionConfig, LoraConfig
    from ric_diffusion.training.loop import LoopConfig
    from ric_diffusion.training.online import OnlineConfig
    from ric_diffusion.training.optimizers import OptimizerConfig
    from ric_diffusion.training.prompt_samples import PromptSamples

__all__ = [
    "RECIPES",
    "AdoptResult",
    "BundledModel",
    "Checkpoint",
    "DiffusionConfig",
    "EngineConfig",
    "EvaluationResult",
    "ExportedPrompt",
    "GeneratedSample",
    "InputError",
    "LabelReport",
    "ListedFamily",
    "LlmConfig",
    "LoopConfig",
    "LoraConfig",
    "OnlineConfig",
    "OnlineResult",
    "OnlineRun",
    "OptimizerConfig",
    "PictureMetadata",
    "PictureSettings",
    "Progress",
    "ProgressCallback",
    "PromptSamples",
    "Refinement",
    "Sampling",
    "ScoreTable",
    "SweepPoint",
    "SweepResult",
    "TrainConfig",
    "TrainResult",
    "adopt",
    "bundled_models",
    "calibrate",
    "contact_sheet",
    "evaluate",
    "export",
    "generate",
    "is_main_process",
    "label",
    "leave_processes",
    "listed_families",
    "load",
    "measure",
    "online",
    "prompt_text",
    "push",
    "read_metadata",
    "recipe",
    "sample_prompts",
    "score",
    "serve",
    "serve_scorers",
    "sweep",
    "train",
    "write_responses",
]

# Resolved on first use: torch takes seconds to import, and whoever scores a picture needs none.
_HOMES = {
    "adapters": ("ExportedPrompt", "export", "prompt_text", "push"),
    "adoption": ("AdoptResult", "adopt"),
    "catalogue": ("BundledModel", "ListedFamily", "bundled_models", "listed_families"),
    "labelling": ("ScoreTable", "label", "score"),
    "models": ("load",),
    "picture_settings": ("PictureMetadata", "PictureSettings", "read_metadata"),
    "prompt_samples": ("sample_prompts",),
    "recipes": ("RECIPES", "recipe"),
    "refinement": ("Refinement",),
    "reports": ("calibrate", "evaluate"),
    "runs": (
        "OnlineResult",
        "OnlineRun",
        "TrainConfig",
        "TrainResult",
        "is_main_process",
        "leave_processes",
        "online",
        "train",
    ),
    "samples": ("GeneratedSample", "generate", "measure"),
    "serving": ("serve", "serve_scorers"),
    "sweeps": ("SweepPoint", "SweepResult", "contact_sheet", "sweep"),
}
_EXTRAS = {"runs": "train", "reports": "eval"}  # that a home's imports need
_MODULES = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names} | {
    "Checkpoint": "ric_diffusion.models.checkpoint",
    "DiffusionConfig": "ric_diffusion.models.diffusion.backend",
    "EngineConfig": "ric_diffusion.io.engines",
    "EvaluationResult": "ric_diffusion.evaluation.report.schema",
    "InputError": "ric_diffusion.io.errors",
    "LabelReport": "ric_diffusion.data.label",
    "LlmConfig": "ric_diffusion.models.causal_lm.backend",
    "LoopConfig": "ric_diffusion.training.loop",
    "LoraConfig": "ric_diffusion.models.diffusion.backend",
    "OnlineConfig": "ric_diffusion.training.online",
    "OptimizerConfig": "ric_diffusion.training.optimizers",
    "Progress": "ric_diffusion.io.progress",
    "ProgressCallback": "ric_diffusion.io.progress",
    "PromptSamples": "ric_diffusion.training.prompt_samples",
    "Sampling": "ric_diffusion.models.causal_lm.generation",
    "write_responses": "ric_diffusion.data.responses",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _MODULES[name].removeprefix(f"{__name__}.")
    if home in _EXTRAS:
        require(_EXTRAS[home], name)
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
