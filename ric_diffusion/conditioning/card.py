"""The model card of an adapter, with the ranges of its sliders."""

from __future__ import annotations

from collections.abc import Sequence

from ric_diffusion.conditioning.adapter import BaseAdapter


def card(adapter: BaseAdapter, *, library: str, task: str, example: Sequence[str]) -> str:
    """The adapter's model card, with the ranges of its sliders. ``library`` and ``task`` as the
    hub's tags name them; ``example``: the lines of a code block."""
    lines = [
        "---",
        f"base_model: {adapter.base_model}",
        f"library_name: {library}",
        f"tags: [ric-diffusion, lora, {task}]",
        "---",
        "",
        "# Reward sliders",
        "",
        f"An adapter for `{adapter.base_model}` with {len(adapter.space.names)} reward sliders, in "
        f"{adapter.conditioner.mode} mode, made with ric-diffusion.",
        "",
        *_slider_table(adapter),
        "",
        *example,
        "",
    ]
    return "\n".join(lines)


def _slider_table(adapter: BaseAdapter) -> list[str]:
    """The ranges of the sliders, and how much of them calibrated ones reach."""
    header = ["reward", "unit", "range (z)", "mean", "one z"]
    rows = [
        [reward.name, reward.unit, _ends(*adapter.space.range(reward.name)), f"{reward.mean:.2f}",
         f"{reward.std:.2f}"]
        for reward in adapter.space.rewards
    ]  # fmt: skip
    said = []
    if curves := adapter.calibration:
        header.append("reachable (z)")
        for row in rows:
            row.append(_ends(*curves[row[0]].reach) if row[0] in curves else "not calibrated")
        said = [
            "",
            "A calibrated slider gives on average what it is asked, as far as that was measured to "
            "be reachable; beyond, it gives the nearest that is.",
        ]
    return [
        *("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]),
        *said,
    ]


def _ends(low: float, high: float) -> str:
    return f"{low:+.2f} … {high:+.2f}"
