"""The two bundled models together: emoji-64 draws, emoji-clip says how well that fits."""

import numpy as np

import scorers
from ric_diffusion import api

PROMPTS = ["red apple", "cat face", "rocket", "umbrella", "fire", "four leaf clover"]


def test_a_sample_fits_its_prompt_better_than_others():
    model = api.load("emoji-64")
    model.unload_adapter()
    sampling = {"steps": 10, "guidance_scale": 3.0}
    samples = [api.generate(model, prompt, sampling=sampling)[0].sample for prompt in PROMPTS]
    scorer = scorers.load("clip_score:clip=emoji-clip", device="cpu")
    pairs = [(image, prompt) for image in samples for prompt in PROMPTS]
    scores = scorer(*zip(*pairs, strict=True)).reshape(len(PROMPTS), len(PROMPTS))
    right, wrong = np.diag(scores), scores[~np.eye(len(PROMPTS), dtype=bool)]
    assert (scores.argmax(axis=1) == np.arange(len(PROMPTS))).sum() >= len(PROMPTS) - 1
    assert right.mean() > wrong.mean() + 30
