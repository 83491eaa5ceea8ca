"""The kinds of model that the verbs work with, behind one interface.

A model of either kind has ``adapter``, ``load_adapter``, ``unload_adapter`` and ``save_adapter``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from ric_diffusion import config
from ric_diffusion.backend import weights_digest
from ric_diffusion.conditioning.adapter import BaseAdapter
from ric_diffusion.conditioning.hub import fetched
from ric_diffusion.diffusion import adapter as diffusion_adapter
from ric_diffusion.diffusion.backend import DiffusionBackend
from ric_diffusion.diffusion.latents import base_digests
from ric_diffusion.diffusion.lora_file import LORA_FILE
from ric_diffusion.diffusion.pipeline import BUNDLED, RiCStableDiffusionPipeline
from ric_diffusion.diffusion.pipeline import model_path as diffusion_path
from ric_diffusion.diffusion.sampler import DiffusionSampler
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.fluency import Fluency
from ric_diffusion.llm import adapter as llm_adapter
from ric_diffusion.llm.backend import LlmBackend
from ric_diffusion.llm.chat import Turn
from ric_diffusion.llm.generation import Sampling
from ric_diffusion.llm.model import PACKAGES, RiCCausalLM, load_tokenizer
from ric_diffusion.llm.sampler import LlmSampler

NAMES = (*BUNDLED, *PACKAGES)  # of models that need neither a folder nor a hub


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What the verbs do with one kind of model.

    ``load``: its name, a device and a dtype -> a model; ``model_of``: the model of a sampler;
    ``digests``: of the parts of a model that have weights; ``held_out``: a model without adapter
    and these digests -> the scorers that are in every report on this kind and never a reward;
    ``options``: which arguments of sampling the command line can set, by the name of the option;
    ``software``: whose versions are told; ``files``: of an adapter's LoRA; ``reader``: a model's
    name and an adapter for it -> the tokenizer that reads a prompt, of the length that a prompt may
    have.
    """

    name: str
    load: Callable[[str, str, torch.dtype], Any]
    sampler: Callable[..., Any]
    backend: Any
    adapter: type[BaseAdapter]
    resolve: Callable[..., Path]
    model_of: Callable[[Any], Any]
    digests: Callable[[Any], list[str]]
    held_out: Callable[[Any, Sequence[str], Mapping[str, Any]], list[Any]]
    options: Mapping[str, str]
    software: tuple[str, ...]
    files: tuple[str, ...]
    reader: Callable[[str, BaseAdapter], Any]


def _load_pipeline(name: str, device: str, dtype: torch.dtype) -> RiCStableDiffusionPipeline:
    pipe = RiCStableDiffusionPipeline.from_pretrained(name, dtype=dtype)
    return pipe.to(device)


def _load_lm(name: str, device: str, dtype: torch.dtype) -> RiCCausalLM:
    lm = RiCCausalLM.from_pretrained(name, dtype)
    lm.model.to(device)
    return lm


def fluency_of(lm: RiCCausalLM, digests: Sequence[str], sampling: Mapping[str, Any]) -> Fluency:
    """By the model without any adapter, whichever it has when it is asked. Texts are as long as
    ``sampling`` says, so that responses are read to where they were cut, and no end expected."""
    sampler = LlmSampler(lm, sampling)
    limits = {key: getattr(sampler.settings, key) for key in ("prompt_tokens", "response_tokens")}

    def log_likelihood(prompts: Sequence[str], samples: Sequence[str]) -> np.ndarray:
        with lm.without_adapter():
            return sampler.log_likelihood(prompts, samples)

    return Fluency(log_likelihood, config.digest(digests)[:16], limits)


def _reader(name: str, adapter: BaseAdapter) -> Any:
    return AutoTokenizer.from_pretrained(diffusion_path(name), subfolder="tokenizer")


def _turn(name: str, adapter: BaseAdapter) -> Turn:
    sampling = config.from_dict(dict(adapter.sampling), Sampling, "sampling")
    return Turn(load_tokenizer(name), sampling.prompt_tokens)


DIFFUSION = Kind(
    name="diffusion",
    load=_load_pipeline,
    sampler=DiffusionSampler,
    backend=DiffusionBackend,
    adapter=diffusion_adapter.Adapter,
    resolve=diffusion_adapter.resolve,
    model_of=lambda sampler: sampler.pipe,
    digests=base_digests,
    held_out=lambda pipe, digests, sampling: [],
    options={
        "steps": "num_inference_steps",
        "guidance_scale": "guidance_scale",
        "contrast": "contrast",
        "prompt_guidance": "prompt_guidance",
    },
    software=("torch", "diffusers"),
    files=(LORA_FILE,),
    reader=_reader,
)
LLM = Kind(
    name="llm",
    load=_load_lm,
    sampler=LlmSampler,
    backend=LlmBackend,
    adapter=llm_adapter.Adapter,
    resolve=llm_adapter.resolve,
    model_of=lambda sampler: sampler.lm,
    digests=lambda lm: [weights_digest(lm.model)],
    held_out=lambda lm, digests, sampling: [fluency_of(lm, digests, sampling)],
    options={},
    software=("torch", "transformers"),
    files=(llm_adapter.WEIGHTS_FILE, llm_adapter.CONFIG_FILE),
    reader=_turn,
)
KINDS = {kind.name: kind for kind in (DIFFUSION, LLM)}


def kind_named(model: str) -> Kind:
    """The kind of a model by its name alone: a folder is looked into, a hub id is asked whether it
    has the file that language models have and pipelines have not."""
    if model in PACKAGES:
        return LLM
    folder = Path(diffusion_path(model))
    if folder.is_dir():
        plain = (folder / "config.json").is_file() or any(folder.glob("*.gguf"))
        return LLM if plain and not (folder / "model_index.json").is_file() else DIFFUSION
    return LLM if "/" in model and _has_config(model) else DIFFUSION


def kind_of(model: Any) -> Kind:
    """The kind of a loaded model."""
    return LLM if isinstance(model, RiCCausalLM) else DIFFUSION


def adapter_kind(path_or_id: str) -> tuple[Kind, Path]:
    """The kind of an adapter by its LoRA, and its folder, fetched from the hub unless it is here.
    InputError if it is no adapter."""
    folder = fetched(path_or_id, [file for kind in KINDS.values() for file in kind.files])
    for kind in KINDS.values():
        if all((folder / file).is_file() for file in kind.files):
            return kind, folder
    raise InputError(f"{path_or_id}: not an adapter folder, it has no LoRA")


def _has_config(hub_id: str) -> bool:
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(hub_id, "config.json")
    except Exception:  # not there, no net, no such id: what loads the model will say which
        return False
    return True


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
