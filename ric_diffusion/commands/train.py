"""``ric train``: offline supervised fine-tuning, from a labelled folder to an adapter."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState

from ric_diffusion import config
from ric_diffusion.commands.kinds import KINDS
from ric_diffusion.commands.model import loading
from ric_diffusion.commands.paths import out_folder
from ric_diffusion.commands.push import push_trained
from ric_diffusion.conditioning.hub import open_repository
from ric_diffusion.cost import Meter
from ric_diffusion.data.images import save_png
from ric_diffusion.data.records import Record, read_labelled
from ric_diffusion.diffusion.backend import DiffusionConfig
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.sheet import draw_sheet
from ric_diffusion.evaluation.sweep import target_line
from ric_diffusion.files import write_json, write_text
from ric_diffusion.llm.backend import LlmConfig
from ric_diffusion.training import checkpoint
from ric_diffusion.training.loop import LoopConfig, fit, leave


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run: ``CONFIG.yaml``.

    ``model`` is a bundled name, folder or hub id; ``backend`` the kind of model it is, and of
    ``diffusion`` and ``llm`` the settings of that kind count; ``data`` a folder that ``ric label``
    wrote; ``where`` keeps the records whose metadata column has one of the values listed;
    ``prompts`` are drawn on the validation sheets, every ``loop.validate_every`` steps.
    """

    model: str
    data: Path
    loop: LoopConfig
    out: Path | None = None
    backend: Literal["diffusion", "llm"] = "diffusion"
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    llm: LlmConfig = field(default_factory=LlmConfig)
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()


def what_counts(settings: Any) -> dict[str, Any]:
    """A run's settings without its folder and what is for another kind of model: two runs that
    agree in them are the same."""
    plain: dict[str, Any] = config.to_dict(replace(settings, out=None))
    unused = {"diffusion": ("backend", "llm"), "llm": ("diffusion",)}[settings.backend]
    return {key: value for key, value in plain.items() if key not in unused}


def kept(records: list[Record], where: Mapping[str, tuple[str, ...]]) -> list[Record]:
    """The records that ``where`` lets through."""
    return [r for r in records if all(r.extra.get(k) in values for k, values in where.items())]


def run(options: argparse.Namespace) -> None:
    settings = config.load_yaml(options.config, TrainConfig)
    kind = KINDS[settings.backend]
    out = out_folder(options, settings.out)
    if (out / "checkpoints").exists() and not options.resume:
        raise InputError(f"{out}: holds a run already; add --resume, or choose another --out")
    records, space = read_labelled(settings.data)
    records = kept(records, settings.where)
    process = PartialState(cpu=not torch.cuda.is_available())  # as in fit
    with loading(settings.model, f"{options.config}: model"):
        backend = kind.backend.create(
            settings.model,
            space,
            getattr(settings, kind.name),
            seed=settings.loop.seed,
            device=process.device,
        )
    if options.push_to_hub and process.is_main_process:
        open_repository(options.push_to_hub)  # now, not after hours of training
    backend.prepare(records, settings.data, out / "cache")
    digest = config.digest(
        [
            what_counts(settings),
            space.to_dict(),
            [[r.file, r.captions, r.scores] for r in records],
            *kind.digests(kind.model_of(backend)),
        ]
    )
    if last := checkpoint.newest(out / "checkpoints"):
        checkpoint.check(last, digest=digest)
    if process.is_main_process:
        write_json(out / "config.json", config.to_dict(settings))

    def validate(step: int) -> None:
        for name in space.names:
            write_sheet(backend, name, settings.prompts, out / "sheets" / f"{name}-{step}")

    meter = Meter()
    with meter.running(backend.watched()):
        fit(
            backend,
            len(records),
            settings.loop,
            out,
            digest=digest,
            resume=options.resume,
            validate=validate if settings.prompts else None,
            meter=meter,
        )
    backend.adapter = replace(
        backend.adapter,
        training={"digest": digest, "records": len(records), "steps": settings.loop.steps},
    )
    if process.is_main_process:
        backend.save(out / "adapter")
        write_json(out / "cost.json", meter.read().to_dict())
        print(out / "adapter")
        if options.push_to_hub:
            push_trained(out / "adapter", options.push_to_hub, kind)
    leave(process)


def write_sheet(backend: Any, name: str, prompts: tuple[str, ...], path: Path) -> None:
    """One row per prompt: seed 0 along one reward from its 5th to its 95th percentile. A picture,
    or where samples are texts a text."""
    line = target_line(backend.adapter.space, name, 5)
    rows = [backend.sample([prompt] * len(line), line, [0] * len(line)) for prompt in prompts]
    captions = [f"{target[name]:+.1f}" for target in line]
    if isinstance(rows[0][0], str):
        told = [
            f"{name} {caption}\n{prompt}\n    {text}\n"
            for prompt, row in zip(prompts, rows, strict=True)
            for caption, text in zip(captions, row, strict=True)
        ]
        write_text(path.with_suffix(".txt"), "\n".join(told))
        return
    sheet = draw_sheet(rows, title=name, captions=[[c] for c in captions], row_titles=prompts)
    save_png(path.with_suffix(".png"), sheet)
