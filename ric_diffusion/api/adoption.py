"""``adopt``: sliders for a model that others fine-tuned on reward words."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.lora import NO_LORA
from ric_diffusion.api.labelling import ScorerLike
from ric_diffusion.api.models import (
    Dtype,
    check_mapping,
    load,
    require_pictures,
    sampling_arguments,
)
from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.conditioning.conditioner import TextConditioner, Words
from ric_diffusion.conditioning.grammar import Grammar
from ric_diffusion.data.records import REWARD_SPACE, check_written
from ric_diffusion.data.scoring import described, load_or_stand_in
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import replacing_folder
from ric_diffusion.io.paths import expanded, expanded_name
from ric_diffusion.io.strict_json import read_json
from ric_diffusion.models.checkpoint import Checkpoint, ModelName
from ric_diffusion.models.family import ADAPTER_SUBFOLDER, Family, family_of, loading
from ric_diffusion.rewards import RewardSpace, checks

MAPPING = "quantile"  # that of RiC's image code

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AdoptResult:
    """What an adoption left.

    Attributes:
        adapter: the adapter's folder.
        model: what it goes with: the model that was given, or the folder that was written.
        space: its rewards.
        size: how many bytes were written.
    """

    adapter: Path
    model: str
    space: RewardSpace
    size: int


def adopt(
    model: ModelName,
    rewards: Sequence[ScorerLike],
    out: str | Path,
    *,
    denoiser: str | Path | None = None,
    grammar: Words | None = None,
    labels: Sequence[str] | None = None,
    separator: str | None = None,
    statistics: str | Path | Mapping[str, Mapping[str, float]] | None = None,
    labelled: str | Path | None = None,
    mapping: str | None = None,
    sampling: Mapping[str, Any] | None = None,
    dtype: Dtype = "float32",
) -> AdoptResult:
    """Make an adapter, without LoRA, for a model that others fine-tuned whole on prompts with
    reward words: ``a red apple <aesthetic> 1.2 <compressibility> -0.4``.

    Args:
        model: the fine-tune, or with a ``denoiser`` its base model, as ``load`` has it.
        rewards: scorers, names with their options, in the order of the words.
        out: a new folder for the adapter; with a ``denoiser`` for a model of one's own, which has
            the adapter in it.
        denoiser: folder of the fine-tune, where only that part of the model was. On the hub it is
            USER/NAME/FOLDER.
        grammar: the words that it reads: ``words``, the rewards' names; or ``upstream``, ``rm1``,
            ``rm2`` and so on, as in RiC's own code (arXiv 2402.10207).
        labels: other words, one for each reward, without the angle brackets.
        separator: what stands before each, if not the grammar's own; a space before ``labels``.
        statistics: mean and standard deviation of each reward over what the model was trained on,
            ``{"aesthetic": {"mean": 5.1, "std": 0.6}, …}``, or the JSON file of it. What else a
            reward space has is then that of RewardSpace.normal.
        labelled: instead of them, that data as ``label`` left it.
        mapping: how a preference becomes targets; by default ``quantile``, as in RiC's image code.
        sampling: arguments of sampling, as ``generate`` has them, for calls with this adapter.
        dtype: of the weights that are written.

    InputError for what does not go together, before anything is written.
    """
    check_mapping(mapping)
    target = expanded(out)
    _check_new(target)
    with loading(model, "model"):
        family = family_of(model)
    name = Checkpoint.of(model).model
    if denoiser is not None:
        require_pictures(family, name)
    space = _space(statistics, labelled, rewards, family)
    adapter = Adapter(
        family=family.name,
        base_model=name if denoiser is None else str(target),
        space=space,
        conditioner=TextConditioner(_grammar(space.names, grammar, labels, separator)),
        mapping=mapping or MAPPING,
        sampling={**family.default_sampling(), **sampling_arguments(family, sampling)},
        training={} if denoiser is None else {"denoiser": str(denoiser)},
        lora=False,
    )
    folder = target
    if denoiser is None:
        family.save_adapter(adapter, NO_LORA, folder)
    else:
        folder = target / ADAPTER_SUBFOLDER
        pipe = _with_denoiser(model, expanded_name(str(denoiser)), dtype)
        with replacing_folder(target) as temporary:
            pipe.save_pretrained(temporary)
            family.save_adapter(adapter, NO_LORA, temporary / ADAPTER_SUBFOLDER)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return AdoptResult(adapter=folder, model=adapter.base_model, space=space, size=size)


def _check_new(out: Path) -> None:
    """InputError unless ``out`` is an empty folder, or can become one."""
    check_out_folder(out)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"out {out}: holds files already; name a new or empty folder")


def _space(
    statistics: str | Path | Mapping[str, Mapping[str, float]] | None,
    labelled: str | Path | None,
    rewards: Sequence[ScorerLike],
    family: Family,
) -> RewardSpace:
    """The reward space, by whichever of the first two was given."""
    if labelled is not None and statistics is None:
        return _labelled_space(expanded(labelled), rewards)
    if statistics is None or labelled is not None:
        raise InputError("statistics: give either them or a labelled folder")
    where = "statistics"
    if isinstance(statistics, str | Path):
        where = f"statistics {statistics}"
        statistics = _read(expanded(statistics), where)
    space = _normal_space(statistics, where, rewards, family)
    _log.info(
        "only means and deviations are known, so ranges and trade-offs are those of independent, "
        "normally distributed rewards"
    )
    return space


def _labelled_space(folder: Path, rewards: Sequence[ScorerLike]) -> RewardSpace:
    """That of a labelled folder, for these of its rewards; no sample is read."""
    if not (folder / REWARD_SPACE).is_file():
        raise InputError(f"labelled {folder}: has no {REWARD_SPACE}; `ric label` writes it")
    check_written(folder)
    space = RewardSpace.load(folder / REWARD_SPACE)
    names = []
    for given in rewards:
        # A name alone tells all: nothing is loaded for it.
        scorer = given
        if isinstance(given, str) and ":" in given:
            scorer = load_or_stand_in(given)
        name = scorer if isinstance(scorer, str) else scorer.name
        checks.known(name, space.names, f"labelled {folder}")
        stored = space.rewards[space.names.index(name)].scorer.get("options")
        if not isinstance(scorer, str) and stored is not None and scorer.options != stored:
            raise InputError(
                f"labelled {folder}: {name} was scored with {stored}, not {scorer.options}; give "
                f"{name} alone"
            )
        names.append(name)
    return space.subset(names)


def _read(path: Path, where: str) -> Any:
    """A JSON file."""
    try:
        return read_json(path)
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from error
    except InputError as error:
        raise InputError(f"statistics {error}") from error


def _normal_space(
    statistics: Any, where: str, rewards: Sequence[ScorerLike], family: Family
) -> RewardSpace:
    """That of means and deviations alone, for these of them."""
    using = [load_or_stand_in(one) if isinstance(one, str) else one for one in rewards]
    found = {}
    for scorer in using:
        name, medium = scorer.name, getattr(scorer, "medium", "image")
        if medium != family.medium.name:
            raise InputError(f"rewards: {name} scores {medium}s, which {family.title} do not make")
        if name in found:
            raise InputError(f"rewards: {name} is given twice; name it once")
        if name not in checks.mapping(statistics, where):
            raise InputError(f"{where}: {name} is missing; add its mean and std")
        stored = checks.fields(statistics[name], ("mean", "std"), f"{where}: {name}")
        found[name] = stored["mean"], stored["std"]
    try:
        return RewardSpace.normal(found, **described(using))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _grammar(
    names: tuple[str, ...],
    grammar: Words | None,
    labels: Sequence[str] | None,
    separator: str | None,
) -> Grammar:
    """The words that the model reads."""
    if (grammar is None) == (labels is None):
        raise InputError("grammar: give either it or labels")
    if labels is not None:
        found = Grammar(names=names, labels=tuple(labels))
    elif grammar in ("words", "upstream"):
        found = Grammar.preset(grammar, names)
    else:
        raise InputError(f"grammar {grammar}: choose words or upstream")
    return found if separator is None else replace(found, separator=separator)


def _with_denoiser(model: ModelName, denoiser: str, dtype: Dtype) -> Any:
    """The pipeline of a base model with a fine-tuned denoiser."""
    pipe = load(model, dtype=dtype, device="cpu")
    pipe.unload_adapter()
    pipe.family.exchange_denoiser(pipe, denoiser)
    return pipe
