"""What an exported file says of itself."""

from dataclasses import replace

import numpy as np
import pytest

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.modelspec import ModelSpec, base_name, metadata, plain
from ric_diffusion.conditioning.conditioner import EmbeddingConditioner, TextConditioner
from ric_diffusion.conditioning.encoder import RewardEncoder
from ric_diffusion.conditioning.grammar import Grammar
from ric_diffusion.rewards import Curve, RewardSpace

NAMES = ("aesthetic", "compressibility")


@pytest.fixture(scope="module")
def space():
    """z of -2 to 2, in units of 10 and half of one."""
    scores = np.linspace(-2, 2, 201) * 3**0.5 / 2
    return RewardSpace.fit(
        {"aesthetic": 5 + 0.5 * scores, "compressibility": -100 + 10 * scores},
        units={"compressibility": "-kB <b>"},
    )


@pytest.fixture(scope="module")
def words(space):
    return Adapter(
        family="stable-diffusion",
        base_model="user/base",
        space=space,
        conditioner=TextConditioner(Grammar.words(NAMES)),
        mapping="linear",
        modelspec=ModelSpec(
            architecture="stable-diffusion-v2-768-v", resolution=768, prediction_type="v"
        ),
    )


def test_words_are_those_that_the_model_reads(words):
    found = metadata(words, "mine", "diffusers")
    low, high = words.space.range("aesthetic")
    assert found["modelspec.usage_hint"] == (
        f"Type at the end of the prompt, in this order: aesthetic from <aesthetic> {low:.1f} (low) "
        f"to <aesthetic> {high:.1f} (high); compressibility from <compressibility> {low:.1f} (low) "
        f"to <compressibility> {high:.1f} (high). What is left out is auto. LoRA weight 1. "
        f"Example: a prompt {found['modelspec.trigger_phrase']}"
    )
    prompt = "a prompt " + found["modelspec.trigger_phrase"]
    assert words.conditioner.grammar.parse(prompt)[1].keys() == set(NAMES)


def test_calibrated_sliders_are_told_as_they_were_measured(words):
    curve = Curve(requested=(-3.0, 4.0), obtained=(-0.5, 0.8))
    found = metadata(replace(words, calibration={"aesthetic": curve}), "mine", "diffusers")
    hint = found["modelspec.usage_hint"]
    assert "aesthetic from <aesthetic> -3.0 (low) to <aesthetic> 4.0 (high)" in hint
    mean, std = words.space.means[0], words.space.stds[0]
    said = f"aesthetic: {mean - 0.5 * std:.2f} to {mean + 0.8 * std:.2f} (calibrated)"
    assert said in found["modelspec.description"]
    assert "(in the training data)" in found["modelspec.description"]


def test_the_authors_words_stand_as_they_wrote_them(words):
    upstream = replace(words, conditioner=TextConditioner(Grammar.upstream(NAMES)))
    found = metadata(upstream, "mine", "diffusers")
    assert "compressibility from <rm2> -" in found["modelspec.usage_hint"]
    assert "Example: a prompt<rm1> " in found["modelspec.usage_hint"]


def test_learned_tokens_are_not_in_the_file_and_it_says_so(words):
    encoder = EmbeddingConditioner(RewardEncoder(NAMES, 8))
    found = metadata(replace(words, conditioner=encoder), "mine", "diffusers")
    low, high = words.space.range("aesthetic")
    assert found["modelspec.usage_hint"].startswith("This file alone has no sliders")
    assert f"aesthetic {low:.1f} to {high:.1f} z" in found["modelspec.usage_hint"]
    assert "modelspec.trigger_phrase" not in found


def test_the_keys_are_the_standards(words):
    found = metadata(words, "mine <i>", "diffusers")
    assert {key.removeprefix("modelspec.") for key in found} == {
        "sai_model_spec", "architecture", "implementation", "title", "resolution", "description",
        "usage_hint", "tags", "trigger_phrase", "prediction_type",
    }  # fmt: skip
    assert found["modelspec.sai_model_spec"] == "1.0.1"
    assert found["modelspec.architecture"] == "stable-diffusion-v2-768-v/lora"
    assert found["modelspec.resolution"] == "768x768"
    assert found["modelspec.prediction_type"] == "v"
    assert found["modelspec.title"] == "mine i: sliders for aesthetic, compressibility"
    assert "user/base" in found["modelspec.description"]
    assert "-kB b (in" in found["modelspec.description"]  # nothing that a page would read as markup


def test_what_is_not_known_is_left_out(words):
    found = metadata(replace(words, modelspec=None), "mine", "diffusers")
    assert found.keys().isdisjoint(
        f"modelspec.{key}" for key in ("architecture", "resolution", "prediction_type")
    )


def test_texts_are_plain_and_folders_stay_private(words):
    assert plain(" a\n<b>&`c` [d](e)\x00 ") == "a bc d(e)"
    assert base_name(replace(words, base_model="/home/me/models/mine")) == "mine"
    assert base_name(words) == "user/base"
