"""Measure training, drawing and scoring on one GPU, at true size with random weights: no hub.

    python scripts/gpu_report.py --out report/          # within a quarter of an hour
    python scripts/gpu_report.py --small --out report/  # the same code on a CPU, in a minute

Writes gpu_report.json and gpu_report.md. Every part runs in a process of its own and has its share
of the minutes; a part that fails or runs out of them is named in the table, and the others go on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_json, write_text
from ric_diffusion.io.paths import expanded
from ric_diffusion.models.hardware import default_device, peak_memory

MINUTES = 15
GIB = 2**30
MEASURED = 10  # steps after two that warm up


@dataclass(frozen=True, kw_only=True)
class Part:
    """One line of the report: what is measured, with which numbers, on a GPU and small."""

    name: str
    measure: str
    minutes: float  # at most
    options: Mapping[str, Any]


def training(family: str, minutes: float, batch: int, side: int, *, compile: bool = False) -> Part:
    label = f"train {family}, {side} px, batch {batch}" + ", compiled" * compile
    options = {"family": family, "batch": batch, "side": side, "compile": compile}
    return Part(name=label, measure="training", minutes=minutes, options=options)


def memory(family: str, side: int, gib: int) -> Part:
    options = {"family": family, "side": side, "gib": gib}
    return Part(
        name=f"train {family}, {side} px, batch 1, checkpointing, in {gib} GiB",
        measure="memory",
        minutes=1.2,
        options=options,
    )


PARTS = (
    training("stable-diffusion", 0.9, 8, 512),
    training("stable-diffusion-xl", 2.0, 2, 1024),
    training("stable-diffusion-3", 2.0, 2, 1024),
    memory("stable-diffusion", 512, 8),
    memory("stable-diffusion-xl", 1024, 12),
    memory("stable-diffusion-3", 1024, 24),
    Part(name="draw stable-diffusion, 512 px, 20 steps", measure="drawing", minutes=0.8,
         options={"family": "stable-diffusion", "steps": 20}),
    Part(name="draw stable-diffusion-xl, 1024 px, 10 steps", measure="drawing", minutes=1.5,
         options={"family": "stable-diffusion-xl", "steps": 10}),
    Part(name="score with ViT-L/14", measure="scoring", minutes=1.0,
         options={"clip": "ViT-L-14", "count": 512}),
    training("flux", 2.5, 1, 512),
    training("stable-diffusion", 1.5, 8, 512, compile=True),
)  # fmt: skip
SMALL = (
    training("stable-diffusion", 2, 2, 64),
    memory("stable-diffusion", 64, 8),
    Part(name="draw stable-diffusion", measure="drawing", minutes=2,
         options={"family": "stable-diffusion", "steps": 2, "side": 64}),
    Part(name="score with ViT-B/32", measure="scoring", minutes=2,
         options={"clip": "ViT-B-32", "count": 16}),
)  # fmt: skip


def random_pipeline(family: str, *, small: bool) -> Any:
    from random_models import pipeline

    dtype = torch.float32 if small else torch.bfloat16
    return pipeline(family, default_device(), dtype, **({"reduced": True} if small else {}))


def seconds_of(step: Callable[[], Any], count: int) -> float:
    """Median seconds, after two that warm up."""
    from benchmark_call import seconds

    taken = [seconds(step) for _ in range(count + 2)]
    return statistics.median(taken[2:])


def measure_training(
    family: str, batch: int, side: int, *, compile: bool, small: bool
) -> dict[str, float]:
    """Images a second of ours, of the stock step and of the bare passes, one after the other on the
    same denoiser, whose LoRA is taken out between."""
    from training_steps import WAYS, Setting, write_pictures

    setting = Setting(
        batch=batch,
        side=side,
        rank=16,
        precision="fp32" if small else "bf16",
        checkpointing=side >= 1024,
        compile=compile,
    )
    found: dict[str, float] = {}
    pipe = random_pipeline(family, small=small)
    with tempfile.TemporaryDirectory() as root:
        captions = write_pictures(Path(root), 4 * batch, side)
        for way, make in WAYS.items():
            step = make(pipe, Path(root), captions, setting)
            found[f"{way}_images_per_s"] = batch / seconds_of(step, 2 if small else MEASURED)
            del step
            pipe.adapter = None
            for name in list(pipe.denoiser.peft_config):
                pipe.denoiser.delete_adapters(name)
    found["ours_over_stock"] = found["ours_images_per_s"] / found["stock_images_per_s"]
    found["ours_over_bare"] = found["ours_images_per_s"] / found["bare_images_per_s"]
    return found


def measure_memory(family: str, side: int, gib: int, *, small: bool) -> dict[str, float]:
    """Peak of three training steps where the device has no more than so much."""
    from training_steps import Setting, ours, write_pictures

    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / total))
    precision = "fp32" if small else "bf16"
    setting = Setting(batch=1, side=side, rank=16, precision=precision, checkpointing=True)
    with tempfile.TemporaryDirectory() as root:
        captions = write_pictures(Path(root), 4, side)
        step = ours(random_pipeline(family, small=small), Path(root), captions, setting)
        for _ in range(3):
            step()
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_reserved()
    else:
        peak = peak_memory("cpu") or 0
    return {"peak_gib": peak / GIB, "allowed_gib": gib}


def measure_drawing(
    family: str, steps: int, side: int | None = None, *, small: bool
) -> dict[str, float]:
    """Seconds of the stock call and of the one with rewards, and the median of their ratios."""
    from benchmark_call import pairs

    size = {"height": side, "width": side} if side else {}
    pipe = random_pipeline(family, small=small)
    found = list(pairs(pipe, 1 if small else 7, num_inference_steps=steps, **size))
    return {
        "stock_s": statistics.median(pair.stock for pair in found),
        "with_rewards_s": statistics.median(pair.steered for pair in found),
        "with_rewards_over_stock": statistics.median(p.steered / p.stock for p in found),
    }


def measure_scoring(clip: str, count: int, *, small: bool) -> dict[str, float]:
    """Images a second of the aesthetic scorer's encoder, batched and one by one."""
    import open_clip
    from PIL import Image
    from safetensors.torch import save_file

    from scorers.clip import load_clip

    side = 64 if small else 512
    images = [Image.effect_noise((side, side), 20 + i % 50).convert("RGB") for i in range(count)]
    with tempfile.TemporaryDirectory() as root:
        file = Path(root, "clip.safetensors")
        save_file(open_clip.create_model(clip, pretrained=None).state_dict(), file)
        encoder = load_clip("gpu_report", clip, file, None)
        return {
            "batched_images_per_s": encoding_rate(encoder, images, 64),
            "single_images_per_s": encoding_rate(encoder, images[: count // 8], 1),
        }


def encoding_rate(encoder: Any, images: Sequence[Any], batch_size: int) -> float:
    """Images a second. Half of them and the other half take turns: an encoder keeps the vectors of
    the latest ones."""
    halves = itertools.cycle([images[::2], images[1::2]])
    taken = seconds_of(lambda: encoder.encode_images(next(halves), batch_size), 1)
    return len(images) / 2 / taken


MEASURES: Mapping[str, Callable[..., dict[str, float]]] = {
    "training": measure_training,
    "memory": measure_memory,
    "drawing": measure_drawing,
    "scoring": measure_scoring,
}


def run(number: int, part: Part, *, small: bool) -> dict[str, Any]:
    """A part in a process of its own: its numbers, or why it has none."""
    command = [sys.executable, __file__, "--part", str(number), *["--small"] * small]
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60 * part.minutes, check=False
        )
    except subprocess.TimeoutExpired:
        found: dict[str, Any] = {"failed": f"not done in {part.minutes:g} minutes"}
    else:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        found = {"failed": lines[-1]} if done.returncode else json.loads(done.stdout)
    return {"part": part.name, **found, "seconds": time.monotonic() - begun}


def table(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"Measured by `{report['command']}` on {report['device']}, torch {report['torch']}.",
        "",
    ]
    lines += ["| what | measured |", "| --- | --- |"]
    for part in report["parts"]:
        numbers = [
            f"{name.replace('_', ' ')} {value:.3g}"
            for name, value in part.items()
            if name not in ("part", "seconds", "failed")
        ]
        lines.append(f"| {part['part']} | {part.get('failed') or ', '.join(numbers)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=expanded, default=Path("gpu-report"))
    parser.add_argument("--small", action="store_true", help="to see it work, on any machine")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help=f"at most (default: {MINUTES})"
    )
    parser.add_argument("--part", type=int, help="only this one, in this process, as JSON")
    options = parser.parse_args()
    if not options.minutes > 0:
        parser.error(f"--minutes: {options.minutes} is not above 0")
    parts = SMALL if options.small else PARTS
    if options.part is not None:
        if not 0 <= options.part < len(parts):
            parser.error(f"--part: {options.part} is not 0 to {len(parts) - 1}")
        part = parts[options.part]
        print(json.dumps(MEASURES[part.measure](**part.options, small=options.small)))
        return
    if not (options.small or torch.cuda.is_available()):
        parser.error("there is no GPU here; --small shows the report on a CPU")
    try:
        check_out_folder(options.out)
    except InputError as error:
        parser.error(str(error))
    on_gpu = torch.cuda.is_available()
    report: dict[str, Any] = {
        "command": shlex.join(["python", "scripts/gpu_report.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if on_gpu else platform.processor() or "a CPU",
        "torch": torch.__version__,
        "parts": [],
    }
    end = time.monotonic() + 60 * options.minutes
    for number, part in enumerate(parts):
        left = (end - time.monotonic()) / 60
        if left > 0.2:
            part = replace(part, minutes=min(part.minutes, left))
            found = run(number, part, small=options.small)
        else:
            found = {
                "part": part.name,
                "failed": f"no time was left of {options.minutes:g} minutes",
            }
        report["parts"].append(found)
        print(json.dumps(found), flush=True)
        # After each: what was measured stays if the machine goes.
        write_json(options.out / "gpu_report.json", report)
        write_text(options.out / "gpu_report.md", table(report))


if __name__ == "__main__":
    main()
