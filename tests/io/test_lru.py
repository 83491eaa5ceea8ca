"""The latest things that were made stay; older ones are made again."""

import pytest

from ric_diffusion.io.lru import Recent


def test_made_once_while_it_is_recent():
    made = []

    def make(key):
        return lambda: made.append(key) or f"{key}{len(made)}"

    recent = Recent(2)
    assert recent.get("a", make("a")) == "a1"
    assert recent.get("b", make("b")) == "b2"
    assert recent.get("a", make("a")) == "a1"  # which makes it newer than b
    assert recent.get("c", make("c")) == "c3"
    assert recent.get("a", make("a")) == "a1"
    assert recent.get("b", make("b")) == "b4"
    assert made == ["a", "b", "c", "b"]


def test_none_counts_as_made():
    recent, calls = Recent(1), []
    for _ in range(2):
        assert recent.get("a", lambda: calls.append(1)) is None
    assert calls == [1]


def test_what_could_not_be_made_is_not_remembered():
    recent = Recent(1)
    recent.get("old", lambda: 0)
    with pytest.raises(ZeroDivisionError):
        recent.get("a", lambda: 1 // 0)
    assert recent.get("old", lambda: 9) == 0
    assert recent.get("a", lambda: 2) == 2
