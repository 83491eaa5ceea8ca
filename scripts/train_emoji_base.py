"""Train emoji-64 from scratch: autoencoder, then text encoder and U-Net, then U-Net alone, twice.

    python scripts/build_emoji_dataset.py --out data/emoji
    python scripts/train_emoji_base.py --data data/emoji --out runs/base

Run it again after an interruption and it goes on where it was. The result, a stock Stable
Diffusion folder in half precision, is at runs/base/pipeline; copied to
ric_diffusion/assets/emoji-64 it is the bundled model.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from ric_diffusion import config
from ric_diffusion.backend import weights_digest
from ric_diffusion.cost import Cost, Meter
from ric_diffusion.diffusion import autoencoder, base
from ric_diffusion.files import write_json
from ric_diffusion.training.loop import LoopConfig, fit


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
    labels: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--out", type=Path, default=Path("runs/base"))
    parser.add_argument(
        "--config", type=Path, default=Path(__file__).parent / "configs" / "emoji-base.yaml"
    )
    options = parser.parse_args()
    settings = config.load_yaml(options.config, BaseConfig)
    torch.manual_seed(settings.seed)

    _, held_out = base.read_pictures(options.data / "held-out", 64)
    records, images = base.read_pictures(options.data / "train", 64)
    if not (options.out / "vae").is_dir():
        _, other = base.read_pictures(options.data / "other", 64)
        every = torch.cat([images, other])
        trainer = autoencoder.AutoencoderTrainer(settings.autoencoder, every)
        digest = config.digest([settings.autoencoder, settings.autoencoder_loop])
        out = options.out / "autoencoder"
        fit(trainer, len(every), settings.autoencoder_loop, out, digest=digest, resume=True)
        trainer.save(options.out / "vae")
    vae = AutoencoderKL.from_pretrained(options.out / "vae", use_safetensors=True)
    quality = autoencoder.psnr(held_out, autoencoder.reconstruct(vae, held_out))
    print(f"held-out reconstruction: {quality:.2f} dB PSNR on {len(held_out)} pictures")

    model = base.TextToImageTrainer(
        vae, images, [record.captions for record in records], settings.labels,
        text_encoder=settings.text_encoder, unet=settings.unet, scheduler=settings.scheduler,
    )  # fmt: skip
    trail: list[Any] = [settings.seed, settings.text_encoder, settings.unet, settings.scheduler]
    trail += [settings.labels, weights_digest(vae)]
    spent = Cost()
    for name in ("text", "unet", "refine"):
        if name == "unet":
            model.freeze_text()
        loop = getattr(settings, f"{name}_loop")
        trail.append(loop)  # a phase depends on those before it, not on those to come
        digest = config.digest(trail)
        meter = Meter()
        with meter.running(model.unet):
            fit(
                model,
                len(images),
                loop,
                options.out / name,
                digest=digest,
                resume=True,
                meter=meter,
            )
        spent += meter.read()
    write_json(options.out / "cost.json", spent.to_dict())
    model.save(options.out / "pipeline")
    print(f"{options.out / 'pipeline'}: {base.megabytes(options.out / 'pipeline'):.1f} MB")


if __name__ == "__main__":
    main()
