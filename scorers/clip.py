"""CLIP, through open_clip or transformers, for the scorers on it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scorers import probes
from scorers.base import ScorerError, WeightsError, first_line
from scorers.encoder import Encoder, shared
from scorers.hardware import Compute, Precision, resolve_compute
from scorers.hub_encoder import HubEncoder, load_hub_encoder
from scorers.rgb import RGB_FINGERPRINT
from scorers.spec import suggest
from scorers.weights import (
    SAFE,
    check_weights_path,
    digest,
    find_weights,
    is_hub_id,
    read_state_dict,
)

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

# The scorers' default: OpenAI's ViT-L/14, which was trained with QuickGELU.
DEFAULT_CLIP = "ViT-L-14-quickgelu"
DEFAULT_WEIGHTS = "openai"

# CLIPs that come along, by name: folders as open_clip writes them.
BUNDLED = {"emoji-clip": Path(__file__).parent / "assets" / "emoji-clip"}
FOLDER = "local-dir:"  # how open_clip has a folder in place of a name
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"  # of such a folder


class ClipEncoder(Encoder):
    """An open_clip model with its own preprocessing and tokenizer."""

    def __init__(
        self, clip: str, weights: Path, compute: Compute, tag: dict[str, Any], *, where: str
    ) -> None:
        """``clip`` is open_clip's name, or ``FOLDER`` with the path of the folder that ``weights``
        is in; ``tag`` its entry for the weights, {} for a file of the user's own."""
        import open_clip
        import torch

        super().__init__(compute)
        folder = clip.startswith(FOLDER)
        if weights.suffix != SAFE:
            # open_clip retries without weights_only in one corner: let nothing but tensors through
            read_state_dict(weights, where=where)
        quick_gelu = bool(tag.get("quick_gelu", False))
        try:
            with torch.random.fork_rng(devices=[]):  # the random init must not move the user's seed
                model, _, self._preprocess = open_clip.create_model_and_transforms(
                    clip,
                    pretrained=None if folder else str(weights),
                    precision="fp32",
                    force_quick_gelu=quick_gelu,
                    image_mean=tag.get("mean"),
                    image_std=tag.get("std"),
                    image_interpolation=tag.get("interpolation"),
                    image_resize_mode=tag.get("resize_mode"),
                    weights_only=True,
                )
        except Exception as error:
            raise ScorerError(
                f"{where}={str(weights)!r} is no set of weights for clip={clip} "
                f"({first_line(error)}); give weights and model that belong together"
            ) from error
        self._name, self._where = clip, where
        config = open_clip.get_model_config(clip)
        self.width: int = config["embed_dim"]
        config["quick_gelu"] = quick_gelu or config.get("quick_gelu", False)
        settings = json.dumps([config, model.visual.preprocess_cfg], sort_keys=True)
        # Of resizing and cropping, what they do. Of the network, open_clip's version: what it gives
        # is floats that differ by rounding from one machine to the next.
        # Of a folder, which may be moved, what its tokenizer does instead of a name.
        named = f"clip={clip}" if not folder else f"clip-tokens-{self._tokens_digest()}"
        self.fingerprint = (
            f"{named}@{digest(model.state_dict(), settings)} "
            f"open_clip-{open_clip.__version__} pixels-{self._pixels_digest()} {RGB_FINGERPRINT} "
            f"{compute.precision}"
        )
        if compute.device.type == "cpu":
            _put_length_first(model)
        self._model = model.to(compute.device).eval()

    @cached_property
    def _tokenize(self) -> Callable[[list[str]], torch.Tensor]:
        """B prompts -> token ids (B, L). On first use: it takes longer than a small model."""
        import open_clip

        text = open_clip.get_model_config(self._name)["text_cfg"]
        # A folder's config may hold arguments for its tokenizer: these come before them.
        options = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
        tokenizer: Callable[[list[str]], torch.Tensor]
        try:
            tokenizer = open_clip.get_tokenizer(self._name, **options)
        except Exception as error:
            raise ScorerError(
                f"{self._where}: the tokenizer of clip={self._name} cannot be loaded "
                f"({first_line(error)}); give a model that has one"
            ) from error
        return tokenizer

    def _tokens_digest(self) -> str:
        """Of what the tokenizer makes of fixed texts."""
        return probes.digest(self._tokenize(list(probes.TEXTS)).tolist())

    def _pixels(self, image: Image) -> torch.Tensor:
        pixels: torch.Tensor = self._preprocess(image)
        return pixels

    def _images(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self._model.encode_image(pixels)
        return features

    def _texts(self, prompts: list[str]) -> torch.Tensor:
        tokens = self._tokenize(prompts).to(self._compute.device)  # (B, L)
        features: torch.Tensor = self._model.encode_text(tokens)
        return features


def _put_length_first(model: torch.nn.Module) -> None:
    """Have open_clip's transformers take their inputs as (L, N, D). As (N, L, D) their attention
    multiplies transposed views, which in bfloat16 takes a CPU a hundred times as long."""
    from open_clip.transformer import Transformer
    from torch.nn import MultiheadAttention

    for module in model.modules():
        if isinstance(module, Transformer):
            attentions = [block.attn for block in module.resblocks]
            if all(isinstance(attention, MultiheadAttention) for attention in attentions):
                for part in (module, *attentions):
                    part.batch_first = False


def load_clip(
    scorer: str,
    clip: str,
    clip_weights: str | os.PathLike[str],
    device: str | None = None,
    precision: Precision = "auto",
    *,
    encoder: type[ClipEncoder] = ClipEncoder,
) -> ClipEncoder | HubEncoder:
    """The encoder for an open_clip model name and a pretrained tag or the path of a weights file;
    or for what brings its weights along: the name of a bundled CLIP, a folder of open_clip's, a
    folder or hub id of transformers' CLIP.

    A file of the user's own gets OpenAI's mean, deviation and bicubic resize, and the activation
    that the model's name says: OpenAI's weights want a name that ends in -quickgelu. ``device`` and
    ``precision`` are those of ``resolve_compute``, ``scorer`` is for error messages, and
    ``encoder`` may see pictures in another way.
    """
    import open_clip

    where = f"{scorer}: clip_weights"
    compute = resolve_compute(scorer, device, precision)
    clip, given = str(clip), str(clip_weights)
    models = [*open_clip.list_models(), *BUNDLED]
    folder = BUNDLED.get(clip, Path(clip).expanduser())
    if clip in BUNDLED or (clip not in models and (folder.is_dir() or is_hub_id(clip))):
        if given != DEFAULT_WEIGHTS:
            raise ScorerError(
                f"{where}={given!r}: clip={clip!r} has weights of its own; leave clip_weights out"
            )
        where = f"{scorer}: clip"
        if not (folder / CONFIG).is_file():
            return load_hub_encoder("CLIPModel", clip, compute, where=where)
        weights = find_weights(folder, [WEIGHTS], where=where, option="clip")
        return _loaded(encoder, f"{FOLDER}{folder}", weights, compute, {}, where)
    if clip not in models:
        raise ScorerError(
            f"{scorer}: clip={clip!r} is not a model of open_clip; "
            f"{suggest(clip, models, 'it has')}"
        )
    tag: dict[str, Any] = open_clip.get_pretrained_cfg(clip, given)
    if tag:
        weights = _download(tag, f"{where}={given!r} for clip={clip}")
    elif _looks_like_path(given):
        weights = check_weights_path(given, where=where)
    else:
        tags = open_clip.list_pretrained_tags_by_model(clip)
        raise ScorerError(
            f"{where}={given!r} is neither a file nor a tag of {clip}; "
            f"{suggest(given, tags, 'its tags')}"
        )
    return _loaded(encoder, clip, weights, compute, tag, where)


def _loaded(
    encoder: type[ClipEncoder],
    clip: str,
    weights: Path,
    compute: Compute,
    tag: dict[str, Any],
    where: str,
) -> ClipEncoder:
    """The one encoder for these weights, as they are now."""
    stat = weights.stat()
    file = (weights.resolve(), stat.st_mtime_ns, stat.st_size)
    return shared(
        (encoder, clip, file, compute, str(tag)),
        lambda: encoder(clip, weights, compute, tag, where=where),
    )


def _looks_like_path(text: str) -> bool:
    path = Path(text)
    return path.exists() or bool(path.suffix) or len(path.parts) > 1


def _download(tag: dict[str, Any], what: str) -> Path:
    import open_clip

    try:
        path = Path(open_clip.download_pretrained(tag))
    except Exception as error:
        source = f"https://huggingface.co/{tag['hf_hub'].rstrip('/')}" if tag.get("hf_hub") else ""
        source = source or tag.get("url", "")
        raise WeightsError(
            f"{what}: cannot fetch {source} ({type(error).__name__}); go online once, or fetch the "
            f"file elsewhere and give its path as clip_weights"
        ) from error
    return check_weights_path(path, where=what)
