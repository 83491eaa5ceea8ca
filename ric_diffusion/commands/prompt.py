"""``ric prompt``: the text that an adapter of text mode reads, for programs that take prompts."""

from __future__ import annotations

import argparse
import sys

from ric_diffusion.commands.kinds import adapter_kind
from ric_diffusion.commands.model import check_mapping, loading
from ric_diffusion.commands.wishes import wishes_of


def run(options: argparse.Namespace) -> None:
    """Print the text, and on stderr what it could not keep of what was asked."""
    wishes = wishes_of(options)
    check_mapping(options.mapping)
    kind, folder = adapter_kind(options.adapter)
    adapter = kind.adapter.load(folder)
    targets = adapter.targets_for(**wishes, mapping=options.mapping)
    adapter.check_text()  # before a tokenizer is fetched for nothing
    model = options.model or adapter.base_model
    with loading(model, "--model"):
        tokenizer = kind.reader(model, adapter)
    text, cut = adapter.text(options.prompt, targets, tokenizer)
    notes = adapter.beyond_reach(targets)
    if cut:
        notes.append(f"the prompt was cut; {tokenizer.model_max_length} tokens are read at most")
    for note in notes:
        print(f"ric prompt: {note}", file=sys.stderr)
    print(text)
