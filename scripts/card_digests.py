"""Write into the cards of the bundled models what their weights are, after they were replaced.

    python scripts/card_digests.py

Each card has a section "Weights": the SHA-256 of every file of tensors beside it, which
tests/docs/test_trust.py computes again.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from ric_diffusion.io.files import write_text
from ric_diffusion.models.known import BUNDLED

ROOT = Path(__file__).parents[1]
CARDS = (
    *(ROOT / "ric_diffusion" / "assets" / name / "README.md" for name in BUNDLED),
    ROOT / "scorers" / "assets" / "emoji-clip" / "README.md",
)
HEADING = "## Weights\n"


def section(folder: Path) -> str:
    """What the card says of the weights in its folder."""
    rows = [
        f"| {path.relative_to(folder).as_posix()} | "
        f"`{hashlib.sha256(path.read_bytes()).hexdigest()}` |\n"
        for path in sorted(folder.rglob("*.safetensors"))
    ]
    return f"{HEADING}\n| file | sha256 |\n| --- | --- |\n{''.join(rows)}\n"


def renewed(card: Path) -> str:
    """The card with that section; it goes before the training data where there was none."""
    text = card.read_text("utf-8")
    before, found, after = text.partition(HEADING)
    if not found:
        before, heading, after = text.partition("## Training data\n")
        return before + section(card.parent) + heading + after
    _, heading, after = after.partition("\n## ")
    return before + section(card.parent) + heading.lstrip("\n") + after


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for card in CARDS:
        write_text(card, renewed(card))
        print(f"{card.relative_to(ROOT)}: written")


if __name__ == "__main__":
    main()
