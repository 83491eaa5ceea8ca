"""Train emoji-clip from scratch, and measure it on names that it never saw.

    python scripts/research/build_emoji_dataset.py --out data/emoji
    python scripts/research/train_emoji_clip.py --data data/emoji --out runs/clip

Run it again after an interruption and it goes on where it was. The result, which open_clip loads
as `local-dir:runs/clip/emoji-clip`, copied to scorers/assets/emoji-clip beside its README.md, is
the CLIP that the scorers know as `clip=emoji-clip`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from emoji_clip import ClipTrainer, retrieval
from ric_diffusion.data.images import open_image
from ric_diffusion.data.records import Record, read_folder
from ric_diffusion.io import config
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.progress import tracked
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from ric_diffusion.models.family import load_model
from ric_diffusion.models.hardware import default_device
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer
from scorers.clip import DEFAULT_WEIGHTS, load_clip
from scratch import megabytes, read_pictures

DRAWN_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """``model``: open_clip's ``model_cfg``. Measured against ``distractors`` captions, on
    ``sampled`` names that ``sampler`` draws with ``sampling``."""

    seed: int
    model: dict[str, Any]
    loop: LoopConfig
    distractors: int
    sampler: str
    sampling: dict[str, Any]
    sampled: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--out", type=Path, default=Path("runs/clip"))
    parser.add_argument(
        "--config", type=Path, default=Path(__file__).parent / "configs" / "emoji-clip.yaml"
    )
    options = parser.parse_args()
    try:
        settings = config.load_yaml(options.config, ClipConfig)
        measure(settings, options.data, train(settings, options.data, options.out))
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def train(settings: ClipConfig, data: Path, out: Path) -> Path:
    """Train on the emoji pictures in ``data``, but for the names held out; the model's folder."""
    torch.manual_seed(settings.seed)
    size = settings.model["vision_cfg"]["image_size"]
    parts = [read_pictures(data / split, size) for split in ("train", "other")]
    records = [record for part, _ in parts for record in part]
    trainer = ClipTrainer(
        settings.model,
        torch.cat([images for _, images in parts]),
        [record.captions for record in records],
        [record.captions[0] for record in records],
    )
    loop = settings.loop.resolved(default_device())
    run = RunFolder(out, Path(__file__).name)
    run.begin({"seed": settings.seed, "model": settings.model, "loop": loop.identity()})
    Trainer(trainer, len(records), loop, out, digest=run.digest, resume=True).run()
    trainer.settle(loop.batch_size, torch.Generator().manual_seed(settings.seed))
    folder = out / "emoji-clip"
    trainer.save(folder)
    temperature = 1 / trainer.model.logit_scale.exp().item()
    print(f"{folder}: {megabytes(folder):.1f} MB, temperature {temperature:.3f}")
    return folder


def measure(settings: ClipConfig, data: Path, folder: Path) -> None:
    """Print how pictures find their captions: drawings of names held out, of names trained on, and
    samples of those."""
    encoder = load_clip("train_emoji_clip", str(folder), DEFAULT_WEIGHTS)
    held_out, trained = (read_folder(data / split) for split in ("held-out", "train"))
    names = sorted({record.captions[0] for record in trained})
    rng = np.random.default_rng(settings.seed)
    chosen = rng.choice(names, min(settings.sampled, len(names)), replace=False).tolist()
    drawings = [record for record in trained if record.captions[0] in set(chosen)]
    print("| pictures | right caption first | before a distractor | cosine | of distractors |")
    print("| --- | --- | --- | --- | --- |")
    for what, images, of in (
        ("drawings, names held out", *_read(data / "held-out", held_out)),
        ("drawings, names trained on", *_read(data / "train", drawings)),
        (f"samples of {settings.sampler}", _drawn(settings, chosen), chosen),
    ):
        f = retrieval(encoder, images, of, settings.distractors, settings.seed)
        print(f"| {what} | {f.found:.3f} | {f.ranked:.3f} | {f.right:.2f} | {f.wrong:.2f} |")


def _read(folder: Path, records: Sequence[Record]) -> tuple[list[Image], list[str]]:
    images = [open_image(folder / record.file) for record in records]
    return images, [record.captions[0] for record in records]


def _drawn(settings: ClipConfig, prompts: Sequence[str]) -> list[Image]:
    """A sample of each prompt, by the model without an adapter."""
    pipe = load_model(settings.sampler)
    pipe.unload_adapter()
    sampler, images = DiffusionSampler(pipe, settings.sampling), []
    for start in tracked(range(0, len(prompts), DRAWN_AT_ONCE), "samples", unit="batch"):
        some = prompts[start : start + DRAWN_AT_ONCE]
        seeds = range(settings.seed + start, settings.seed + start + len(some))
        images += sampler.sample(some, [{}] * len(some), seeds)
    return images


if __name__ == "__main__":
    main()
