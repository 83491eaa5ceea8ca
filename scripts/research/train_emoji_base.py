"""Train emoji-64 from scratch: autoencoder, then text encoder and U-Net, then U-Net alone, twice;
then both with captions that say where and how large, then the U-Net alone once more.

    python scripts/research/build_emoji_dataset.py --out data/emoji
    python scripts/research/train_emoji_base.py --data data/emoji --out runs/base

Run it again after an interruption and it goes on where it was. The result, a stock Stable
Diffusion folder in half precision, is at runs/base/pipeline; copied to
ric_diffusion/assets/emoji-64 it is the bundled model.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

import autoencoder
import scratch as base
from ric_diffusion.io import config
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_json
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.cost import COST, Cost, Meter
from ric_diffusion.models.hardware import default_device
from ric_diffusion.models.protocol import Trainable, weights_digest
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer

PHASES = ("text", "unet", "refine", "numbers", "anneal")


@dataclass(frozen=True, kw_only=True)
class NumbersConfig:
    """Pictures whose captions carry numbers: a ``fraction`` of every batch, out of ``variants`` of
    each picture."""

    fraction: float
    variants: int


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    seed: int
    autoencoder: dict[str, Any]
    autoencoder_loop: LoopConfig
    text_encoder: dict[str, Any]
    unet: dict[str, Any]
    scheduler: dict[str, Any]
    text_loop: LoopConfig
    unet_loop: LoopConfig
    refine_loop: LoopConfig
    numbers: NumbersConfig
    numbers_loop: LoopConfig
    anneal_loop: LoopConfig
    labels: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--out", type=Path, default=Path("runs/base"))
    parser.add_argument(
        "--config", type=Path, default=Path(__file__).parent / "configs" / "emoji-base.yaml"
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="FOLDER",
        help="go on from this pipeline with the phase that teaches numbers",
    )
    options = parser.parse_args()
    try:
        settings = config.load_yaml(options.config, BaseConfig)
        train(settings, options.data, options.out, options.start)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def train(settings: BaseConfig, data: Path, out: Path, start: Path | None = None) -> None:
    """All phases, from the emoji pictures in ``data``; what is there already is not done again.

    ``start``: a pipeline folder of this script's, to go on from with the phase that teaches
    numbers."""
    torch.manual_seed(settings.seed)
    _, held_out = base.read_pictures(data / "held-out", 64)
    records, images = base.read_pictures(data / "train", 64)
    if start is None:
        if not (out / "vae").is_dir():
            _, other = base.read_pictures(data / "other", 64)
            every = torch.cat([images, other])
            trainer = autoencoder.AutoencoderTrainer(settings.autoencoder, every)
            identity = {"seed": settings.seed, "autoencoder": settings.autoencoder}
            run_phase(trainer, every, settings.autoencoder_loop, out / "autoencoder", identity)
            trainer.save(out / "vae")
        vae = AutoencoderKL.from_pretrained(out / "vae", use_safetensors=True)
    else:
        vae = AutoencoderKL.from_pretrained(start / "vae", use_safetensors=True).float()
    quality = autoencoder.psnr(held_out, autoencoder.reconstruct(vae, held_out))
    print(f"held-out reconstruction: {quality:.2f} dB PSNR on {len(held_out)} pictures")

    model = base.TextToImageTrainer(
        vae, images, [record.captions for record in records], settings.labels,
        text_encoder=settings.text_encoder, unet=settings.unet, scheduler=settings.scheduler,
    )  # fmt: skip
    if start is not None:
        model.load(start)
    identity = {
        "seed": settings.seed,
        "text_encoder": settings.text_encoder,
        "unet": settings.unet,
        "scheduler": settings.scheduler,
        "labels": settings.labels,
        "autoencoder": weights_digest(vae),
        "start": None if start is None else weights_digest(model.unet),
    }
    spent = Cost()
    for name in PHASES if start is None else PHASES[PHASES.index("numbers") :]:
        if name == "numbers":
            numbers = settings.numbers
            model.learn_numbers(
                images, fraction=numbers.fraction, variants=numbers.variants, seed=settings.seed
            )
            identity |= {"numbers": config.to_dict(numbers)}
        elif name in ("unet", "anneal"):
            model.freeze_text()
        loop = getattr(settings, f"{name}_loop")
        meter = Meter()
        with meter.running(model.unet):
            identity = run_phase(model, images, loop, out / name, identity, meter)
        spent += meter.read()
    write_json(out / COST, spent.to_dict())
    model.save(out / "pipeline")
    print(f"{out / 'pipeline'}: {base.megabytes(out / 'pipeline'):.1f} MB")


def run_phase(
    trainer: Trainable,
    images: torch.Tensor,
    loop: LoopConfig,
    out: Path,
    identity: Mapping[str, Any],
    meter: Meter | None = None,
) -> dict[str, Any]:
    """Train on all images; returns the identity that the next phase begins with, since a phase
    depends on those before it. InputError if ``out`` holds a run with another."""
    loop = loop.resolved(default_device())
    own = {**identity, f"{out.name}_loop": loop.identity()}
    run = RunFolder(out, "base")
    run.begin(own)
    Trainer(trainer, len(images), loop, out, digest=run.digest, resume=True, meter=meter).run()
    return own


if __name__ == "__main__":
    main()
