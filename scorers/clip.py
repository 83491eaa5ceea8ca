"""CLIP through open_clip: pictures and prompts -> unit vectors. Shared by the scorers on CLIP."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from scorers import probes
from scorers.base import ScorerError, WeightsError, first_line
from scorers.parallel import map_images
from scorers.rgb import RGB_FINGERPRINT, to_rgb
from scorers.spec import suggest
from scorers.weights import SAFE, check_weights_path, digest, read_state_dict

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

# The scorers' default: OpenAI's ViT-L/14, which was trained with QuickGELU.
DEFAULT_CLIP = "ViT-L-14-quickgelu"
DEFAULT_WEIGHTS = "openai"

# Scorers on the same weights share one encoder for as long as one of them lives.
_alive: WeakValueDictionary[tuple[object, ...], ClipEncoder] = WeakValueDictionary()


class ClipEncoder:
    """An open_clip model in evaluation, float32, with its own preprocessing and tokenizer."""

    def __init__(
        self, clip: str, weights: Path, device: torch.device, tag: dict[str, Any], *, where: str
    ) -> None:
        """``tag`` is open_clip's entry for the weights, {} for a file of the user's own."""
        import open_clip
        import torch

        if weights.suffix != SAFE:
            # open_clip retries without weights_only in one corner: let nothing but tensors through
            read_state_dict(weights, where=where)
        quick_gelu = bool(tag.get("quick_gelu", False))
        try:
            with torch.random.fork_rng(devices=[]):  # the random init must not move the user's seed
                model, _, self._preprocess = open_clip.create_model_and_transforms(
                    clip,
                    pretrained=str(weights),
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
        self._name = clip
        self._device = device
        config = open_clip.get_model_config(clip)
        self.width: int = config["embed_dim"]
        config["quick_gelu"] = quick_gelu or config.get("quick_gelu", False)
        settings = json.dumps([config, model.visual.preprocess_cfg], sort_keys=True)
        # Of resizing and cropping, what they do. Of the network, open_clip's version: what it gives
        # is floats that differ by rounding from one machine to the next.
        self.fingerprint = (
            f"clip={clip}@{digest(model.state_dict(), settings)} "
            f"open_clip-{open_clip.__version__} pixels-{self._pixels_digest()} {RGB_FINGERPRINT}"
        )
        self._model = model.to(device).eval()

    def _pixels_digest(self) -> str:
        """Of what preprocessing makes of fixed pictures, to a tenth of a grey level or so."""
        pixels = [self._preprocess(picture) for picture in probes.pictures()]  # (3, H, W) each
        return probes.digest([(p * 1000).round().int().numpy().tobytes().hex() for p in pixels])

    @cached_property
    def _tokenize(self) -> Callable[[list[str]], torch.Tensor]:
        """B prompts -> token ids (B, L). On first use: it takes longer than a small model."""
        import open_clip

        tokenizer: Callable[[list[str]], torch.Tensor] = open_clip.get_tokenizer(self._name)
        return tokenizer

    def encode_images(self, images: Sequence[Image], batch_size: int) -> torch.Tensor:
        """N >= 1 images -> (N, D) float32 on the CPU, each row of length 1."""
        import torch

        rows = []
        for start in range(0, len(images), batch_size):
            pixels = map_images(
                lambda image: self._preprocess(to_rgb(image)), images[start : start + batch_size]
            )
            with torch.inference_mode():
                batch = torch.stack(pixels).to(self._device)  # (B, 3, H, W)
                rows.append(self._model.encode_image(batch, normalize=True).float().cpu())
        return torch.cat(rows)

    def encode_texts(self, prompts: Sequence[str], batch_size: int) -> torch.Tensor:
        """N >= 1 prompts, cut at the model's context length -> (N, D) as ``encode_images``."""
        import torch

        rows = []
        for start in range(0, len(prompts), batch_size):
            with torch.inference_mode():
                tokens = self._tokenize(list(prompts[start : start + batch_size]))  # (B, L)
                features = self._model.encode_text(tokens.to(self._device), normalize=True)
                rows.append(features.float().cpu())
        return torch.cat(rows)


def load_clip(
    scorer: str, clip: str, clip_weights: str | os.PathLike[str], device: str | None
) -> ClipEncoder:
    """The encoder for an open_clip model name and a pretrained tag or the path of a weights file.

    A file of the user's own gets OpenAI's mean, deviation and bicubic resize, and the activation
    that the model's name says: OpenAI's weights want a name that ends in -quickgelu.
    ``device`` None is cuda where there is one, else cpu. ``scorer`` is for error messages.
    """
    import open_clip

    where = f"{scorer}: clip_weights"
    target = resolve_device(scorer, device)
    clip, given = str(clip), str(clip_weights)
    models = open_clip.list_models()
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
    stat = weights.stat()
    key = (clip, weights.resolve(), stat.st_mtime_ns, stat.st_size, str(target), str(tag))
    encoder = _alive.get(key)
    if encoder is None:
        encoder = _alive[key] = ClipEncoder(clip, weights, target, tag, where=where)
    return encoder


def resolve_device(scorer: str, device: str | None) -> torch.device:
    """None -> cuda where there is one, else cpu; a name -> that device, if it is here."""
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except Exception as error:
        raise ScorerError(
            f"{scorer}: device={device!r} cannot be used here ({first_line(error)}); "
            f"give cpu, or leave it out"
        ) from error
    return target


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
