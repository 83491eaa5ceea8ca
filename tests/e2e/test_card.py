"""The model card: its metadata is the hub's, and its examples do what they say."""

import re
import shlex
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.card import HERE, card
from ric_diffusion.models.family import family_named
from support.numbered import sample_file


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture(params=["embedding", "text"])
def adapter(request, root):
    return root / request.param / "adapter"


def test_metadata(adapter):
    data = ModelCard.load(adapter / "README.md").data
    assert data.library_name == "diffusers" and data.pipeline_tag == "text-to-image"
    assert "lora" in data.tags
    assert data.base_model is None  # a folder: the hub takes none


@pytest.mark.parametrize(
    "base, told",
    [("some-one/sd.15", "some-one/sd.15"), ("emoji-64", None), ("/a/b", None), ("a/b/c", None),
     ("./b", None)],
)  # fmt: skip
def test_the_base_model_is_named_where_the_hub_has_it(root, base, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = Adapter.load(root / "text" / "adapter")
    adapter = replace(loaded, base_model=base)
    for name, library in (("stable-diffusion", "diffusers"), ("causal-lm", "peft")):
        use = family_named(name).use
        data = yaml.safe_load(card(adapter, use).split("---")[1])
        assert data.get("base_model") == told and data["library_name"] == library
        assert data.get("base_model_relation") == ("adapter" if told else None)
    if told:  # a folder of that name is no hub id
        (tmp_path / told).mkdir(parents=True)
        assert "base_model" not in yaml.safe_load(card(adapter, use).split("---")[1])


def test_the_examples_work(adapter, ric, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (adapter / "README.md").read_text().replace(HERE, str(adapter))
    [python], [shell] = blocks(text, "python"), blocks(text, "bash")
    exec(python, {})
    assert (tmp_path / "picture.png").exists()
    done = ric(*shlex.split(shell)[1:])
    assert done.code == 0, done.err
    assert sample_file(tmp_path / "out").exists()


def test_ranges_are_told_in_z_and_in_the_unit(adapter):
    space = Adapter.load(adapter).space
    text = (adapter / "README.md").read_text()
    for reward in space.rewards:
        low, high = space.range(reward.name)
        unit = " … ".join(f"{end:.2f}" for end in (reward.quantiles[1], reward.quantiles[99]))
        row = f"| {reward.name} | {reward.unit} | {low:+.2f} … {high:+.2f} | {unit} |"
        assert row in text
        assert f"`{reward.fingerprint}`" in text
    assert "Trained on 14 records, 6 steps." in text


def test_only_words_are_told_of_where_there_are_words(adapter):
    text = (adapter / "README.md").read_text()
    assert ("ric prompt" in text) == (adapter.parent.name == "text")
