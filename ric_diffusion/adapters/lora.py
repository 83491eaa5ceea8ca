"""The LoRA of an adapter: checked, and merged into a network so that it costs nothing there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from ric_diffusion.io.bounds import check_count
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.tensors import FLOATS, StoredTensor
from ric_diffusion.rewards import checks

LORA_NAME = "ric"
MOST_RANK, MOST_ALPHA = 4096, 1e6
MAIN = ""  # the network that an adapter is for, among those that its LoRA changes

# What a weight that was cast may have gone through: pipelines are cast as a whole, and layerwise
# casting keeps weights in 8 bits.
NARROW = (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
ROUNDING = 1e-6  # of a layer's largest weight: what is left of a LoRA that was fused and unfused

# peft's settings of LoRA that are more than B·A with one rank and one alpha, which `delta` reads.
VARIANTS = {
    "use_dora": "DoRA",
    "use_rslora": "rsLoRA",
    "rank_pattern": "ranks by layer",
    "alpha_pattern": "alphas by layer",
}
# The same as keys of a config, by what to do about them.
NOT_TRAINED = {
    key: f"{what} cannot be trained: B·A with one rank and one alpha is what is merged; remove it"
    for key, what in {**VARIANTS, "dora": "DoRA", "rslora": "rsLoRA"}.items()
}
DORA = ("lora_magnitude_vector", "dora_scale")  # in the names of its tensors, peft's and kohya's

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lora:
    """``tensors``: ``<module>.lora_A.weight`` and ``….lora_B.weight``; ``config``: peft's.

    ``beside``: what an adapter changes in other networks of its model, by what the model calls
    them. Where it changes those alone, ``tensors`` and ``config`` are empty.
    """

    tensors: Mapping[str, torch.Tensor]
    config: Mapping[str, Any]
    beside: Mapping[str, Lora] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, Lora]:
        """By network, MAIN first, those that change something."""
        return ({MAIN: self} if self.tensors else {}) | dict(self.beside)

    @property
    def settings(self) -> Mapping[str, Any]:
        """peft's, of the first network that changes; rank and alpha are those of all of them."""
        first = next(iter(self.parts.values()), self)
        return first.config

    @property
    def modules(self) -> list[str]:
        return modules_of(self.tensors)

    @property
    def scale(self) -> float:
        """alpha / r (Hu et al. 2021, section 4.1)."""
        return float(self.config["lora_alpha"]) / float(self.config["r"])

    def delta(self, module: str) -> torch.Tensor:
        """What it adds to a module's weight, float32: B·A, (out, in) or (out, in, k, k)."""
        a = self.tensors[f"{module}.lora_A.weight"].float()
        b = self.tensors[f"{module}.lora_B.weight"].float()
        return self.scale * torch.einsum("or,r...->o...", b.flatten(1), a)


NO_LORA = Lora(tensors={}, config={})  # of an adapter whose base model is the fine-tune itself

Parts = Sequence[tuple[Lora, float]]  # LoRAs and their scales
Layer = tuple[str, str]  # network and module


def check_stored(there: Mapping[str, StoredTensor], config: Mapping[str, Any]) -> None:
    """ValueError unless a file's tensors, whose header this is, and its settings are a LoRA of one
    network that ``delta`` can read."""
    variants = [what for key, what in VARIANTS.items() if config.get(key)]
    if any(word in name for name in there for word in DORA):
        variants.insert(0, "DoRA")
    if variants:
        what = f"it has {variants[0]}"
        raise ValueError(f"{what}, and only plain LoRA with one rank and one alpha is read")
    modules = modules_of(there)
    expected = {f"{module}.lora_{half}.weight" for module in modules for half in "AB"}
    if not modules or expected != set(there):
        raise ValueError("unexpected tensors")
    rank = check_count("its rank", config.get("r"), MOST_RANK)
    if checks.number(config.get("lora_alpha"), "its alpha", MOST_ALPHA) <= 0:
        raise ValueError(f"its alpha is {config['lora_alpha']}")
    for module in modules:
        a, b = (there[f"{module}.lora_{half}.weight"] for half in "AB")
        ranks = a.shape[:1], b.shape[1:]
        if len(a.shape) < 2 or ranks != ((rank,), (rank, *[1] * (len(a.shape) - 2))):
            raise ValueError(f"{module} has not the rank {rank} of the settings")
        if not {a.dtype, b.dtype} <= set(FLOATS):
            raise ValueError(f"{module} is {a.dtype} and {b.dtype}, where floats are expected")


def modules_of(names: Iterable[str]) -> list[str]:
    """The layers that tensors of these names change."""
    return [k.removesuffix(".lora_A.weight") for k in names if k.endswith("lora_A.weight")]


def is_trained(network: Any) -> bool:
    """Whether peft is training a LoRA of ours inside a network."""
    return LORA_NAME in getattr(network, "peft_config", {})


def trained(network: Any) -> Lora:
    """The LoRA that peft is training inside a network."""
    from peft.utils import get_peft_model_state_dict

    config = network.peft_config[LORA_NAME].to_dict()
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    tensors = get_peft_model_state_dict(network, adapter_name=LORA_NAME)
    return Lora(tensors={k: v.detach().cpu() for k, v in tensors.items()}, config=plain)


def all_trained(networks: Mapping[str, Any]) -> Lora:
    """The LoRA that peft is training inside networks, by their names; what has none is left out."""
    found = {name: trained(network) for name, network in networks.items() if is_trained(network)}
    main = found.pop(MAIN, NO_LORA)
    return Lora(tensors=main.tensors, config=main.config, beside=found)


def set_trained(network: torch.nn.Module, lora: Lora) -> None:
    """These weights into the LoRA that peft has in a network, which has their shapes."""
    from peft.utils import set_peft_model_state_dict

    set_peft_model_state_dict(network, dict(lora.tensors), adapter_name=LORA_NAME)


def inject(network: torch.nn.Module, rank: int, alpha: float, modules: str | list[str]) -> None:
    """Fresh LoRA in float32 into the layers of these names, or of a kind, as peft names them. It
    leaves the network's own weights alone."""
    import peft
    from peft.tuners.tuners_utils import cast_adapter_dtype

    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=modules, init_lora_weights="gaussian"
    )
    peft.inject_adapter_in_model(config, network, adapter_name=LORA_NAME)
    cast_adapter_dtype(network, LORA_NAME)


def install(network: torch.nn.Module, lora: Lora) -> None:
    """Put a LoRA that was trained elsewhere, or NO_LORA, into a network that has none."""
    if not lora.tensors:
        return
    with torch.random.fork_rng():  # the first weights are drawn, then overwritten
        inject(network, lora.config["r"], lora.config["lora_alpha"], lora.modules)
    set_trained(network, lora)


def eject(network: torch.nn.Module) -> None:
    """Take out what ``inject`` or ``install`` put in, if they did."""
    from peft.functional import delete_adapter

    if hasattr(network, "peft_config"):
        delete_adapter(network, LORA_NAME, prefix="lora_")
        del network.peft_config


@contextmanager
def disabled(network: torch.nn.Module) -> Iterator[None]:
    """What ``inject`` or ``install`` put in does nothing inside the block."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _weight(network: torch.nn.Module, name: str) -> torch.Tensor:
    """A layer's own weight, also where another LoRA is wrapped around the layer."""
    module = network.get_submodule(name)
    layer = getattr(module, "base_layer", module)
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    return weight.T if type(layer).__name__ == "Conv1D" else weight  # GPT-2's linear layers


def _shape(network: torch.nn.Module, name: str) -> tuple[int, ...]:
    """The shape of a layer's weight, also where it is packed into another."""
    module = network.get_submodule(name)
    layer = getattr(module, "base_layer", module)
    if isinstance(layer, torch.nn.Linear):
        return layer.out_features, layer.in_features
    return tuple(_weight(network, name).shape)


def _weight_in_memory(network: torch.nn.Module, name: str) -> torch.Tensor:
    weight = _weight(network, name)
    if weight.is_meta:  # writing to it would do nothing
        raise InputError(
            "the network's weights are offloaded; load or unload an adapter before "
            "enable_sequential_cpu_offload, or after remove_all_hooks"
        )
    return weight


def check_fit(network: torch.nn.Module, lora: Lora) -> None:
    """InputError if the network has no layer of the right shape for one of the tensors."""
    for name in lora.modules:
        try:
            shape = _shape(network, name)
        except AttributeError:
            raise InputError(f"the adapter changes {name}, which this model lacks") from None
        a = lora.tensors[f"{name}.lora_A.weight"]
        b = lora.tensors[f"{name}.lora_B.weight"]
        if (b.shape[0], *a.shape[1:]) != shape:
            raise InputError(
                f"{name} is {shape} here and {(b.shape[0], *a.shape[1:])} in the "
                "adapter: it was trained on another architecture"
            )


def check_merge(network: torch.nn.Module, lora: Lora) -> None:
    """InputError if there is something to add to the network's weights, and nothing can be."""
    if lora.modules and getattr(network, "is_quantized", False):
        raise InputError(
            "the network's weights are quantised, and an adapter is added to the weights; load the "
            "model in bf16, fp16 or fp32"
        )


class Merged:
    """LoRAs inside the weights of one network or several, W = W0 + sum of scale * delta, so that
    they cost nothing in a forward pass.

    W is worked out from W0 whenever the LoRAs or their scales change, so that taking one out leaves
    no trace of it.

    Attributes:
        networks: by what the parts of a LoRA call them; those beside the MAIN one are put here by
            whoever sets a LoRA that changes them.
        loras: those inside, each with its scale, in the order in which they are added.
        originals: W0 of every layer that they change, by network and layer, on the CPU.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self.networks = {MAIN: network}
        self.loras: Parts = ()
        self.originals: dict[Layer, torch.Tensor] = {}

    @torch.no_grad()
    def set(self, loras: Parts) -> None:
        """These LoRAs at their scales, in place of those inside. Without any, or at scale 0, the
        weights are as they were, bit for bit.

        Weights that were cast since stay in their precision. Where others changed a weight since (a
        LoRA that was fused or unfused), their change stays and only ours is taken out, exact to
        rounding, with one warning. InputError, and nothing changed, if weights are offloaded.
        """
        before, after = _by_layer(self.loras), _by_layer(loras)
        differ = [layer for layer in {**before, **after} if before.get(layer) != after.get(layer)]
        weights = {layer: _weight_in_memory(self.networks[layer[0]], layer[1]) for layer in differ}
        subtracted = [
            layer[1]
            for layer, weight in weights.items()
            if self._set(layer, weight, before.get(layer, []), after.get(layer, []))
        ]
        self.loras = tuple(loras)
        if subtracted:
            _log.warning(
                "%s and %d more layers were changed after an adapter was loaded (fuse_lora?): the "
                "adapter was subtracted from them, which is exact to rounding only",
                subtracted[0],
                len(subtracted) - 1,
            )

    def _set(self, layer: Layer, weight: torch.Tensor, before: Parts, after: Parts) -> bool:
        """``set`` for a layer; whether ours had to be subtracted from it."""
        loras = {lora for lora, scale in (*before, *after) if scale}
        deltas = {lora: lora.delta(layer[1]).to(weight.device) for lora in loras}
        if before:
            original = self.originals[layer].to(weight.device)
            casts = _casts_between(original, _added(original, before, deltas), weight)
        else:
            original, casts = weight, None
        if casts is None:  # others made it what it is
            negative = [(lora, -scale) for lora, scale in before]
            original, casts = _added(weight, negative, deltas), (weight.dtype,)
            self.originals[layer] = original.detach().to("cpu", copy=True)
            subtracted = any(scale for _, scale in before)
        else:
            subtracted = False
        weight.copy_(_cast(_added(original, after, deltas), original.dtype, *casts))
        if not after:
            del self.originals[layer]
        return subtracted


def _by_layer(loras: Parts) -> dict[Layer, list[tuple[Lora, float]]]:
    """What changes each layer, of each network's own part of the LoRAs."""
    found: dict[Layer, list[tuple[Lora, float]]] = {}
    for lora, scale in loras:
        for network, part in lora.parts.items():
            for module in part.modules:
                found.setdefault((network, module), []).append((part, scale))
    return found


def _added(weight: torch.Tensor, parts: Parts, deltas: Mapping[Lora, torch.Tensor]) -> torch.Tensor:
    """A weight and scale * delta of each part, float32; as it is where nothing is added."""
    for lora, scale in parts:
        if scale:
            weight = weight.float().add(deltas[lora], alpha=scale)
    return weight


def _cast(value: torch.Tensor, *dtypes: torch.dtype) -> torch.Tensor:
    """From one precision to the next."""
    for dtype in dtypes:
        value = value.to(dtype)
    return value


def _casts_between(
    original: torch.Tensor, merged: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.dtype, ...] | None:
    """The precisions that ``merged``, in that of ``original`` first, went through to become
    ``weight``, which is in the last of them; None if it is something else.

    Rounding keeps order: whatever lies between two values still does when all are rounded.
    """
    then, now = original.dtype, weight.dtype
    if torch.equal(_cast(merged, then, now), weight):  # as nearly always
        return (now,)
    merged = merged.float()
    slack = ROUNDING * merged.abs().max()
    for casts in [(now,), *((dtype, now) for dtype in NARROW if dtype not in (then, now))]:
        low, high = (_cast(merged + d, then, *casts).float() for d in (-slack, slack))
        if ((low <= weight.float()) & (weight.float() <= high)).all():
            return casts
    return None
