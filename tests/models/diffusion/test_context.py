"""Contexts of texts of several lengths: padded and masked, and the same without padding."""

import pytest
import torch

from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.context import MASK, Context, ContextCache, joined

ROWS = [torch.full((length, 3), float(length)) for length in (2, 5, 3)]


def with_tokens(context):
    tokens = torch.full((len(context), 2, 3), 9.0)
    return context.with_states(torch.cat([context.states, tokens], dim=1))


def test_rows_become_states_and_a_mask_and_rows_again():
    context = Context.of_rows(ROWS)
    assert context.states.shape == (3, 5, 3) and context.extra[MASK].sum(1).tolist() == [2, 5, 3]
    assert all(torch.equal(a, b) for a, b in zip(context.rows(), ROWS, strict=True))


def test_reward_tokens_follow_the_text_and_not_its_padding():
    rows = with_tokens(Context.of_rows(ROWS)).rows()
    assert [row[:, 0].tolist() for row in rows] == [
        [2.0] * 2 + [9.0] * 2,
        [5.0] * 5 + [9.0] * 2,
        [3.0] * 3 + [9.0] * 2,
    ]


def test_batches_of_several_lengths_are_joined():
    apart = [Context.of_rows(ROWS[:1]), Context.of_rows(ROWS[1:])]
    together, wanted = joined(apart), Context.of_rows(ROWS)
    assert torch.equal(together.states, wanted.states)
    assert torch.equal(together.extra[MASK], wanted.extra[MASK])


def test_batches_without_a_mask_are_joined_as_they_are():
    plain = [Context(states=torch.ones(1, 4, 3), pooled=torch.ones(1, 6)) for _ in range(2)]
    assert joined(plain).states.shape == (2, 4, 3) and joined(plain).pooled.shape == (2, 6)


def test_between_two_contexts_of_the_same_texts_lengths():
    one = Context.of_rows(ROWS)
    halfway = one.lerp(Context.of_rows([-row for row in ROWS]), 0.5)
    assert not halfway.states.any() and torch.equal(halfway.extra[MASK], one.extra[MASK])
    with pytest.raises(InputError, match="as long as their prompts"):
        one.lerp(Context.of_rows(ROWS[::-1]), 0.5)


def test_the_cache_keeps_text_alone_and_no_more_than_its_limit():
    one = Context.of_rows(ROWS[:1])
    cache = ContextCache(limit=8 * one.nbytes)
    asked = []

    def encode(texts):
        (text,) = texts
        asked.append(text)
        return Context.of_rows([torch.ones(len(text), 3)])

    found = cache.get(["ab", "abcde", "ab"], encode, "cpu")
    assert found.extra[MASK].sum(1).tolist() == [2, 5, 2] and asked == ["ab", "abcde"]
    assert [row.states.shape[1] for row in cache.rows.values()] == [2, 5]
    cache.get(["abcdefgh", "ab"], encode, "cpu")
    assert asked == ["ab", "abcde", "abcdefgh"]
    cache.get(["abcdefghi", "ab"], encode, "cpu")  # too much, and the others are not asked for
    assert set(cache.rows) == {"ab", "abcdefghi"}
    assert sum(row.nbytes for row in cache.rows.values()) == cache.nbytes <= cache.limit
