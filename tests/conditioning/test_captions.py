"""What becomes of tags, and that nothing is drawn where nothing can change."""

import math
from collections import Counter

import pytest
import torch

from ric_diffusion.conditioning.captions import Captions
from ric_diffusion.io.config import from_dict
from ric_diffusion.io.errors import InputError

TAGS = "cat, on a mat,red,  night"
COUNT = 4000


def made(captions, caption=TAGS, count=COUNT, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [captions(caption, generator) for _ in range(count)]


def test_by_default_a_caption_stays_as_it_is_and_no_random_number_is_drawn():
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    for captions in (Captions(), Captions(prefix="a photo of ", suffix=", film")):
        assert captions(TAGS, generator) == f"{captions.prefix}{TAGS}{captions.suffix}"
        assert torch.equal(generator.get_state(), before)


def test_all_orders_are_as_likely_and_the_first_tags_stay():
    found = Counter(made(Captions(shuffle=True, keep=1)))
    rest = ("on a mat", "red", "night")
    assert len(found) == math.factorial(len(rest))
    assert {name.split(", ")[0] for name in found} == {"cat"}
    assert all(set(name.split(", ")[1:]) == set(rest) for name in found)
    assert all(abs(count - COUNT / 6) < 5 * math.sqrt(COUNT / 6) for count in found.values())


def test_each_tag_but_the_kept_is_left_out_on_its_own_and_the_order_stays():
    found = [name.split(", ") for name in made(Captions(tag_dropout=0.25, keep=2))]
    assert all(tags[:2] == ["cat", "on a mat"] for tags in found)
    assert {tuple(tags[2:]) for tags in found} == {(), ("red",), ("night",), ("red", "night")}
    both = sum(len(tags) == 4 for tags in found) / COUNT
    assert abs(both - 0.75**2) < 5 * math.sqrt(0.25 / COUNT)


def test_a_caption_without_commas_is_one_tag():
    assert set(made(Captions(shuffle=True, prefix="<"), "a cat.", 20)) == {"<a cat."}
    assert set(made(Captions(tag_dropout=1.0, suffix=">"), "a cat.", 20)) == {">"}


def test_the_generator_alone_decides():
    captions = Captions(shuffle=True, tag_dropout=0.5)
    torch.manual_seed(1)
    first = made(captions, count=50, seed=7)
    torch.manual_seed(2)
    assert made(captions, count=50, seed=7) == first
    assert made(captions, count=50, seed=8) != first


def test_whole_prompts_are_left_out_elsewhere():
    with pytest.raises(InputError, match=r"dropout: whole prompts are left out by dropout\.prompt"):
        from_dict({"dropout": 0.1}, Captions, "c.yaml")
