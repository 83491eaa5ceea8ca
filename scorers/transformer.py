"""Transformers from a folder or the hub, for the scorers that are made of one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from scorers.base import ScorerError, first_line
from scorers.hardware import resolve_device
from scorers.weights import check_shards, digest

if TYPE_CHECKING:
    import torch

MOST_TOKENS = 2**20  # beyond it a tokenizer's limit is none: transformers writes 1e30


class TextTransformer:
    """A model of one of transformers' Auto classes in evaluation, float32, with its tokenizer.

    Weights are read from safetensors only, and no code that comes with them is run.
    """

    def __init__(
        self, auto: str, model: str | os.PathLike[str], device: str | None, *, where: str
    ) -> None:
        """``auto``: the class's name; ``where`` (such as ``"relevance: encoder"``) for errors."""
        import torch
        import transformers

        self.device = resolve_device(where.partition(":")[0], device)
        name = str(model)
        check_shards(name, where=f"{where}={name!r}")
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(
                name, trust_remote_code=False
            )
            with torch.random.fork_rng(devices=[]):  # a head may be drawn, then overwritten
                loaded, info = getattr(transformers, auto).from_pretrained(
                    name,
                    use_safetensors=True,
                    dtype=torch.float32,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
        except Exception as error:
            raise ScorerError(
                f"{where}={name!r} cannot be loaded ({first_line(error)}); give a folder or hub id "
                f"with safetensors"
            ) from error
        if missing := sorted(info["missing_keys"]):
            raise ScorerError(
                f"{where}={name!r} lacks the weights of {missing[0]}; it is no model of this kind"
            )
        if self.tokenizer.pad_token is None:  # GPT-2 and its kin
            self.tokenizer.pad_token = self.tokenizer.eos_token
            loaded.config.pad_token_id = self.tokenizer.pad_token_id
        # The version, since what a network gives cannot be compared exactly: its floats differ by
        # rounding from one machine to the next.
        self.fingerprint = f"{digest(loaded.state_dict())} transformers-{transformers.__version__}"
        self.model = loaded.to(self.device).eval()
        # How many tokens it reads.
        self.limit = int(min(self.tokenizer.model_max_length, _positions(loaded)))

    def encode(self, *texts: list[str]) -> dict[str, torch.Tensor]:
        """One list of N texts, or two for N pairs -> model inputs on the device, padded, each cut
        to what the model reads, the longer text of a pair first."""
        limit = self.limit
        encoded: Any = self.tokenizer(
            *texts,
            padding=True,
            truncation="longest_first" if limit < MOST_TOKENS else False,
            max_length=limit if limit < MOST_TOKENS else None,
            return_tensors="pt",
        )
        return {key: value.to(self.device) for key, value in encoded.items()}


def _positions(model: torch.nn.Module) -> int:
    """How many tokens a model has positions for."""
    for name, module in model.named_modules():
        # RoBERTa and its kin count from behind the position that stands for padding.
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            return int(module.num_embeddings) - int(padding) - 1
    return int(getattr(model.config, "max_position_embeddings", MOST_TOKENS))
