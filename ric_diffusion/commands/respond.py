"""``ric generate`` with a language model: responses to one prompt, a text and its story each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ric_diffusion.commands.model import sampling_of
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.scoring import load_scorers, scores_of
from ric_diffusion.files import write_json
from ric_diffusion.llm.model import RiCCausalLM
from ric_diffusion.llm.sampler import LlmSampler
from ric_diffusion.rewards import RewardSpace


def respond(lm: RiCCausalLM, options: argparse.Namespace, wishes: Mapping[str, Any]) -> None:
    """Write SEED.txt and SEED.json for every seed, and print the responses."""
    for option in ("negative_targets", "negative_prompt"):
        if getattr(options, option):
            field = option.replace("_", "-")
            raise InputError(f"--{field}: language models are not guided away from anything")
    space = lm.adapter.space if lm.adapter else None
    targets = targets_of(lm, options, wishes)
    sampler = LlmSampler(lm, sampling_of(lm, options))
    seeds = range(options.seed, options.seed + options.count)
    responses = sampler.sample([options.prompt] * len(seeds), [targets] * len(seeds), list(seeds))
    using = load_scorers(space) if space else []
    for seed, response in zip(seeds, responses, strict=True):
        story = story_of(options.model, options.prompt, seed, targets, space, using, response)
        path = options.out / f"{seed}{sampler.suffix}"
        sampler.write(response, path)
        write_json(path.with_suffix(".json"), story)
        print(f"{path}  {in_words(story)}".rstrip())
        print(response)


def targets_of(
    lm: RiCCausalLM, options: argparse.Namespace, wishes: Mapping[str, Any]
) -> dict[str, float]:
    """The targets that are used: those asked for, or the preference's, as far as they can be
    reached and said."""
    if lm.adapter is None:
        return {}
    asked = lm.adapter.targets_for(**wishes, mapping=options.mapping)
    for line in lm.adapter.beyond_reach(asked):
        print(f"ric generate: {line}", file=sys.stderr)
    return lm.adapter.used(asked)


def story_of(
    model: str,
    prompt: str,
    seed: int,
    targets: Mapping[str, float],
    space: RewardSpace | None,
    using: Sequence[Any],
    sample: Any,
) -> dict[str, Any]:
    """What is told about one sample: what was asked, and what was obtained where that can be
    scored; None where a scorer has no number for it."""
    story: dict[str, Any] = {
        "prompt": prompt,
        "seed": seed,
        "model": model,
        "targets": dict(targets),
    }
    if space:
        scores = scores_of([sample], [prompt], using)
        z = space.normalize(scores)
        for key, row in (("scores", scores[0]), ("obtained", z[0])):
            found = zip(space.names, row.tolist(), strict=True)
            story[key] = {name: value if np.isfinite(value) else None for name, value in found}
    return story


def in_words(story: Mapping[str, Any]) -> str:
    obtained = story.get("obtained", {}).items()
    return " ".join(f"{k}=none" if v is None else f"{k}={v:+.2f}" for k, v in obtained)
