"""Image encoders of transformers, from a folder or the hub."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scorers import probes
from scorers.base import ScorerError, WeightsError, first_line
from scorers.encoder import Encoder, shared
from scorers.hardware import Compute
from scorers.rgb import RGB_FINGERPRINT
from scorers.weights import SAFE, check_shards, digest, is_hub_id

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

Model = Literal["CLIPModel", "SiglipVisionModel"]


class HubEncoder(Encoder):
    """A CLIP of transformers, or SigLIP's vision tower, which reads no prompts, with the
    preprocessing and tokenizer beside it.

    Weights are read from safetensors only, and no code that comes with them is run.
    """

    def __init__(self, kind: Model, model: str, compute: Compute, *, where: str) -> None:
        """``kind``: the class in transformers; ``where`` (such as ``"pickscore: model"``) for
        errors."""
        import torch
        import transformers

        super().__init__(compute)
        self._where = f"{where}={model!r}"
        self._name = model
        check_shards(model, where=self._where)
        try:
            self._processor = transformers.AutoImageProcessor.from_pretrained(
                model, trust_remote_code=False
            )
            with torch.random.fork_rng(devices=[]):  # a head may be drawn, then overwritten
                loaded, info = getattr(transformers, kind).from_pretrained(
                    model,
                    use_safetensors=True,
                    dtype=torch.float32,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
        except Exception as error:
            if is_hub_id(model):
                raise WeightsError(
                    f"{self._where}: cannot fetch safetensors of https://huggingface.co/{model} "
                    f"({first_line(error)}); go online once, or give the path of a copy"
                ) from error
            raise ScorerError(
                f"{self._where} cannot be loaded ({first_line(error)}); give a folder or hub id "
                f"with safetensors"
            ) from error
        if missing := sorted(info["missing_keys"]):
            raise ScorerError(
                f"{self._where} lacks the weights of {missing[0]}; it is no {kind} of transformers"
            )
        config, is_clip = loaded.config, kind == "CLIPModel"
        self.width = int(config.projection_dim if is_clip else config.hidden_size)
        self.scale = float(loaded.logit_scale.detach().exp()) if is_clip else 1.0  # of cosines
        self._tokenizer = self._load_tokenizer() if is_clip else None
        settings = json.dumps(_settings(config.to_dict()), sort_keys=True, default=str)
        self._model = loaded.eval()
        self.fingerprint = (
            f"model@{digest(loaded.state_dict(), settings)} "
            f"transformers-{transformers.__version__} tokens-{self._tokens_digest()} "
            f"pixels-{self._pixels_digest()} {RGB_FINGERPRINT} {compute.precision}"
        )
        self._model.to(compute.device)

    def _load_tokenizer(self) -> Any:
        import transformers

        try:
            return transformers.AutoTokenizer.from_pretrained(self._name, trust_remote_code=False)
        except Exception as error:
            raise ScorerError(
                f"{self._where} has no tokenizer ({first_line(error)}); give a folder or hub id "
                f"that has one"
            ) from error

    def _tokens_digest(self) -> str:
        """Of what the tokenizer, if there is one, makes of fixed texts."""
        texts = list(probes.TEXTS) if self._tokenizer else []
        return probes.digest([self._tokens([text])["input_ids"].tolist() for text in texts])

    def _tokens(self, prompts: list[str]) -> Any:
        """B prompts -> token ids and mask, (B, L), cut where the network's positions end."""
        assert self._tokenizer is not None  # SigLIP's vision tower reads no prompts
        limit = self._model.config.text_config.max_position_embeddings
        return self._tokenizer(
            prompts, padding=True, truncation=True, max_length=limit, return_tensors="pt"
        )

    def _pixels(self, image: Image) -> torch.Tensor:
        pixels: torch.Tensor = self._processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    def _images(self, pixels: torch.Tensor) -> torch.Tensor:
        model = self._model
        seen = model.get_image_features if hasattr(model, "get_image_features") else model
        features: torch.Tensor = seen(pixel_values=pixels).pooler_output
        return features

    def _texts(self, prompts: list[str]) -> torch.Tensor:
        tokens = self._tokens(prompts).to(self._compute.device)
        features: torch.Tensor = self._model.get_text_features(**tokens).pooler_output
        return features


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """A model's config, down to those of its parts, without what does not bear on what it gives."""
    aside = {"_name_or_path", "architectures", "dtype", "transformers_version"}
    return {
        key: _settings(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in aside
    }


def load_hub_encoder(
    kind: Model, model: str | os.PathLike[str], compute: Compute, *, where: str
) -> HubEncoder:
    """The one encoder for a folder or hub id, as it is now, on a device in a precision."""
    name = str(Path(model).expanduser()) if Path(model).expanduser().exists() else str(model)
    files = sorted(Path(name).glob(f"*{SAFE}")) if Path(name).is_dir() else []
    known = tuple((file.resolve(), file.stat().st_mtime_ns) for file in files)
    return shared(
        (HubEncoder, kind, name, known, compute),
        lambda: HubEncoder(kind, name, compute, where=where),
    )
