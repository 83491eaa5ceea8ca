"""The configs that come along are what the dataclasses and the families of their models take."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from ric_diffusion.api.recipes import FOLDER, RECIPES, recipe
from ric_diffusion.api.runs import OnlineRun, TrainConfig
from ric_diffusion.io.config import load_yaml
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.family import family_named

CONFIGS = Path(__file__).parents[2] / "scripts" / "configs"
FAMILIES = {
    "emoji-64": "stable-diffusion",
    "emoji-128": "stable-diffusion",
    "smollm2": "causal-lm",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "stable-diffusion",
    "stabilityai/stable-diffusion-xl-base-1.0": "stable-diffusion-xl",
    "stabilityai/stable-diffusion-3.5-medium": "stable-diffusion-3",
    "black-forest-labs/FLUX.1-dev": "flux",
}


@pytest.mark.parametrize(
    "path",
    [*sorted(CONFIGS.glob("*.yaml")), *sorted(FOLDER.glob("*.yaml"))],
    ids=lambda path: path.stem,
)
def test_a_config_is_read_and_suits_its_model(path):
    kind = OnlineRun if "online" in yaml.safe_load(path.read_text()) else TrainConfig
    config = load_yaml(path, kind)
    family = family_named(FAMILIES[config.model])
    family.check_settings(getattr(config, family.section))


def test_recipes_are_the_files_that_there_are():
    assert {path.stem for path in FOLDER.iterdir()} == set(RECIPES)
    with pytest.raises(InputError, match="recipe 'sd16': unknown; did you mean 'sd15'"):
        recipe("sd16")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_to_run(name):
    assert f"#   ric init {name} > my.yaml\n#   ric train my.yaml\n" in recipe(name)
    assert "--out labelled/" in recipe(name)
    assert yaml.safe_load(recipe(name))["data"] == "labelled"


@pytest.mark.parametrize(
    ("name", "ours"), [("emoji-64", "emoji-embedding"), ("smollm2", "smollm2-embedding")]
)
def test_recipes_of_the_small_models_are_what_is_measured(name, ours):
    """But for the folders, they are the configs of the reports in docs/evidence.md."""
    theirs, measured = (
        load_yaml(path, TrainConfig) for path in (FOLDER / f"{name}.yaml", CONFIGS / f"{ours}.yaml")
    )
    assert replace(theirs, data=measured.data, out=measured.out) == measured


@pytest.mark.parametrize("name", ["sdxl", "sd35", "flux"])
def test_recipes_of_large_models_are_for_one_card(name):
    config = load_yaml(FOLDER / f"{name}.yaml", TrainConfig)
    settings, loop = config.diffusion, config.loop
    assert settings.base_precision in ("bf16", "nf4") and settings.gradient_checkpointing
    assert (loop.batch_size, loop.accumulate, loop.precision) == (1, 4, "bf16")
    assert settings.lora.rank == 16 and settings.min_snr_gamma == {"sdxl": 5.0}.get(name)


@pytest.mark.parametrize("path", sorted((CONFIGS / "accelerate").glob("*.yaml")), ids=str)
def test_accelerate_reads_its_configs(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == 2 and config.mixed_precision == "no"
