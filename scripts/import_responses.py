"""Responses from a dataset of dialogues or summaries, as a folder that ``ric label`` takes.

Training cuts long prompts at the end, where the last question of a dialogue is. With ``--model``
responses to prompts that are longer are left out, as the authors' code does.

python scripts/import_responses.py Anthropic/hh-rlhf --format dialogue --model smollm2 --out data/hh
python scripts/import_responses.py openai/summarize_from_feedback --subset comparisons \
    --format summary --out data/summaries
python scripts/import_responses.py posts.parquet --format summary --out data/summaries
"""

from __future__ import annotations

import argparse

from ric_diffusion.api import InputError
from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.cli.arguments import positive
from ric_diffusion.data.responses import read_dataset, write_responses
from ric_diffusion.io.paths import expanded
from ric_diffusion.models.causal_lm.chat import Turn
from ric_diffusion.models.causal_lm.generation import Sampling
from ric_diffusion.models.causal_lm.model import load_tokenizer
from ric_diffusion.models.family import loading


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a file, a folder or a hub id")
    parser.add_argument("--format", choices=["dialogue", "summary"], required=True)
    parser.add_argument("--subset", help="of a dataset that has several")
    parser.add_argument("--split", default="train")
    parser.add_argument("--limit", type=positive, help="rows to read, all by default")
    parser.add_argument("--out", type=expanded, required=True)
    parser.add_argument("--model", help="smollm2, a folder or a hub id: what will be trained")
    parser.add_argument(
        "--prompt-tokens",
        type=positive,
        default=Sampling().prompt_tokens,
        help="longest prompt with --model: sampling.prompt_tokens of the training, less the room "
        "that reward words need in text mode (default: %(default)s)",
    )
    options = parser.parse_args()
    try:
        run(options)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def run(options: argparse.Namespace) -> None:
    check_out_folder(options.out)
    if options.out.exists() and any(options.out.iterdir()):
        raise InputError(f"--out {options.out}: has files in it; name an empty folder")
    turn = None
    if options.model is not None:
        with loading(options.model, "--model"):
            turn = Turn(load_tokenizer(options.model), options.prompt_tokens)
    rows = list(
        read_dataset(
            options.source,
            options.format,
            subset=options.subset,
            split=options.split,
            limit=options.limit,
        )
    )
    if turn is None:
        print(f"{options.out}: {write_responses(rows, options.out)} responses")
    else:
        short = [row for row in rows if len(turn(row[0]).input_ids) <= options.prompt_tokens]
        count = write_responses(short, options.out)
        print(f"{options.out}: {count} responses, {len(rows) - count} to longer prompts left out")


if __name__ == "__main__":
    main()
