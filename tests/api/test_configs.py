"""The configs that come along are what the dataclasses and the families of their models take."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from ric_diffusion.api.runs import OnlineRun, TrainConfig
from ric_diffusion.io.config import load_yaml
from ric_diffusion.models.family import family_named

CONFIGS = Path(__file__).parents[2] / "scripts" / "configs"
FAMILIES = {
    "emoji-64": "stable-diffusion",
    "smollm2": "causal-lm",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "stable-diffusion",
    "stabilityai/stable-diffusion-xl-base-1.0": "stable-diffusion-xl",
    "stabilityai/stable-diffusion-3.5-medium": "stable-diffusion-3",
    "black-forest-labs/FLUX.1-dev": "flux",
}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_is_read_and_suits_its_model(path):
    kind = OnlineRun if "online" in yaml.safe_load(path.read_text()) else TrainConfig
    config = load_yaml(path, kind)
    family = family_named(FAMILIES[config.model])
    family.check_settings(getattr(config, family.section))


@pytest.mark.parametrize("name", ["sdxl", "sd35", "flux"])
def test_recipes_of_large_models_are_for_one_card(name):
    config = load_yaml(CONFIGS / f"{name}.yaml", TrainConfig)
    settings, loop = config.diffusion, config.loop
    assert settings.base_precision in ("bf16", "nf4") and settings.gradient_checkpointing
    assert (loop.batch_size, loop.accumulate, loop.precision) == (1, 4, "bf16")
    assert settings.lora.rank == 16 and settings.min_snr_gamma == {"sdxl": 5.0}.get(name)


@pytest.mark.parametrize("path", sorted((CONFIGS / "accelerate").glob("*.yaml")), ids=str)
def test_accelerate_reads_its_configs(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == 2 and config.mixed_precision == "no"
