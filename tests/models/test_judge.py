"""How often a sample's own prompt explains it best, whatever the samples are."""

import numpy as np

from ric_diffusion.models.judge import DISTRACTORS, prompt_r_precision


def test_the_share_of_distractors_that_are_beaten():
    error = {"a": [0.0, 2.0, 9.0], "b": [1.0, 1.0, 9.0], "c": [2.0, 0.0, 9.0]}

    def errors(given):
        return np.array([error[prompt][i] for i, prompt in enumerate(given)])

    found = prompt_r_precision(["a", "b", "c"], errors)
    assert found.tolist() == [1.0, 0.5, 0.0]  # equal is not better


def test_every_sample_meets_other_prompts_only():
    prompts = ["a", "b", "c", "d", "e", "a", "b"]
    asked = []
    prompt_r_precision(prompts, lambda given: asked.append(given) or np.zeros(len(given)))
    own, *distractors = asked
    assert own == prompts and len(distractors) == DISTRACTORS
    for i, prompt in enumerate(prompts):
        met = {distractor[i] for distractor in distractors}
        assert len(met) == DISTRACTORS and prompt not in met


def test_a_single_prompt_is_told_from_none():
    def errors(given):
        return np.array([0.0 if prompt else 1.0 for prompt in given])

    assert prompt_r_precision(["a", "a"], errors).tolist() == [1.0, 1.0]
