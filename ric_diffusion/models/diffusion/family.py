"""What the families of diffusion models have in common, and what each of them says itself."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import torch
from diffusers.pipelines import auto_pipeline

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.card import TOKENS_ALONE, WITHOUT_LORA, Use
from ric_diffusion.adapters.format import DiffusersFormat
from ric_diffusion.data.medium import IMAGE
from ric_diffusion.io.bounds import MOST_STEPS
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.models.checkpoint import (
    Checkpoint,
    ModelName,
    check_shards,
    local_file,
    read_header,
)
from ric_diffusion.models.diffusion.arguments import NO_CLIP_SKIP, most_of
from ric_diffusion.models.diffusion.backend import (
    TEXT_ENCODER,
    DiffusionBackend,
    DiffusionConfig,
)
from ric_diffusion.models.diffusion.context import Context, joined
from ric_diffusion.models.diffusion.latents import Latents
from ric_diffusion.models.diffusion.objective import Objective, Predict
from ric_diffusion.models.diffusion.pipeline import OWN_ARGUMENTS, stock_class
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from ric_diffusion.models.diffusion.single_file import needs_config
from ric_diffusion.models.diffusion.tokenizer import PromptTokenizer
from ric_diffusion.models.diffusion.weights import stored_dtype
from ric_diffusion.models.family import CONFIG_FILE, Family, Source, loading, model_path
from ric_diffusion.models.hardware import (
    DTYPES,
    QUANTIZED,
    BasePrecision,
    Precision,
    half_precision,
    loaded_dtype,
    resolve_base_precision,
)
from ric_diffusion.models.protocol import weights_digest
from ric_diffusion.models.sharding import Sharding, fill
from ric_diffusion.rewards import RewardSpace

# The doors of a family.
TEXT_TO_IMAGE, IMAGE_TO_IMAGE = "text-to-image", "image-to-image"
INPAINTING, CONTROLNET = "inpainting", "controlnet"
AUTO: dict[str, dict[str, type]] = {
    TEXT_TO_IMAGE: auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
    IMAGE_TO_IMAGE: auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    INPAINTING: auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
    CONTROLNET: auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
}

USE = Use(
    library="diffusers",
    task="text-to-image",
    python="""from ric_diffusion import RiCPipeline

pipe = RiCPipeline.{load}
pipe.load_adapter("this/folder")
pipe("a prompt", targets={{"{reward}": 1.0}}).images[0].save("picture.png")""",
    prompt="a prompt",
    elsewhere={
        "text": "Other programs take the LoRA (`ric export --adapter this/folder --format comfyui "
        "--out sliders.safetensors`, or kohya for A1111 and Forge) and, as the prompt, what `ric "
        "prompt --adapter this/folder …` prints.",
        "embedding": "ComfyUI takes it through the nodes of ric-diffusion, where it has the base. "
        "Stock diffusers loads the LoRA, but without its reward tokens it has no sliders.",
        WITHOUT_LORA: "Other programs load the model as it is and take, as the prompt, what `ric "
        "prompt --adapter this/folder …` prints.",
        TOKENS_ALONE: "Other programs load the model as it is; its reward tokens, and so its "
        "sliders, are known to the pipelines of ric-diffusion and its nodes for ComfyUI.",
    },
)
UNIONS = (Union, types.UnionType)
SIDES = ("width", "height")
# The numbers that an adapter may bring for every call. How many pictures a call makes, and what
# goes in and comes out of it, is the caller's to say.
SAMPLING = {
    *OWN_ARGUMENTS,
    *SIDES,
    "cfg_truncation",
    "clip_skip",
    "eta",
    "guidance_rescale",
    "guidance_scale",
    "max_sequence_length",
    "mu",
    "num_inference_steps",
    "sigmas",
    "skip_layer_guidance_scale",
    "skip_layer_guidance_start",
    "skip_layer_guidance_stop",
    "strength",
    "timesteps",
    "true_cfg_scale",
}
OPTIONS = {
    "steps": "num_inference_steps",
    "guidance_scale": "guidance_scale",
    "contrast": "contrast",
    "prompt_guidance": "prompt_guidance",
    "reward_start": "reward_start",
    "width": "width",
    "height": "height",
}


@dataclass(frozen=True, kw_only=True)
class DiffusionFamily(Family):
    """A family of pipelines of diffusers.

    Attributes:
        pipelines: our class for each door.
        stock: the classes that a ``model_index.json`` of this family may name, beside the stock
            class of each door.
        single_files: what diffusers calls single files of this family
            (``infer_diffusers_model_type``).
        denoiser: the pipeline's part that is trained, an attribute's name; LoRA keys begin with it.
        parts: the pipeline's parts with weights, the denoiser last.
        tokenizers: what counts a prompt's tokens, attributes' names.
        prompts: the arguments of the stock call that are prompts.
        embeds: its arguments for the tensors of a context: states first, then pooled.
        context_argument: the denoiser's argument for the states.
        repeats_embeds: whether the stock call makes several images of one context by itself.
        in_loop: what its loop calls its arguments for a context, where that is another name.
        encode_options: what ``encode`` takes beside texts.
        max_length: how many tokens of a prompt are read unless a call says otherwise; None where
            the tokenizers say.
        multiple: what the sides of a picture in pixels are multiples of.
        bucket_step: what the sides of a bucket are multiples of, where the resolution is.
        lora_layers: the ends of layers' names that a LoRA may change, by kind of layer.
        text_encoders: the CLIP text encoders among the parts, which a LoRA may change as well, and
            ``text_layers`` the ends of their layers' names.
        left_out_of_training: arguments of ``from_pretrained`` that leave out what only judges
            finished pictures.
        comfyui_layer: the layer of ComfyUI's network that gives what ``modulated_layer`` gives, or
            a part of the sum that it is.
    """

    pipelines: Mapping[str, Any]
    denoiser: str
    parts: tuple[str, ...]
    tokenizers: tuple[str, ...]
    prompts: tuple[str, ...]
    embeds: tuple[str, ...]
    lora_layers: Mapping[str, tuple[str, ...]]
    text_encoders: tuple[str, ...] = ()
    text_layers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    stock: tuple[str, ...] = ()
    single_files: tuple[str, ...] = ()
    context_argument: str = "encoder_hidden_states"
    repeats_embeds: bool = True
    in_loop: Mapping[str, str] = field(default_factory=dict)
    encode_options: tuple[str, ...] = ("lora_scale", "clip_skip")
    max_length: int | None = None
    multiple: int = 8
    bucket_step: int = 64
    left_out_of_training: Mapping[str, Any] = field(default_factory=dict)
    comfyui_layer: str | None = None

    # What a family says itself.

    def encode(self, pipe: Any, prompts: Sequence[Sequence[str]], **options: Any) -> Context:
        """Texts for each of ``self.prompts``, B each -> their context as the frozen text encoders
        give it; ``options``: those of ``encode_options`` that a call gives."""
        raise NotImplementedError

    def empty_states(self, pipe: Any, context: Context, **options: Any) -> torch.Tensor:
        """(1 or B, T, D): what follows the states of B contexts where they are to be longer, those
        of an empty text."""
        return self.encode(pipe, [[""]] * len(self.prompts), **options).states

    def predict(
        self, pipe: Any, noisy: torch.Tensor, t: torch.Tensor, context: Context
    ) -> torch.Tensor:
        """What the denoiser predicts for noisy latents at times (B,) under a context; latents come
        in the precision of its weights."""
        raise NotImplementedError

    def with_sizes(self, context: Context, sizes: torch.Tensor) -> Context:
        """With what a denoiser is told of the sizes of B pictures in training, (B, 6): height and
        width in the file; top and left of what is seen, at the scale that it is drawn at; height
        and width that it is drawn at. Most are told nothing."""
        return context

    def context_width(self, denoiser: Any) -> int:
        """Width of the states that the denoiser reads."""
        raise NotImplementedError

    def modulated_layer(self, denoiser: Any) -> torch.nn.Module:
        """The layer whose output, (B, W), modulates every block."""
        raise NotImplementedError

    def modulated_width(self, denoiser: Any) -> int:
        """W of that output."""
        raise NotImplementedError

    def objective(self, pipe: Any, **settings: Any) -> Objective:
        """What the denoiser is trained on; ``settings``: min_snr_gamma, debiased_estimation,
        noise_offset and timestep_shift. ValueError for one that it has no use for."""
        raise NotImplementedError

    def default_size(self, pipe: Any) -> int:
        """The side in pixels that the model was trained at."""
        raise NotImplementedError

    def architecture(self, pipe: Any) -> str:
        """What modelspec calls models like this one, so that other programs know what a LoRA is
        for."""
        return self.name

    def sample_size(self, pipe: Any, sampling: Mapping[str, Any]) -> tuple[int, int]:
        """Width and height in pixels of what is sampled with these arguments."""
        side = self.default_size(pipe)
        return sampling.get("width") or side, sampling.get("height") or side

    def default_sampling(self, model: Any = None) -> dict[str, Any]:
        """Those of the stock call."""
        names = ("guidance_scale", "num_inference_steps")
        return {name: self.stock_default(name) for name in names}

    def unpacked(self, pipe: Any, latents: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Latents as a step of sampling leaves them, for pictures of this width and height in
        pixels -> (B, C, h, w)."""
        return latents

    def passes_per_step(self, pipe: Any, sampling: Mapping[str, Any]) -> int:
        """How often the denoiser is called in a step of sampling with these arguments."""
        return 1

    def is_guided(self, pipe: Any, scale: float) -> bool:
        """Whether a call with this scale of ``self.guidance`` has a branch to steer away from."""
        return scale > self.guidance_off

    def check_denoiser(self, pipe: Any) -> None:
        """InputError for a checkpoint of the family whose denoiser reads more than noisy latents
        and a context."""
        channels, latents = self.channels(pipe.denoiser), pipe.vae.config.latent_channels
        if channels != latents:
            raise InputError(
                f"its {self.denoiser} reads {channels} channels where latents have {latents}: a "
                "model for inpainting or editing, which draws with adapters (RiCPipeline."
                "from_pretrained) but is not trained or drawn from text alone; use its base model"
            )

    def tokens_around(self, tokenizer: Any) -> int:
        """How many tokens the pipeline puts around a prompt, beside the tokenizer's special ones:
        those of a chat template."""
        return 0

    def channels(self, denoiser: Any) -> int:
        """How many channels of latents the denoiser reads."""
        return int(denoiser.config.in_channels)

    def encode_options_of(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Those of ``encode_options`` that the arguments of a stock call give."""
        kwargs = arguments.get("cross_attention_kwargs") or arguments.get("joint_attention_kwargs")
        given = {**arguments, "lora_scale": (kwargs or {}).get("scale")}
        options = {name: given.get(name) for name in self.encode_options}
        return {name: value for name, value in options.items() if value is not None}

    def to_arguments(self, context: Context, branch: str = "") -> dict[str, Any]:
        """A context as arguments of the stock call; ``branch`` begins their names, ``negative_`` or
        nothing."""
        tensors = (context.states, context.pooled)
        named = zip(self.embeds, tensors, strict=False)
        return {f"{branch}{name}": tensor for name, tensor in named}

    def read_first(
        self, pipe: Any, contexts: dict[str, Context], later: Mapping[str, Context]
    ) -> dict[str, Context]:
        """What a call begins with so that its first steps read these contexts, and others ``later``
        (see ``read_next``)."""
        return contexts

    def read_next(
        self, contexts: Mapping[str, Context], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What a callback at the end of a step returns so that the steps after it read these
        contexts, of as many rows as there are pictures, by branch as in ``to_arguments``.
        ``arguments``: those of the call. Most stock calls have both branches in one batch."""
        batch = joined([contexts[branch] for branch in sorted(contexts, reverse=True)])
        return {self.in_loop.get(n, n): tensor for n, tensor in self.to_arguments(batch).items()}

    def from_arguments(self, arguments: Mapping[str, Any], branch: str = "") -> Context | None:
        """The context that a call was given, None if it was given prompts. InputError if a part of
        it is missing."""
        states, *pooled = (arguments.get(f"{branch}{name}") for name in self.embeds)
        if states is None:
            return None
        if not isinstance(states, torch.Tensor):
            raise InputError(
                f"{branch}{self.embeds[0]}: give a tensor, not {type(states).__name__}"
            )
        if pooled and pooled[0] is None:
            raise InputError(f"{branch}{self.embeds[1]}: goes with {branch}{self.embeds[0]}")
        return Context(states=states, pooled=pooled[0] if pooled else None)

    def prepare_cpu_training(self, denoiser: Any) -> None:
        """Whatever makes training on a CPU faster without changing what is computed."""

    # What they have in common.

    def predictor(self, pipe: Any, context: Context, dtype: torch.dtype | None = None) -> Predict:
        """``predict`` under a context, for latents in any precision: noise is mixed in full.
        ``dtype``: that of the denoiser's weights, if it is known."""
        dtype = dtype or pipe.denoiser.dtype
        return lambda noisy, t: self.predict(pipe, noisy.to(dtype), t, context)

    def resolved(
        self, settings: Any, precision: Precision, device: str | torch.device
    ) -> tuple[Any, Precision]:
        base, precision = resolve_base_precision(settings.base_precision, precision, device)
        return replace(settings, base_precision=base), precision

    def claims(self, source: Source) -> bool:
        if source.header is not None:
            return source.header.type in self.single_files
        named = source.index.get("_class_name") if source.index else None
        return named in self.stock or self.door_of(source) is not None

    def door_of(self, source: Source) -> str | None:
        """The door whose stock class a ``model_index.json`` names, None if it names no such."""
        named = source.index.get("_class_name") if source.index else None
        doors = (door for door, cls in self.pipelines.items() if stock_class(cls).__name__ == named)
        return next(doors, None)

    def check_checkpoint(self, checkpoint: Checkpoint) -> None:
        super().check_checkpoint(checkpoint)
        name, config, variant = checkpoint.model, checkpoint.base_config, checkpoint.variant
        if checkpoint.is_file and config is None:
            header = read_header(local_file(name, **checkpoint.hub), name)
            raise InputError(f"base_config: {needs_config(name, header)}")
        if checkpoint.is_file and variant:
            raise InputError(f"variant {variant}: {name} is one file; leave it out")
        if config is not None and not checkpoint.is_file:
            raise InputError(f"base_config {config}: {name} has configs of its own; leave it out")

    def load(
        self,
        model: ModelName,
        device: str | torch.device,
        dtype: torch.dtype | None,
        **options: Any,
    ) -> Any:
        """``options``: more arguments of ``from_pretrained``."""
        checkpoint, cls = Checkpoint.of(model), self.pipelines[TEXT_TO_IMAGE]
        if dtype is None:
            dtype = loaded_dtype(stored_dtype(checkpoint, self.denoiser), device)
        options |= {"dtype": dtype, **checkpoint.hub}
        if checkpoint.is_file:
            pipe = cls.from_single_file(checkpoint.model, config=checkpoint.base_config, **options)
        else:
            pipe = cls.from_pretrained(checkpoint.model, variant=checkpoint.variant, **options)
        self.check_denoiser(pipe)
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(device)

    def exchange_denoiser(self, pipe: Any, denoiser: str) -> None:
        """Put another denoiser, a folder or hub id, in the place of that of a pipeline without
        adapter. A part of a hub repository is USER/NAME/FOLDER; of a folder, it may lie in the
        subfolder of the part's name. InputError, and nothing changed, if it does not fit."""
        own = pipe.denoiser
        path, subfolder = _placed(denoiser, self.denoiser)
        with loading(denoiser, "denoiser"):
            named = own.load_config(path, subfolder=subfolder).get("_class_name")
            if named != type(own).__name__:
                raise InputError(
                    f"{denoiser}: is of class {named}, the model's own {type(own).__name__}"
                )
            check_shards(Path(path, subfolder) if Path(path).is_dir() else path)
            given = type(own).from_pretrained(
                path, subfolder=subfolder, use_safetensors=True, dtype=own.dtype
            )
        for what, of in (("context width", self.context_width), ("channels", self.channels)):
            if of(given) != of(own):
                raise InputError(
                    f"denoiser {denoiser}: {what} {of(given)}, the model's own has {of(own)}; give "
                    "the model that it was fine-tuned from"
                )
        pipe.register_modules(**{self.denoiser: given})

    def copy_denoiser(self, pipe: Any, model: Path) -> None:
        """The weights of the denoiser in a pipeline's folder into that of a pipeline."""
        own = pipe.denoiser
        with loading(str(model), "model"):
            stored = type(own).from_pretrained(
                model, subfolder=self.denoiser, use_safetensors=True, dtype=own.dtype
            )
        if {k: v.shape for k, v in stored.state_dict().items()} != {
            k: v.shape for k, v in own.state_dict().items()
        }:
            raise InputError(f"{model}: its {self.denoiser} is of another architecture")
        tensors = own.state_dict()
        for key, tensor in stored.state_dict().items():
            fill(tensors[key], tensor)

    def sibling(self, pipe: Any, door: str) -> Any:
        """The pipeline of another door over the same parts and with the same settings."""
        sibling = self.pipelines[door].from_pipe(pipe)
        sibling.set_progress_bar_config(disable=True)
        return sibling

    def sampler(self, model: Any, sampling: Mapping[str, Any] | None = None) -> DiffusionSampler:
        return DiffusionSampler(model, sampling)

    def create_backend(
        self,
        model: ModelName,
        space: RewardSpace,
        settings: Any,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        sampled: bool = False,
        sharding: Sharding | None = None,
    ) -> DiffusionBackend:
        if sharding:
            _check_sharded(settings)
        base, _ = resolve_base_precision(settings.base_precision, "auto", device)
        # A model that is written again, or whose samples are used, has all its parts.
        whole = sampled or settings.train == "full"
        options: dict[str, Any] = {} if whole else dict(self.left_out_of_training)
        name = Checkpoint.of(model).model
        dtype = DTYPES.get(base) or DTYPES[half_precision(device)]
        if base in QUANTIZED:
            if Checkpoint.of(model).is_file:
                raise InputError(
                    f"base_precision: {base} is read from folders and hub ids, and {name} is one "
                    "file; give auto"
                )
            options["quantization_config"] = quantization(self.denoiser, base, dtype)
        # A denoiser that is to be in shards may not fit into one device's memory.
        pipe = self.load(model, "cpu" if sharding else device, dtype, **options)
        pipe.unload_adapter()
        return DiffusionBackend.create(
            pipe,
            name,
            space,
            settings,
            seed=seed,
            base_config=Checkpoint.of(model).base_config,
            sharding=sharding,
        )

    def digests(self, model: Any) -> list[str]:
        return [weights_digest(getattr(model, part)) for part in self.parts]

    def tokenizer(self, model: ModelName, adapter: Adapter) -> PromptTokenizer:
        from transformers import AutoTokenizer

        checkpoint = Checkpoint.of(model)
        found = AutoTokenizer.from_pretrained(
            model_path(checkpoint.base_config or checkpoint.model),
            subfolder=self.tokenizers[0],
            trust_remote_code=False,
            **checkpoint.hub,
        )
        options = self.encode_options_of(adapter.sampling)
        return self.prompt_tokenizer(found, options.get("max_sequence_length"))

    def prompt_tokenizer(
        self, tokenizer: Any, max_length: int | None = None, **options: Any
    ) -> PromptTokenizer:
        """One of a pipeline's tokenizers as prompts are fitted to it; ``max_length`` as a call
        gives it, ``options`` as PromptTokenizer has them."""
        around = self.tokens_around(tokenizer)
        limit = max_length or self.max_length
        return PromptTokenizer(tokenizer, limit, around=around, **options)

    def check_settings(self, settings: DiffusionConfig, source: str = "") -> None:
        super().check_settings(settings, source)
        kinds = [*self.lora_layers, *([TEXT_ENCODER] if self.text_encoders else [])]
        if unknown := [kind for kind in settings.lora.targets if kind not in kinds]:
            raise InputError(
                f"{source}{self.section}.lora.targets: {self.title} has no {unknown[0]} layers; "
                f"it has {', '.join(kinds)}"
            )
        if settings.resolution is not None and settings.resolution % self.multiple:
            raise InputError(
                f"{source}{self.section}.resolution is {settings.resolution}; give {self.title} a "
                f"multiple of {self.multiple}"
            )

    def check_sampling(self, sampling: Mapping[str, Any]) -> None:
        accepted: dict[str, Any] = dict.fromkeys(OWN_ARGUMENTS, float)
        for door in (TEXT_TO_IMAGE, IMAGE_TO_IMAGE):  # the second for image to image in the app
            if door in self.pipelines:
                accepted = call_arguments(self.pipelines[door]) | accepted
        accepted = {key: kind for key, kind in accepted.items() if key in SAMPLING}
        for key, value in sampling.items():
            if key not in accepted:
                raise ValueError(f"sampling: unknown field {key!r}{suggest(key, accepted)}")
            _check_number(key, value, accepted[key])
            if key in SIDES and value is not None and value % self.multiple:
                raise ValueError(
                    f"sampling.{key} is {value}; give {self.title} a multiple of {self.multiple}"
                )
        if sampling.get("clip_skip") is not None:
            raise ValueError(f"sampling.{NO_CLIP_SKIP}")
        least = {"contrast": 0.0, "prompt_guidance": self.guidance_off, "reward_start": 0.0}
        for key in least.keys() & sampling.keys():
            if sampling[key] < least[key]:
                raise ValueError(
                    f"sampling.{key} {sampling[key]}: give a number from {least[key]:g} to "
                    f"{most_of(key):g}"
                )

    def merged(self, own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        found = super().merged(own, given)
        scale = self.scale(found)
        prompt_guidance = found.get("prompt_guidance", scale)
        if "prompt_guidance" in own and "prompt_guidance" not in given:
            found["prompt_guidance"] = min(prompt_guidance, scale)  # the call's own comes first
        elif prompt_guidance > max(scale, self.guidance_off):
            raise InputError(
                f"prompt_guidance {prompt_guidance}: give a number from {self.guidance_off:g} to "
                f"{self.guidance}, {scale}"
            )
        return found

    def scale(self, sampling: Mapping[str, Any]) -> float:
        scale: float = sampling.get(self.guidance, self.stock_default(self.guidance))
        return scale

    def stock_default(self, name: str) -> Any:
        """What the stock call from text to image takes for an argument that is not given."""
        call = stock_class(self.pipelines[TEXT_TO_IMAGE]).__call__
        return inspect.signature(call).parameters[name].default

    def latents(self, pipe: Any) -> Latents:
        return Latents.of(pipe.vae)


def _check_sharded(settings: DiffusionConfig) -> None:
    """InputError for settings that a denoiser in shards is not trained with."""
    if settings.base_precision in QUANTIZED:
        raise InputError(
            f"base_precision: weights in {settings.base_precision} are not put into FSDP's shards; "
            "give bf16, or launch without FSDP"
        )
    if settings.compile:
        raise InputError("compile: not with FSDP's shards; leave it out, or launch without FSDP")


def _placed(denoiser: str, part: str) -> tuple[str, str]:
    """Where a denoiser lies, as the arguments of from_pretrained: a path or hub id, a subfolder."""
    if (folder := Path(denoiser)).is_dir():
        return denoiser, part if not (folder / CONFIG_FILE).exists() else ""
    parts = denoiser.split("/")
    return "/".join(parts[:2]), "/".join(parts[2:])


def quantization(part: str, precision: BasePrecision, dtype: torch.dtype) -> Any:
    """How diffusers is told to quantise one part of a pipeline, whose other weights are in
    ``dtype``."""
    from diffusers.quantizers import PipelineQuantizationConfig
    from diffusers.quantizers.quantization_config import BitsAndBytesConfig

    if precision == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=precision, bnb_4bit_compute_dtype=dtype
        )
    return PipelineQuantizationConfig(quant_mapping={part: config})


def call_arguments(cls: type) -> dict[str, Any]:
    """The arguments of a pipeline's stock call, with what each is annotated as."""
    parameters = inspect.signature(stock_class(cls).__call__).parameters.values()
    return {
        p.name: p.annotation for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD
    }


def _check_number(argument: str, value: Any, annotation: Any) -> None:
    """ValueError for the value of an argument of sampling that is to be a number and is another or
    none, or beyond what anybody needs."""
    name = f"sampling.{argument}"
    if get_origin(annotation) is list:  # of the times to denoise at
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MOST_STEPS:
            raise ValueError(f"{name} is {value!r}; give a list of 1 to {MOST_STEPS} numbers")
        for one in value:
            _check_number(argument, one, float)
        return
    kinds = get_args(annotation) if get_origin(annotation) in UNIONS else (annotation,)
    if value is None and types.NoneType in kinds:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = number and isinstance(value, int) and value >= 1
    if number and abs(value) > (most := most_of(argument)):
        raise ValueError(f"{name} is {value!r}; give {most:g} at most")
    if int in kinds and not whole:
        raise ValueError(f"{name} is {value!r}; give a whole number above 0")
    if float in kinds and not (number and math.isfinite(value)):
        raise ValueError(f"{name} is {value!r}; give a number")


def diffusion_family(cls: type[DiffusionFamily], **spec: Any) -> DiffusionFamily:
    """A family with what all of them share filled in."""
    shared: dict[str, Any] = {
        "medium": IMAGE,
        "section": "diffusion",
        "settings": DiffusionConfig,
        "use": USE,
        "options": OPTIONS,
        "software": ("torch", "diffusers"),
        "format": DiffusersFormat(spec["denoiser"]),
    }
    family = cls(**shared | spec)
    for door, pipeline in family.pipelines.items():
        # Where AutoPipelineFor….from_pipe looks up what goes with a pipeline of ours.
        key = f"ric-{family.name}" + ("-controlnet" if door == CONTROLNET else "")
        AUTO[door][key] = pipeline
    return family
