"""What the cards say of the bundled weights is what they are."""

import pytest

import card_digests


@pytest.mark.parametrize("card", card_digests.CARDS, ids=lambda card: card.parent.name)
def test_digests_of_the_bundled_weights(card):
    """`python scripts/card_digests.py` writes them."""
    assert card.read_text("utf-8") == card_digests.renewed(card)
    assert card.read_text("utf-8").count(".safetensors |") >= 1


def test_a_card_without_them_gets_them(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"x")
    card = tmp_path / "README.md"
    card.write_text("# A\n\n## Training data\n\nNone.\n")
    text = card_digests.renewed(card)
    assert (
        "| a.safetensors | `2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881` |"
        in text
    )
    assert text.endswith("\n\n## Training data\n\nNone.\n")
    card.write_text(text)
    assert card_digests.renewed(card) == text
