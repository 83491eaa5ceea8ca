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
# # 2 · Label your folder and fine-tune
#
# A folder of captioned pictures becomes sliders in two steps: **label** scores every picture, **train**
# teaches the model what the scores mean, with plain supervised fine-tuning. Here the folder is small
# and the training takes a minute, on a CPU: enough to see every part move, not to get good sliders.
# What a real training gives stands at the end.

# %%
# Once, in a clone of the repository: take the first "#" away, then restart the kernel.
# # %pip install -e ..

# %% [markdown]
# ## A folder of captioned pictures
#
# Yours would be photos or drawings, with a text file beside each picture. So that nothing has to be
# downloaded, the bundled model without its sliders draws us one: 30 pictures of ten things.

# %%
import json
from pathlib import Path

import torch
from IPython.display import display
from PIL import Image

from ric_diffusion import RiCStableDiffusionPipeline, label, score, train
from ric_diffusion.api import contact_sheet, measure

pipe = RiCStableDiffusionPipeline.from_pretrained("emoji-64")
pipe.set_progress_bar_config(disable=True)
pipe.save_adapter("bundled")  # the sliders that it came with, for later
pipe.unload_adapter()

things = ["red apple", "cat face", "rocket", "pizza", "octopus", "crown", "tulip", "fire", "house"]
things += ["umbrella"]
folder = Path("pictures")
folder.mkdir(exist_ok=True)
rows = []
for seed in range(3):
    generators = [torch.Generator().manual_seed(seed) for _ in things]
    out = pipe(things, generator=generators, guidance_scale=3.0, num_inference_steps=10)
    for thing, picture in zip(things, out.images, strict=True):
        name = f"{thing.replace(' ', '-')}-{seed}"
        picture.save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(thing)
    rows.append(out.images)

# %%
contact_sheet([row[:6] for row in rows], captions=[[thing] for thing in things[:6]])

# %% [markdown]
# ## Label
#
# A **scorer** is a small callable that gives a picture a number. We take `brightness`, which the
# bundled adapter knows nothing of, and `colorfulness`. In a terminal it is
# `ric label pictures/ --scorers brightness colorfulness --out labelled`: every verb of the command line
# is a function of the same name.

# %%
report = label("pictures", "labelled", ["brightness", "colorfulness"])
print(f"{report.count} pictures labelled, {len(report.skipped)} skipped")
assert 0 < report.count <= 30  # pictures that are blank or the same as another are left out

# %% [markdown]
# The labelled folder holds the pictures, a table with their scores and `reward_space.json`: what turns
# a score into **z**, standard deviations from this folder's mean.

# %%
for reward in report.space.rewards:
    print(f"{reward.name}: mean {reward.mean:.1f} {reward.unit}, 1 z is {reward.std:.1f}")

by_brightness = sorted(score("labelled", ["brightness"]).rows(), key=lambda row: row["brightness"])
some = by_brightness[::4]
display(
    contact_sheet(
        [[Image.open(row["file"]) for row in some]],
        captions=[[f"{row['brightness']:.0f} %"] for row in some],
        title="from dark to bright",
    )
)

# %% [markdown]
# ## Train
#
# A training is a YAML file: which model, which data, what is trained and for how long. The adapter is
# a LoRA in the denoiser, and in **embedding** mode a small encoder that turns each z into a token of the
# model's context; `dropout` hides the prompt or a reward now and then, so that both can be left out.

# %%
STEPS = 60  # a real training takes some thousands

Path("mine.yaml").write_text(f"""
model: emoji-64
data: labelled
out: runs/mine
diffusion:
  mode: embedding
  timestep_shift: 4.0
  lora: {{rank: 16, alpha: 16, targets: [attention, feed_forward, convolution]}}
  dropout: {{prompt: 0.1, everything: 0.05, reward: 0.35}}
  sampling: {{guidance_scale: 3.0, num_inference_steps: 10, contrast: 1.5}}
loop:
  steps: {STEPS}
  batch_size: 16
  learning_rate: 2.0e-3
  precision: fp32
  warmup: 5
  ema: 0.9
  log_every: 1
""")
result = train("mine.yaml")
print(result.adapter)

# %% [markdown]
# The run folder has a log, which TensorBoard shows as well. One step's loss depends on the noise that
# was drawn more than on the model, so we also draw the mean of the last ten.

# %%
import matplotlib.pyplot as plt
import numpy as np

log = [json.loads(line) for line in Path("runs/mine/log.jsonl").read_text().splitlines()]
loss = np.array([entry["loss"] for entry in log])
smooth = np.convolve(loss, np.ones(10) / 10, mode="valid")
plt.figure(figsize=(6, 3))
plt.plot(loss, color="0.8", label="a step")
plt.plot(np.arange(9, len(loss)), smooth, label="mean of ten steps")
plt.xlabel("step")
plt.ylabel("loss")
plt.legend()
plt.show()
assert loss[-15:].mean() < loss[:15].mean()

# %% [markdown]
# ## The adapter
#
# What training leaves behind is a small folder: a plain diffusers LoRA, the reward encoder,
# `ric_adapter.json` with the reward space, and a model card. Load it into the pipeline, and the
# pipeline has your sliders.

# %%
for path in sorted(Path("runs/mine/adapter").iterdir()):
    print(path.name)
pipe.load_adapter("runs/mine/adapter")
assert pipe.reward_space.names == ("brightness", "colorfulness")


# %%
def sweep(prompts, name, asked, seed=0):
    """A sheet of one reward moved alone, and the mean of what was obtained at each stop, in z."""
    space = pipe.reward_space
    images, z = [], []
    for prompt in prompts:
        generators = [torch.Generator().manual_seed(seed) for _ in asked]
        targets = [{name: value} for value in asked]
        out = pipe([prompt] * len(asked), targets=targets, generator=generators)
        images.append(out.images)
        found = measure(space, out.images, [prompt] * len(asked))
        z.append(found[:, space.names.index(name)])
    mean = np.mean(z, axis=0)
    captions = [[f"{a:+.1f} » {m:+.1f}"] for a, m in zip(asked, mean, strict=True)]
    return contact_sheet(images, captions=captions, row_titles=prompts), mean


asked = [-1.5, -0.75, 0.0, 0.75, 1.5]
sheet, mean = sweep(things[:3], "brightness", asked)
assert mean[-1] > mean[0]
sheet

# %% [markdown]
# Below the columns stands brightness asked » the mean obtained. A minute on 30 pictures already
# tells light from dark, but only just: the slider moves a fraction of what it is asked for. The next
# picture is what more of the same gives: the bundled adapter, 2000 steps of 64 pictures each, on one of the two rewards that it knows.

# %%
pipe.load_adapter("bundled")
sheet, mean = sweep(["red apple", "rocket"], "colorfulness", asked[1:])
assert mean[-1] > mean[0] + 1
sheet

# %% [markdown]
# ## What to try next
#
# - Your own folder: `x.png` with `x.txt` beside it, or an imagefolder with `metadata.jsonl`.
# - `STEPS = 1000`, and a folder of some thousands of pictures: `scripts/configs/emoji-embedding.yaml`
#   is what made the bundled adapter, `docs/index.md` says where its pictures come from.
# - `mode: text` in the config: reward words in the prompt instead of tokens.
# - Stop the training in the middle, then `ric train mine.yaml --resume`: it goes on bit for bit.
# - Notebook 3: let the model learn from its own best pictures, and measure how far the sliders reach.
