"""Several conditioners as one: each says its own, in order."""

import pytest
import torch

from ric_diffusion.conditioning.conditioner import EmbeddingConditioner, TextConditioner
from ric_diffusion.conditioning.encoder import RewardEncoder
from ric_diffusion.conditioning.grammar import Grammar
from ric_diffusion.conditioning.joined import JoinedConditioner
from ric_diffusion.io.errors import InputError

WIDTH = 24
ASKED = [{"aesthetic": 1.26, "colorfulness": -0.5}, {"clip_score": 2.0}]


@pytest.fixture
def parts():
    torch.manual_seed(0)
    return [
        EmbeddingConditioner(RewardEncoder(("colorfulness",), WIDTH, hidden=16).eval()),
        TextConditioner(Grammar.words(("aesthetic",))),
        EmbeddingConditioner(RewardEncoder(("compressibility", "extra"), WIDTH, hidden=16).eval()),
        TextConditioner(Grammar.upstream(("clip_score",))),
    ]


def test_names_and_modes_are_those_of_all(parts):
    joined = JoinedConditioner(parts)
    names = ("colorfulness", "aesthetic", "compressibility", "extra", "clip_score")
    assert joined.names == names and joined.mode == "embedding + text"
    assert JoinedConditioner(parts[:1]).mode == "embedding"
    learned = dict(joined.named_parameters())
    assert set(map(id, learned.values())) == {
        id(p) for part in (parts[0], parts[2]) for p in part.encoder.parameters()
    }


def test_words_follow_one_another_in_the_room_of_the_text(parts, clip):
    joined = JoinedConditioner(parts)
    prompts = ["a <rm1> 3.0 <aesthetic> 2.0", "very " * 99]
    texts = joined.texts(prompts, [{**ASKED[0], **ASKED[1]}, ASKED[1]], [clip])
    assert texts[0] == "a <_rm1> 3.0 <_aesthetic> 2.0 <aesthetic> 1.3<rm1> 2.0"
    assert texts[1].endswith("very<rm1> 2.0") and len(clip(texts[1]).input_ids) <= 77
    assert joined.texts(["a <rm2>"], [{}], [clip]) == ["a <rm2>"]


def test_tokens_follow_one_another_behind_the_states(parts):
    joined, states = JoinedConditioner(parts), torch.randn(2, 5, WIDTH)
    asked = [{"colorfulness": 1.0, "extra": 0.5}, {"compressibility": 1.0}]
    context = joined.context(states, asked)
    one = parts[0].context(states, [{"colorfulness": 1.0}, {}])
    both = parts[2].context(one, [{"extra": 0.5}, {"compressibility": 1.0}])
    assert context.shape == (2, 5 + 1 + 2, WIDTH) and torch.equal(context, both)
    assert torch.equal(joined.context_of_states(states, asked), both)
    with pytest.raises(InputError, match="prompt_embeds: this adapter reads rewards from"):
        joined.context_of_states(states, ASKED)
    with pytest.raises(InputError, match="24 wide, the model's context is 1024"):
        joined.check_width(1024)


def test_what_is_silent_says_nothing(parts, clip):
    joined = JoinedConditioner(parts, silent=parts[:2])
    asked = {"aesthetic": 1.26, "colorfulness": -0.5, "clip_score": 0.84, "extra": 0.33}
    assert joined.texts(["a <aesthetic> 1.0"], [asked], [clip]) == ["a <aesthetic> 1.0<rm1> 0.8"]
    states = torch.randn(1, 5, WIDTH)
    wanted = parts[2].context(states, [{"extra": 0.33}])
    assert torch.equal(joined.context(states, [asked]), wanted)
    assert joined.used(asked) == {"extra": 0.33, "clip_score": 0.8}
    assert joined.names == JoinedConditioner(parts).names


def test_what_steers_is_added_up(parts):
    torch.manual_seed(0)
    steered = [
        EmbeddingConditioner(RewardEncoder((name,), WIDTH, hidden=16, layers=3).eval())
        for name in ("positivity", "brevity")
    ]
    for part in steered:
        for parameter in part.encoder.steering.parameters():
            torch.nn.init.normal_(parameter)
    asked = [{"positivity": 1.0, "brevity": -1.0}]
    found = JoinedConditioner([parts[1], *steered]).steering(asked, 0.5)
    wanted = sum(part.steering([own], 0.5) for part, own in zip(
        steered, ({"positivity": 1.0}, {"brevity": -1.0}), strict=True
    ))  # fmt: skip
    assert found.shape == (1, 3, WIDTH) and torch.allclose(found, wanted)
    assert found.abs().max() > 0
    assert JoinedConditioner(parts).steering(ASKED) is None
