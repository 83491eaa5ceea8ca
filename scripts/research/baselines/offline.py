"""What the runs have in common that train on the labelled data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from baselines.families import save_run
from ric_diffusion.api.runs import records_digest
from ric_diffusion.data.records import Record
from ric_diffusion.io import config as configs
from ric_diffusion.io.files import write_json
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.causal_lm.backend import LlmConfig
from ric_diffusion.models.cost import COST, Cost, Meter
from ric_diffusion.models.diffusion.backend import DiffusionConfig
from ric_diffusion.models.family import family_of
from ric_diffusion.models.protocol import Trainable
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer

Trained = tuple[Trainable, int]  # what is trained, and on how many records


def _as_it_is(backend: Any) -> Trained:
    return backend, len(backend.records)


def train_offline(
    kind: str,
    model: str,
    records: Sequence[Record],
    folder: Path,
    space: RewardSpace,
    config: DiffusionConfig | LlmConfig,
    loop: LoopConfig,
    out: Path,
    *,
    create: Callable[..., Any],
    prepared: Callable[[Any], Trained] = _as_it_is,
    about: Mapping[str, Any] | None = None,
    resume: bool = False,
    device: str | torch.device = "cpu",
) -> Cost:
    """Train what ``create`` makes of model, space, config, ``seed`` and ``device``, a backend, on
    ``records``, whose files lie in ``folder``; returns the cost.

    ``kind``: the run's, for its folder; ``prepared``: what is trained of the backend once it has
    its records, by default itself; ``about``: plain data that the training depends on besides.

    Leaves what the backend saves in ``out/adapter``, and ``cost.json``. ``resume`` goes on after an
    interruption, exactly. InputError if ``out`` holds another run.
    """
    run = RunFolder(out, kind)
    run.check_free(resume=resume)
    config, precision = family_of(model).resolved(config, loop.precision, device)
    loop = replace(loop, precision=precision)
    backend = create(model, space, config, seed=loop.seed, device=device)
    identity = {
        "model": configs.to_dict(config),
        "loop": loop.identity(),
        "weights": configs.digest(backend.model.family.digests(backend.model)),
        "records": records_digest(records),
        **(about or {}),
    }
    run.check_same(identity)
    backend.prepare(records, folder, out / "cache")
    trained, count = prepared(backend)
    run.begin(identity, resume=resume)
    meter = Meter()
    with meter.running(backend.network()):
        Trainer(trained, count, loop, out, digest=run.digest, resume=resume, meter=meter).run()
    save_run(backend, out)
    write_json(out / COST, meter.read().to_dict())
    return meter.read()


def adapter_backend(
    model: str,
    space: RewardSpace,
    config: DiffusionConfig,
    *,
    seed: int,
    device: str | torch.device,
) -> Any:
    """A new adapter of our own on the base model."""
    return family_of(model).create_backend(model, space, config, seed=seed, device=device)
