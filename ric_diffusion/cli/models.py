"""``ric models``: what there is to draw with, and what can get sliders."""

from __future__ import annotations

import argparse

from ric_diffusion import api


def run(options: argparse.Namespace) -> None:
    print("Bundled, by name:")
    for model in api.bundled_models():
        about = f"sliders for {', '.join(model.rewards)}" if model.rewards else "without sliders"
        missing = f"; not installed: {model.install}" if model.install else ""
        print(f"  {model.name:21}{about}{missing}")
    print("\nFamilies, whose models are named by hub id, folder or .safetensors file:")
    for family in api.listed_families():
        print(f"  {family.name:21}{family.title}")
    print(f"\n`ric init CONFIG` prints a training config: {', '.join(api.RECIPES)}.")
