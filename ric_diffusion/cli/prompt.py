"""``ric prompt``: the text that an adapter of text mode reads, for programs that take prompts."""

from __future__ import annotations

import argparse
import sys

from ric_diffusion import api
from ric_diffusion.cli.options import rewards_of


def run(options: argparse.Namespace) -> None:
    """Print the text, and on stderr what it could not hold of what was asked."""
    found = api.prompt_text(
        options.adapter,
        options.prompt,
        **rewards_of(options),
        mapping=options.mapping,
        model=options.model,
        base_config=options.base_config,
        revision=options.revision,
    )
    for note in found.notes:
        print(f"ric prompt: {note}", file=sys.stderr)
    print(found.text)
