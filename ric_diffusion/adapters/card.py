"""The model card of an adapter: how to use it, the ranges of its sliders, what it was made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.io.counting import counted
from ric_diffusion.rewards import Reward
from ric_diffusion.rewards.space import WITHIN

HERE = "this/folder"  # where the adapter lies, as long as nobody knows
BASE = "base/folder"  # whose configs a single file takes, where nobody says
WITHOUT_LORA, TOKENS_ALONE = "without lora", "tokens without lora"  # text and embedding mode


@dataclass(frozen=True, kw_only=True)
class Use:
    """How adapters for one kind of model are used.

    ``library`` and ``task`` as the hub's tags name them; ``python``: an example, with {base} and
    {reward} for names and {load} for the call that loads a pipeline; ``prompt``: what the command
    line's example asks for; ``elsewhere``: how other programs take an adapter of each mode, and
    those ``WITHOUT_LORA`` that models of the family have.
    """

    library: str
    task: str
    python: str
    prompt: str
    elsewhere: Mapping[str, str]


def card(adapter: Adapter, use: Use) -> str:
    """The text of the card, in which the adapter lies at ``HERE``."""
    rewards = adapter.space.rewards
    asked = f"--prompt '{use.prompt}' --targets {rewards[0].name}=1.0"
    base = adapter.base_model
    load, model = f'from_pretrained("{base}")', base
    if base.endswith(".safetensors"):  # which has no configs
        config = adapter.base_config or BASE
        load = f'from_single_file("{base}", config="{config}")'
        model = f"{base} --base-config {config}"
    lines = [
        *_metadata(adapter, use),
        "",
        "# Reward sliders",
        "",
        f"An adapter for `{base}` with {counted(len(rewards), 'reward sliders')}, in "
        f"{adapter.conditioner.mode} mode, made with "
        "ric-diffusion after [Rewards-in-Context](https://arxiv.org/abs/2402.10207).",
        "",
        *_slider_table(adapter),
        "",
        "## How to use it",
        "",
        "`targets` are in z, standard deviations from the training data's mean; a reward left out "
        f"is auto: {_auto(adapter)}. A `preference` weighs the rewards against each other "
        f"instead, and the mapping `{adapter.mapping}` turns it into targets.",
        "",
        "```python",
        use.python.format(base=base, load=load, reward=rewards[0].name),
        "```",
        "",
        "```bash",
        f"ric generate --model {model} --adapter {HERE} {asked}",
        "```",
        "",
        use.elsewhere[_elsewhere(adapter)],
        "",
        "## What it was made of",
        "",
        *_training(adapter),
        "",
        "*Before you share this: say what the training data is, where it comes from, and under "
        "which licence.*",
        "",
        "## Licence",
        "",
        f"The adapter {'changes' if adapter.lora else 'was made for'} `{base}` and is of no use "
        "without it, so the licence "
        "of that model holds for what is made with both.",
        "",
        "*Before you share this: add the licence of the adapter itself, here and as `license` at "
        "the top.*",
        "",
    ]
    return "\n".join(lines)


def _elsewhere(adapter: Adapter) -> str:
    """Which of the ways that other programs take an adapter."""
    if adapter.lora:
        return adapter.conditioner.mode
    return WITHOUT_LORA if adapter.encoder is None else TOKENS_ALONE


def _metadata(adapter: Adapter, use: Use) -> list[str]:
    """The hub's YAML. It refuses a base model that is no hub id, so a folder is not named there."""
    base, found = adapter.base_model, []
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", base) and not Path(base).exists():
        found = [f"base_model: {base}", "base_model_relation: adapter"]
    tags = ["ric-diffusion", "rewards-in-context", *(["lora"] if adapter.lora else [])]
    return [
        "---",
        *found,
        f"library_name: {use.library}",
        f"pipeline_tag: {use.task}",
        f"tags: [{', '.join(tags)}]",
        "---",
    ]


def _auto(adapter: Adapter) -> str:
    """What a model does about a reward left out, the continuation of a sentence."""
    if not adapter.in_model:
        return "the model fills it in"
    return "its words are left out, which says something only to a model that was trained so"


def _slider_table(adapter: Adapter) -> list[str]:
    """The ranges of the sliders, and how much of them calibrated ones reach."""
    space = adapter.space
    header = ["reward", "unit", "range (z)", "range (unit)", "mean", "one z"]
    rows = [
        [r.name, r.scale, _ends(*space.range(r.name)), _in_unit(r, *space.range(r.name)),
         f"{r.mean:.2f}", f"{r.std:.2f}"]
        for r in space.rewards
    ]  # fmt: skip
    said = ["", "Higher is better in every unit, so where less is better the numbers are negative."]
    if curves := adapter.calibration:
        header.append("reachable (z)")
        for row in rows:
            row.append(_ends(*curves[row[0]].reachable) if row[0] in curves else "not calibrated")
        said.append(
            "A calibrated slider gives on average what it is asked, as far as that was measured to "
            "be reachable; beyond, it gives the nearest that is."
        )
        said += _prompt_aware(adapter)
    if space.centred:
        said.append(
            f"{', '.join(space.centred)}: of a sample compared {WITHIN} with the others of it, so "
            "that 0 is what is usual there; scores of two prompts say nothing about each other."
        )
    if space.count is None:
        said.append(
            "Only means and deviations are known of the training data: the ranges are those of "
            "normally distributed rewards, the trade-offs those of independent ones."
        )
    return [
        *("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]),
        *said,
    ]


def _prompt_aware(adapter: Adapter) -> list[str]:
    """Whether calibration knows the prompt, and what that is worth."""
    known = {name: curve.prompt for name, curve in adapter.calibration.items() if curve.prompt}
    if not known:
        return ["It does not know the prompt: what a single one gives may be off the average."]
    errors = [
        f"{effect.errors[0]:.2f} z of {name} without it and {effect.errors[1]:.2f} z with it"
        for name, effect in known.items()
    ]
    return [
        "It knows the prompt, from what the model expects of it before drawing. Measured on "
        f"prompts that were left out of its fit, a single sample misses {', '.join(errors)}. "
        "What is reachable moves with the prompt too; the table has the average."
    ]


def _training(adapter: Adapter) -> list[str]:
    """What is known of the training."""
    trained = [
        counted(adapter.training[key], key)
        for key in ("records", "steps")
        if key in adapter.training
    ]
    if rounds := adapter.training.get("rounds"):
        trained.append(counted(rounds, "online rounds"))
    told = [f"Trained on {', '.join(trained)}."] if trained else []
    if adapter.frozen:
        told.append(
            f"`{adapter.base_model}` is as it was: this adapter holds no LoRA, only what turns "
            "rewards into the tokens that the model reads."
        )
    if adapter.in_model:
        source, base = (adapter.training.get(key) for key in ("denoiser", "base_model"))
        told.append(
            f"`{adapter.base_model}` is itself fine-tuned on the rewards"
            f"{f', with the denoiser of `{source}`' if source else ''}"
            f"{f', from `{base}`' if base else ''}; this adapter holds no LoRA, only what turns "
            f"rewards into the {'words' if adapter.encoder is None else 'tokens'} that it reads."
        )
    scorers = [f"`{r.fingerprint}`" for r in adapter.space.rewards if r.fingerprint]
    return [*told, *([f"Scored with {', '.join(scorers)}."] if scorers else [])]


def _in_unit(reward: Reward, low: float, high: float) -> str:
    return " … ".join(f"{reward.mean + z * reward.std:.2f}" for z in (low, high))


def _ends(low: float, high: float) -> str:
    return f"{low:+.2f} … {high:+.2f}"
