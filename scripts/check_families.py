"""Print what every family of image models can do, tried on a model of true widths and few layers.

    python scripts/check_families.py [--family flux …] [--out docs/families.md]

Weights are random, pictures small. A cell says "works", or in how many words the command line
refuses it. A minute or two a family on two CPU cores, and up to 10 GB of memory.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE / "research")]

from ric_diffusion import RiCPipeline, api  # noqa: E402
from ric_diffusion.api import OnlineRun, TrainConfig  # noqa: E402
from ric_diffusion.app.engine import Engine  # noqa: E402
from ric_diffusion.app.jobs import Job  # noqa: E402
from ric_diffusion.evaluation.report.schema import EvaluationResult  # noqa: E402
from ric_diffusion.io import config  # noqa: E402
from ric_diffusion.io.errors import InputError  # noqa: E402
from ric_diffusion.models.family import Family, family_named  # noqa: E402
from ric_diffusion.models.known import FAMILIES  # noqa: E402
from support import tiny  # noqa: E402

BUILDERS = {  # of tests/support, by family
    "stable-diffusion": "sd",
    "stable-diffusion-xl": "sdxl",
    "stable-diffusion-3": "sd3",
    "flux": "flux",
    "z-image": "z_image",
}
# Whose files in kohya's format diffusers reads, too.
KOHYA_READ = {"stable-diffusion", "stable-diffusion-xl", "flux"}
REWARDS = ["compressibility:resize=none", "colorfulness"]
SIDE, STEPS = 64, 2
PROMPT, TARGETS = "red apple", {"colorfulness": 1.5}
ELSEWHERE = """
import json, sys, torch
torch.set_num_threads(1)
from ric_diffusion import api
model, adapter, out, targets = sys.argv[1:]
api.generate(model, "red apple", adapter=adapter, targets=json.loads(targets), out=out)
"""
WORKS = "works"


class Trial:
    """One family under trial; every method is a column of the table."""

    def __init__(self, family: Family, root: Path) -> None:
        self.family, self.root = family, root
        builder = importlib.import_module(f"support.{BUILDERS[family.name]}")
        self.model = str(builder.write(root / "model", wide=True))
        tiny.write_pictures(root / "pictures")
        self.adapter = root / "run" / "adapter"

    def settings(self) -> dict[str, Any]:
        scale = getattr(self.family, "guidance", "guidance_scale")
        return {
            "lora": {"rank": 4, "alpha": 4, "targets": ["attention", "feed_forward"]},
            "sampling": {
                "num_inference_steps": STEPS, "height": SIDE, "width": SIDE, scale: 3.0,
            },
            "resolution": SIDE,
            "mirror": False,
        }  # fmt: skip

    def loop(self) -> dict[str, Any]:
        return {"steps": 2, "batch_size": 2, "learning_rate": 0.01, "precision": "fp32"}

    def label_train_save_load(self) -> None:
        api.label(self.root / "pictures", self.root / "labelled", REWARDS)
        run = {"model": self.model, "data": str(self.root / "labelled"), "loop": self.loop()}
        settings = config.from_dict({**run, "diffusion": self.settings()}, TrainConfig, "train")
        api.train(settings, out=self.root / "run")
        (here,) = api.generate(self.model, PROMPT, adapter=self.adapter, targets=TARGETS)
        there = self.root / "elsewhere"
        command = [sys.executable, "-c", ELSEWHERE, self.model, self.adapter, there]
        subprocess.run([*map(str, command), json.dumps(TARGETS)], check=True, cwd=HERE.parent)
        [path] = there.glob("*.png")
        with Image.open(path) as picture:
            same(here.sample, picture)

    def draw(self) -> None:
        low, high = (
            api.generate(self.model, PROMPT, adapter=self.adapter, targets={"colorfulness": z})[0]
            for z in (-2.0, 2.0)
        )
        differ(low.sample, high.sample)

    def sweep(self) -> None:
        found = api.sweep(self.model, PROMPT, adapter=self.adapter, points=2)
        differ(*(point.sample for point in found.points))

    def image_to_image(self) -> None:
        pipe = RiCPipeline.from_pretrained(self.model)
        pipe.load_adapter(self.adapter)
        painter = self.family.sibling(pipe, "image-to-image")
        drawn = [
            painter(
                PROMPT,
                image=next(tiny.pictures()),
                strength=0.9,
                targets={"colorfulness": z},
                generator=torch.Generator().manual_seed(0),
                **painter.arguments_of(pipe.adapter.sampling),
            ).images[0]
            for z in (-2.0, 2.0)
        ]
        differ(*drawn)

    def online_round(self) -> None:
        online = {
            "rounds": 1,
            "samples": 8,
            "batch_size": 4,
            "guard": {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0},
            "loop": self.loop(),
        }
        run = {"model": self.model, "data": str(self.root / "labelled"), "online": online}
        run |= {"adapter": str(self.adapter), "diffusion": self.settings()}
        api.online(config.from_dict(run, OnlineRun, "online"), out=self.root / "online")

    def evaluate(self) -> None:
        found: EvaluationResult = api.evaluate(
            self.model,
            ["red apple", "cat face"],
            self.root / "report",
            adapters=[self.adapter],
            points=2,
            seeds=1,
        )
        assert len(found.methods) == 1

    def export_and_load_back(self) -> None:
        pipe = RiCPipeline.from_pretrained(self.model)
        options = {**pipe.arguments_of(pipe_sampling(self)), "output_type": "np"}
        plain = drawn(pipe, options)
        pipe.load_lora_weights(str(self.adapter))
        wanted = drawn(pipe, options)
        differ(wanted, plain)
        for format in ("diffusers", *(["kohya"] if self.family.name in KOHYA_READ else [])):
            pipe.unload_lora_weights()
            out = api.export(self.adapter, self.root / f"{format}.safetensors", format)
            pipe.load_lora_weights(str(out))
            same(drawn(pipe, options), wanted, within=1e-3)

    def app(self) -> None:
        pipe = RiCPipeline.from_pretrained(self.model)
        pipe.load_adapter(self.adapter)
        engine = Engine(pipe, self.model)
        request = engine.request(PROMPT, 0, targets=TARGETS)
        made = engine.draw(request, Job())
        made.sample.save(self.root / "drawn.png")
        differ(engine.transform(request, self.root / "drawn.png", 1.0, Job()).sample, made.sample)


COLUMNS: dict[str, Callable[[Trial], None]] = {
    "label, train, save, load in a fresh process": Trial.label_train_save_load,
    "draw": Trial.draw,
    "sweep": Trial.sweep,
    "image to image": Trial.image_to_image,
    "online round": Trial.online_round,
    "evaluate": Trial.evaluate,
    "export, load back": Trial.export_and_load_back,
    "app": Trial.app,
}


def pipe_sampling(trial: Trial) -> dict[str, Any]:
    return trial.settings()["sampling"]


def drawn(pipe: Any, options: dict[str, Any]) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return np.asarray(pipe(PROMPT, generator=generator, **options).images[0])


def same(one: Any, other: Any, within: float = 0.0) -> None:
    worst = np.abs(np.asarray(one, float) - np.asarray(other, float)).max()
    assert worst <= within, f"pictures differ by {worst:.3g}"


def differ(one: Any, other: Any) -> None:
    assert (np.asarray(one) != np.asarray(other)).any(), "pictures are the same"


def cells(family: Family) -> Iterator[str]:
    """What becomes of each column, in their order."""
    with tempfile.TemporaryDirectory() as root:
        trial = Trial(family, Path(root))
        for name, attempt in COLUMNS.items():
            begun = time.monotonic()
            try:
                attempt(trial)
                said = WORKS
            except InputError as error:
                said = f"refused: {error}"
            print(f"{family.name}: {name}: {said} ({time.monotonic() - begun:.0f} s)", flush=True)
            yield said


def main() -> None:
    names = [n for n in FAMILIES if hasattr(family_named(n), "pipelines")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", nargs="+", choices=names, default=names)
    parser.add_argument("--out", type=Path, help="a file for the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [f"| family | {' | '.join(COLUMNS)} |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for name in options.family:
        family = family_named(name)
        lines.append(f"| {family.title} | {' | '.join(cells(family))} |")
    table = "\n".join(lines)
    print(table)
    if options.out:
        options.out.write_text(table + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
