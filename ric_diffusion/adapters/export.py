"""Export a LoRA to one file, under the names that another program has for its layers.

``kohya``: those of adapters/kohya.py. ``diffusers``: those of an adapter's folder. ``comfyui``:
kohya's where the two differ in punctuation alone; else diffusers' with an ``alpha`` for each layer,
which ComfyUI knows as well, and which leave small what kohya's would join.
"""

from __future__ import annotations

import filecmp
import json
from pathlib import Path
from typing import Literal, get_args

import torch

from ric_diffusion.adapters import modelspec
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.format import DiffusersFormat
from ric_diffusion.adapters.kohya import clip_name
from ric_diffusion.adapters.lora import Lora
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import create_from, sibling
from ric_diffusion.io.tensors import save_tensors

Format = Literal["kohya", "diffusers", "comfyui"]
FORMATS: tuple[Format, ...] = get_args(Format)


def export(
    adapter: Adapter, weights: Lora, form: DiffusersFormat, out: Path, format: Format
) -> None:
    """Write an adapter's LoRA to one new file, in one move; equal adapters give equal bytes under
    one name.

    The adapter's description rides along in the metadata, and what UIs show. A reward encoder
    cannot: in embedding mode the file carries the LoRA alone, and other programs have no sliders.
    InputError for a file of another ending, for one that is there and holds something else, and
    for kohya's names of what kohya has none for.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}: the name must end in .safetensors")
    kohya = form.kohya
    if format == "kohya" and kohya is None:
        raise InputError(
            f"format kohya: sd-scripts knows no {adapter.family}; choose comfyui or diffusers"
        )
    tensors, about, implementation = form.state(weights), {}, "diffusers"
    if format == "diffusers":
        about = form.metadata(weights)
    elif kohya is not None and (format == "kohya" or not kohya.layers):
        tensors, implementation = kohya.state(weights), kohya.implementation
        about = kohya.metadata(weights, adapter.modelspec)
        about["ss_sd_model_name"] = modelspec.base_name(adapter)
    else:
        tensors = comfyui_state(weights, form)
    about |= modelspec.metadata(adapter, out.stem, implementation)
    about["ric_adapter"] = json.dumps(adapter.about())
    temporary = sibling(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(temporary, tensors, about)
        if not create_from(temporary, out) and not filecmp.cmp(temporary, out, shallow=False):
            raise InputError(f"--out {out}: is there already; name another file, or move it")
    finally:
        temporary.unlink(missing_ok=True)


def comfyui_state(weights: Lora, form: DiffusersFormat) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA under names that ComfyUI knows, alphas included."""
    if form.kohya is not None and not form.kohya.layers:
        return form.kohya.state(weights)
    tensors: dict[str, torch.Tensor] = {}
    for part, one in form.parts(weights).items():
        alpha = torch.tensor(float(one.config["lora_alpha"]))
        for module in one.modules:
            key = f"{part}.{module if one is weights else clip_name(module)}"
            tensors[f"{key}.alpha"] = alpha.clone()
            for half in ("lora_A.weight", "lora_B.weight"):
                tensors[f"{key}.{half}"] = one.tensors[f"{module}.{half}"].contiguous()
    return tensors
