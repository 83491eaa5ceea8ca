"""Pipelines of small models as one file in the layout that they were first published in, which is
what people exchange: CompVis' for Stable Diffusion 1, Stability AI's for XL."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

State = dict[str, torch.Tensor]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def write(path: Path, parts: dict[str, Any], *, xl: bool = False, half: bool = False) -> Path:
    """``parts`` of a pipeline as one file; ``half`` in float16."""
    state = {f"model.diffusion_model.{k}": v for k, v in unet(parts["unet"]).items()}
    state |= {f"first_stage_model.{k}": v for k, v in vae(parts["vae"]).items()}
    first = "conditioner.embedders.0.transformer." if xl else "cond_stage_model.transformer."
    for key, value in parts["text_encoder"].state_dict().items():
        state[f"{first}text_model.{key.removeprefix('text_model.')}"] = value
    if xl:
        second = open_clip(parts["text_encoder_2"].state_dict())
        state |= {f"conditioner.embedders.1.model.{k}": v for k, v in second.items()}
    dtype = torch.float16 if half else torch.float32
    save_file({k: v.to(dtype).clone().contiguous() for k, v in state.items()}, path)
    return path


def unet(network: Any) -> State:
    """Blocks are counted through, with a place of its own for every layer and every change of
    size."""
    layers = network.config.layers_per_block
    found = {}
    for key, value in network.state_dict().items():
        name, _, kind = key.rpartition(".")
        if name in OUTSIDE:
            found[f"{OUTSIDE[name]}.{kind}"] = value
            continue
        side, *rest = name.split(".")
        if side == "mid_block":
            what, j, *rest = rest
            block, inner = f"middle_block.{1 if what == 'attentions' else 2 * int(j)}", rest
        else:
            i, what, j, *inner = rest
            level, layer = int(i), int(j)
            if side == "down_blocks":
                place = (layers + 1) * (level + (what == "downsamplers")) + layer
                block = f"input_blocks.{place + (what != 'downsamplers')}"
            else:
                last = layers if what == "upsamplers" else layer
                block = f"output_blocks.{(layers + 1) * level + last}"
            slot = {"resnets": 0, "downsamplers": 0, "attentions": 1}.get(what)
            if slot is None:  # after the attentions, where the block has some
                slot = 1 + hasattr(network.up_blocks[level], "attentions")
            block = f"{block}.{slot}"
        if what == "resnets":
            inner = [RESNET[inner[0]], *inner[1:]]
        elif what == "downsamplers":
            inner = ["op"]
        found[".".join([block, *inner, kind])] = value
    return found


def vae(network: Any) -> State:
    levels = len(network.config.block_out_channels)
    found = {}
    for key, value in network.state_dict().items():
        new = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        new = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        up = re.search(r"up_blocks\.(\d)", new)
        if up:
            new = new.replace(up[0], f"up.{levels - 1 - int(up[1])}")
            new = new.replace("resnets", "block").replace("upsamplers.0", "upsample")
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        if "mid_block.attentions.0" in new:
            new = new.replace("mid_block.attentions.0", "mid.attn_1")
            for ours, theirs in (("group_norm", "norm"), ("to_out.0", "proj_out")):
                new = new.replace(ours, theirs)
            new = re.sub(r"to_([qkv])\.", r"\1.", new)
            value = value[:, :, None, None] if value.ndim == 2 else value  # convolutions there
        found[new] = value
    return found


def open_clip(state: State) -> State:
    """Queries, keys and values are one matrix there."""
    found, joined = {}, {}
    for key, value in state.items():
        name = key.removeprefix("text_model.")
        if layer := re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)", name):
            joined[layer[1], layer[3], layer[2]] = value
        elif layer := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(\w+)", name):
            found[f"transformer.resblocks.{layer[1]}.{OPEN_CLIP[layer[2]]}.{layer[3]}"] = value
    for layer, kind in {(layer, kind) for layer, kind, _ in joined}:
        rows = [joined[layer, kind, which] for which in "qkv"]
        found[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(rows)
    text = {key.removeprefix("text_model."): value for key, value in state.items()}
    return found | {
        "positional_embedding": text["embeddings.position_embedding.weight"],
        "token_embedding.weight": text["embeddings.token_embedding.weight"],
        "ln_final.weight": text["final_layer_norm.weight"],
        "ln_final.bias": text["final_layer_norm.bias"],
        "text_projection": text["text_projection.weight"].T,
    }
