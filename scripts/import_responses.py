"""Responses from a dataset of dialogues or summaries, as a folder that ``ric label`` takes.

python scripts/import_responses.py Anthropic/hh-rlhf --format dialogue --out data/hh
python scripts/import_responses.py openai/summarize_from_feedback --subset comparisons \
    --format summary --out data/summaries
python scripts/import_responses.py posts.parquet --format summary --out data/summaries
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ric_diffusion.data.responses import read_dataset, write_responses
from ric_diffusion.errors import InputError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a file, a folder or a hub id")
    parser.add_argument("--format", choices=["dialogue", "summary"], required=True)
    parser.add_argument("--subset", help="of a dataset that has several")
    parser.add_argument("--split", default="train")
    parser.add_argument("--limit", type=int, help="rows to read, all by default")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        rows = read_dataset(
            options.source,
            options.format,
            subset=options.subset,
            split=options.split,
            limit=options.limit,
        )
        count = write_responses(rows, options.out)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{options.out}: {count} responses")


if __name__ == "__main__":
    main()
