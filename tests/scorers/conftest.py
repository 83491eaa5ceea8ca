"""Pictures, and a tiny CLIP with random weights that open_clip knows by name."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@dataclass(frozen=True)
class TinyClip:
    name: str  # of open_clip's config
    path: Path  # of the weights, safetensors
    size: int  # of the pictures it sees
    patch: int
    heads: int
    text_heads: int


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def pictures(rng):
    """Seven RGB pictures of different sizes: noise on slopes, so that no two score the same."""
    images = []
    for index in range(7):
        height, width = 24 + 5 * index, 40 - 3 * index
        slope = np.linspace(0, 200, width)[None, :, None] * rng.random(3)
        noise = rng.normal(0, 1 + 9 * index, (height, width, 3))
        images.append(Image.fromarray((slope + 30 + noise).clip(0, 255).astype(np.uint8)))
    return images


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    """QuickGELU as in OpenAI's ViT-L/14 and 768 features as the aesthetic head reads."""
    open_clip = pytest.importorskip("open_clip")
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("clip")
    name = "tiny-for-tests"
    config = {
        "embed_dim": 768,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 28,
            "layers": 2,
            "width": 64,
            "head_width": 32,
            "patch_size": 14,
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 2,
        },
    }
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        state = open_clip.create_model(name).state_dict()
        # far from the usual init, whose zeros, ones and small weights would hide a layer left out
        # and tell no QuickGELU from GELU
        state = {key: value + 0.3 * torch.randn_like(value) for key, value in state.items()}
    save_file(state, folder / "weights.safetensors")
    return TinyClip(name, folder / "weights.safetensors", 28, 14, heads=2, text_heads=2)


class ReferenceClip:
    """CLIP from its description and a state dict, in plain tensor operations (float64)."""

    mean = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's
    std = (0.26862954, 0.26130258, 0.27577711)

    def __init__(self, tiny, state):
        self.tiny = tiny
        self.state = {key: value.double() for key, value in state.items()}

    def images(self, images):
        """N pictures -> unit vectors (N, D)."""
        import torch

        return torch.stack([self._unit(self._see(self._pixels(image))) for image in images])

    def texts(self, prompts):
        """N prompts -> unit vectors (N, D)."""
        import torch
        from open_clip.tokenizer import SimpleTokenizer

        tokens = SimpleTokenizer(context_length=16)(prompts)
        return torch.stack([self._unit(self._read(row)) for row in tokens])

    def _pixels(self, image):
        """Shortest side to ``size``, the middle square, normalised: (3, S, S)."""
        import torch

        side = self.tiny.size
        width, height = image.size
        shortest = min(width, height)
        wide, high = int(side * width / shortest), int(side * height / shortest)
        image = image.convert("RGB").resize((wide, high), Image.BICUBIC)
        left, top = round((wide - side) / 2), round((high - side) / 2)
        array = np.asarray(image, dtype=np.float64)[top : top + side, left : left + side] / 255
        return torch.from_numpy((array - self.mean) / self.std).permute(2, 0, 1)

    def _see(self, pixels):
        import torch

        patch = self.tiny.patch
        patches = pixels.unfold(1, patch, patch).unfold(2, patch, patch)  # (3, n, n, p, p)
        patches = patches.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)  # (n*n, 3pp)
        kernel = self.state["visual.conv1.weight"].flatten(1)
        x = torch.cat([self.state["visual.class_embedding"][None], patches @ kernel.T])
        x = self._norm(x + self.state["visual.positional_embedding"], "visual.ln_pre")
        x = self._blocks(x, "visual.transformer.resblocks", self.tiny.heads, mask=None)
        return self._norm(x[0], "visual.ln_post") @ self.state["visual.proj"]

    def _read(self, tokens):
        import torch

        x = self.state["token_embedding.weight"][tokens] + self.state["positional_embedding"]
        future = torch.full((len(tokens), len(tokens)), -torch.inf).triu(1)
        x = self._blocks(x, "transformer.resblocks", self.tiny.text_heads, mask=future)
        return self._norm(x[tokens.argmax()], "ln_final") @ self.state["text_projection"]

    def _blocks(self, x, prefix, heads, mask):
        names = [key.removeprefix(f"{prefix}.") for key in self.state if key.startswith(prefix)]
        for layer in sorted({int(name.split(".")[0]) for name in names}):
            block = f"{prefix}.{layer}"
            x = x + self._attend(self._norm(x, f"{block}.ln_1"), f"{block}.attn", heads, mask)
            hidden = self._linear(self._norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
            x = x + self._linear(hidden * (1.702 * hidden).sigmoid(), f"{block}.mlp.c_proj")
        return x

    def _attend(self, x, prefix, heads, mask):
        packed = x @ self.state[f"{prefix}.in_proj_weight"].T + self.state[f"{prefix}.in_proj_bias"]
        q, k, v = (part.unflatten(1, (heads, -1)).transpose(0, 1) for part in packed.chunk(3, 1))
        weights = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5  # (heads, L, L)
        weights = (weights if mask is None else weights + mask).softmax(-1)
        return self._linear((weights @ v).transpose(0, 1).flatten(1), f"{prefix}.out_proj")

    def _linear(self, x, prefix):
        return x @ self.state[f"{prefix}.weight"].T + self.state[f"{prefix}.bias"]

    def _norm(self, x, prefix):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.state[f"{prefix}.weight"] + self.state[f"{prefix}.bias"]

    @staticmethod
    def _unit(x):
        return x / x.square().sum().sqrt()


@pytest.fixture(scope="session")
def reference(tiny_clip):
    from safetensors.torch import load_file

    return ReferenceClip(tiny_clip, load_file(tiny_clip.path))


@pytest.fixture(scope="session")
def tiny_hub_clip(tmp_path_factory):
    """A folder as of a CLIP on the hub: transformers' model with random weights, tokenizer and
    preprocessing. 768 features as the aesthetic head reads."""
    torch = pytest.importorskip("torch")
    import transformers

    folder = tmp_path_factory.mktemp("hub-clip")
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>"]
    specials = ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={word: index for index, word in enumerate([*words, *specials])},
        merges=[("c", "a"), ("ca", "t</w>")],
        model_max_length=12,
    )
    small = {"num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={
            **small,
            "vocab_size": len(words) + 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "max_position_embeddings": 12,
            "bos_token_id": len(words),
            "eos_token_id": len(words) + 1,
            "pad_token_id": len(words) + 1,
        },
        vision_config={
            **small,
            "hidden_size": 64,
            "intermediate_size": 96,
            "image_size": 28,
            "patch_size": 14,
        },
        projection_dim=768,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = transformers.CLIPModel(config).eval()
        for parameter in model.parameters():
            parameter.data += 0.08 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    ).save_pretrained(folder)
    return folder
