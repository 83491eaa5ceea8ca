"""A causal language model with its tokenizer, its chat and at most one adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers

from ric_diffusion.adapters import lora
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.conditioning.grammar import fit_prompt
from ric_diffusion.io import config
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.extras import require
from ric_diffusion.io.paths import expanded_name
from ric_diffusion.models.causal_lm.chat import Chat, Turn
from ric_diffusion.models.causal_lm.generation import Sampling
from ric_diffusion.models.causal_lm.steering import steered
from ric_diffusion.models.checkpoint import check_shards
from ric_diffusion.models.family import Family, family_named
from ric_diffusion.models.known import INSTALL, PACKAGES

FEATURES = 64  # of a prompt: more than a calibration has prompts to learn from


def model_path(name: str) -> str:
    """The folder of a model that comes in a package; anything else as it is, home folders written
    out. InputError if the package is not installed."""
    if name not in PACKAGES:
        return expanded_name(name)
    spec = util.find_spec(PACKAGES[name])  # not imported: it would want llama.cpp
    if spec is None or spec.origin is None or util.find_spec("gguf") is None:
        raise InputError(f"{name}: comes in a package that is not installed; {INSTALL}")
    return str(Path(spec.origin).parent)


def _source(name: str) -> tuple[str, dict[str, Any]]:
    """Where a model is read from, and the GGUF file in it if it is one."""
    path = model_path(name)
    gguf = sorted(Path(path).glob("*.gguf")) if Path(path).is_dir() else []
    return path, {"gguf_file": gguf[0].name} if gguf else {}


def load_tokenizer(name: str, **hub: Any) -> Any:
    """The tokenizer alone of ``smollm2``, a folder or a hub id; ``hub``: its revision."""
    path, gguf = _source(name)
    if gguf:  # whose tokenizer is always one of these; to find that out the other reads all tensors
        return transformers.PreTrainedTokenizerFast.from_pretrained(
            path, trust_remote_code=False, **gguf, **hub
        )
    return transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False, **hub)


class RiCCausalLM:
    """A model of transformers, in evaluation mode, that reads reward words or tokens."""

    family_name = "causal-lm"

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        # What is asked of `generate` is all of it: no penalties or lengths of the model's own.
        model.generation_config = transformers.GenerationConfig()
        self.tokenizer = tokenizer
        self.chat = Chat(tokenizer)
        self.adapter: Adapter | None = None

    @classmethod
    def from_pretrained(
        cls, name: str, dtype: torch.dtype | Literal["auto"] = torch.float32, **hub: Any
    ) -> RiCCausalLM:
        """``smollm2``, a folder or a hub id; a folder may hold one GGUF file. Weights are read
        from safetensors or GGUF only, as ``dtype`` (``auto``: as they are stored), and no code that
        comes with them is run. ``hub``: its revision."""
        require("llm", f"model {name}")
        tokenizer = load_tokenizer(name, **hub)
        path, gguf = _source(name)
        check_shards(path, **hub)
        if gguf and dtype == "auto":  # it is stored in what nothing computes in
            dtype = torch.float32
        source = {**gguf, **hub, "dtype": dtype, "use_safetensors": not gguf}
        model = transformers.AutoModelForCausalLM.from_pretrained(
            path, trust_remote_code=False, **source
        )
        if gguf:  # its tensors were unpacked: for peft too it is a plain model now
            del model.config.quantization_config
        return cls(model, tokenizer)

    @property
    def family(self) -> Family:
        """What is said of models like this one."""
        return family_named(self.family_name)

    def check_fit(self, adapter: Adapter) -> None:
        """InputError if the adapter's reward encoder does not fit this model."""
        adapter.conditioner.check_width(self.model.config.hidden_size)
        if adapter.encoder is not None:
            adapter.encoder.check_fit(layers=self.model.config.num_hidden_layers)
        adapter.check_features(FEATURES)

    def load_adapter(self, path_or_id: str | Path) -> None:
        """Load an adapter folder or hub id, in place of the one before. InputError, and nothing
        changed, if it was made for another architecture."""
        adapter, weights = self.family.read_adapter(self.family.fetch_adapter(path_or_id))
        self.check_fit(adapter)
        lora.check_fit(self.model, weights)
        self.unload_adapter()
        lora.install(self.model, weights)
        self.adapter = adapter

    def unload_adapter(self) -> None:
        """Take the adapter out again; the model's own weights were never touched."""
        lora.eject(self.model)
        self.adapter = None

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The base model inside the block, also with an adapter in training."""
        adapter, self.adapter = self.adapter, None
        try:
            with lora.disabled(self.model):
                yield
        finally:
            self.adapter = adapter

    @contextmanager
    def uncalibrated(self) -> Iterator[None]:
        """Targets are model targets inside the block: the adapter has no calibration there."""
        adapter = self.adapter
        self.adapter = adapter and replace(adapter, calibration={})
        try:
            yield
        finally:
            self.adapter = adapter

    def save_adapter(self, folder: str | Path) -> None:
        """Write the loaded adapter, or the one in training, as a folder of its own."""
        if self.adapter is None:
            raise InputError("no adapter is loaded; there is nothing to save")
        weights = lora.trained(self.model) if self.adapter.lora else lora.NO_LORA
        self.family.save_adapter(self.adapter, weights, Path(folder))

    def contexts(
        self, prompts: Sequence[str], targets: Sequence[Mapping[str, float]], room: int
    ) -> list[torch.Tensor]:
        """What the model reads before it responds, embeddings (T_i, D) each: a user's turn with the
        prompt, cut to ``room`` tokens, and the rewards at its end."""
        turn = Turn(self.tokenizer, room)
        conditioner = self.adapter.conditioner if self.adapter else None
        texts = conditioner.texts(prompts, targets, [turn]) if conditioner else prompts
        found = []
        for text, target in zip(texts, targets, strict=True):
            states = self.embed([*self.chat.before, *turn(fit_prompt(text, "", turn)).input_ids])
            if conditioner:
                states = conditioner.context(states[None], [target])[0]
            found.append(torch.cat([states, self.embed(self.chat.after)]))
        return found

    @torch.no_grad()
    def prompt_features(self, prompts: Sequence[str]) -> np.ndarray:
        """(N, FEATURES) float32, what calibration knows N prompts by: the model's last states,
        their mean over a user's turn without rewards, in fewer dimensions. Distances survive a
        random projection (Johnson & Lindenstrauss 1984). InputError without an adapter."""
        if self.adapter is None:
            raise InputError("no adapter is loaded; call load_adapter first")
        room = config.from_dict(dict(self.adapter.sampling), Sampling, "sampling").prompt_tokens
        turn = Turn(self.tokenizer, room)
        found = []
        for text in self.adapter.conditioner.texts(prompts, [{}] * len(prompts), [turn]):
            ids = [*self.chat.before, *turn(fit_prompt(text, "", turn)).input_ids]
            states = self.model.base_model(inputs_embeds=self.embed(ids)[None], use_cache=False)
            found.append(states.last_hidden_state[0].float().mean(dim=0).cpu())
        width = self.model.config.hidden_size
        projection = torch.randn(width, FEATURES, generator=torch.Generator().manual_seed(0))
        features: np.ndarray = (torch.stack(found) @ projection / FEATURES**0.5).numpy()
        return features

    def adapters_for(self, prompts: Sequence[str]) -> list[Adapter]:
        """The adapter as it is calibrated for each of these prompts."""
        assert self.adapter is not None
        return self.adapter.for_prompts(prompts, self.prompt_features)

    def steered(
        self, targets: Sequence[Mapping[str, float]], strength: float = 1.0
    ) -> AbstractContextManager[None]:
        """Inside the block the model reads a batch as the rewards steer it."""
        conditioner = self.adapter.conditioner if self.adapter else None
        found = conditioner.steering(targets, strength) if conditioner else None
        return steered(self.model, found)

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        """N token ids -> (N, D)."""
        tokens = torch.tensor(list(ids), dtype=torch.long, device=self.model.device)
        embeddings: torch.Tensor = self.model.get_input_embeddings()(tokens)
        return embeddings
