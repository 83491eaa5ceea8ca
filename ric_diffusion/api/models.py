"""Loading a model with its adapter, and what the verbs that sample ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from ric_diffusion.api.values import COMMON
from ric_diffusion.data.prompts import check_text, read_prompts
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.io.paths import expanded
from ric_diffusion.models.checkpoint import Checkpoint, ModelName
from ric_diffusion.models.family import Family, Model, family_of, load_model, loading
from ric_diffusion.models.hardware import default_device
from ric_diffusion.models.known import BUNDLED
from ric_diffusion.rewards import MAPPINGS

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
ModelLike = ModelName | Model
Prompts = str | Path | Sequence[str]  # a file, or the prompts


def load(
    model: ModelName,
    adapter: str | Path | None = None,
    *,
    dtype: Dtype = "float32",
    device: str | None = None,
) -> Any:
    """A model of any family, ready to sample: a pipeline, or a language model.

    Args:
        model: bundled name, folder or hub id, or a Checkpoint, which says more than a name: the
            configs of a single file, a variant, a revision.
        adapter: folder or hub id, in place of the one that the model may have of its own.
        dtype: of the model's weights; ``auto``: what they are stored as, if the device computes in
            that in hardware, else float32.
        device: by default the GPU if there is one.

    InputError for what cannot be loaded, and for an adapter that does not fit the model.
    """
    if dtype not in get_args(Dtype):
        raise InputError(f"dtype {dtype!r}: unknown{suggest(dtype, get_args(Dtype))}")
    precision = None if dtype == "auto" else getattr(torch, dtype)
    found = default_device() if device is None else device
    check_device(found)
    return load_model(model, adapter, device=found, dtype=precision, option="model")


def loaded(
    model: ModelLike,
    adapter: str | Path | None,
    dtype: Dtype | None = None,
    device: str | None = None,
) -> tuple[Any, Checkpoint]:
    """A model by its name, or one that is loaded already, and what it was loaded from. InputError
    for a loaded model together with an adapter, which it would not lose again, or a device."""
    if isinstance(model, ModelName):
        found = load(model, adapter, dtype=dtype or "float32", device=device)
        return found, Checkpoint.of(model)
    if adapter is not None:
        raise InputError(f"adapter {adapter}: the model is loaded already; call its load_adapter")
    if device is not None:
        raise InputError(f"device {device}: the model is loaded already; move it yourself")
    return model, Checkpoint(model=name_of(model))


def check_device(device: str) -> None:
    """InputError unless torch can compute on it here."""
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = next(iter(str(error).strip().splitlines()), "it is not there")
        raise InputError(f"device {device}: not here ({reason}); give cpu") from error


def name_of(model: Any) -> str:
    """What a loaded model was loaded from: the bundled name, folder or hub id."""
    named = getattr(model, "model", model)  # a language model's network knows where it is from
    path = str(named.name_or_path)
    return {str(folder): name for name, folder in BUNDLED.items()}.get(path, path)


def prompts_of(given: Prompts) -> Sequence[str]:
    """The prompts, read if they are in a file. InputError for what is no text."""
    if isinstance(given, str | Path):
        return read_prompts(expanded(given))
    for prompt in given:
        check_text("prompts", prompt)
    return given


def check_adapters(model: ModelName, adapters: Sequence[str]) -> None:
    """InputError for a folder or hub id that is no adapter for models of this one's family, before
    the model is loaded."""
    with loading(model, "model"):
        family = family_of(model)
    for adapter in adapters:
        family.check_adapter(family.fetch_adapter(adapter))


def require_adapter(model: Any, name: str) -> None:
    """InputError if a model has no adapter, and so no rewards to set."""
    if model.adapter is None:
        raise InputError(f"model {name}: has no adapter of its own; give one")


def require_pictures(family: Family, name: str) -> None:
    """InputError if models of the family make anything but pictures."""
    if family.medium.name != "image":
        raise InputError(f"model {name}: a language model; this needs one that makes pictures")


def check_mapping(mapping: str | None) -> None:
    """InputError for a name that is no mapping."""
    if mapping is not None and mapping not in MAPPINGS:
        raise InputError(f"mapping {mapping}: unknown{suggest(mapping, MAPPINGS)}")


def sampling_arguments(family: Family, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of sampling under the names that models of the family have for them.

    ``given``: those names, or the ones that are the same for all families (``steps``,
    ``guidance_scale``, ``true_cfg_scale``, ``contrast``, ``prompt_guidance``,
    ``reward_start``, ``width``, ``height``); a None is not given.
    InputError for what models of the family do not have.
    """
    found: dict[str, Any] = {}
    for name, value in (given or {}).items():
        if value is None:
            continue
        if name in COMMON and name not in family.options:
            raise InputError(f"{name}: {family.title} have no such setting")
        found[family.options.get(name, name)] = value
    try:
        family.check_sampling(found)
    except ValueError as error:
        raise InputError(f"{family.title}: {error}") from error
    return found
