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
# # 3 · Online rounds and the front
#
# Sliders that were trained on a folder reach about as far as the pictures in it. An **online round**
# goes on from there: the model draws, its pictures are scored, the best are selected, and it is fine-tuned
# on them. Then we measure: how far do the sliders reach *together*, and do they give what was asked?

# %%
# Once, in a clone of the repository: take the first "#" away, then restart the kernel.
# # %pip install -e ..

# %% [markdown]
# ## Where a round starts
#
# With an adapter and the labelled folder that it was trained on. The adapter is the bundled one. Its
# folder has some thousands of pictures; here 24 that the model drew without its sliders stand in.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from ric_diffusion import RiCStableDiffusionPipeline, evaluate, label, online
from ric_diffusion.api import contact_sheet

pipe = RiCStableDiffusionPipeline.from_pretrained("emoji-64")
pipe.set_progress_bar_config(disable=True)
pipe.save_adapter("bundled")
space = pipe.reward_space
pipe.unload_adapter()

things = ["red apple", "cat face", "rocket", "pizza", "octopus", "crown", "tulip", "fire"]
Path("pictures").mkdir(exist_ok=True)
for seed in range(3):
    generators = [torch.Generator().manual_seed(seed) for _ in things]
    out = pipe(things, generator=generators, guidance_scale=3.0, num_inference_steps=10)
    for i, (thing, picture) in enumerate(zip(things, out.images, strict=True)):
        picture.save(f"pictures/{i}-{seed}.png")
        Path(f"pictures/{i}-{seed}.txt").write_text(thing)

# %%
report = label("pictures", "labelled", ["compressibility:resize=none", "colorfulness"])
print(f"{report.count} pictures labelled")

# %% [markdown]
# ## One small round
#
# A round's own settings are under `online`; those of the model are as in training. 32 samples and 12
# steps make a tiny round: `scripts/configs/emoji-online.yaml` has 512 and 100. The guard measures
# before and after whether pictures have become alike or forgotten their prompts, and would stop a run
# that collapses.

# %%
Path("online.yaml").write_text("""
model: emoji-64
adapter: bundled
data: labelled
out: runs/online
diffusion:
  mode: embedding
  timestep_shift: 4.0
  lora: {rank: 32, alpha: 32, targets: [attention, feed_forward, convolution]}
  dropout: {prompt: 0.1, everything: 0.05, reward: 0.35}
  sampling: {guidance_scale: 3.0, num_inference_steps: 20, contrast: 1.5}
online:
  rounds: 1
  samples: 32
  batch_size: 32
  replay_fraction: 0.25
  guard: {samples: 16, diversity: 0.4, prompt_r_precision: 0.5}
  loop:
    steps: 12
    batch_size: 16
    learning_rate: 5.0e-4
    precision: fp32
    schedule: constant
    ema: 0.8
    log_every: 4
""")
run = online("online.yaml")
print(run.adapter)

# %% [markdown]
# ## What happened in it
#
# A round is a folder, and everything in it can be read. Targets were drawn near the **front**, the
# best trade-offs of the training data, and a little beyond. Of what came of them, the round selected
# the pictures that are best for some trade-off; those it was fine-tuned on, labelled with the scores they
# have, not with those that were asked for.

# %%
folder = Path("runs/online/round-1")
asked = [request["targets"] for request in json.loads((folder / "requests.json").read_text())]
lines = [line for path in folder.glob("scores-*.jsonl") for line in path.read_text().splitlines()]
entries = [json.loads(line)[1] for line in lines]  # behind its checksum
batches = sorted(entries, key=lambda batch: batch["first"])
samples = [sample for batch in batches for sample in batch["samples"]]
verdicts = json.loads((folder / "selected.json").read_text())["samples"]
selected = np.array([verdict == "selected" for verdict in verdicts])
usable = np.array([verdict in ("selected", "not selected") for verdict in verdicts])
z = space.normalize([sample["scores"] or [np.nan, np.nan] for sample in samples])
assert 0 < selected.sum() < usable.sum()

x, y = space.names
plt.figure(figsize=(6, 4))
plt.plot(*zip(*sorted(space.front), strict=True), color="0.6", label="front of the training data")
plt.scatter([t[x] for t in asked], [t[y] for t in asked], s=12, color="0.6", label="asked")
plt.scatter(*z[~selected].T, s=16, facecolors="none", edgecolors="C0", label="obtained")
plt.scatter(*z[selected].T, s=16, color="C1", label="obtained and selected")
plt.xlabel(f"{x}, z")
plt.ylabel(f"{y}, z")
plt.legend(fontsize=8)
plt.show()


# %%
def some(which):
    """The first seven of these samples."""
    return [Image.open(folder / "samples" / f"{i:06d}.png") for i in np.flatnonzero(which)[:7]]


contact_sheet([some(selected), some(~selected)], row_titles=["selected", "not selected"])

# %%
result = json.loads((folder / "round.json").read_text())
start = json.loads(Path("runs/online/start.json").read_text())
print(
    f"{result['selected']} of {result['samples']} samples selected, "
    f"{result['replay']} labelled records replayed"
)
for name in ("diversity", "prompt_r_precision"):
    print(f"{name}: {start[name]:.2f} before, {result['guard'][name]:.2f} after")

# %% [markdown]
# ## The front, measured
#
# `evaluate` moves the preference from one reward to the other, on prompts and seeds of its own,
# and takes the mean score of each reward at every stop. Two prompts with two seeds are few, so look
# at the mechanics and the width of the intervals; the tables of `docs/evidence.md` have many more.

# %%
result = evaluate(
    "emoji-64",
    ["bicycle", "strawberry"],
    "report",
    adapters=["bundled", run.adapter],
    points=3,
    seeds=2,
    sampling={"num_inference_steps": 10},  # the adapter's own 20 take twice as long
)

# %%
Image.open("report/front.png")

# %% [markdown]
# Each curve is one adapter: up and to the right is better. A stop is *on the front* if no other stop
# of its curve is better in both rewards. The **hypervolume** is the area that a curve dominates above a
# reference point, (−2, −2): one number for how far all trade-offs reach together. Its interval comes
# of drawing prompts and seeds again, with replacement.

# %%
print("reference:", result.reference)
for method in result.methods:
    found = method.hypervolume
    on = sum(point.on_front for point in method.points)
    print(
        f"{method.name}: hypervolume {found.value:.2f} ({found.low:.2f} to {found.high:.2f}), "
        f"{on} of {len(method.points)} stops on the front"
    )
    assert 0 < found.low <= found.value <= found.high

# %% [markdown]
# Where the two intervals overlap, nothing is shown yet: look at the interval of the *ratio* in a report
# with more prompts. What a full round gains is in the documentation, with that interval.
#
# ## Asked and obtained
#
# The other half of a report is **control**: one reward moved alone, the other left on auto. On the
# diagonal a slider would give exactly what it is asked for.

# %%
Image.open("report/control.png")

# %%
for method in result.methods:
    for control in method.control:
        low, high = control.reached
        print(
            f"{method.name}, {control.reward}: reaches {low:+.1f} to {high:+.1f} z, "
            f"mean error {control.error.value:.2f} z"
        )
        assert control.spearman_of_means > 0.5  # more asked, more obtained

# %% [markdown]
# **Calibration** turns the measured curve around: `ric evaluate --calibrate` writes an adapter that
# asks the model for more where it gives too little, so that a slider gives the z on its label as far as
# it can be reached. What cannot be reached stays out of reach; that takes training.

# %% [markdown]
# ## What to try next
#
# - `rounds: 2` and more samples in `online.yaml`; what a round reaches becomes part of the front that
#   preferences aim at.
# - `selection: quantile`, the authors' own choice of samples, instead of `fronts`.
# - `ric evaluate --prompts prompts.txt --calibrate --out calibrated/`, then look at the control figure
#   again.
# - Open `report/index.html`: the whole report on one page.
# - Notebook 4: a scorer of your own.
