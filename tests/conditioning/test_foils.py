"""How often a sample's own prompt explains it best, whatever the samples are."""

import numpy as np

from ric_diffusion.conditioning.foils import FOILS, kept


def test_the_share_of_foils_that_are_beaten():
    error = {"a": [0.0, 2.0, 9.0], "b": [1.0, 1.0, 9.0], "c": [2.0, 0.0, 9.0]}

    def errors(given):
        return np.array([error[prompt][i] for i, prompt in enumerate(given)])

    found = kept(["a", "b", "c"], errors)
    assert found.tolist() == [1.0, 0.5, 0.0]  # equal is not better


def test_every_sample_meets_other_prompts_only():
    prompts = ["a", "b", "c", "d", "e", "a", "b"]
    asked = []
    kept(prompts, lambda given: asked.append(given) or np.zeros(len(given)))
    own, *foils = asked
    assert own == prompts and len(foils) == FOILS
    for i, prompt in enumerate(prompts):
        met = {foil[i] for foil in foils}
        assert len(met) == FOILS and prompt not in met


def test_a_single_prompt_is_told_from_none():
    def errors(given):
        return np.array([0.0 if prompt else 1.0 for prompt in given])

    assert kept(["a", "a"], errors).tolist() == [1.0, 1.0]
