"""The nodes, driven the way ComfyUI drives them, against what our pipeline feeds its U-Net."""

import copy
import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

import ric_diffusion.comfyui
from ric_diffusion import api
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.conditioning.conditioner import EmbeddingConditioner
from ric_diffusion.conditioning.encoder import RewardEncoder
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.backend import DiffusionConfig, LoraConfig
from ric_diffusion.models.family import family_of
from ric_diffusion.rewards import Curve
from support import sdxl

NODES = ric_diffusion.comfyui.NODE_CLASS_MAPPINGS
POSITIVE, NEGATIVE = {"colorfulness": 1.5}, {"compressibility": -1.0}


def call(name, **inputs):
    """A node's function with its inputs by name, checked against what it declares."""
    node = NODES[name]
    declared = node.INPUT_TYPES()["required"]
    assert inputs.keys() == declared.keys()
    for key, value in inputs.items():
        kind = declared[key][0]
        assert value in kind if isinstance(kind, list) else kind.isupper()
    found = getattr(node(), node.FUNCTION)(**inputs)
    assert isinstance(found, tuple) and len(found) == len(node.RETURN_TYPES)
    return found


class Executor:
    """Calls a model through its wrappers; a wrapper's executor is the rest of the chain."""

    def __init__(self, function, wrappers):
        self.function, self.wrappers = function, wrappers

    def __call__(self, *args, **kwargs):
        if not self.wrappers:
            return self.function(*args, **kwargs)
        return self.wrappers[0](Executor(self.function, self.wrappers[1:]), *args, **kwargs)


class ModelPatcher:
    """ComfyUI's, as far as the nodes see it, around a U-Net of diffusers."""

    def __init__(self, unet):
        self.unet, self.wrappers = unet, {}
        self.model_options = {"transformer_options": {}}

    def clone(self):
        found = ModelPatcher(self.unet)
        found.wrappers = {k: {key: w[:] for key, w in v.items()} for k, v in self.wrappers.items()}
        found.model_options = copy.deepcopy(self.model_options)
        return found

    def add_wrapper_with_key(self, wrapper_type, key, wrapper):
        self.wrappers.setdefault(wrapper_type, {}).setdefault(key, []).append(wrapper)

    def set_model_emb_patch(self, patch):
        patches = self.model_options["transformer_options"].setdefault("patches", {})
        patches.setdefault("emb_patch", []).append(patch)

    def apply_model(self, x, timesteps, context, y=None):
        """What its sampler does at one step; ``y``: what SDXL is told beside the context."""
        wrappers = [w for each in self.wrappers.get("diffusion_model", {}).values() for w in each]
        options = {**self.model_options["transformer_options"], "cond_or_uncond": [0]}
        return Executor(self._forward, wrappers)(x, timesteps, context, y, None, options)

    def _forward(self, x, timesteps, context, y, control, transformer_options):
        def patched(_layer, _inputs, embedding):
            for patch in transformer_options.get("patches", {}).get("emb_patch", []):
                embedding = patch(embedding, 320, transformer_options)
            return embedding

        hook = self.unet.time_embedding.register_forward_hook(patched)
        try:
            return self.unet(x, timesteps, context, added_cond_kwargs=y).sample
        finally:
            hook.remove()


@pytest.fixture
def loras(monkeypatch):
    """ComfyUI's comfy.sd; the LoRA it was asked to load."""
    asked = []

    def load_lora_for_models(model, clip, lora, strength_model, strength_clip):
        asked.append((clip, lora, strength_model))
        return model.clone(), clip

    module = ModuleType("comfy.sd")
    module.load_lora_for_models = load_lora_for_models
    monkeypatch.setitem(sys.modules, "comfy", ModuleType("comfy"))
    monkeypatch.setitem(sys.modules, "comfy.sd", module)
    return asked


@pytest.fixture(
    scope="module",
    params=[("sd", True), ("sd", False), ("xl", True)],
    ids=["modulation", "tokens alone", "xl"],
)
def made(request, root, tmp_path_factory):
    """A model's folder, and that of an adapter of embedding mode for it, its weights as if they had
    been trained."""
    family, modulation = request.param
    space = Adapter.load(root / "embedding" / "adapter").space
    config = DiffusionConfig(
        mode="embedding", modulation=modulation, lora=LoraConfig(rank=4, alpha=8)
    )
    place = tmp_path_factory.mktemp("comfyui")
    model = root / "model" if family == "sd" else sdxl.write(place / "model")
    backend = family_of(model).create_backend(str(model), space, config, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in backend.named_parameters().values():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    backend.save(place / "adapter")
    return model, place / "adapter"


@pytest.fixture
def folder(made):
    """The adapter's."""
    return made[1]


def conditioning(seed, width=32, tokens=77):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(1, tokens, width, generator=generator)
    return [[states, {"pooled_output": torch.zeros(1, width)}]]


def fed(pipe, **given):
    """What goes into the U-Net in one step of the pipeline, negative first, and what comes out:
    sample, timestep, context, what SDXL is told beside it, noise."""
    seen = []
    forward = UNet2DConditionModel.forward

    def listen(unet, sample, timestep, encoder_hidden_states, **more):
        found = forward(unet, sample, timestep, encoder_hidden_states, **more)
        added = more.get("added_cond_kwargs")
        seen.append((sample, timestep, encoder_hidden_states, added, found[0]))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UNet2DConditionModel, "forward", listen)
        pipe(num_inference_steps=1, output_type="latent", **given)
    return seen[0]


def test_the_unet_is_fed_what_the_pipeline_feeds_it(made, loras):
    pipe = api.load(*made)
    width = pipe.family.context_width(pipe.denoiser)
    [[positive, _]], [[negative, _]] = conditioning(1, width), conditioning(2, width)
    given = {"prompt_embeds": positive, "negative_prompt_embeds": negative}
    if "pooled_prompt_embeds" in pipe.family.embeds:
        pooled = torch.randn(2, 1, 48, generator=torch.Generator().manual_seed(3))
        given |= zip(("pooled_prompt_embeds", "negative_pooled_prompt_embeds"), pooled, strict=True)
    rewards = {"targets": POSITIVE, "negative_targets": NEGATIVE}
    asked = {**given, **rewards, "generator": torch.Generator().manual_seed(0)}
    sample, timestep, context, added, noise = fed(pipe, **asked)

    model, adapter = call("RiCLoadAdapter", model=ModelPatcher(pipe.unet), adapter=str(made[1]))
    contexts = []
    for states, rewards in ((negative, "compressibility=-1"), (positive, " colorfulness=1.5\n")):
        [applied] = call(
            "RiCApplyRewards", adapter=adapter, conditioning=[[states, {}]], rewards=rewards,
            meaning="targets",
        )  # fmt: skip
        contexts.append(applied[0][0])
    assert torch.equal(torch.cat(contexts), context)
    pipe.adapter = None  # the LoRA stays; what is left of ours is in the patcher
    with torch.no_grad():
        found = model.apply_model(sample, timestep, torch.cat(contexts), added)
        plain = pipe.unet(sample, timestep, context, added_cond_kwargs=added).sample
    assert torch.equal(found, noise)
    assert torch.equal(plain, noise) == (adapter.encoder.time_width == 0)


def test_the_lora_goes_in_under_names_that_comfyui_knows(folder, loras, root, tmp_path):
    patcher = ModelPatcher(None)
    model, _ = call("RiCLoadAdapter", model=patcher, adapter=str(folder))
    api.export(folder, tmp_path / "x.safetensors")
    [(clip, lora, strength)] = loras
    assert clip is None and strength == 1.0
    exported = load_file(tmp_path / "x.safetensors")
    assert lora.keys() == exported.keys() and exported
    assert all(torch.equal(lora[key], exported[key]) for key in exported)
    assert model is not patcher and not patcher.wrappers  # the model before is as it was
    assert patcher.model_options == {"transformer_options": {}}


@pytest.fixture(scope="module")
def sd15(root):
    """An adapter of the shapes of Stable Diffusion 1.5."""
    space = Adapter.load(root / "embedding" / "adapter").space
    torch.manual_seed(0)
    encoder = RewardEncoder(space.names, 768, time_width=1280).eval()
    torch.nn.init.normal_(encoder.to_time.weight)
    return Adapter(
        family="stable-diffusion",
        base_model="x/sd15",
        space=space,
        conditioner=EmbeddingConditioner(encoder),
    )


def apply(adapter, given, rewards, meaning="targets"):
    [found] = call(
        "RiCApplyRewards", adapter=adapter, conditioning=given, rewards=rewards, meaning=meaning
    )
    return found


@pytest.mark.parametrize("tokens", [77, 154])
def test_conditioning_of_stable_diffusion_15(sd15, tokens):
    given = conditioning(0, 768, tokens) + conditioning(1, 768, tokens)
    given[0][1]["strength"] = 0.5
    before = copy.deepcopy(given)
    found = apply(sd15, given, "compressibility=1.5")
    assert [states.shape for states, _ in found] == [(1, tokens + 2, 768)] * 2
    for (states, more), (old, old_more) in zip(found, before, strict=True):
        assert torch.equal(states[:, :tokens], old) and not states.requires_grad
        expected = sd15.encoder(torch.tensor([[1.5, torch.nan]]))
        assert torch.allclose(states[:, tokens:], expected, atol=1e-6)
        assert more.keys() == old_more.keys()
    assert found[0][1] is not given[0][1]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(given, before, strict=True))


def test_conditioning_of_stable_diffusion_xl(root):
    """Two text encoders side by side; the pooled text stays as it was."""
    space = Adapter.load(root / "embedding" / "adapter").space
    encoder = RewardEncoder(space.names, 2048, time_width=1280).eval()
    adapter = Adapter(
        family="stable-diffusion-xl",
        base_model="x/sdxl",
        space=space,
        conditioner=EmbeddingConditioner(encoder),
    )
    [[states, more]] = conditioning(0, 2048)
    pooled = more["pooled_output"] = torch.ones(1, 1280)
    [[found, about]] = apply(adapter, [[states, more]], "compressibility=1.5")
    assert found.shape == (1, 79, 2048) and torch.equal(found[:, :77], states)
    assert about["pooled_output"] is pooled
    with pytest.raises(InputError, match="reward tokens are 2048 wide"):
        apply(adapter, conditioning(0, 768), "colorfulness=1")


def test_nothing_asked_is_auto_and_half_precision_stays(sd15):
    [[states, more]] = conditioning(0, 768)
    [[found, _]] = apply(sd15, [[states.half(), more]], "")
    assert found.dtype == torch.float16
    auto = sd15.encoder(torch.tensor([[torch.nan, torch.nan]]))
    assert torch.allclose(found[:, 77:].float(), auto, atol=1e-3)


def test_a_preference_is_mapped_and_calibration_counts(sd15, caplog):
    curve = Curve(requested=(-2.0, 3.0), obtained=(-0.5, 0.6))
    adapter = replace(sd15, calibration={"colorfulness": curve}, mapping="l2")
    targets = adapter.targets_for(preference={"colorfulness": 1.0})
    requests = adapter.model_targets(adapter.used(targets))
    assert requests["colorfulness"] == 3.0
    [[found, _]] = apply(adapter, conditioning(0, 768), "colorfulness=1", "preference")
    values = torch.tensor([[requests[name] for name in adapter.space.names]])
    assert torch.allclose(found[:, 77:], adapter.encoder(values), atol=1e-6)
    assert "colorfulness" in caplog.text and "beyond the reachable range" in caplog.text


class Bare(ModelPatcher):
    def _forward(self, x, timesteps, context, y, control, transformer_options):
        [patch] = transformer_options["patches"]["emb_patch"]
        return patch(torch.zeros(len(x), 1280, dtype=x.dtype), 320, transformer_options)

    def clone(self):
        return copy.copy(self)


def test_the_shift_of_each_row_is_its_own(sd15):
    [[positive, _]] = apply(sd15, conditioning(0, 768), "compressibility=2")
    [[negative, _]] = apply(sd15, conditioning(1, 768), "")
    context = torch.cat([positive, negative])
    model = ric_diffusion.comfyui.nodes.modulated(Bare(None), sd15.encoder)
    with torch.no_grad():
        shift = model.apply_model(torch.zeros(2, 4, 8, 8), torch.ones(2), context)
        assert torch.equal(shift, sd15.encoder.time_shift(context))
    assert not torch.allclose(shift[0], shift[1], atol=0.1)
    half = model.apply_model(torch.zeros(2, 4, 8, 8).half(), torch.ones(2), context.half())
    assert half.dtype == torch.float16


def test_a_conditioning_without_tokens_is_found_out(sd15):
    model = ric_diffusion.comfyui.nodes.modulated(Bare(None), sd15.encoder)
    with pytest.raises(InputError, match="the negative too, through Apply rewards"):
        model.apply_model(torch.zeros(1, 4, 8, 8), torch.ones(1), conditioning(0, 768)[0][0])


@pytest.mark.parametrize(
    "said, rewards, meaning",
    [
        ("rewards: 'colorfulness': write name=number", "colorfulness", "targets"),
        ("did you mean 'colorfulness'", "colourfulness=1", "targets"),
        ("rewards: colorfulness is given twice", "colorfulness=1 colorfulness=2", "targets"),
        ("must be 0 or above", "colorfulness=-1", "preference"),
        ("no weights given", "", "preference"),
        ("must be finite", "colorfulness=nan", "targets"),
    ],
)
def test_wrong_rewards(sd15, said, rewards, meaning):
    with pytest.raises(InputError, match=re.escape(said)):
        apply(sd15, conditioning(0, 768), rewards, meaning)


def test_another_architecture(sd15):
    with pytest.raises(InputError, match="reward tokens are 768 wide"):
        apply(sd15, conditioning(0, 1024), "colorfulness=1")


def test_an_adapter_of_text_mode_has_its_lora_loaded_and_its_words_refused(root, loras):
    folder = root / "text" / "adapter"
    model, adapter = call("RiCLoadAdapter", model=ModelPatcher(None), adapter=str(folder))
    assert len(loras) == 1 and not model.wrappers
    with pytest.raises(InputError, match="what `ric prompt` prints into CLIP Text Encode"):
        apply(adapter, conditioning(0), "colorfulness=1")


def test_what_is_no_adapter(loras, tmp_path):
    with pytest.raises(InputError, match="not an adapter folder"):
        call("RiCLoadAdapter", model=ModelPatcher(None), adapter=str(tmp_path))
    assert loras == []


def test_comfyui_finds_the_nodes_in_a_linked_folder(tmp_path):
    """It runs __init__.py under a name of its own."""
    link = tmp_path / "custom_nodes" / "reward-sliders"
    link.parent.mkdir()
    link.symlink_to(Path(ric_diffusion.comfyui.__file__).parent)
    spec = importlib.util.spec_from_file_location("linked_nodes", link / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.NODE_CLASS_MAPPINGS.keys() == module.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for node in module.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(node, node.FUNCTION)) and node.CATEGORY
        assert node.INPUT_TYPES()["required"] and isinstance(node.RETURN_TYPES, tuple)
