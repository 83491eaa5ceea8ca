"""``ric online``: rounds of sampling, scoring, selecting and fine-tuning, from an adapter on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from accelerate import PartialState

from ric_diffusion import config
from ric_diffusion.commands.entrants import adapter_digests
from ric_diffusion.commands.kinds import KINDS
from ric_diffusion.commands.model import loading
from ric_diffusion.commands.paths import out_folder
from ric_diffusion.commands.push import push_trained
from ric_diffusion.commands.train import kept, what_counts
from ric_diffusion.conditioning.hub import open_repository
from ric_diffusion.data.prompts import read_prompts
from ric_diffusion.data.records import Record, read_labelled
from ric_diffusion.diffusion.backend import DiffusionConfig
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.scoring import load_scorers
from ric_diffusion.files import write_json
from ric_diffusion.llm.backend import LlmConfig
from ric_diffusion.training.online import OnlineConfig, Task, run_rounds


@dataclass(frozen=True, kw_only=True)
class OnlineRun:
    """An online run: ``CONFIG.yaml``.

    ``adapter`` is where it starts, a folder or hub id; ``backend`` the kind of model, and
    ``diffusion`` or ``llm`` the settings it was trained with; ``data`` the labelled folder it was
    trained on, of which ``where`` keeps some records; ``prompts`` a file with one prompt to a line,
    by default the names in the data.
    """

    model: str
    adapter: str
    data: Path
    online: OnlineConfig
    out: Path | None = None
    backend: Literal["diffusion", "llm"] = "diffusion"
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    llm: LlmConfig = field(default_factory=LlmConfig)
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prompts: Path | None = None


def run(options: argparse.Namespace) -> None:
    settings = config.load_yaml(options.config, OnlineRun)
    kind = KINDS[settings.backend]
    out = out_folder(options, settings.out)
    if (out / "start.json").exists() and not options.resume:
        raise InputError(f"{out}: holds a run already; add --resume, or choose another --out")
    process = PartialState(cpu=not torch.cuda.is_available())
    if process.num_processes > 1:
        raise InputError("ric online runs as one process; start it without accelerate launch")
    start = kind.resolve(settings.adapter)
    space = kind.adapter.load(start).space
    records, data_space = read_labelled(settings.data)
    if missing := [name for name in space.names if name not in data_space.names]:
        raise InputError(f"{settings.data}: has no scores for {missing[0]}, which the adapter has")
    originals = absolute(kept(records, settings.where), settings.data)
    prompts = read_prompts(settings.prompts) if settings.prompts else names_of(originals)
    with loading(settings.model, f"{options.config}: model"):
        backend = kind.backend.create(
            settings.model,
            space,
            getattr(settings, kind.name),
            seed=settings.online.seed,
            device=process.device,
        )
    backend.load(start)
    key = config.digest(
        [
            what_counts(settings),
            adapter_digests(start),
            [[r.file, r.captions, r.scores] for r in originals],
            prompts,
            kind.digests(kind.model_of(backend)),
        ]
    )
    check_same_run(out, key)
    if options.push_to_hub:
        open_repository(options.push_to_hub)  # now, not after hours of rounds
    write_json(out / "config.json", {"key": key, **config.to_dict(settings)})
    task = Task(
        space=space,
        mapping=backend.adapter.mapping,
        prompts=prompts,
        scorers=load_scorers(space),
        originals=originals,
    )
    cost, space = run_rounds(backend, task, settings.online, out, key=key, resume=options.resume)
    backend.adapter = replace(
        backend.adapter,
        space=space,
        training={**backend.adapter.training, "online": key, "rounds": settings.online.rounds},
    )
    backend.save(out / "adapter")
    write_json(out / "cost.json", cost.to_dict())
    print(out / "adapter")
    if options.push_to_hub:
        push_trained(out / "adapter", options.push_to_hub, kind)


def check_same_run(out: Path, key: str) -> None:
    """InputError if ``out`` holds a run with other settings or data."""
    path = out / "config.json"
    if path.exists() and json.loads(path.read_text()).get("key") != key:
        raise InputError(
            f"{out}: written by a run with other settings or data; restore those, or choose "
            "another --out"
        )


def absolute(records: list[Record], folder: Path) -> list[Record]:
    """The records under names that mean the same from anywhere."""
    return [replace(r, file=str((folder / r.file).absolute())) for r in records]


def names_of(records: list[Record]) -> list[str]:
    """The first captions of the records, each once, in their order."""
    found = list(dict.fromkeys(r.captions[0] for r in records if r.captions))
    if not found:
        raise InputError("the data has no captions to draw; give a file of prompts")
    return found
