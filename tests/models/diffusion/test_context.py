"""Contexts of texts of several lengths: padded and masked, and the same without padding."""

import pytest
import torch

from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion import context as contexts
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


class Encoder:
    """Frozen encoders: states by a text's length in bfloat16, a pooled text, a mask."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        ((text,),) = texts
        self.asked.append(text)
        generator = torch.Generator().manual_seed(len(text))
        rows = [torch.randn(len(text), 3, generator=generator).bfloat16()]
        pooled = torch.randn(1, 4, generator=generator)
        return Context(
            states=Context.of_rows(rows).states, pooled=pooled, extra=Context.of_rows(rows).extra
        )


def ask(cache, encoder, *texts):
    return cache.get([(text,) for text in texts], encoder, "cpu")


def same(one, other):
    return (
        torch.equal(one.states, other.states)
        and torch.equal(one.pooled, other.pooled)
        and torch.equal(one.extra[MASK], other.extra[MASK])
        and one.states.dtype == other.states.dtype
    )


def test_what_does_not_fit_in_memory_is_read_from_shards(tmp_path, monkeypatch):
    texts = ["a" * length for length in range(1, 30)]
    wanted = ask(ContextCache(), Encoder(), *texts)
    monkeypatch.setattr(contexts, "SHARD_BYTES", 200)
    first, encoder = ContextCache(limit=300), Encoder()
    first.open(tmp_path)
    for text in texts:
        ask(first, encoder, text)
    assert same(ask(first, encoder, *texts), wanted) and encoder.asked == texts
    assert len(list(tmp_path.iterdir())) > 5
    first.store()
    later, asked = ContextCache(), Encoder()
    later.open(tmp_path)
    assert same(ask(later, asked, *texts), wanted) and not asked.asked
    # A shard that is lost costs its texts alone.
    victim = sorted(tmp_path.iterdir())[0]
    lost = len(contexts.Shards(tmp_path).shards[0].keys())
    victim.write_bytes(victim.read_bytes()[:-3])
    again, asked = ContextCache(), Encoder()
    again.open(tmp_path)
    assert same(ask(again, asked, *texts), wanted) and len(asked.asked) == lost < len(texts)


def test_no_more_is_stored_than_there_is_room_for(tmp_path, monkeypatch):
    one = Encoder()([("abc",)])
    monkeypatch.setattr(contexts, "STORED_BYTES", 2 * one.nbytes)
    cache, encoder = ContextCache(limit=one.nbytes), Encoder()
    cache.open(tmp_path)
    for text in ("abc", "def", "ghi", "abc", "ghi"):
        ask(cache, encoder, text)
    assert encoder.asked == ["abc", "def", "ghi", "ghi"]  # the third is encoded as it is needed
    cache.store()
    assert len(contexts.Shards(tmp_path)) == 2
