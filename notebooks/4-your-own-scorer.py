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
# # 4 · Your own scorer
#
# Any number that you can compute from a picture can become a slider. Here we write a **scorer** for
# how *symmetric* a picture is, in ten lines. We score pictures with it, label a folder for
# training, and ask of the bundled sliders what they do to it, though they were never trained on it.

# %%
# Once, in a clone of the repository: take the first "#" away, then restart the kernel.
# # %pip install -e ..

# %% [markdown]
# ## What a scorer is
#
# A callable with a `name`, a `unit` and a `fingerprint`: pictures in, one number for each out, higher is
# better. `scorers.BaseScorer` checks what comes in, `_score` is yours. The **fingerprint** names all
# that the scores depend on; change it whenever the same picture would get another score. `options` is
# what builds the scorer again.

# %%
# %%writefile symmetry.py
import numpy as np

import scorers


class Symmetry(scorers.BaseScorer):
    """Minus the mean difference from the mirror image: 0 where left and right are the same."""

    name = "symmetry"
    unit = "level"

    def __init__(self) -> None:
        self.options = {}
        self.fingerprint = f"symmetry mirror-1 {scorers.RGB_FINGERPRINT}"

    def _score(self, images, prompts):
        pixels = [np.asarray(scorers.to_rgb(image), float) for image in images]
        return [0 - np.abs(each - each[:, ::-1]).mean() for each in pixels]


# %% [markdown]
# `scorers.to_rgb` is the one way to pixels that all scorers here share: upright, and on white where a
# picture is transparent. So the first test is easy.

# %%
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from symmetry import Symmetry

import scorers
from ric_diffusion import RiCStableDiffusionPipeline, evaluate, label
from ric_diffusion.api import contact_sheet

symmetry = Symmetry()
plain = Image.new("RGB", (64, 64), "tan")
above, left = plain.copy(), plain.copy()
above.paste("black", (0, 0, 64, 32))
left.paste("black", (0, 0, 32, 64))
found = symmetry([plain, above, left, ImageOps.mirror(left)])
assert found[0] == found[1] == 0 > found[2] == found[3]
print(dict(zip(["plain", "dark above", "dark left", "dark right"], found.tolist(), strict=True)))

# %% [markdown]
# ## Score pictures
#
# The bundled model, without its sliders, draws three pictures of eight things each. Every third of
# them, the most lopsided first:

# %%
pipe = RiCStableDiffusionPipeline.from_pretrained("emoji-64")
pipe.set_progress_bar_config(disable=True)
pipe.unload_adapter()

things = [
    "red apple",
    "cat face",
    "rocket",
    "spouting whale",
    "octopus",
    "umbrella",
    "tulip",
    "fire",
]
prompts = things * 3
generators = [torch.Generator().manual_seed(i // len(things)) for i in range(len(prompts))]
images = pipe(prompts, generator=generators, guidance_scale=3.0, num_inference_steps=10).images

order = np.argsort(symmetry(images))
some = [images[i] for i in order[::3]]
contact_sheet([some], captions=[[f"{score:+.0f}"] for score in symmetry(some)])

# %% [markdown]
# ## A name for it
#
# A package offers a scorer under the entry-point group `ric.scorers`; from then on its name is known, also to `ric`.
# In your own package that is two lines of `pyproject.toml`:
#
# ```toml
# [project.entry-points."ric.scorers"]
# symmetry = "symmetry:Symmetry"
# ```
#
# `pip install` turns them into the second of these files. We write both by hand here, to stay offline.

# %%
installed = Path("symmetry-0.1.dist-info")
installed.mkdir(exist_ok=True)
(installed / "METADATA").write_text("Metadata-Version: 2.1\nName: symmetry\nVersion: 0.1\n")
(installed / "entry_points.txt").write_text("[ric.scorers]\nsymmetry = symmetry:Symmetry\n")

assert "symmetry" in scorers.available()
assert scorers.load("symmetry").fingerprint == symmetry.fingerprint
print(scorers.available())

# %% [markdown]
# ## Label with it
#
# `label` writes what training needs: the scores, and a reward space that knows what is usual in
# this folder. From here it goes on as in notebook 2, with `train`.

# %%
Path("pictures").mkdir(exist_ok=True)
for i, (prompt, picture) in enumerate(zip(prompts, images, strict=True)):
    picture.save(f"pictures/{i}.png")
    Path(f"pictures/{i}.txt").write_text(prompt)

# %%
space = label("pictures", "labelled", ["symmetry", "brightness"]).space
for reward in space.rewards:
    print(f"{reward.name}: mean {reward.mean:.1f} {reward.unit}, 1 z is {reward.std:.1f}")
assert space.names == ("symmetry", "brightness")
assert space.rewards[0].fingerprint == symmetry.fingerprint

# %% [markdown]
# ## A held-out scorer
#
# Does a slider do only what it says? A scorer that the model was **not** trained on can tell. With
# `scorers=` the preference sweep of the bundled adapter is scored with it as well.

# %%
result = evaluate(
    "emoji-64",
    ["rocket", "cat face"],
    "report",
    points=3,
    seeds=2,
    scorers=["symmetry"],
    sampling={"num_inference_steps": 10},  # the adapter's own 20 take twice as long
)

# %%
Image.open("report/grid.png")

# %%
assert [scorer.name for scorer in result.held_out] == ["symmetry"]
for point in result.methods[0].points:
    found, weight = point.held_out["symmetry"], point.preference["colorfulness"]
    assert found.low <= found.value <= found.high
    print(
        f"colorfulness {weight:.0%}: symmetry {found.value:+.0f} "
        f"({found.low:+.0f} to {found.high:+.0f}) {symmetry.unit}s"
    )

# %% [markdown]
# The intervals, of four pictures to a stop, overlap widely: so few show nothing yet. With twenty
# prompts and more you would see whether a slider also makes pictures more or less symmetric; if it
# does, training on both rewards lets you hold one while you move the other.

# %% [markdown]
# ## What to try next
#
# - Train it: notebook 2 with `--scorers symmetry colorfulness`, on more pictures than these.
# - A scorer that reads prompts: `needs_prompts = True`, and `_score` gets them; see
#   `scorers/clip_score.py`.
# - A scorer with options: keywords of `__init__`, kept in `options` and named in the fingerprint, and
#   `ric label … --scorers symmetry:gain=2`.
# - A model as a scorer: load it when it is first used, and put a digest of its weights in the
#   fingerprint; see `scorers/aesthetic.py`.
# - `scorers.TextScorer` for texts. Notebook 5 has those.
