"""``ric generate``: pictures of one prompt, each with its story in its PNG text chunks. Language
models respond to it instead."""

from __future__ import annotations

import argparse

import torch

from ric_diffusion.commands.kinds import LLM, kind_of
from ric_diffusion.commands.model import (
    check_mapping,
    load_model,
    require_adapter,
    sampling_of,
)
from ric_diffusion.commands.paths import check_out_folder
from ric_diffusion.commands.respond import in_words, respond, story_of
from ric_diffusion.commands.wishes import wishes_of
from ric_diffusion.data.images import save_png
from ric_diffusion.evaluation.scoring import load_scorers


def run(options: argparse.Namespace) -> None:
    wishes = wishes_of(options)
    check_mapping(options.mapping)
    check_out_folder(options.out)
    pipe = load_model(options.model, options.adapter, options.dtype)
    if wishes:
        require_adapter(pipe, options.model)
    if kind_of(pipe) is LLM:
        respond(pipe, options, wishes)
        return
    seeds = range(options.seed, options.seed + options.count)
    # Checked before the first step of a long run, not after it.
    pipe.targets_for(
        1, preference=wishes.get("preference"), targets=wishes.get("targets"),
        mapping=options.mapping,
    )  # fmt: skip
    pipe.targets_for(1, targets=wishes.get("negative_targets"), name="negative_targets")
    space = pipe.reward_space
    using = load_scorers(space) if space else []
    for seed in seeds:
        output = pipe(
            options.prompt,
            negative_prompt=options.negative_prompt,
            generator=torch.Generator().manual_seed(seed),
            mapping=options.mapping,
            **wishes,
            **sampling_of(pipe, options),
        )
        image = output.images[0]
        targets = output.targets[0]
        story = story_of(options.model, options.prompt, seed, targets, space, using, image)
        path = options.out / f"{seed}.png"
        save_png(path, image, story)
        print(f"{path}  {in_words(story)}".rstrip())
