"""Nodes, workflows and exported files in ComfyUI's own engine, against what our pipelines draw."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image
from safetensors.torch import load_file

import ric_diffusion.comfyui
from ric_diffusion.adapters import export
from ric_diffusion.adapters.lora import NO_LORA
from ric_diffusion.conditioning.conditioner import TextConditioner
from ric_diffusion.conditioning.grammar import Grammar
from ric_diffusion.models.diffusion.backend import DiffusionBackend, DiffusionConfig, LoraConfig
from ric_diffusion.models.diffusion.context import Context
from ric_diffusion.models.diffusion.family import TEXT_TO_IMAGE
from ric_diffusion.models.family import family_named
from ric_diffusion.models.known import ASSETS
from ric_diffusion.rewards import RewardSpace
from support import sd
from support.comfy import a_small_z_image, laid_out, layout, parts

PACKAGE = Path(ric_diffusion.comfyui.__file__).parent
FAMILIES = {
    "sd15": "stable-diffusion",
    "sdxl": "stable-diffusion-xl",
    "sd3": "stable-diffusion-3",
    "flux": "flux",
    "z-image": "z-image",
}
# Of flow models, the shift of ComfyUI's schedule and its number of times.
SCHEDULES = {"sd3": (3.0, 1000), "flux": (math.exp(1.15), 10000), "z-image": (3.0, 1000)}
# Factor and shift of the published autoencoders, which ComfyUI knows by heart.
LATENTS = {
    "sd15": (0.18215, 0.0),
    "sdxl": (0.13025, 0.0),
    "sd3": (1.5305, 0.0609),
    "flux": (0.3611, 0.1159),
    "z-image": (0.3611, 0.1159),
}
PROMPT = "a red apple on a wooden table"
STEPS, SCALE, SIDE = 2, 4.0, 64
CLOSE = 1e-3  # of the latents' own spread


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model for both programs. ``pipe`` has an adapter in training, which ``adapter`` holds;
    ``base``: the denoiser's weights without it; ``contexts``: in place of the positive and the
    negative prompt, for families whose text encoders are too large."""

    name: str
    pipe: Any
    adapter: Path
    base: Mapping[str, torch.Tensor]
    contexts: Sequence[Context]

    @property
    def family(self) -> Any:
        return family_named(FAMILIES[self.name])


@pytest.fixture(scope="module", params=FAMILIES)
def case(request, engine):
    name, family = request.param, family_named(FAMILIES[request.param])
    given, contexts = parts(name), ()
    base = dict(given[family.denoiser].state_dict())
    generator = torch.Generator().manual_seed(1)
    if name in SCHEDULES:
        contexts = [context(family, given[family.denoiser], generator) for _ in range(2)]
        given["scheduler"] = FlowMatchEulerDiscreteScheduler()
    else:
        engine.write_checkpoint(name, given)
        betas = {key: value for key, value in sd.SCHEDULER.items() if key.startswith("beta")}
        given["scheduler"] = EulerDiscreteScheduler(
            **betas, timestep_spacing="leading", steps_offset=1
        )
    pipe = family.pipelines[TEXT_TO_IMAGE](**given)
    pipe.set_progress_bar_config(disable=True)
    train(pipe, ("colorfulness", "compressibility"), engine.folder / name)
    yield Case(name=name, pipe=pipe, adapter=engine.folder / name, base=base, contexts=contexts)
    engine.executor.reset()


def train(
    pipe: Any, rewards: Sequence[str], folder: Path, targets: Sequence[str] | None = None
) -> None:
    """An adapter in training, its weights as if it had been for a while; ``targets``: by default
    all layers of the denoiser."""
    rng = np.random.default_rng(0)
    space = RewardSpace.fit({reward: rng.normal(size=200) for reward in rewards})
    lora = LoraConfig(rank=4, alpha=8, targets=tuple(targets or pipe.family.lora_layers))
    backend = DiffusionBackend.create(pipe, "tiny", space, DiffusionConfig(lora=lora, sampling={}))
    generator = torch.Generator().manual_seed(len(rewards))
    with torch.no_grad():
        for parameter in backend.named_parameters().values():
            parameter += 0.03 * torch.randn(parameter.shape, generator=generator)
    backend.save(folder)


def context(family: Any, denoiser: Any, generator: torch.Generator) -> Context:
    """As if a text encoder had given it."""
    states = torch.randn(1, 40, family.context_width(denoiser), generator=generator)
    if "pooled_prompt_embeds" not in family.embeds:
        return Context.of_rows(list(states))
    pooled = torch.randn(1, denoiser.config.pooled_projection_dim, generator=generator)
    return Context(states=states, pooled=pooled)


def noise(case: Case) -> torch.Tensor:
    channels = case.pipe.vae.config.latent_channels
    return torch.randn(
        1, channels, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(0)
    )


def expected(case: Case, **given: Any) -> torch.Tensor:
    """Latents of our pipeline, at the steps of ComfyUI's scheduler "simple"."""
    shift, count = SCHEDULES.get(case.name, (1.0, 1000))
    times = [count - step * count // STEPS for step in range(STEPS)]
    if case.name in SCHEDULES:
        sigmas = [shift * t / (count + (shift - 1) * t) for t in times]
    else:
        kept = case.pipe.scheduler.alphas_cumprod[[t - 1 for t in times]]
        sigmas = [*((1 - kept) / kept).sqrt().tolist(), 0.0]
    for branch, one in zip(("", "negative_"), case.contexts, strict=False):
        given |= case.family.to_arguments(one, branch)
    if not case.contexts:
        given["prompt"] = PROMPT
    latents = noise(case)
    if case.name == "flux":
        latents = case.pipe._pack_latents(latents, *latents.shape)
    given[case.family.guidance] = SCALE - 1 + case.family.guidance_off
    drawn = case.pipe(
        **given,
        num_inference_steps=STEPS,
        sigmas=sigmas,
        height=SIDE,
        width=SIDE,
        latents=latents,
        output_type="latent",
    ).images
    if case.name == "flux":
        return case.pipe._unpack_latents(drawn, SIDE, SIDE, case.pipe.vae_scale_factor)
    return drawn


def workflow(engine, case: Case) -> dict[str, Any]:
    """The workflow for a model as it is shipped, but small."""
    shipped = json.loads((PACKAGE / f"workflow_{case.name}.json").read_text())
    return engine.prompt(
        shipped,
        CheckpointLoaderSimple={"ckpt_name": f"{case.name}.safetensors"},
        RiCLoadAdapter={"adapter": str(case.adapter)},
        EmptyLatentImage={"width": SIDE, "height": SIDE},
        KSampler={"steps": STEPS, "cfg": SCALE, "scheduler": "simple"},
    )


def drawn(engine, case: Case, rewards: str, negative: str) -> torch.Tensor:
    """Latents that ComfyUI makes of what is written in both nodes, as our pipeline scales them."""
    if case.contexts:
        samples = sampled(engine, case, rewards, negative)
    else:
        prompt = workflow(engine, case)
        [sampler] = [k for k, node in prompt.items() if node["class_type"] == "KSampler"]
        for branch, written in (("positive", rewards), ("negative", negative)):
            [node, _] = prompt[sampler]["inputs"][branch]
            prompt[node]["inputs"]["rewards"] = written
        samples = latents(engine, prompt, sampler)
    return scaled(case, samples)


def latents(engine, prompt: dict[str, Any], sampler: str) -> torch.Tensor:
    """What the sampler gives when a workflow is run."""
    save = {"samples": [sampler, 0], "filename_prefix": "latents"}
    prompt["save"] = {"class_type": "SaveLatent", "inputs": save}
    shown = engine.run(prompt)
    for [picture] in (one["images"] for one in shown.values() if "images" in one):
        with Image.open(engine.folder / "output" / picture["filename"]) as image:
            assert image.size == (SIDE, SIDE)
    [file] = shown["save"]["latents"]
    return load_file(engine.folder / "output" / file["filename"])["latent_tensor"]


@torch.inference_mode()
def sampled(engine, case: Case, *rewards: str, others: Sequence[Path] = ()) -> torch.Tensor:
    """The same without text encoders, node by node; ``rewards``: of the positive and the negative
    context. ``others``: more adapters, whose rewards are all on auto."""
    nodes = engine.nodes.NODE_CLASS_MAPPINGS
    model, conditionings = comfy_model(engine, case), []
    for one in case.contexts:
        conditionings.append([[one.states, {"pooled_output": one.pooled}]])
    for folder in (case.adapter, *others):
        model, adapter, _ = nodes["RiCLoadAdapter"]().load(model, str(folder))
        written = rewards if folder == case.adapter else ("", "")
        conditionings = [
            nodes["RiCApplyRewards"]().apply(adapter, given, text, "targets")[0]
            for given, text in zip(conditionings, written, strict=True)
        ]
    empty = {"samples": torch.zeros_like(noise(case))}
    [found] = nodes["KSampler"]().sample(
        model, 0, STEPS, SCALE, "euler", "simple", *conditionings, empty, 1.0
    )
    return found["samples"]


def comfy_model(engine, case: Case) -> Any:
    """ComfyUI's ModelPatcher for the denoiser alone."""
    weights = laid_out(case.base, layout(case.name))
    prefixed = {f"model.diffusion_model.{key}": value for key, value in weights.items()}
    with a_small_z_image() if case.name == "z-image" else nullcontext():
        return engine.sd.load_diffusion_model_state_dict(prefixed)


def scaled(case: Case, samples: torch.Tensor) -> torch.Tensor:
    factor, shift = LATENTS[case.name]
    return (samples - shift) * factor


@torch.no_grad()
def wanted_states(pipe: Any) -> torch.Tensor:
    """What its text encoder says of the prompt."""
    return pipe.encode_prompt(PROMPT, "cpu", 1, False)[0]


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, in standard deviations of ``b``."""
    return float((a - b).abs().max() / b.std())


def test_comfyui_finds_the_nodes_in_a_linked_folder(engine):
    for name, node in ric_diffusion.comfyui.NODE_CLASS_MAPPINGS.items():
        assert engine.nodes.NODE_CLASS_MAPPINGS[name] is node
        assert engine.nodes.NODE_DISPLAY_NAME_MAPPINGS[name] and node.CATEGORY


def test_it_draws_what_the_pipeline_draws_and_targets_move_it_alike(engine, case):
    one = expected(case, targets={"colorfulness": 1.5})
    other = expected(
        case, targets={"colorfulness": -1.5}, negative_targets={"compressibility": 2.0}
    )
    assert distance(drawn(engine, case, "colorfulness=1.5", ""), one) < CLOSE
    assert distance(drawn(engine, case, "colorfulness=-1.5", "compressibility=2"), other) < CLOSE
    assert distance(one, other) > 100 * CLOSE


@pytest.mark.parametrize("case", ["sd15", "sd3", "flux", "z-image"], indirect=True)  # XL: as 1.5
def test_exported_files_change_each_weight_as_the_adapter_does(engine, case):
    import comfy.lora

    family = case.family
    adapter, lora = family.read_adapter(case.adapter)
    names = layout(case.name)
    before = laid_out(case.base, names)
    changed = {f"{m}.weight": case.base[f"{m}.weight"] + lora.delta(m) for m in lora.modules}
    after = laid_out({**case.base, **changed}, names)
    moved = {f"diffusion_model.{k}" for k in after if not torch.equal(after[k], before[k])}
    loader = engine.nodes.NODE_CLASS_MAPPINGS["LoraLoaderModelOnly"]()
    # Where kohya's names are ours, both files are equal.
    joined = family.format.kohya is not None and family.format.kohya.layers
    for format in ("kohya", "comfyui") if joined else ("comfyui",):
        file = engine.folder / f"{case.name}-{format}.safetensors"
        export.export(adapter, lora, family.format, file, format)
        [model] = loader.load_lora_model_only(comfy_model(engine, case), file.name, 1.0)
        assert model.patches.keys() == moved and moved
        for key, patches in model.patches.items():
            name = key.removeprefix("diffusion_model.")
            found = comfy.lora.calculate_weight(patches, before[name].clone(), key)
            assert torch.allclose(found, after[name], atol=1e-6), (format, name)


@pytest.mark.parametrize("case", ["sd15"], indirect=True)
def test_words_in_the_prompt_and_the_exported_file_do_without_nodes(engine, case):
    family = case.family
    words = TextConditioner(Grammar.words(case.pipe.adapter.space.names))
    adapter = replace(case.pipe.adapter, conditioner=words)
    embedding = case.pipe.adapter
    file = engine.folder / "words.safetensors"
    export.export(adapter, family.read_adapter(case.adapter)[1], family.format, file, "comfyui")
    case.pipe.adapter = adapter
    try:
        wanted = expected(case, targets={"colorfulness": 1.5})
    finally:
        case.pipe.adapter = embedding
    prompt = workflow(engine, case)
    [sampler] = [k for k, node in prompt.items() if node["class_type"] == "KSampler"]
    for branch in ("positive", "negative"):  # the nodes in between are not needed
        [node, _] = prompt[sampler]["inputs"][branch]
        prompt[sampler]["inputs"][branch] = prompt[node]["inputs"]["conditioning"]
    prompt[sampler]["inputs"]["model"] = ["lora", 0]
    given = {"model": ["1", 0], "lora_name": file.name, "strength_model": 1.0}
    prompt["lora"] = {"class_type": "LoraLoaderModelOnly", "inputs": given}
    text = words.grammar.format(PROMPT, {"colorfulness": 1.5})
    for node in prompt.values():
        if node["inputs"].get("text") == PROMPT:
            node["inputs"]["text"] = text
    assert distance(scaled(case, latents(engine, prompt, sampler)), wanted) < CLOSE
    assert distance(wanted, expected(case)) > 100 * CLOSE


@pytest.mark.parametrize("case", ["sd15"], indirect=True)
def test_a_conditioning_without_tokens_is_found_out(engine, case):
    prompt = workflow(engine, case)
    [sampler] = [k for k, node in prompt.items() if node["class_type"] == "KSampler"]
    [node, _] = prompt[sampler]["inputs"]["negative"]
    prompt[sampler]["inputs"]["negative"] = prompt[node]["inputs"]["conditioning"]
    with pytest.raises(RuntimeError, match="the negative too, through Apply rewards"):
        latents(engine, prompt, sampler)


@pytest.mark.parametrize("case", ["sd3"], indirect=True)
def test_an_adapter_for_another_model_is_refused(engine, case):
    bundled = str(ASSETS / "emoji-64" / "ric_adapter")
    node = engine.nodes.NODE_CLASS_MAPPINGS["RiCLoadAdapter"]()
    with pytest.raises(Exception, match="layers that it changes this model has 0; load it into"):
        node.load(comfy_model(engine, case), bundled)


@pytest.mark.parametrize("case", ["sd3"], indirect=True)
def test_two_adapters_follow_one_another(engine, case, tmp_path):
    def pipe():
        made = type(case.pipe)(**{**parts(case.name), "scheduler": case.pipe.scheduler})
        made.set_progress_bar_config(disable=True)
        return made

    train(pipe(), ("sharpness",), tmp_path / "other")
    both = pipe()
    both.load_adapter(case.adapter, name="one")
    both.load_adapter(tmp_path / "other", name="other")
    wanted = expected(replace(case, pipe=both), targets={"colorfulness": 1.5})
    drawn = sampled(engine, case, "colorfulness=1.5", "", others=[tmp_path / "other"])
    assert distance(scaled(case, drawn), wanted) < CLOSE
    assert distance(expected(case, targets={"colorfulness": 1.5}), wanted) > 100 * CLOSE


@pytest.mark.parametrize("case", ["sd3"], indirect=True)
def test_an_adapter_without_lora_leaves_the_model_as_it_is(engine, case, tmp_path):
    words = TextConditioner(Grammar.words(case.pipe.adapter.space.names))
    adapter = replace(case.pipe.adapter, conditioner=words, lora=False)
    case.family.save_adapter(adapter, NO_LORA, tmp_path / "adopted")
    node = engine.nodes.NODE_CLASS_MAPPINGS["RiCLoadAdapter"]()
    model, loaded, clip = node.load(comfy_model(engine, case), str(tmp_path / "adopted"))
    assert (model.patches, model.wrappers, loaded.lora, clip) == ({}, {}, False, None)


@pytest.mark.parametrize("case", ["sd15"], indirect=True)
def test_text_encoders_are_changed_by_the_node_and_by_the_exported_file(engine, case):
    family, folder = case.family, engine.folder / "encoders"
    made = family.pipelines[TEXT_TO_IMAGE](**{**parts("sd15"), "scheduler": case.pipe.scheduler})
    made.set_progress_bar_config(disable=True)
    train(made, ("colorfulness",), folder, targets=("attention", "text_encoder"))
    encoders = replace(case, pipe=made, adapter=folder)
    wanted = expected(encoders, targets={"colorfulness": 1.5})
    prompt = workflow(engine, encoders)
    [node] = [k for k, one in prompt.items() if one["class_type"] == "RiCLoadAdapter"]
    [sampler] = [k for k, one in prompt.items() if one["class_type"] == "KSampler"]
    for branch, written in (("positive", "colorfulness=1.5"), ("negative", "")):
        [apply, _] = prompt[sampler]["inputs"][branch]
        prompt[apply]["inputs"]["rewards"] = written
    texts = [one for one in prompt.values() if one["class_type"] == "CLIPTextEncode"]
    [clip] = {tuple(one["inputs"]["clip"]) for one in texts}
    with pytest.raises(RuntimeError, match="changes text encoders too: connect clip"):
        latents(engine, json.loads(json.dumps(prompt)), sampler)
    prompt[node]["inputs"]["clip"] = list(clip)
    for one in texts:
        one["inputs"]["clip"] = [node, 2]
    drawn = scaled(case, latents(engine, json.loads(json.dumps(prompt)), sampler))
    assert distance(drawn, wanted) < CLOSE
    with made.without_adapter():
        plain = wanted_states(made)
    assert distance(plain, wanted_states(made)) > 100 * CLOSE
    file = engine.folder / "encoders.safetensors"
    export.export(*family.read_adapter(folder), family.format, file, "comfyui")
    nodes = engine.nodes.NODE_CLASS_MAPPINGS
    model, other, _ = nodes["CheckpointLoaderSimple"]().load_checkpoint("sd15.safetensors")
    _, patched = nodes["LoraLoader"]().load_lora(model, other, file.name, 1.0, 1.0)
    [[states, _]] = nodes["CLIPTextEncode"]().encode(patched, PROMPT)[0]
    assert distance(states, wanted_states(made)) < CLOSE
