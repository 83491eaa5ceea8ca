"""How well a picture fits its prompt and people's taste: ImageReward."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from scorers import probes
from scorers.base import BaseScorer, ScorerError, WeightsError, check_batch_size, first_line
from scorers.encoder import in_batches, usual_batch
from scorers.hardware import Precision, resolve_compute
from scorers.head import Head
from scorers.rgb import RGB_FINGERPRINT, to_rgb
from scorers.weights import digest, find_weights, read_state_dict

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

DEFAULT_MODEL = "THUDM/ImageReward"
FILES = ("ImageReward.safetensors", "ImageReward.pt")
DEFAULT_TOKENIZER = "google-bert/bert-base-uncased"
TOKENS = 35  # of the prompt, as in its training
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the head's output over its training data
HEAD_WIDTH = 64  # of every attention head in BLIP

# The checkpoint's names -> those of transformers' BLIP.
VISION = (
    (r"cls_token", "embeddings.class_embedding"),
    (r"pos_embed", "embeddings.position_embedding"),
    (r"patch_embed\.proj", "embeddings.patch_embedding"),
    (r"blocks\.(\d+)\.norm", r"encoder.layers.\1.layer_norm"),
    (r"blocks\.(\d+)\.attn\.qkv", r"encoder.layers.\1.self_attn.qkv"),
    (r"blocks\.(\d+)\.attn\.proj", r"encoder.layers.\1.self_attn.projection"),
    (r"blocks\.(\d+)\.mlp", r"encoder.layers.\1.mlp"),
    (r"norm\.", "post_layernorm."),
)


class ImageReward(BaseScorer):
    """ImageReward v1.0 (Xu et al. 2023, arXiv 2304.05977): BLIP reads the prompt with an eye on the
    picture, and a head makes a number of it: in standard deviations over its training data.

    It learned from rankings of pictures of one prompt, within which scores compare. Prompts are
    cut at 35 tokens.

    Options: ``model``, a hub id or folder with ImageReward's checkpoint, or the path of that file;
    ``tokenizer``, a folder or hub id of BERT's; ``device``, ``precision`` and ``batch_size``, as of
    ``clip_score``.
    """

    name = "image_reward"
    unit = "sd"
    needs_prompts = True
    compares_within: Literal["prompt"] | None = "prompt"

    def __init__(
        self,
        *,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        tokenizer: str | os.PathLike[str] = DEFAULT_TOKENIZER,
        device: str | None = None,
        precision: Precision = "auto",
        batch_size: int | None = None,
    ) -> None:
        import open_clip
        import transformers

        where = f"{self.name}: model"
        self._compute = resolve_compute(self.name, device, precision)
        size = check_batch_size(self.name, batch_size)
        self._batch_size = size or usual_batch(self._compute)
        state = read_state_dict(
            find_weights(model, FILES, where=where, option="model"), where=where
        )
        try:
            self._network = build(state).to(self._compute.device)
        except Exception as error:
            raise ScorerError(
                f"{where}={str(model)!r} is no checkpoint of ImageReward ({first_line(error)}); "
                f"give the one of https://huggingface.co/{DEFAULT_MODEL}"
            ) from error
        side = self._network["vision"].config.image_size
        self._preprocess = open_clip.image_transform(side, is_train=False)  # which is CLIP's
        self._tokenizer = load_tokenizer(str(tokenizer))
        self.options = {
            "model": str(model),
            "tokenizer": str(tokenizer),
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
        }
        self.fingerprint = (
            f"{self.name} model@{digest(self._network.state_dict())} "
            f"transformers-{transformers.__version__} tokens-{self._tokens_digest()} "
            f"pixels-{self._pixels_digest()} {RGB_FINGERPRINT} {self._compute.precision}"
        )

    def _score(self, images: list[Image], prompts: list[str] | None) -> np.ndarray:
        import torch

        assert prompts is not None  # needs_prompts
        asked = prompts
        device = self._compute.device

        def rewards(part: range, pixels: torch.Tensor) -> torch.Tensor:
            tokens = self._encode(asked[part.start : part.stop])
            with self._compute.autocast():
                seen = self._network["vision"](pixel_values=pixels.to(device)).last_hidden_state
                read = self._network["text"](
                    input_ids=tokens["input_ids"].to(device),
                    attention_mask=tokens["attention_mask"].to(device),
                    encoder_hidden_states=seen,
                ).last_hidden_state[:, 0]  # (B, D): of the first token
            found: torch.Tensor = self._network["mlp"](read.float())[:, 0].cpu()
            return found

        found = torch.cat(
            in_batches(rewards, images, lambda i: self._pixels(to_rgb(i)), self._batch_size)
        )
        scores: np.ndarray = ((found - MEAN) / STD).numpy()
        return scores

    def _encode(self, prompts: list[str]) -> Any:
        return self._tokenizer(
            prompts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
        )

    def _pixels(self, image: Image) -> torch.Tensor:
        """An RGB picture as the network takes it: the middle square, (3, side, side)."""
        pixels: torch.Tensor = self._preprocess(image)
        return pixels

    def _pixels_digest(self) -> str:
        pixels = [self._pixels(picture) for picture in probes.pictures()]
        return probes.digest([(p * 1000).round().int().numpy().tobytes().hex() for p in pixels])

    def _tokens_digest(self) -> str:
        return probes.digest(self._encode(list(probes.TEXTS))["input_ids"].tolist())


def build(state: Mapping[str, torch.Tensor]) -> Any:
    """ImageReward's network from its checkpoint, whose shapes say how large it is: ``vision``,
    ``text`` and ``mlp``, float32, in evaluation. An error if a weight is missing or does not fit.
    """
    import torch
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    eyes = renamed(state, "blip.visual_encoder.", VISION)
    text = renamed(state, "blip.text_encoder.", ())
    text.pop("embeddings.position_ids", None)  # a count from 0, which older releases stored
    patch = eyes["embeddings.patch_embedding.weight"]  # (width, 3, p, p)
    positions = eyes["embeddings.position_embedding"].shape[1] - 1  # of the patches
    words = text["embeddings.word_embeddings.weight"]  # (vocabulary, width)
    vision = BlipVisionConfig(
        hidden_size=patch.shape[0],
        intermediate_size=eyes["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=layers_of(eyes, r"encoder\.layers\.(\d+)\."),
        num_attention_heads=patch.shape[0] // HEAD_WIDTH,
        image_size=round(positions**0.5) * patch.shape[-1],
        patch_size=patch.shape[-1],
        layer_norm_eps=1e-6,
    )
    reader = BlipTextConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        encoder_hidden_size=patch.shape[0],
        intermediate_size=text["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=layers_of(text, r"encoder\.layer\.(\d+)\."),
        num_attention_heads=words.shape[1] // HEAD_WIDTH,
        max_position_embeddings=text["embeddings.position_embeddings.weight"].shape[0],
        is_decoder=True,  # which is how it gets its cross-attention; it reads both ways
    )
    head = Head(name="layers", width=words.shape[1], places=(0, 2, 4, 6, 7))
    with torch.random.fork_rng(devices=[]):  # the random init must not move the user's seed
        parts = {
            "vision": BlipVisionModel(vision),
            "text": BlipTextModel(reader, add_pooling_layer=False),
        }
    parts["vision"].load_state_dict(eyes)
    parts["text"].load_state_dict(text)
    network = torch.nn.ModuleDict({**parts, "mlp": head.load(renamed(state, "mlp.", ()))})
    return network.float().eval()


def renamed(
    state: Mapping[str, torch.Tensor], prefix: str, names: tuple[tuple[str, str], ...]
) -> dict[str, torch.Tensor]:
    """The weights below a prefix, without it, under other names where a pattern's matches."""
    found = {}
    for key, tensor in state.items():
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            for pattern, other in names:
                if re.match(pattern, name):
                    name = re.sub(f"^{pattern}", other, name)
                    break
            found[name] = tensor
    return found


def layers_of(state: Mapping[str, torch.Tensor], pattern: str) -> int:
    """How many layers there are, from the numbers in their names."""
    return 1 + max(int(match[1]) for key in state if (match := re.match(pattern, key)))


def load_tokenizer(name: str) -> Any:
    """BERT's. BLIP's two words beside it never stand in a prompt."""
    import transformers

    where = f"{ImageReward.name}: tokenizer={name!r}"
    try:
        return transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        kind = ScorerError if os.path.exists(name) else WeightsError
        raise kind(
            f"{where} cannot be loaded ({first_line(error)}); give the folder or hub id of "
            f"{DEFAULT_TOKENIZER}"
        ) from error
