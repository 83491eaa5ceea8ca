"""Flipped bits and lost ends, a few of each kind of file; scripts/faults.py has hundreds."""

import pytest

import damage

COUNT = 30


@pytest.mark.parametrize(
    "what", ["checkpoint", "latents cache", "adapter", "labelled folder", "journal"]
)
def test_all_of_it_is_noticed(root, tmp_path, what):
    folder = tmp_path / "damaged"
    victims, look = {
        "checkpoint": damage.of_checkpoint,
        "latents cache": damage.of_cache,
        "adapter": lambda folder: damage.of_adapter(folder, root / "embedding" / "adapter"),
        "labelled folder": lambda folder: damage.of_labelled(folder, root / "labelled"),
        "journal": damage.of_journal,
    }[what](folder)
    shown = []
    assert damage.tried(victims, look, count=COUNT, seed=1, show=lambda: shown.append(1)) == []
    assert len(shown) == COUNT


def test_what_is_not_noticed_would_be_told(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    found = damage.tried(
        lambda: [tmp_path / "a"],
        lambda path: "not noticed" if path.read_bytes() != b"abc" else "whole",
        count=2,
        seed=0,
        show=lambda: None,
    )
    assert len(found) == 2 and all(one.endswith(": not noticed") for one in found)
    assert (tmp_path / "a").read_bytes() == b"abc"
