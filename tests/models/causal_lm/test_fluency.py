"""Fluency: what the base model finds likely, whatever adapter is in it."""

import numpy as np
import pytest
import torch

from ric_diffusion.adapters import lora
from ric_diffusion.models.causal_lm.family import FAMILY
from ric_diffusion.models.causal_lm.model import RiCCausalLM
from support.lm import write_lm

PROMPTS = ["why?", "two tips", "why?"]
SAMPLES = ["the sea", "yes", ""]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    torch.set_num_threads(1)
    return RiCCausalLM.from_pretrained(str(write_lm(tmp_path_factory.mktemp("lm") / "model")))


def by_hand(lm, prompt, sample):
    """Mean log-probability of a response's tokens and its end, one alone."""
    ids = [*lm.chat.before, *lm.tokenizer(prompt).input_ids, *lm.chat.after]
    said = [*lm.tokenizer(sample).input_ids, lm.chat.end]
    with torch.no_grad():
        logits = lm.model(torch.tensor([ids + said])).logits[0, len(ids) - 1 : -1]
    return logits.log_softmax(-1)[range(len(said)), said].mean().item()


def test_it_is_the_mean_per_token_of_the_base_model(lm):
    (fluency,) = FAMILY.held_out(lm, FAMILY.digests(lm), {})
    assert (fluency.name, fluency.unit) == ("fluency", "nat")
    expected = [by_hand(lm, p, s) for p, s in zip(PROMPTS, SAMPLES, strict=True)]
    found = fluency(SAMPLES, PROMPTS)
    assert found == pytest.approx(expected, abs=1e-4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lora.inject(lm.model, 4, 8, "all-linear")
        for name, weight in lm.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.5)
    assert by_hand(lm, PROMPTS[0], SAMPLES[0]) != pytest.approx(expected[0], abs=1e-2)
    assert np.array_equal(fluency(SAMPLES, PROMPTS), found)
    lora.eject(lm.model)


def test_a_cut_response_owes_no_end(lm):
    """Of one as long as responses may be, the end is no part."""
    text = "the sea and the sky"
    ids = lm.tokenizer(text).input_ids
    (whole,) = FAMILY.held_out(lm, ["a"], {"response_tokens": len(ids) + 1})
    (cut,) = FAMILY.held_out(lm, ["a"], {"response_tokens": len(ids)})
    context = [*lm.chat.before, *lm.tokenizer("why?").input_ids, *lm.chat.after]
    with torch.no_grad():
        logits = lm.model(torch.tensor([context + ids])).logits[0, len(context) - 1 : -1]
    expected = logits.log_softmax(-1)[range(len(ids)), ids].mean().item()
    assert cut([text], ["why?"])[0] == pytest.approx(expected, abs=1e-4)
    assert whole([text], ["why?"])[0] == pytest.approx(by_hand(lm, "why?", text), abs=1e-4)
    assert cut.fingerprint != whole.fingerprint


def test_another_model_is_another_scorer(lm):
    one, other = (FAMILY.held_out(lm, [digest], {})[0].fingerprint for digest in "ab")
    assert one != other and FAMILY.held_out(lm, ["a"], {})[0].fingerprint == one
