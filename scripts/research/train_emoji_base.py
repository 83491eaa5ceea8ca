"""Train emoji-64 from scratch: autoencoder, then text encoder and U-Net, then U-Net alone, twice;
then the text encoder alone, which learns to carry numbers to the end of a text.

    python scripts/research/build_emoji_dataset.py --out data/emoji
    python scripts/research/train_emoji_base.py --data data/emoji --out runs/base

Run it again after an interruption and it goes on where it was. The result, a stock Stable
Diffusion folder in half precision, is at runs/base/pipeline; copied to
ric_diffusion/assets/emoji-64 it is the bundled model.

On a GPU, emoji-128 within minutes, whatever the machine's speed (here, then on a machine that has
a GPU and maybe no network):

    python scripts/research/build_emoji_dataset.py --out data/emoji-128 --size 128
    python scripts/research/train_emoji_base.py --data data/emoji-128 --pack emoji-128.tar.gz

    python scripts/research/train_emoji_base.py --data emoji-128.tar.gz --out runs/emoji-128 \
        --device cuda --minutes 8

The weights in runs/emoji-128/pipeline are in files of less than 16 MB; figures.json and samples.png
are beside it. benchmark_base.py compares it with emoji-64.
"""

import argparse
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

import autoencoder
import scratch as base
from base_samples import check_pipeline, pipeline, sheet
from carry import LAST_KEPT_WEIGHT, CarryTrainer
from packed import pack, unpacked
from resident import ResidentTrainer
from ric_diffusion.data.images import save_png
from ric_diffusion.data.records import read_folder
from ric_diffusion.io import config
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import replacing_folder, write_json
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.cost import COST, Cost, Meter
from ric_diffusion.models.family import INDEX_FILE
from ric_diffusion.models.hardware import default_device
from ric_diffusion.models.protocol import Trainable, weights_digest
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer
from timed import Clock, TimedPhase, seconds_per_step, steps_within

_log = logging.getLogger(__name__)
CONFIGS = Path(__file__).parent / "configs"
STEPS = "steps.json"  # how many a timed phase has
LARGEST_FILE = 15_900_000  # bytes of weights; the names and shapes of them come on top
COMPILING_PAYS = 150  # seconds of training, of which compiling takes the better part of a minute
PHASES = ("text", "unet", "refine")  # of the U-Net


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
    carry_loop: LoopConfig
    keep_loop: LoopConfig
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TimedConfig:
    """A base model in a number of minutes: the autoencoder, then text encoder and U-Net together,
    with numbers in captions from the beginning. ``rest``: the share of the minutes that is for what
    comes after training."""

    seed: int
    autoencoder: dict[str, Any]
    autoencoder_phase: TimedPhase
    text_encoder: dict[str, Any]
    unet: dict[str, Any]
    scheduler: dict[str, Any]
    numbers: NumbersConfig
    network_phase: TimedPhase
    rest: float
    labels: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--out", type=Path, default=Path("runs/base"))
    parser.add_argument(
        "--config", type=Path, help="default: emoji-base.yaml, with --minutes emoji-128.yaml"
    )
    parser.add_argument(
        "--minutes", type=float, help="train by the clock, with everything on the device"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="with --minutes")
    parser.add_argument(
        "--pack", type=Path, metavar="FILE", help="write the data to a file, no more"
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="FOLDER",
        help="go on from this pipeline with the last phase, which teaches its text encoder numbers",
    )
    options = parser.parse_args()
    try:
        if options.pack:
            pack(options.data, options.pack)
            print(f"{options.pack}: {options.pack.stat().st_size / 1e6:.1f} MB")
            return
        check(options)
        with unpacked(options.data) as data:
            if options.minutes:
                timed = config.load_yaml(options.config or CONFIGS / "emoji-128.yaml", TimedConfig)
                train_within(timed, data, options.out, options.minutes)
            else:
                settings = config.load_yaml(
                    options.config or CONFIGS / "emoji-base.yaml", BaseConfig
                )
                train(settings, data, options.out, options.start)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def check(options: argparse.Namespace) -> None:
    """InputError for options that do not go together, or not with this machine."""
    if options.start and options.minutes is None:
        check_pipeline(options.start, "--start")
    if options.minutes is None:
        if options.device:
            raise InputError("--device: goes with --minutes; give both")
        return
    if not options.minutes > 0:
        raise InputError(f"--minutes: {options.minutes} is not above 0")
    if options.start:
        raise InputError("--start: does not go with --minutes; leave one out")
    if options.device not in (None, default_device()):
        here = "has no GPU" if options.device == "cuda" else "has a GPU, which would be used"
        raise InputError(f"--device {options.device}: this machine {here}; leave it out")


def train(settings: BaseConfig, data: Path, out: Path, start: Path | None = None) -> None:
    """All phases, from the emoji pictures in ``data``; what is there already is not done again.

    ``start``: a pipeline folder of this script's, of which only the text encoder is trained on."""
    if start is None:
        start = draw_emoji(settings, data, out)
    carry(settings, [caption for r in read_folder(data / "train") for caption in r.captions],
          out, start)  # fmt: skip
    print(f"{out / 'pipeline'}: {base.megabytes(out / 'pipeline'):.1f} MB")


def draw_emoji(settings: BaseConfig, data: Path, out: Path) -> Path:
    """All phases but the last -> the folder of the pipeline."""
    torch.manual_seed(settings.seed)
    _, held_out = base.read_pictures(data / "held-out", 64)
    records, images = base.read_pictures(data / "train", 64)
    if not (out / "vae").is_dir():
        _, other = base.read_pictures(data / "other", 64)
        every = torch.cat([images, other])
        trainer = autoencoder.AutoencoderTrainer(settings.autoencoder, every)
        identity = {"seed": settings.seed, "autoencoder": settings.autoencoder}
        run_phase(trainer, every, settings.autoencoder_loop, out / "autoencoder", identity)
        trainer.save(out / "vae")
    vae = AutoencoderKL.from_pretrained(out / "vae", use_safetensors=True)
    quality = autoencoder.psnr(held_out, autoencoder.reconstruct(vae, held_out))
    print(f"held-out reconstruction: {quality:.2f} dB PSNR on {len(held_out)} pictures")

    model = base.TextToImageTrainer(
        vae, images, [record.captions for record in records], settings.labels,
        text_encoder=settings.text_encoder, unet=settings.unet, scheduler=settings.scheduler,
    )  # fmt: skip
    identity = {
        "seed": settings.seed,
        "text_encoder": settings.text_encoder,
        "unet": settings.unet,
        "scheduler": settings.scheduler,
        "labels": settings.labels,
        "autoencoder": weights_digest(vae),
    }
    spent = Cost()
    for name in PHASES:
        if name == "unet":
            model.freeze_text()
        loop = getattr(settings, f"{name}_loop")
        meter = Meter()
        with meter.running(model.unet):
            identity = run_phase(model, images, loop, out / name, identity, meter)
        spent += meter.read()
    write_json(out / COST, spent.to_dict())
    model.save(out / "drawing")
    return out / "drawing"


def carry(settings: BaseConfig, captions: Sequence[str], out: Path, start: Path) -> None:
    """Write the pipeline of ``start`` to ``out``, with a text encoder that carries numbers."""
    pipe = pipeline(start, torch.device("cpu"))
    texts = sorted(set(captions))
    trainer = CarryTrainer(pipe.text_encoder, pipe.tokenizer, texts, settings.labels, settings.seed)
    identity = {
        "seed": settings.seed,
        "labels": settings.labels,
        "texts": config.digest(texts),
        "text_encoder": weights_digest(pipe.text_encoder),
    }
    identity = run_phase(trainer, texts, settings.carry_loop, out / "carry", identity)
    trainer.kept_weight = LAST_KEPT_WEIGHT
    run_phase(trainer, texts, settings.keep_loop, out / "keep", identity)
    with replacing_folder(out / "pipeline") as temporary:
        for part in start.iterdir():  # what is not of it, as an adapter, stays there
            if part.name in (INDEX_FILE, *pipe.components) and part.name != "text_encoder":
                (shutil.copytree if part.is_dir() else shutil.copy)(part, temporary / part.name)
        pipe.text_encoder.save_pretrained(temporary / "text_encoder", safe_serialization=True)


def train_within(settings: TimedConfig, data: Path, out: Path, minutes: float) -> None:
    """Train on the device that is here, and write the pipeline, what it draws and its figures to
    ``out``, all of it in ``minutes``. A phase that was begun before keeps its number of steps."""
    shares = {
        "autoencoder": settings.autoencoder_phase.share,
        "network": settings.network_phase.share,
        "rest": settings.rest,
    }
    clock, device = Clock(minutes, shares), torch.device(default_device())
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    size = settings.autoencoder["sample_size"]
    records, images = base.read_pictures(data / "train", size)
    _, other = base.read_pictures(data / "other", size)
    _, held_out = base.read_pictures(data / "held-out", size)
    images, held_out = images.to(device), held_out.to(device)
    figures: dict[str, Any] = {"minutes": minutes, "device": device_name(device)}

    torch.manual_seed(settings.seed)
    identity: dict[str, Any] = {"seed": settings.seed, "autoencoder": settings.autoencoder}
    if not (out / "vae").is_dir():
        every = torch.cat([images, other.to(device)])
        first = autoencoder.AutoencoderTrainer(settings.autoencoder, every)
        phase = settings.autoencoder_phase
        loop = planned(first, every, phase, clock.seconds("autoencoder"), out / "autoencoder")
        run_phase(first, every, loop, out / "autoencoder", identity)
        first.save(out / "vae")
    vae = AutoencoderKL.from_pretrained(out / "vae", use_safetensors=True).to(device)
    reconstructed = autoencoder.reconstruct(vae, held_out)
    figures["held_out_psnr"] = autoencoder.psnr(held_out, reconstructed)
    print(f"{clock.spent:.0f} s: held-out reconstruction: {figures['held_out_psnr']:.2f} dB PSNR")

    torch.manual_seed(settings.seed)
    model = ResidentTrainer(
        vae, images, [record.captions for record in records], settings.labels,
        numbers_fraction=settings.numbers.fraction, variants=settings.numbers.variants,
        seed=settings.seed, text_encoder=settings.text_encoder, unet=settings.unet,
        scheduler=settings.scheduler,
    )  # fmt: skip
    model.largest_file = LARGEST_FILE
    phase = settings.network_phase
    if device.type == "cuda" and clock.seconds("network") > COMPILING_PAYS:
        compile_if_it_works(model, images, phase)
    loop = planned(model, images, phase, clock.seconds("network"), out / "network")
    print(f"{clock.spent:.0f} s: {loop.steps} steps of {loop.batch_size}")
    identity |= {
        "text_encoder": settings.text_encoder,
        "unet": settings.unet,
        "scheduler": settings.scheduler,
        "numbers": config.to_dict(settings.numbers),
        "labels": settings.labels,
        "autoencoder": weights_digest(vae),
    }
    run_phase(model, images, loop, out / "network", identity)
    model.save(out / "pipeline")
    figures |= {
        "steps": {name: steps_of(out / name) for name in ("autoencoder", "network")},
        "compiled": model.network is not model.unet,
        "megabytes": base.megabytes(out / "pipeline"),
        "seconds": clock.spent,
    }
    write_json(out / "figures.json", figures)
    print(json.dumps(figures))
    save_png(out / "samples.png", sheet(out / "pipeline", device))


def planned(
    trainer: Trainable, images: torch.Tensor, phase: TimedPhase, seconds: float, out: Path
) -> LoopConfig:
    """The phase with as many steps as fit into ``seconds``, or as it had when it was begun."""
    if not (out / STEPS).exists():
        steps = steps_within(trainer, len(images), phase, seconds)
        write_json(out / STEPS, {"steps": steps})
    return phase.loop(steps_of(out))


def steps_of(phase: Path) -> int:
    return int(json.loads((phase / STEPS).read_text())["steps"])


def compile_if_it_works(model: ResidentTrainer, images: torch.Tensor, phase: TimedPhase) -> None:
    """Compile the U-Net, unless its first steps fail."""
    model.network = torch.compile(model.unet)
    try:
        seconds_per_step(model, len(images), phase, at_most=0)
    except Exception as error:  # a compiler has one of every kind
        _log.warning("the U-Net is not compiled (%s: %s)", type(error).__name__, error)
        model.network = model.unet


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def run_phase(
    trainer: Trainable,
    records: torch.Tensor | Sequence[str],
    loop: LoopConfig,
    out: Path,
    identity: Mapping[str, Any],
    meter: Meter | None = None,
) -> dict[str, Any]:
    """Train on all records; returns the identity that the next phase begins with, since a phase
    depends on those before it. InputError if ``out`` holds a run with another."""
    loop = loop.resolved(default_device())
    own = {**identity, f"{out.name}_loop": loop.identity()}
    run = RunFolder(out, "base")
    run.begin(own)
    Trainer(trainer, len(records), loop, out, digest=run.digest, resume=True, meter=meter).run()
    return own


if __name__ == "__main__":
    main()
