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
# # 1 · Sliders in five minutes
#
# A diffusion model draws what the prompt says; *how* it draws it is up to the noise. Here the model
# has learned two rewards, **compressibility** and **colorfulness**, and you say how much of each you
# want. Everything runs on a CPU, without a download, with `emoji-64`, the small Stable Diffusion that
# comes with the package.

# %%
# Once, in a clone of the repository: take the first "#" away, then restart the kernel.
# # %pip install -e ..

# %% [markdown]
# ## A model with sliders
#
# The pipeline is a stock Stable Diffusion pipeline of diffusers that takes rewards as well. Its
# *reward space* knows what the scores of the training pictures were: **z** counts standard deviations
# from their mean, so that 0 is usual and 1.5 is a lot.

# %%
import torch

from ric_diffusion import RiCStableDiffusionPipeline

pipe = RiCStableDiffusionPipeline.from_pretrained("emoji-64")
pipe.set_progress_bar_config(disable=True)
space = pipe.reward_space
print(space)

# %% [markdown]
# ## Without a request
#
# A reward that is not mentioned is **auto**: the model fills it in. Six seeds give six apples.

# %%
from IPython.display import display

from ric_diffusion.api import contact_sheet


def draw(prompts, seeds, **rewards):
    """One picture per prompt, each from its own seed. Steps and guidance are the adapter's own."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipe(prompts, generator=generators, **rewards)


out = draw(["red apple"] * 6, range(6))
contact_sheet([out.images], captions=[[f"seed {seed}"] for seed in range(6)])

# %% [markdown]
# ## Targets: a value for one reward
#
# The same prompt and the same seed, and only the target of one reward moves. Below each picture
# stands what was asked » what a scorer finds in the finished picture, in z. The two are not equal,
# but they rise together.

# %%
from ric_diffusion.api import measure

asked = [-1.0, -0.4, 0.2, 0.8, 1.4]
rows = []
for name in space.names:
    prompts = ["crown"] * len(asked)
    out = draw(prompts, [1] * len(asked), targets=[{name: z} for z in asked])
    found = measure(space, out.images, prompts)[:, space.names.index(name)]
    rows.append((name, out.images, found))
    assert found[-1] > found[0] + 0.5, f"{name}: a higher target gives a higher score"

# %%
for name, images, found in rows:
    captions = [[f"{a:+.1f} » {f:+.1f}"] for a, f in zip(asked, found, strict=True)]
    display(contact_sheet([images], captions=captions, title=f"crown, {name} asked » obtained"))

# %% [markdown]
# ## A preference: one slider between two rewards
#
# Who wants both rewards has to trade them off: a colourful picture needs more bytes. A **preference**
# is a set of weights, and a **mapping** turns it into targets that real pictures reach together. The
# pipeline says which targets it used.

# %%
weights = [0.0, 0.25, 0.5, 0.75, 1.0]
preferences = [{"compressibility": 1 - w, "colorfulness": w} for w in weights]
names = ["red apple", "octopus", "rocket"]
images, z = [], []
for prompt in names:
    out = draw([prompt] * len(weights), [0] * len(weights), preference=preferences)
    images.append(out.images)
    z.append(measure(space, out.images, [prompt] * len(weights)))

for weight, targets in zip(weights, out.targets, strict=True):
    print(f"colorfulness {weight:.0%}:", {name: round(value, 2) for name, value in targets.items()})
contact_sheet(images, captions=[[f"colorfulness {w:.0%}"] for w in weights], row_titles=names)

# %% [markdown]
# Over the three prompts, the mean score of each reward follows its weight.

# %%
mean = sum(z) / len(z)
for i, name in enumerate(space.names):
    print(f"{name:16s}", "  ".join(f"{value:+.2f}" for value in mean[:, i]))
assert mean[0, 0] > mean[-1, 0] and mean[-1, 1] > mean[0, 1]

# %% [markdown]
# ## And it is still a stock pipeline
#
# Schedulers, `negative_prompt`, callbacks, LoRAs: what works in diffusers works here. Take the
# adapter out, and it is plain Stable Diffusion again; the sliders are in a small folder beside it.

# %%
pipe.unload_adapter()
generator = torch.Generator().manual_seed(0)
plain = pipe("red apple", num_inference_steps=20, guidance_scale=3.0, generator=generator)
assert pipe.reward_space is None
contact_sheet([plain.images], title="no sliders")

# %% [markdown]
# ## What to try next
#
# - Run the notebook again from the top, since the adapter is out now, and give `draw` other prompts
#   and seeds, or a target out of reach, such as `colorfulness=5`: the model saturates.
# - There, `contrast=0` or `contrast=3`: how strongly guidance steers away from the opposite of your
#   targets. And `preference=…, mapping="linf"`: the paper's mapping instead of ours.
# - In a terminal, `ric app`: the sliders in a browser. Or `ric sweep --model emoji-64 --prompt octopus
#   --points 11 --out sweep/`.
# - Notebook 2: sliders from a folder of your own.
