"""Several adapters in one pipeline: asked together, scaled at run time, taken out bit for bit."""

import json
import logging

import numpy as np
import pytest
import torch

from ric_diffusion import RiCStableDiffusionImg2ImgPipeline, RiCStableDiffusionPipeline, api
from ric_diffusion.app.choice import ModelChoice
from ric_diffusion.app.engine import Engine
from ric_diffusion.app.jobs import Job
from ric_diffusion.conditioning.grammar import Grammar
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.backend import DiffusionConfig, LoraConfig
from ric_diffusion.models.diffusion.families.sd import FAMILY
from ric_diffusion.rewards import RewardSpace, to_targets

ASKED = {"targets": {"colorfulness": 1.5, "redness": -1.0, "luminance": 1.0}}
LAYERS = {"light": ("attention", "convolution"), "words": ("attention", "feed_forward")}


@pytest.fixture(scope="module")
def folders(adapters, model, stir, tmp_path_factory):
    """``style`` has colorfulness and compressibility; ``light``, of another mapping and sampling,
    has redness and warmth; ``words`` has luminance, in text mode."""
    root, rng = tmp_path_factory.mktemp("several"), np.random.default_rng(1)
    made = {"style": adapters["embedding"]}
    for seed, (name, mode, rewards) in enumerate(
        [("light", "embedding", ("redness", "warmth")), ("words", "text", ("luminance",))], 1
    ):
        space = RewardSpace.fit(
            {reward: rng.normal(size=100) for reward in rewards},
            scorers={reward: {"name": "colorfulness", "options": {}} for reward in rewards},
        )
        config = DiffusionConfig(
            mode=mode,
            lora=LoraConfig(rank=2, alpha=4, targets=LAYERS[name]),
            mapping="linf",
            sampling={"guidance_scale": 5.0, "num_inference_steps": 3, "contrast": 0.5},
        )
        backend = stir(FAMILY.create_backend(str(model), space, config, seed=seed), seed)
        backend.save(root / name)
        made[name] = root / name
    return made


@pytest.fixture
def together(pipe, folders):
    """A pipeline with all three."""
    for name, folder in folders.items():
        pipe.load_adapter(folder, name=name)
    return pipe


def loaded(model, *given):
    pipe = RiCStableDiffusionPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    for name, folder in given:
        pipe.load_adapter(folder, name=name)
    return pipe


def test_the_rewards_of_all_are_asked_for(together, folders):
    adapter = together.adapter
    names = ("colorfulness", "compressibility", "redness", "warmth", "luminance")
    assert together.reward_space.names == adapter.conditioner.names == names
    assert adapter.conditioner.mode == "embedding + text"
    out = together("red apple", output_type="latent", **ASKED)
    assert out.targets == [ASKED["targets"]]
    with pytest.raises(InputError, match="unknown reward 'rednes'; did you mean 'redness'"):
        together("red apple", targets={"rednes": 1.0})


def test_each_reward_moves_the_picture(together, draw):
    first = draw(together, **ASKED)
    for name in ASKED["targets"]:
        other = {**ASKED["targets"], name: 0.3}
        assert not torch.allclose(draw(together, targets=other), first, atol=1e-3), name


def test_the_context_is_words_in_the_text_and_tokens_in_load_order(together, folders, model):
    states = together.encode_context(["red apple"], [ASKED["targets"]]).states
    parts = together.adapter.parts
    alone = loaded(model, ("words", folders["words"]))
    text = alone.encode_context(["red apple"], [{"luminance": 1.0}]).states
    style = parts["style"].conditioner.context(text, [{"colorfulness": 1.5}])
    both = parts["light"].conditioner.context(style, [{"redness": -1.0}])
    assert states.shape == (1, 32 + 2 + 2, 32)
    assert torch.allclose(states, both, atol=1e-5)


def test_weights_are_the_originals_plus_every_delta(model, together, folders):
    plain = RiCStableDiffusionPipeline.from_pretrained(model).unet
    for name in ("mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "conv_in"):
        wanted = plain.get_submodule(name).weight
        for folder in folders.values():
            _, lora = FAMILY.read_adapter(folder)
            if name in lora.modules:
                wanted = wanted + lora.delta(name)
        assert torch.allclose(together.unet.get_submodule(name).weight, wanted, atol=1e-6)


def test_the_shift_is_the_sum_of_what_each_says(together):
    """Each reads the tokens that are its own."""
    context = together.encode_context(["red apple"] * 2, [ASKED["targets"], {"warmth": 2.0}]).states
    style, light = (together.adapter.parts[name].encoder for name in ("style", "light"))
    for encoder in (style, light):
        torch.nn.init.normal_(encoder.to_time.weight, std=0.1)
    together.set_adapter_scale("light", 0.5)
    seen = []
    layer = together.unet.time_embedding
    hook = layer.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad(), together.with_adapter():
        together.unet(torch.zeros(2, 4, 8, 8), 500, context)
        together.adapter = None
        together.unet(torch.zeros(2, 4, 8, 8), 500, context)
    hook.remove()
    tokens = context[:, -4:]
    wanted = style.time_shift(tokens[:, :2]) + 0.5 * light.time_shift(tokens[:, 2:])
    assert torch.allclose(seen[0] - seen[1], wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["style", "light", "words"])
def test_one_is_unloaded_as_if_it_had_never_been_there(together, folders, model, name, watch, draw):
    rest = [(other, folder) for other, folder in folders.items() if other != name]
    fresh = loaded(model, *rest)
    together.unload_adapter(name)
    now, then = together.unet.state_dict(), fresh.unet.state_dict()
    assert all(torch.equal(now[key], then[key]) for key in then)
    wanted = {r: z for r, z in ASKED["targets"].items() if r in fresh.reward_space.names}
    assert torch.equal(draw(together, targets=wanted), draw(fresh, targets=wanted))


def test_unloading_all_of_them_leaves_no_trace(pipe, folders, stock, draw, watch):
    unchanged = watch(pipe.unet)
    for name, folder in folders.items():
        pipe.load_adapter(folder, name=name)
    pipe.set_adapter_scale("light", 0.3)
    pipe.unload_adapter("style")
    pipe.unload_adapter()
    assert pipe.adapter is None and unchanged() and torch.equal(draw(pipe), draw(stock))
    assert not pipe.unet._forward_pre_hooks and not pipe.unet.time_embedding._forward_hooks


def test_scaled_to_nothing_it_is_the_stock_pipeline(together, stock, draw, watch):
    same = {**together.adapter.sampling, "num_inference_steps": 2}
    same.pop("contrast")
    for name in ("style", "light", "words"):
        together.set_adapter_scale(name, 0)
    assert torch.allclose(draw(together, **ASKED), draw(stock, **same), atol=1e-5)
    assert together.encode_context(["red"], [{}]).states.shape[1] == 32
    assert draw(stock, **same).abs().max() > 0.1


def test_scaled_to_nothing_one_is_neither_read_nor_told_of(together, folders, model, draw, caplog):
    others = loaded(model, ("style", folders["style"]), ("words", folders["words"]))
    together.set_adapter_scale("light", 0.0)
    asked = {r: z for r, z in ASKED["targets"].items() if r != "redness"}
    wanted = draw(others, targets=asked, contrast=0.5)
    assert torch.equal(draw(together, contrast=0.5, **ASKED), wanted)
    assert "redness: not asked for, its adapter 'light' is scaled to 0" in caplog.text
    out = together("red apple", output_type="latent", **ASKED)
    assert out.targets == [asked] and "redness" in together.reward_space.names


def test_a_scale_is_of_delta_and_shift_and_can_be_taken_back(together, draw, model):
    plain = RiCStableDiffusionPipeline.from_pretrained(model).unet
    first = draw(together, **ASKED)
    together.unload_adapter("style")
    weight = together.unet.mid_block.resnets[0].conv1.weight
    full = weight - plain.mid_block.resnets[0].conv1.weight
    together.set_adapter_scale("light", 0.7)
    part = weight - plain.mid_block.resnets[0].conv1.weight
    assert torch.allclose(part, 0.7 * full, atol=1e-6) and full.abs().max() > 0.01
    assert together.unet.time_embedding._forward_hooks
    together.set_adapter_scale("light", 1)
    assert torch.equal(weight - plain.mid_block.resnets[0].conv1.weight, full)
    assert not torch.allclose(first, draw(together, targets={"redness": -1.0}), atol=1e-3)


def test_a_single_adapter_is_scaled_too(pipe, folders, draw, stock):
    pipe.load_adapter(folders["style"])
    first = draw(pipe, targets={"colorfulness": 1.5})
    pipe.set_adapter_scale("default", 0.5)
    half = draw(pipe, targets={"colorfulness": 1.5})
    pipe.set_adapter_scale("default", 0)
    nothing = draw(pipe, targets={"colorfulness": 1.5})
    assert torch.allclose(nothing, draw(stock, guidance_scale=3.0), atol=1e-5)
    assert not torch.allclose(half, first, atol=1e-3)
    assert not torch.allclose(half, nothing, atol=1e-3)
    pipe.set_adapter_scale("default", 1)
    assert torch.equal(draw(pipe, targets={"colorfulness": 1.5}), first)


def test_a_name_stands_for_the_last_adapter_loaded_under_it(pipe, folders, model, draw):
    pipe.load_adapter(folders["style"], name="one")
    pipe.load_adapter(folders["words"])
    pipe.load_adapter(folders["light"], name="one")
    assert list(pipe.adapter.parts) == ["one", "default"]
    assert pipe.reward_space.names == ("redness", "warmth", "luminance")
    pipe.load_adapter(folders["style"])  # in place of the one without a name
    assert pipe.reward_space.names == ("redness", "warmth", "colorfulness", "compressibility")
    fresh = loaded(model, ("one", folders["light"]), ("two", folders["style"]))
    asked = {"targets": {"redness": 1.0, "colorfulness": 1.0}}
    assert torch.equal(draw(pipe, **asked), draw(fresh, **asked))


def test_what_cannot_be_told_apart_is_refused_by_name(pipe, folders, watch, tmp_path):
    pipe.load_adapter(folders["style"], name="style")
    pipe.load_adapter(folders["light"], name="light")
    adapter, unchanged = pipe.adapter, watch(pipe.unet)
    about = json.loads((folders["words"] / "ric_adapter.json").read_text())
    assert about["conditioning"]["grammar"]["labels"] == ["luminance"]
    for act, message in (
        (lambda: pipe.load_adapter(folders["style"], name="other"),
         "adapters 'style' and 'other' both have the reward colorfulness"),
        (lambda: pipe.load_adapter(folders["style"], name=""), "name '': give"),
        (lambda: pipe.load_adapter(folders["style"], name=7), "name 7: give"),
        (lambda: pipe.unload_adapter("styl"), "'styl': not loaded; did you mean 'style'?"),
        (lambda: pipe.set_adapter_scale("styl", 1), "'styl': not loaded; did you mean 'style'?"),
        (lambda: pipe.set_adapter_scale("style", -0.1), "scale -0.1: give a number from 0 up"),
        (lambda: pipe.set_adapter_scale("style", float("nan")), "scale nan: give a number"),
        (lambda: pipe.set_adapter_scale("style", float("inf")), "scale inf: give a number"),
        (lambda: pipe.set_adapter_scale("style", "much"), "scale 'much': give a number"),
        (lambda: pipe.set_adapter_scale("style", True), "scale True: give a number"),
        (lambda: pipe.save_adapter(tmp_path / "x"), "style, light are loaded, and a folder holds"),
        (lambda: pipe.save_adapter(tmp_path / "x", "lite"), "'lite': not loaded; did you mean"),
        (lambda: pipe.save_pretrained(tmp_path / "x"), "style, light are loaded, and a folder"),
        (lambda: setattr(pipe, "adapter", adapter.parts["style"]), "one adapter cannot replace"),
    ):  # fmt: skip
        with pytest.raises(InputError) as error:
            act()
        assert message in str(error.value) and "\n" not in str(error.value)
        assert pipe.adapter is adapter and unchanged() and not (tmp_path / "x").exists()
    pipe.unload_adapter()
    with pytest.raises(InputError, match="adapter 'style': none is loaded"):
        pipe.set_adapter_scale("style", 1)


def test_reward_words_of_two_adapters_must_differ(pipe, folders, model, stir, tmp_path):
    """The authors' grammar calls the rewards of every adapter rm1, rm2, …"""
    rng = np.random.default_rng(2)
    for reward in ("redness", "luminance"):
        space = RewardSpace.fit({reward: rng.normal(size=100)})
        config = DiffusionConfig(mode="text", grammar="upstream")
        FAMILY.create_backend(str(model), space, config).save(tmp_path / reward)
    pipe.load_adapter(tmp_path / "redness", name="a")
    with pytest.raises(InputError, match="'a' and 'b' both have the reward word <rm1>"):
        pipe.load_adapter(tmp_path / "luminance", name="b")


def test_a_preference_is_mapped_by_each_adapter_for_its_own_part(together):
    style, light = (together.adapter.parts[name] for name in ("style", "light"))
    assert (style.mapping, light.mapping) == ("front", "linf")
    weights = {"colorfulness": 0.2, "compressibility": 0.3, "redness": 0.5}
    out = together("red apple", preference=weights, output_type="latent")
    wanted = to_targets({"colorfulness": 0.2, "compressibility": 0.3}, style.space, "front")
    wanted |= to_targets({"redness": 0.5}, light.space, "linf")
    assert out.targets == [wanted]  # nothing is preferred about luminance: it is on auto
    given = together.targets_for(1, preference=weights, mapping="linear")
    wanted = to_targets({"colorfulness": 0.2, "compressibility": 0.3}, style.space, "linear")
    assert given == [wanted | to_targets({"redness": 0.5}, light.space, "linear")]
    with pytest.raises(InputError, match="every weight is 0"):
        together("red apple", preference={"redness": 0.0})


def test_of_sampling_the_first_adapter_says_it_and_later_ones_what_is_missing(together):
    wanted = {"guidance_scale": 3.0, "num_inference_steps": 2, "contrast": 0.5}
    assert together.adapter.sampling == wanted


def test_words_share_the_room_of_the_text(together, folders):
    [(text,)] = together.texts(["red <luminance> 9.9 " + "apple " * 40], [{"luminance": 1.26}])
    assert text.endswith("apple <luminance> 1.3") and "<_luminance> 9.9" in text
    assert len(together.tokenizer(text).input_ids) <= 32
    two = Grammar.words(("warmth",)).reward_words({"warmth": 1.0})
    assert two not in text


def test_the_verbs_and_the_app_take_the_pipeline_as_it_is(together, folders, monkeypatch):
    sample, other = api.generate(together, "red apple", seed=3, count=2, **ASKED)
    assert sample.targets == ASKED["targets"] and sample.scores.keys() == sample.obtained.keys()
    assert tuple(sample.scores) == together.reward_space.names
    assert np.abs(np.asarray(sample.sample, int) - np.asarray(other.sample, int)).max() > 0
    drawn = api.sweep(together, "red apple", points=5)
    assert [len(point.targets) for point in drawn.points] == [2, 2, 2, 2, 1]
    assert len(api.sweep(together, "red apple", points=2, along="redness").points) == 2
    engine = Engine(together, ModelChoice.of("three"))
    request = engine.request("red apple", 3, targets=ASKED["targets"])
    assert np.array_equal(engine.draw(request, Job()).sample, sample.sample)
    chosen = engine.request("red apple", 3, preference={"redness": 1.0, "warmth": 1.0})
    assert set(chosen.targets) == {"redness", "warmth"}


def test_one_of_several_is_saved_by_its_name(together, folders, tmp_path, caplog):
    together.set_adapter_scale("light", 0.5)
    together.save_adapter(tmp_path / "copy", "light")
    assert "adapter light is written as it was trained, not at scale 0.5" in caplog.text
    wanted = json.loads((folders["light"] / "ric_adapter.json").read_text())
    assert json.loads((tmp_path / "copy" / "ric_adapter.json").read_text()) == wanted
    (_, ours), (_, theirs) = (FAMILY.read_adapter(f) for f in (tmp_path / "copy", folders["light"]))
    assert all(torch.equal(ours.tensors[key], theirs.tensors[key]) for key in theirs.tensors)


def test_without_them_it_is_the_base_and_afterwards_the_same(together, stock, draw, watch):
    together.set_adapter_scale("words", 0.5)
    first, unchanged, adapter = draw(together, **ASKED), watch(together.unet), together.adapter
    with together.without_adapter():
        assert together.adapter is None and torch.equal(draw(together), draw(stock))
    assert together.adapter is adapter and unchanged()
    assert torch.equal(draw(together, **ASKED), first)


def test_pipelines_that_share_a_denoiser_share_them(together, draw):
    other = RiCStableDiffusionImg2ImgPipeline.from_pipe(together)
    assert other.adapter is together.adapter
    other.unload_adapter("words")
    assert together.reward_space.names == other.reward_space.names
    together.adapter, kept = None, together.adapter
    together.adapter = kept
    assert other.adapter is kept


def test_prompt_embeds_go_with_tokens_and_not_with_words(together, draw):
    embeds = torch.zeros(1, 32, 32)
    given = {"prompt_embeds": embeds, "negative_prompt_embeds": embeds}
    asked = {r: z for r, z in ASKED["targets"].items() if r != "luminance"}
    pictures = [draw(together, None, targets=t, contrast=0, **given) for t in ({}, asked)]
    assert not torch.allclose(*pictures, atol=1e-3)
    with pytest.raises(InputError, match="prompt_embeds: this adapter reads rewards from"):
        draw(together, None, contrast=0, **given, **ASKED)


def test_an_adapter_of_the_model_itself_is_the_one_without_a_name(pipe, folders, tmp_path):
    pipe.load_adapter(folders["style"], name="style")
    pipe.save_pretrained(tmp_path)
    again = RiCStableDiffusionPipeline.from_pretrained(tmp_path)
    again.load_adapter(folders["light"], name="light")
    assert list(again.adapter.parts) == ["default", "light"]
    again.load_adapter(folders["words"])
    assert again.reward_space.names == ("luminance", "redness", "warmth")


def test_no_warning_is_logged_where_nothing_is_amiss(together, draw, caplog):
    with caplog.at_level(logging.WARNING):
        together.set_adapter_scale("light", 0.5)
        draw(together, **ASKED)
        together.unload_adapter("style")
        together.unload_adapter()
    assert not [record for record in caplog.records if record.name.startswith("ric_diffusion")]
