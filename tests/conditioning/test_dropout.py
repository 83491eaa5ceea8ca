import math
from collections import Counter

import pytest
import torch

from ric_diffusion.conditioning.dropout import Dropout

TARGETS = {"colorfulness": 1.5, "compressibility": -0.25, "aesthetic": 0.0}
COUNT = 20_000


def draw(dropout, count=COUNT, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return dropout(["apple"] * count, [TARGETS] * count, generator)


def near(share, expected):
    """Within five standard errors of a share of COUNT draws."""
    return abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / COUNT)


def test_how_often_each_thing_is_left_out():
    prompts, targets = draw(Dropout(prompt=0.1, everything=0.2, reward=0.3))
    assert set(prompts) == {"", "apple"}
    assert near(prompts.count("") / COUNT, 0.1 + 0.2)
    for name in TARGETS:
        assert near(sum(name in t for t in targets) / COUNT, 0.8 * 0.7)
    neither = sum(p == "" and not t for p, t in zip(prompts, targets, strict=True))
    assert near(neither / COUNT, 0.2 + 0.1 * 0.3**3)


def test_every_subset_of_rewards_occurs_as_often_as_independence_says():
    dropout = Dropout(prompt=0.0, everything=0.0, reward=0.4)
    found = Counter(frozenset(t) for t in draw(dropout)[1])
    assert len(found) == 2**3
    for subset, count in found.items():
        assert near(count / COUNT, 0.6 ** len(subset) * 0.4 ** (3 - len(subset)))


def test_the_defaults_reach_every_subset_with_and_without_a_prompt():
    prompts, targets = draw(Dropout())
    found = {(p, frozenset(t)) for p, t in zip(prompts, targets, strict=True)}
    assert len(found) == 2 * 2**3


def test_everything_takes_prompt_and_rewards_together():
    prompts, targets = draw(Dropout(prompt=0.0, everything=0.5, reward=0.0))
    for prompt, target in zip(prompts, targets, strict=True):
        assert (prompt, target) in (("", {}), ("apple", TARGETS))
    assert near(prompts.count("") / COUNT, 0.5)


def test_the_prompt_alone_leaves_the_rewards():
    prompts, targets = draw(Dropout(prompt=0.5, everything=0.0, reward=0.0))
    assert near(prompts.count("") / COUNT, 0.5)
    assert all(target == TARGETS for target in targets)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_never_and_always(share):
    prompts, targets = draw(Dropout(prompt=share, everything=0.0, reward=share), count=200)
    assert set(prompts) == {"" if share else "apple"}
    assert all(target == ({} if share else TARGETS) for target in targets)


def test_what_is_kept_keeps_its_value_and_order_and_the_given_stays_as_it_was():
    given = [dict(TARGETS) for _ in range(100)]
    _, targets = Dropout(reward=0.5)(["x"] * 100, given, torch.Generator().manual_seed(3))
    assert given == [TARGETS] * 100
    for target in targets:
        assert list(target) == [name for name in TARGETS if name in target]
        assert target.items() <= TARGETS.items()


def test_the_generator_alone_decides():
    torch.manual_seed(1)
    first = draw(Dropout(), count=300, seed=7)
    torch.manual_seed(2)
    assert draw(Dropout(), count=300, seed=7) == first
    assert draw(Dropout(), count=300, seed=8) != first


def test_samples_may_have_different_rewards():
    generator = torch.Generator().manual_seed(0)
    dropout = Dropout(prompt=0.0, everything=0.0, reward=0.0)
    assert dropout(["a", "b"], [{}, TARGETS], generator) == (["a", "b"], [{}, TARGETS])
    with pytest.raises(ValueError, match="zip"):
        dropout(["a", "b"], [{}], generator)


@pytest.mark.parametrize("name", ["prompt", "everything", "reward"])
def test_probabilities_are_from_0_to_1(name):
    for value in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=name):
            Dropout(**{"prompt": 0.0, "everything": 0.0, "reward": 0.0, name: value})
