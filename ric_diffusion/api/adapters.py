"""What is done with a finished adapter: export it, upload it, tell other programs what it reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ric_diffusion.adapters import export as files
from ric_diffusion.adapters import hub
from ric_diffusion.adapters.adapter import AVERAGE
from ric_diffusion.adapters.export import FORMATS, Format
from ric_diffusion.adapters.format import DiffusersFormat
from ric_diffusion.api.models import check_mapping
from ric_diffusion.api.paths import check_out_file
from ric_diffusion.data.prompts import check_text
from ric_diffusion.io.counting import counted
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.paths import expanded
from ric_diffusion.models.checkpoint import Checkpoint
from ric_diffusion.models.family import adapter_family, loading

_log = logging.getLogger(__name__)


def export(adapter: str | Path, out: str | Path, format: Format = "kohya") -> Path:
    """Write an adapter's LoRA to one file for other programs, with what to type for each slider in
    its metadata, where UIs show it; returns the file.

    Args:
        adapter: folder or hub id.
        out: a name that ends in .safetensors.
        format: whose names the layers have: ``kohya`` for A1111, Forge and sd-scripts, ``comfyui``,
            or ``diffusers``.

    InputError for what is no adapter of a pipeline, for one without LoRA, for another format or
    ending, and for kohya's names of a family that has none.
    """
    if format not in FORMATS:
        raise InputError(f"format {format!r}: choose one of {', '.join(FORMATS)}")
    path = expanded(out)
    check_out_file(path)
    family, folder = adapter_family(adapter)
    if not isinstance(family.format, DiffusersFormat):
        raise InputError(
            f"adapter {adapter}: for {family.title}; only adapters of pipelines are exported"
        )
    found, weights = family.read_adapter(folder)
    if found.frozen:
        raise InputError(
            f"adapter {adapter}: has no LoRA to export, its sliders are reward tokens alone; use "
            "`ric generate`, the Python API or the ComfyUI nodes"
        )
    if not found.lora:
        raise InputError(
            f"adapter {adapter}: has no LoRA to export, its rewards are in {found.base_model} "
            "itself; use that, with what `ric prompt` prints"
        )
    files.export(found, weights, family.format, path, format)
    return path


@dataclass(frozen=True, kw_only=True)
class ExportedPrompt:
    """The text that an adapter of text mode reads, and ``notes`` on what of the request it does not
    hold, one line each."""

    text: str
    notes: tuple[str, ...]


def prompt_text(
    adapter: str | Path,
    prompt: str,
    *,
    preference: Mapping[str, float] | None = None,
    targets: Mapping[str, float] | None = None,
    mapping: str | None = None,
    model: str | None = None,
    base_config: str | None = None,
    revision: str | None = None,
) -> ExportedPrompt:
    """What to give other programs as the prompt, so that an adapter of text mode reads the rewards.

    Args:
        adapter: folder or hub id.
        model: whose tokenizer counts; by default the adapter's base model.
        base_config: whose it is if the model is a single file, by default as it was in training,
            and ``revision`` as Checkpoint has them.

    ``preference``, ``targets`` and ``mapping`` are as ``generate`` has them.

    InputError in embedding mode, whose rewards no text can say.
    """
    check_mapping(mapping)
    check_text("prompt", prompt)
    family, folder = adapter_family(adapter)
    found, _ = family.read_adapter(folder)
    wanted = found.targets_for(preference=preference, targets=targets, mapping=mapping)
    found.check_text()  # before a tokenizer is fetched for nothing
    if model is None:
        model, base_config = found.base_model, base_config or found.base_config
        if Checkpoint(model=model, base_config=base_config).on_hub:
            _log.info("the tokenizer of %s, which the adapter names, is read from the hub", model)
    base = Checkpoint(model=model, base_config=base_config, revision=revision)
    with loading(base, "model"):
        family.check_checkpoint(base)
        tokenizer = family.tokenizer(base, found)
    text, cut = found.text(prompt, wanted, tokenizer)
    notes = found.unreachable(wanted)
    if found.knows_prompts:
        notes.append(AVERAGE)
    if cut:
        notes.append(
            f"the prompt was cut; {counted(tokenizer.model_max_length, 'tokens')} are read at most"
        )
    return ExportedPrompt(text=text, notes=tuple(notes))


def push(adapter: str | Path, to: str) -> str:
    """Upload an adapter folder to the hub, to a private repository if it is new; returns its
    address.

    InputError for a folder that is no adapter, a malformed id, without a token, or where the hub
    says no; OSError if the hub cannot be reached.
    """
    if not expanded(adapter).is_dir():
        raise InputError(f"adapter {adapter}: no such folder")
    family, folder = adapter_family(adapter)
    hub.open_repository(to)
    return hub.push(folder, to, family.format.files)
