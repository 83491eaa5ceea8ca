"""Reward space, preference → targets, the front. Pure numpy."""

from ric_diffusion.rewards.calibration import Curve
from ric_diffusion.rewards.centring import Centring, PromptGroups
from ric_diffusion.rewards.fitness import alike, constant, exclusive, narrow, outliers
from ric_diffusion.rewards.front import (
    directions,
    fit_corners,
    fit_front,
    hypervolume,
    nondominated,
)
from ric_diffusion.rewards.mappings import MAPPINGS, opposite, to_targets
from ric_diffusion.rewards.prompt_effect import PromptEffect, fit_effect
from ric_diffusion.rewards.space import Reward, RewardSpace

__all__ = [
    "MAPPINGS",
    "Centring",
    "Curve",
    "PromptEffect",
    "PromptGroups",
    "Reward",
    "RewardSpace",
    "alike",
    "constant",
    "directions",
    "exclusive",
    "fit_corners",
    "fit_effect",
    "fit_front",
    "hypervolume",
    "narrow",
    "nondominated",
    "opposite",
    "outliers",
    "to_targets",
]
