"""Self-sampling: a language model responds to a file of prompts, and ``ric label`` can go on.

python scripts/sample_responses.py --out data/responses
ric label data/responses --scorers positivity brevity --out data/labelled
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from ric_diffusion.api import InputError, load
from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.cli.arguments import as_option, seed
from ric_diffusion.data.prompts import read_prompts
from ric_diffusion.io.paths import expanded
from ric_diffusion.models.causal_lm.sampler import LlmSampler
from ric_diffusion.training.self_sample import self_sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="smollm2, a folder or a hub id")
    parser.add_argument("--prompts", type=expanded, default=Path("scripts/asks.txt"))
    parser.add_argument("--hints", type=expanded, default=Path("scripts/hints.txt"))
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.7, 0.85, 1.0])
    parser.add_argument("--per-prompt", type=int, default=1, help="for each temperature")
    parser.add_argument("--response-tokens", type=int, default=32)
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--out", type=expanded, required=True)
    options = parser.parse_args()
    try:
        run(options)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {as_option(str(error), parser)}\n")


def run(options: argparse.Namespace) -> None:
    check_out_folder(options.out)
    for temperature in options.temperatures:
        if options.temperatures.count(temperature) > 1:
            raise InputError(f"--temperatures: {temperature} is given twice; name it once")
    prompts, hints = read_prompts(options.prompts), read_prompts(options.hints)
    lm = load(options.model, dtype=options.dtype)
    if lm.family.medium.name != "text":
        raise InputError(f"--model {options.model}: makes pictures; name a language model")
    tokens = options.response_tokens
    samplers = {
        f"temperature {t}": LlmSampler(lm, {"temperature": t, "response_tokens": tokens})
        for t in options.temperatures
    }
    # Checked before there is a folder.
    settings = {name: asdict(sampler.settings) for name, sampler in samplers.items()}
    count = self_sample(
        samplers,
        prompts,
        options.out,
        per_prompt=options.per_prompt,
        hints=["", *hints],
        seed=options.seed,
        source={"weights": lm.family.digests(lm), "dtype": options.dtype, "sampling": settings},
    )
    print(f"{options.out}: {count} responses")


if __name__ == "__main__":
    main()
