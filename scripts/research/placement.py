"""Numbers that mean something before any reward is taught: pictures made smaller or larger, moved
and turned, whose captions say by how much in the grammar of reward words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from ric_diffusion.conditioning.grammar import Grammar, rounded

GRAMMAR = Grammar.words(("size", "right", "up", "turn"))
SIZE, SIZE_STEP = 0.75, 1.15  # at 0, and the factor of one unit
SHIFT = 1 / 16  # of the side, for one unit
TURN = 15.0  # degrees, counterclockwise, for one unit
MOST = 3  # numbers in one caption
LIMIT = 3.0  # units; as far as reward words reach


def draw_placement(generator: torch.Generator) -> dict[str, float]:
    """Values of one to three of the four, uniform within the limits, as text carries them."""
    count = int(torch.randint(1, MOST + 1, (), generator=generator))
    chosen = torch.randperm(len(GRAMMAR.names), generator=generator)[:count].tolist()
    values = (torch.rand(count, generator=generator) * 2 - 1) * LIMIT
    drawn = sorted(zip(chosen, values.tolist(), strict=True))
    return rounded({GRAMMAR.names[i]: value for i, value in drawn})


def placed(images: torch.Tensor, placements: Sequence[Mapping[str, float]]) -> torch.Tensor:
    """Pictures (N, 3, H, W) uint8 on white, each under its placement: the same shape.

    What is not said stays as it is drawn: whole, centred, upright.
    """
    inverse = torch.stack([_inverse(placement) for placement in placements])
    # Grid sampling fills with 0, which is white here.
    ink = 255.0 - images.float()
    grid = F.affine_grid(inverse.to(images.device), list(images.shape), align_corners=False)
    moved = F.grid_sample(ink, grid, mode="bilinear", align_corners=False)
    return (255.0 - moved).round().clamp(0, 255).to(torch.uint8)


def _inverse(placement: Mapping[str, float]) -> torch.Tensor:
    """(2, 3): from a place on the new picture to one on the old, both from -1 to 1, y downwards."""
    scale = SIZE * SIZE_STEP ** placement["size"] if "size" in placement else 1.0
    angle = math.radians(TURN * placement.get("turn", 0.0))
    x, y = 2 * SHIFT * placement.get("right", 0.0), -2 * SHIFT * placement.get("up", 0.0)
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    return torch.tensor([[cos, -sin, sin * y - cos * x], [sin, cos, -sin * x - cos * y]])
