"""scripts/benchmark_scorers.py at toy size, and the documentation's table against what there is."""

import pkgutil
from pathlib import Path

import pytest

import benchmark_scorers
from scorers.loading import _BUILTINS

PAGE = Path(__file__).parents[2] / "docs" / "scorers.md"


@pytest.fixture
def sizes(tiny_clip):
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2}
    return benchmark_scorers.Sizes(
        clip=tiny_clip.name,
        vision=small | {"image_size": 28, "patch_size": 14},
        text=small | {"max_position_embeddings": 77},
        pictures=3,
        alone=2,
        side=40,
    )


def test_what_is_compared(sizes):
    [batch] = benchmark_scorers.batching(sizes, 1)
    assert min(batch.scorer, batch.single, batch.encoder) > 0
    [both] = benchmark_scorers.sharing(sizes, 1)
    assert min(both.one, both.three) > 0


def test_the_documentations_table_is_what_there_is():
    first = PAGE.read_text("utf-8").partition("| scorer |")[2].partition("\n\n")[0]
    lines = [line for line in first.splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    table = {cells[0].strip("`"): cells for cells in rows}
    assert sorted(table) == sorted(_BUILTINS)
    memory = benchmark_scorers.memory()
    for name, (_, what, unit, extent, prompts, licence, size) in table.items():
        scorer = pkgutil.resolve_name(_BUILTINS[name])
        assert unit == getattr(scorer, "unit", unit), name  # of remote, the server says
        assert what and extent and licence, name
        if not prompts.startswith("as "):  # an option or a server decides
            wanted = "yes" if scorer.needs_prompts else "no"
            wanted += ", compares within one" if scorer.compares_within == "prompt" else ""
            assert prompts == wanted, name
        if name in memory:
            assert size == f"{memory[name] / 1e9:.1f} GB", name
