"""Which model the app has, as it was asked for: to load it, and to say it again elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ric_diffusion.api.models import Dtype, load
from ric_diffusion.models.checkpoint import Checkpoint, ModelName


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A checkpoint, the adapter that was given for it (None: its own), and the weights' dtype."""

    checkpoint: Checkpoint
    adapter: str | None = None
    dtype: Dtype = "float32"

    @classmethod
    def of(cls, model: ModelName, adapter: object = None, dtype: Dtype = "float32") -> ModelChoice:
        """``adapter``: a path or a hub id; nothing and empty are the model's own."""
        checkpoint = Checkpoint.of(model)
        return cls(checkpoint=checkpoint, adapter=str(adapter) if adapter else None, dtype=dtype)

    @property
    def name(self) -> str:
        return self.checkpoint.model

    def load(self) -> Any:
        """InputError for what cannot be loaded."""
        return load(self.checkpoint, self.adapter, dtype=self.dtype)

    @property
    def options(self) -> dict[str, str]:
        """Beside the model's name, by the argument's name in Python."""
        checkpoint = self.checkpoint
        found = {
            "base_config": checkpoint.base_config,
            "variant": checkpoint.variant,
            "revision": checkpoint.revision,
            "adapter": self.adapter,
            "dtype": None if self.dtype == "float32" else self.dtype,
        }
        return {name: value for name, value in found.items() if value is not None}

    def command(self) -> list[str]:
        """As options of ``ric generate``."""
        words = ["--model", self.name]
        for name, value in self.options.items():
            words += [f"--{name.replace('_', '-')}", value]
        return words

    def python(self) -> tuple[str, dict[str, str]]:
        """The first argument of ``generate`` as an expression, and its keyword arguments."""
        of_checkpoint = ("base_config", "variant", "revision")
        beside = {k: v for k, v in self.options.items() if k in of_checkpoint}
        more = {k: v for k, v in self.options.items() if k not in of_checkpoint}
        if not beside:
            return repr(self.name), more
        given = ", ".join(f"{k}={v!r}" for k, v in {"model": self.name, **beside}.items())
        return f"Checkpoint({given})", more
