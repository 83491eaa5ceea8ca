"""Training configs that come along, to begin with one's own."""

from __future__ import annotations

from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.models.known import ASSETS

FOLDER = ASSETS / "configs"
# Files of that folder, and what each is for.
RECIPES = {
    "sd15": "Stable Diffusion 1.5, one GPU",
    "sdxl": "Stable Diffusion XL, one GPU of 12 GB",
    "sd35": "Stable Diffusion 3.5 medium, one GPU of 24 GB",
    "flux": "FLUX.1 dev in 4 bits, one GPU of 24 GB",
    "emoji-64": "the bundled model of 64x64 emoji, on a CPU",
    "smollm2": "a small language model, on a CPU",
}


def recipe(name: str) -> str:
    """The YAML of a training config, with comments that say what to run before and after it.
    InputError for a name that is none of RECIPES."""
    if name not in RECIPES:
        raise InputError(f"recipe {name!r}: unknown{suggest(name, RECIPES)}")
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
