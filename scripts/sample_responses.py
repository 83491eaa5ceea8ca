"""Self-sampling: a language model responds to a file of prompts, and ``ric label`` can go on.

python scripts/sample_responses.py --out data/responses
ric label data/responses --scorers positivity brevity --out data/labelled
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ric_diffusion.commands.model import loading
from ric_diffusion.data.prompts import read_prompts
from ric_diffusion.data.responses import self_sample
from ric_diffusion.errors import InputError
from ric_diffusion.llm.model import RiCCausalLM
from ric_diffusion.llm.sampler import LlmSampler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="smollm2, a folder or a hub id")
    parser.add_argument("--prompts", type=Path, default=Path("scripts/asks.txt"))
    parser.add_argument("--hints", type=Path, default=Path("scripts/hints.txt"))
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.7, 0.85, 1.0])
    parser.add_argument("--per-prompt", type=int, default=1, help="for each temperature")
    parser.add_argument("--response-tokens", type=int, default=32)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        run(options)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def run(options: argparse.Namespace) -> None:
    prompts, hints = read_prompts(options.prompts), read_prompts(options.hints)
    with loading(options.model, "--model"):
        lm = RiCCausalLM.from_pretrained(options.model, getattr(torch, options.dtype))
    tokens = options.response_tokens
    samplers = {
        f"temperature {t}": LlmSampler(lm, {"temperature": t, "response_tokens": tokens})
        for t in options.temperatures
    }
    for sampler in samplers.values():
        _ = sampler.settings  # checked before there is a folder
    count = self_sample(
        samplers,
        prompts,
        options.out,
        per_prompt=options.per_prompt,
        hints=["", *hints],
        seed=options.seed,
    )
    print(f"{options.out}: {count} responses")


if __name__ == "__main__":
    main()
