"""``ric generate``: pictures of one prompt, or responses to it, with their metadata."""

from __future__ import annotations

import argparse

from ric_diffusion import api
from ric_diffusion.cli.options import checkpoint_of, quietly, rewards_of, sampling_of
from ric_diffusion.io.counting import counted


def run(options: argparse.Namespace) -> None:
    again = options.like is not None and options.model is None  # by the model that it names
    for name in ("base_config", "variant", "revision"):
        if again and getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise api.InputError(f"{option}: goes with --model; give that too")
    if options.mapping is not None and options.targets is not None:
        raise api.InputError("--mapping: makes targets of a preference; give --preference instead")
    samples = api.generate(
        None if again else checkpoint_of(options),
        options.prompt,
        prompts=options.prompts,
        like=options.like,
        adapter=options.adapter,
        **rewards_of(options),
        negative_prompt=options.negative_prompt,
        mapping=options.mapping,
        seed=options.seed,
        count=options.count,
        refine=options.refine,
        init_image=options.init_image,
        strength=options.strength,
        sampling=sampling_of(options),
        dtype=options.dtype,
        device=options.device,
        out=options.out,
        progress=quietly(),
    )
    for sample in samples:
        obtained = sample.obtained.items()
        shown = " ".join(f"{k}=none" if v is None else f"{k}={v:+.2f}" for k, v in obtained)
        if (how := sample.refinement) is not None:
            shown += f"  refined in {counted(how.passes, 'passes', 'pass')}"
        print(f"{sample.path}  {shown}".rstrip())
        if isinstance(sample.sample, str):
            print(sample.sample)
