"""Makes pictures of random settings with `ric generate`, and each again in another process: with
`--like`, and by what the app does with a picture that is dropped on it. Compares them byte by byte.

    python scripts/check_like.py --count 50

Ends with 1 if a picture came out differently. All three of each are left in OUT.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from ric_diffusion.api import load
from ric_diffusion.api.picture_settings import read_metadata
from ric_diffusion.app.choice import ModelChoice
from ric_diffusion.app.engine import Engine
from ric_diffusion.app.jobs import Job
from ric_diffusion.cli import main as ric
from ric_diffusion.data.images import save_png

MADE, AGAIN, APP = "made", "again", "app"  # below OUT
PROMPTS = ("red apple", "a cat's face, smiling", "Rakete\nim Weltraum", "🍕 pizza", "umbrella")
MAPPINGS = ("linear", "l2", "linf", "quantile", "front")
SIDES = (48, 64, 80)


def random_options(rng: random.Random, rewards: Sequence[str], picture: Path) -> list[str]:
    """Options of `ric generate`, at random: each that a picture depends on comes now and then."""
    options = ["--prompt", rng.choice(PROMPTS), "--seed", str(rng.randrange(2**31))]
    options += ["--steps", str(rng.randint(2, 6)), "--guidance-scale", f"{rng.uniform(1.5, 7):.2f}"]

    def values(low: float, high: float) -> list[str]:
        some = rng.sample(rewards, rng.randint(1, len(rewards)))
        return [f"{name}={rng.uniform(low, high)!r}" for name in some]

    asked = rng.choice(["preference", "targets", "nothing"])
    if asked == "preference":
        options += ["--preference", *values(0.1, 1)]
        options += rng.choice([[], ["--mapping", rng.choice(MAPPINGS)]])
    elif asked == "targets":
        options += ["--targets", *values(-2.5, 2.5)]
    if rng.random() < 0.3:
        options += ["--negative-targets", *values(-2, 2)]
    elif rng.random() < 0.4:
        options += ["--contrast", f"{rng.uniform(0, 1.5):.2f}"]
    if rng.random() < 0.3:
        options += ["--prompt-guidance", "1.25"]
    if rng.random() < 0.3:
        options += ["--reward-start", f"{rng.uniform(0, 0.99):.2f}"]
    if rng.random() < 0.4:
        options += ["--negative-prompt", rng.choice(["", "blurry", "night, dark"])]
    if rng.random() < 0.5:
        options += ["--width", str(rng.choice(SIDES)), "--height", str(rng.choice(SIDES))]
    if asked != "nothing" and rng.random() < 0.25:
        options += ["--refine", str(rng.randint(1, 2))]
    if rng.random() < 0.25:
        options += ["--init-image", str(picture), "--strength", f"{rng.uniform(0.5, 1):.2f}"]
    return options


def write_picture(path: Path) -> None:
    """One to begin with, of no size that a model draws at."""
    image = Image.new("RGB", (90, 70), "teal")
    ImageDraw.Draw(image).ellipse((20, 10, 70, 60), fill="gold")
    image.save(path)


def make(out: Path, count: int, seed: int, model: Sequence[str], rewards: Sequence[str]) -> None:
    """``count`` pictures in OUT/made; ``model``: the options that name it."""
    (out / MADE).mkdir(parents=True, exist_ok=True)
    write_picture(out / MADE / "begin.png")
    rng = random.Random(seed)
    for _ in range(count):
        options = random_options(rng, rewards, out / MADE / "begin.png")
        if ric(["generate", *model, *options, "--out", str(out / MADE)]):
            raise SystemExit(f"ric generate failed with {options}")


def made_pictures(out: Path) -> list[Path]:
    return sorted((out / MADE).glob("*-seed*.png"))


def make_again(out: Path, model: str, adapter: str | None) -> None:
    """Each picture in OUT/made from what it says of itself, in OUT/again and in OUT/app. What one
    began with is found in the working folder."""
    engine = Engine(load(model, adapter), ModelChoice.of(model))
    for path in made_pictures(out):
        if ric(["generate", "--like", str(path), "--out", str(out / AGAIN)]):
            raise SystemExit(f"ric generate --like {path} failed")
        drawn = engine.again(read_metadata(path).settings, Job())
        save_png(out / APP / path.name, drawn.sample)


def differing(out: Path, folder: str) -> list[str]:
    """The names of pictures that came out differently in OUT/FOLDER, or not at all."""
    found = []
    for path in made_pictures(out):
        again = out / folder / path.name
        if not again.exists():
            found.append(path.name)
            continue
        with Image.open(path) as one, Image.open(again) as other:
            if (one.size, one.tobytes()) != (other.size, other.tobytes()):
                found.append(path.name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the settings")
    parser.add_argument("--model", default="emoji-64")
    parser.add_argument("--adapter", help="of that model; a bundled one has its own")
    parser.add_argument("--rewards", nargs="+", default=["colorfulness", "compressibility"])
    parser.add_argument("--out", type=Path, help="an empty folder; by default a temporary one")
    parser.add_argument("--again", type=Path, metavar="OUT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.again is not None:
        make_again(options.again, options.model, options.adapter)
        return
    out = (options.out or Path(tempfile.mkdtemp(prefix="like-"))).resolve()
    model = ["--model", options.model]
    if options.adapter is not None:
        model += ["--adapter", options.adapter]
    make(out, options.count, options.seed, model, options.rewards)
    again = [sys.executable, str(Path(__file__).resolve()), "--again", str(out), *model]
    subprocess.run(again, check=True, cwd=out / MADE)
    wrong = False
    for folder, door in {AGAIN: "ric generate --like", APP: "the app"}.items():
        names = differing(out, folder)
        same, wrong = options.count - len(names), wrong or bool(names)
        print(f"{door}: {same} of {options.count} pictures the same, byte by byte")
        for name in names:
            print(f"differs: {name}")
    print(f"all of them: {out}")
    sys.exit(wrong)


if __name__ == "__main__":
    main()
