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
# # 6 · A real checkpoint on a GPU
#
# Stable Diffusion 1.5, a folder of your photos and one GPU: from there to an adapter with sliders for
# the LAION **aesthetic** score and **compressibility**, the two rewards of the paper. Every cell is what
# you would run; one variable decides whether it is run at full size.

# %%
# Once, in a clone of the repository: take the first "#" away, then restart the kernel.
# # %pip install -e ..

# %% [markdown]
# ## One variable
#
# With `FULL = True` the notebook loads Stable Diffusion 1.5 and the aesthetic predictor from the hub,
# reads your pictures from `photos/` and trains for some hours on a GPU. With `FULL = False` the same
# cells run in a minute on a CPU and without a hub: on the bundled `emoji-64`, with scorers that need no
# weights, on pictures that it draws itself, and for far fewer steps. What you see below is the latter.

# %%
import json
from pathlib import Path

import torch
from PIL import Image

from ric_diffusion import RiCPipeline, evaluate, label, sweep, train
from ric_diffusion.api import contact_sheet

FULL = False

if FULL:
    MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    SCORERS = ["aesthetic", "compressibility"]
    STEPS, BATCH, ACCUMULATE, RATE, PRECISION = 4000, 8, 2, 1.0e-4, "auto"
    GUIDANCE, DENOISING, LAYERS = 7.5, 50, "attention, feed_forward"
    PROMPTS = ["a photo of a mountain lake", "a portrait of a fox", "a street at night"]
    POINTS, SEEDS, DTYPE = 11, 4, "float16"
else:
    MODEL = "emoji-64"
    SCORERS = ["compressibility:resize=none", "colorfulness"]
    STEPS, BATCH, ACCUMULATE, RATE, PRECISION = 20, 8, 2, 1.0e-3, "fp32"
    GUIDANCE, DENOISING, LAYERS = 3.0, 10, "attention, feed_forward, convolution"
    PROMPTS = ["strawberry", "bicycle"]
    POINTS, SEEDS, DTYPE = 3, 1, "float32"

# %% [markdown]
# ## Pictures with captions
#
# `photos/` holds `x.jpg` with its caption in `x.txt`, or is an imagefolder with `metadata.jsonl`. Some
# thousands of pictures are good, and the more they differ in the rewards the further the sliders can
# reach. At small size the model draws 16 of them.

# %%
photos = Path("photos")
if not FULL:
    photos.mkdir(exist_ok=True)
    pipe = RiCPipeline.from_pretrained(MODEL)
    pipe.set_progress_bar_config(disable=True)
    pipe.unload_adapter()
    names = ["red apple", "cat face", "rocket", "pizza", "octopus", "crown", "tulip", "fire"] * 2
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(names))]
    out = pipe(names, generator=generators, guidance_scale=3.0, num_inference_steps=10)
    for i, (name, picture) in enumerate(zip(names, out.images, strict=True)):
        picture.save(photos / f"{i}.png")
        (photos / f"{i}.txt").write_text(name)

# %% [markdown]
# ## Label
#
# The aesthetic scorer fetches the OpenCLIP weights when it is first used. Labelling can be interrupted:
# run it again and it scores what is missing.

# %%
report = label(photos, "labelled", SCORERS)
print(f"{report.count} pictures labelled, {len(report.skipped)} skipped")

# %% [markdown]
# ## Train
#
# As `ric init sd15` prints it. The photos go through the autoencoder once, before the first step.
# `gradient_checkpointing` saves memory for time, `accumulate` gives a batch of 16 where 8 fit, and
# `min_snr_gamma` weighs the noise levels so that no single one rules the loss. Interrupted, `ric train
# sd15.yaml --resume` goes on where it was; on several GPUs it is `accelerate launch -m ric_diffusion
# train sd15.yaml`.

# %%
Path("sd15.yaml").write_text(f"""
model: {MODEL}
data: labelled
out: runs/sd15
diffusion:
  mode: embedding
  lora: {{rank: 32, alpha: 32, targets: [{LAYERS}]}}
  min_snr_gamma: 5.0
  mirror: true
  gradient_checkpointing: true
  sampling: {{guidance_scale: {GUIDANCE}, num_inference_steps: {DENOISING}}}
loop:
  steps: {STEPS}
  batch_size: {BATCH}
  accumulate: {ACCUMULATE}
  learning_rate: {RATE}
  warmup: {STEPS // 20}
  ema: 0.999
  precision: {PRECISION}
  validate_every: {max(STEPS // 8, 20)}
prompts: {json.dumps(PROMPTS[:1])}
""")
result = train("sd15.yaml")
print(result.adapter)

# %% [markdown]
# While it trains, `runs/sd15/sheets/` shows what each slider does so far, and
# `tensorboard --logdir runs/sd15` the loss.

# %%
sheets = sorted(Path("runs/sd15/sheets").glob(f"*-{STEPS}.png"))
assert len(sheets) == 2  # one for each reward
Image.open(sheets[0])

# %% [markdown]
# ## Look
#
# One prompt and one seed, and the preference moves from the first reward to the second. At small size
# this adapter has seen twenty steps on sixteen pictures: the point is that it runs.

# %%
sweep(MODEL, PROMPTS[0], adapter=result.adapter, points=5, dtype=DTYPE, out="sweep").sheet

# %% [markdown]
# ## Measure
#
# The front against the model without any adapter, on prompts that should not be among the captions of
# the training data. With two prompts and one seed the intervals are as wide as the picture. The whole
# report is `report/index.html`.

# %%
measured = evaluate(
    MODEL,
    PROMPTS,
    "report",
    adapters=[result.adapter, "none"],
    points=POINTS,
    seeds=SEEDS,
    dtype=DTYPE,
)
for method in measured.methods:
    found = method.hypervolume
    print(f"{method.name}: {found.value:.2f} ({found.low:.2f} to {found.high:.2f})")
assert [len(method.points) for method in measured.methods] == [POINTS, 1]
Image.open("report/front.png")

# %% [markdown]
# ## Use
#
# The pipeline is a stock one: half precision, offload and another scheduler as in diffusers. Where
# memory is short, `pipe.enable_model_cpu_offload()` in place of `.to(device)`.

# %%
device = "cuda" if FULL else "cpu"
pipe = RiCPipeline.from_pretrained(MODEL, dtype=getattr(torch, DTYPE)).to(device)
pipe.set_progress_bar_config(disable=True)
pipe.load_adapter(result.adapter)
out = pipe(
    PROMPTS[0],
    targets={"compressibility": 1.0},
    contrast=1.5,  # steers away from the opposite of the targets
    generator=torch.Generator().manual_seed(0),
)
assert out.targets[0].keys() == {"compressibility"}
contact_sheet([out.images], title=PROMPTS[0])

# %% [markdown]
# ## What to try next
#
# - `FULL = True`, a GPU, and your photos.
# - `ric push --adapter runs/sd15/adapter --to user/name`: the adapter on the hub, private at first; its
#   model card asks you for the licence and where the data is from.
# - `mode: text` in the config, then `ric export --adapter runs/sd15/adapter --format kohya
#   --out sliders.safetensors` and `ric prompt`, for ComfyUI and A1111.
# - `ric evaluate … --calibrate --out calibrated/`: sliders that give the z on their label.
# - Online rounds, as in notebook 3, with the config's model and adapter.
