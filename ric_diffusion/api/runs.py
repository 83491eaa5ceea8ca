"""``train`` and ``online``: from a labelled folder to an adapter, and from that to a better one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from PIL.Image import Image

from ric_diffusion.adapters import hub
from ric_diffusion.adapters.adapter import adapter_digests
from ric_diffusion.api.alone import alone_in
from ric_diffusion.api.engines import working
from ric_diffusion.api.labelling import loaded_scorers, names_of_scorers
from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.api.sample_worker import sample_worker
from ric_diffusion.data.images import save_png
from ric_diffusion.data.prompts import check_text, read_prompts
from ric_diffusion.data.records import Record, read_labelled
from ric_diffusion.data.scoring import load_scorers
from ric_diffusion.data.standard import records_groups
from ric_diffusion.data.unchanged import DIGEST, check_unchanged
from ric_diffusion.evaluation.grid import target_line
from ric_diffusion.evaluation.report.sheet import draw_sheet
from ric_diffusion.io import config
from ric_diffusion.io.counting import counted
from ric_diffusion.io.engines import LOCAL, EngineConfig, Workers
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.io.files import write_json, write_text
from ric_diffusion.io.paths import expanded
from ric_diffusion.io.progress import ProgressCallback, reporting
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.causal_lm.backend import LlmConfig
from ric_diffusion.models.checkpoint import Checkpoint
from ric_diffusion.models.cost import COST, Cost, Meter
from ric_diffusion.models.diffusion.backend import DiffusionConfig
from ric_diffusion.models.family import ADAPTER_SUBFOLDER, Family, family_of, loading
from ric_diffusion.models.hardware import this_process
from ric_diffusion.models.sharding import is_sharded, sharding_asked
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.training import checkpoint
from ric_diffusion.training.log import LOGS
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.online import START, OnlineConfig, Task, round_name, run_rounds
from ric_diffusion.training.processes import leave
from ric_diffusion.training.rates import ENDLESS
from ric_diffusion.training.trainer import Trainer

# In a run's folder; MODEL in place of ADAPTER where the model itself was trained.
ADAPTER, MODEL, SETTINGS, CACHE, SHEETS = "adapter", "model", "config.json", "cache", "sheets"
# Beside the cache, which goes on with what it finds.
WRITES = (SETTINGS, COST, ADAPTER, MODEL, SHEETS, checkpoint.FOLDER, *LOGS, START, round_name(1))
Cell = str | bool | int | float  # of a column; text first, so that a number in quotes stays text
FOUND = "the family of the model is found from the model itself; remove this line"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every run has, of ``ric train`` and of ``ric online``.

    Attributes:
        model: bundled name, folder, hub id or .safetensors file.
        base_config: where the configs and tokenizers of such a file are, a folder or hub id.
        variant: of the model's weights, as ``fp16``.
        revision: of the model on the hub: branch, tag or commit.
        data: a folder that ``label`` wrote.
        out: where the run goes, unless the call says so.
        diffusion: settings of the model, if it makes pictures.
        llm: settings of the model, if it is a language model.
        where: keeps the records whose metadata column has one of the values listed: texts, numbers,
            true or false.
    """

    REMOVED: ClassVar[Mapping[str, str]] = {"backend": FOUND}

    model: str
    base_config: str | None = None
    variant: str | None = None
    revision: str | None = None
    data: Path
    out: Path | None = None
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    llm: LlmConfig = field(default_factory=LlmConfig)
    where: Mapping[str, tuple[Cell, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._as_paths("data", "out")

    def _as_paths(self, *names: str) -> None:
        """From Python a path may be text, and begin with a tilde."""
        for name in names:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, expanded(value))

    @property
    def checkpoint(self) -> Checkpoint:
        """The model, with what else is said of it."""
        return Checkpoint(
            model=self.model,
            base_config=self.base_config,
            variant=self.variant,
            revision=self.revision,
        )


Run = TypeVar("Run", bound=RunConfig)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """A training run, as the YAML file of ``ric train`` has it.

    Attributes:
        loop: how to optimise.
        init: the adapter that training starts from, a folder or hub id, of the same rewards and the
            same settings of ``diffusion`` or ``llm``. By default it starts from a new one.
        prompts: drawn on the validation sheets, every ``loop.validate_every`` steps.
        cache: where what is computed once of each picture and text is kept, in ``out`` by default.
            Runs may share it: each takes what is of its own model.
    """

    loop: LoopConfig
    init: str | None = None
    prompts: tuple[str, ...] = ()
    cache: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._as_paths("cache")
        if isinstance(self.init, Path):  # from Python
            object.__setattr__(self, "init", str(self.init))
        if isinstance(self.prompts, str):
            raise InputError(f"prompts: give a list of prompts, not the text {self.prompts!r}")
        for prompt in self.prompts:
            check_text("prompts", prompt)


@dataclass(frozen=True, kw_only=True)
class OnlineRun(RunConfig):
    """An online run, as the YAML file of ``ric online`` has it.

    ``data`` is what the adapter was trained on, and ``diffusion`` or ``llm`` the settings it was
    trained with.

    Attributes:
        adapter: where it starts, a folder or hub id.
        online: the rounds.
        prompts: a file with one prompt to a line, by default the first captions in the data.
        scorers: of rewards whose scorers are not installed, as FILE.py:CLASS.
    """

    adapter: str
    online: OnlineConfig
    prompts: Path | None = None
    scorers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._as_paths("prompts")


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training run left.

    Attributes:
        adapter: the adapter's folder, inside ``out``; with ``train: full`` inside its base model,
            the folder ``model`` there.
        out: the run's folder.
        steps: how many updates it took.
        records: how many it was trained on.
        cost: what it cost, interruptions included.
        url: the adapter's address on the hub, if it was pushed there.
    """

    adapter: Path
    out: Path
    steps: int
    records: int
    cost: Cost
    url: str | None = None


@dataclass(frozen=True, kw_only=True)
class OnlineResult:
    """What an online run left.

    Attributes:
        adapter: the adapter's folder, inside ``out``; with ``train: full`` inside its base model,
            the folder ``model`` there.
        out: the run's folder.
        rounds: how many there were.
        space: the adapter's reward space, with the front that the rounds reached.
        cost: what it cost, interruptions included.
        url: the adapter's address on the hub, if it was pushed there.
    """

    adapter: Path
    out: Path
    rounds: int
    space: RewardSpace
    cost: Cost
    url: str | None = None


def train(
    settings: TrainConfig | str | Path,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    push_to_hub: str | None = None,
    progress: ProgressCallback | None = None,
) -> TrainResult:
    """Fine-tune an adapter on a labelled folder: rewards in context, supervised (arXiv 2402.10207,
    section 3.1).

    Args:
        settings: a TrainConfig, or the YAML file of one.
        out: a folder for the run, instead of the settings' own.
        resume: go on with the run in that folder, bit for bit as if it had not been interrupted. A
            finished one goes on where ``loop.steps`` was raised, if its schedule does not depend on
            their number.
        push_to_hub: USER/NAME of a repository for the adapter, made private if it is new.
        progress: called after every step, with stage "train", instead of a bar.

    InputError for settings, data or a folder that cannot be used, before anything is written;
    FloatingPointError for a run that diverges.
    """
    source, found = _read(settings, TrainConfig)
    folder = _out(out, found, source)
    with reporting(progress), alone_in(folder):
        return _train(found, source, folder, resume, push_to_hub)


def _train(
    settings: TrainConfig, source: str, out: Path, resume: bool, push_to_hub: str | None
) -> TrainResult:
    with loading(settings.checkpoint, f"{source}model"):
        family = family_of(settings.checkpoint)
    family.check_settings(getattr(settings, family.section), source)
    run = RunFolder(out, "train", writes=WRITES)
    run.check_free(resume=resume)
    start = family.fetch_adapter(settings.init) if settings.init else None
    records, space = read_labelled(settings.data)
    if start:
        space = continued_space(family.read_adapter(start)[0].space, space, settings.data)
    groups = records_groups(records, space)
    # Rewards compared within prompts are so with the records that `where` leaves out, too.
    labelled = {"labelled": records_digest(records)} if space.centred else {}
    records = selected(records, settings.where)
    process = this_process()
    own, precision = family.resolved(
        getattr(settings, family.section), settings.loop.precision, process.device
    )
    loop = replace(settings.loop, precision=precision)
    with loading(settings.checkpoint, f"{source}model"):
        backend = family.create_backend(
            settings.checkpoint,
            space,
            own,
            seed=loop.seed,
            device=process.device,
            sharding=sharding_asked(precision),
        )
    if any(map(is_sharded, backend.named_parameters().values())):
        loop.check_shards()
    if start:
        backend.load(start)
    identity = {
        **config.to_dict(settings.checkpoint),
        family.section: own,
        "loop": steps_left_open(loop),
        "processes": process.num_processes,  # which samples a step sees depends on it
        "weights": config.digest(family.digests(backend.model)),
        "reward_space": config.digest(space.to_dict()),
        "records": records_digest(records),
        **labelled,
    }
    if start:
        identity["init"] = config.digest(adapter_digests(start))
    run.check_same(identity, advice={"loop.steps": to_train_longer(_adapter_folder(backend, out))})
    _check_steps(out, loop)
    cache = settings.cache or out / CACHE
    _check_push(push_to_hub, backend, out)
    check_unchanged(settings.data, records, family.medium, cache)
    if push_to_hub and process.is_main_process:
        hub.open_repository(push_to_hub)  # now, not after hours of training
    count = backend.prepare(records, settings.data, cache, groups)
    process.wait_for_everyone()  # all have seen the folder as it was
    if process.is_main_process:
        run.begin(identity, resume=resume)
        write_json(out / SETTINGS, config.to_dict(settings))
    digest = config.digest(identity)

    def validate(step: int) -> dict[str, Image]:
        sheets = {
            name: _write_sheet(backend, name, settings.prompts, out / SHEETS / f"{name}-{step}")
            for name in space.names
        }
        return {name: sheet for name, sheet in sheets.items() if sheet}

    meter = Meter()
    with meter.running(backend.network()):
        Trainer(
            backend,
            count,
            loop,
            out,
            digest=digest,
            resume=resume,
            validate=validate if settings.prompts else None,
            meter=meter,
            sharded=backend.sharded,
        ).run()
    backend.adapter = replace(
        backend.adapter,
        training={"digest": digest, "records": count, "steps": loop.steps},
    )
    url = None
    with backend.gathered():
        if process.is_main_process:
            _save(backend, out)
    if process.is_main_process:
        write_json(out / COST, meter.read().to_dict())
        if push_to_hub:
            url = _pushed(out / ADAPTER, push_to_hub, family)
    process.wait_for_everyone()
    return TrainResult(
        adapter=_adapter_folder(backend, out),
        out=out,
        steps=loop.steps,
        records=count,
        cost=meter.read(),
        url=url,
    )


def online(
    settings: OnlineRun | str | Path,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    push_to_hub: str | None = None,
    engine: EngineConfig = LOCAL,
    progress: ProgressCallback | None = None,
) -> OnlineResult:
    """Improve an adapter on its own samples: rounds of sampling, scoring, selecting and fine-tuning
    (arXiv 2402.10207, section 3.2).

    Args:
        settings: an OnlineRun, or the YAML file of one.
        engine: where samples are drawn and scored. On Ray, each worker has the model and the
            scorers, and this process trains. It may be another one when a run is resumed.

    The other arguments are as ``train`` has them.

    InputError for settings, data or a folder that cannot be used, before anything is written;
    CollapseError when the guard finds that diversity or prompts have collapsed.
    """
    source, found = _read(settings, OnlineRun)
    folder = _out(out, found, source)
    with reporting(progress), alone_in(folder):
        return _online(found, source, folder, resume, push_to_hub, engine)


def _online(
    settings: OnlineRun,
    source: str,
    out: Path,
    resume: bool,
    push_to_hub: str | None,
    engine: EngineConfig,
) -> OnlineResult:
    with loading(settings.checkpoint, f"{source}model"):
        family = family_of(settings.checkpoint)
    family.check_settings(getattr(settings, family.section), source)
    run = RunFolder(out, "online", writes=WRITES)
    run.check_free(resume=resume)
    process = this_process()
    start = family.fetch_adapter(settings.adapter)
    space = family.read_adapter(start)[0].space
    records, data_space = read_labelled(settings.data)
    continued_space(space, data_space, settings.data)
    chosen = selected(records, settings.where)
    replay = absolute(chosen, settings.data)
    prompts = read_prompts(settings.prompts) if settings.prompts else first_captions(replay)
    scorers = load_scorers(space, given=loaded_scorers(settings.scorers))
    own, precision = family.resolved(
        getattr(settings, family.section), settings.online.loop.precision, process.device
    )
    rounds = replace(settings.online, loop=replace(settings.online.loop, precision=precision))
    with loading(settings.checkpoint, f"{source}model"):
        backend = family.create_backend(
            settings.checkpoint,
            space,
            own,
            seed=rounds.seed,
            device=process.device,
            sampled=True,
            sharding=sharding_asked(precision),
        )
    if any(map(is_sharded, backend.named_parameters().values())):
        rounds.loop.check_shards()
    backend.load(start)
    identity = {
        **config.to_dict(settings.checkpoint),
        family.section: own,
        "online": rounds.identity(),
        "weights": config.digest(family.digests(backend.model)),
        "adapter": config.digest(adapter_digests(start)),
        "records": records_digest(replay),
        "prompts": config.digest(prompts),
        "scorers": [scorer.fingerprint for scorer in scorers],
        "processes": process.num_processes,  # which records a step sees depends on it
    }
    run.check_same(identity)
    _check_push(push_to_hub, backend, out)
    check_unchanged(settings.data, chosen, family.medium, out / CACHE)
    if push_to_hub and process.is_main_process:
        hub.open_repository(push_to_hub)  # now, not after hours of rounds
    process.wait_for_everyone()  # all have seen the folder as it was
    if process.is_main_process:
        run.begin(identity, resume=resume)
        write_json(out / SETTINGS, config.to_dict(settings))
    task = Task(
        space=space,
        mapping=backend.adapter.mapping,
        prompts=prompts,
        scorers=scorers,
        replay=replay,
        groups=records_groups(records, space),
        data=settings.data,
        adapter=start.absolute(),
    )
    digest = config.digest(identity)
    of_run = {
        "checkpoint": config.to_dict(settings.checkpoint),
        "settings": config.to_dict(own),
        "seed": rounds.seed,
        "start": str(start.absolute()),
        "scorers": names_of_scorers(settings.scorers),
    }
    with working(engine) as running:
        workers = Workers(engine=running, elsewhere=partial(sample_worker, run=json.dumps(of_run)))
        cost, space = run_rounds(
            backend, task, rounds, out, digest=digest, resume=resume, workers=workers
        )
    backend.adapter = replace(
        backend.adapter,
        space=space,
        training={**backend.adapter.training, "online": digest, "rounds": rounds.rounds},
    )
    url = None
    with backend.gathered():
        if process.is_main_process:
            _save(backend, out)
    if process.is_main_process:
        write_json(out / COST, cost.to_dict())
        if push_to_hub:
            url = _pushed(out / ADAPTER, push_to_hub, family)
    process.wait_for_everyone()
    return OnlineResult(
        adapter=_adapter_folder(backend, out),
        out=out,
        rounds=rounds.rounds,
        space=space,
        cost=cost,
        url=url,
    )


def is_main_process() -> bool:
    """Whether this is the process that prints, of those that ``accelerate launch`` started."""
    return bool(this_process().is_main_process)


def leave_processes() -> None:
    """The last thing that a program does which ``accelerate launch`` started several times."""
    leave(this_process())


def _read(settings: Run | str | Path, kind: type[Run]) -> tuple[str, Run]:
    """What comes before a field's name in errors, and the settings."""
    if isinstance(settings, str | Path):
        return f"{settings}: ", config.load_yaml(settings, kind)
    return "", settings


def _out(out: str | Path | None, settings: RunConfig, source: str) -> Path:
    """Where a run goes; InputError if it can't."""
    folder = expanded(out) if out is not None else settings.out
    if folder is None:
        raise InputError(f"{source}out is missing; add it, or give --out")
    check_out_folder(folder)
    return folder


def _save(backend: Any, out: Path) -> None:
    """What was trained, into the run's folder."""
    backend.save(out / (MODEL if backend.adapter.in_model else ADAPTER))


def _adapter_folder(backend: Any, out: Path) -> Path:
    """Where the adapter of what was trained is."""
    return out / MODEL / ADAPTER_SUBFOLDER if backend.adapter.in_model else out / ADAPTER


def _check_push(repo_id: str | None, backend: Any, out: Path) -> None:
    """InputError for a whole model that is to be pushed."""
    if repo_id and backend.adapter.in_model:
        raise InputError(
            f"push_to_hub {repo_id}: uploads adapters, and train: full makes a model; leave it out "
            f"and upload {out / MODEL} with `hf upload`"
        )


def continued_space(space: RewardSpace, data: RewardSpace, folder: Path) -> RewardSpace:
    """The reward space of an adapter that is trained on, whose statistics stay. InputError if the
    data of ``folder`` lacks one of its rewards."""
    if missing := [name for name in space.names if name not in data.names]:
        raise InputError(f"{folder}: has no scores for {missing[0]}, which the adapter has")
    return space


def steps_left_open(loop: LoopConfig) -> dict[str, Any]:
    """The loop's identity, without the number of steps where none of them depends on it: then a
    short run is the beginning of a long one."""
    identity = loop.identity()
    if loop.schedule in ENDLESS:
        del identity["steps"]
    return identity


def to_train_longer(adapter: Path) -> str:
    """What to do instead of raising ``loop.steps`` of a run whose schedule ends with it."""
    return (
        "its schedule depends on their number, so restore it, or train on in another --out with "
        f"init: {adapter}"
    )


def _check_steps(out: Path, loop: LoopConfig) -> None:
    """InputError if a run has taken more steps than it is to take."""
    last = checkpoint.newest(out / checkpoint.FOLDER)
    if last and (taken := checkpoint.step_of(last)) > loop.steps:
        raise InputError(
            f"{out}: has taken {counted(taken, 'steps')}, and loop.steps is {loop.steps}; give "
            f"{taken} or more, or choose another --out"
        )


def selected(records: Sequence[Record], where: Mapping[str, tuple[Cell, ...]]) -> list[Record]:
    """The records that ``where`` lets through. InputError for a column that none of them has, and
    if no record is left."""
    columns = sorted({column for record in records for column in record.extra})
    for column in where:
        if column not in columns:
            raise InputError(f"where.{column}: no such column{suggest(column, columns)}")
    found = [
        record
        for record in records
        if all(
            any(_equal(record.extra.get(column), value) for value in values)
            for column, values in where.items()
        )
    ]
    if where and not found:
        asked = " and ".join(f"{k} {' or '.join(map(str, v))}" for k, v in where.items())
        raise InputError(f"where: no record of the data has {asked}; see its metadata's columns")
    return found


def _equal(cell: Any, value: Cell) -> bool:
    """Whether a cell has a value. One of the two may be text where the other is not: all cells of a
    CSV file are, and so is 1e-4 in YAML."""
    if isinstance(cell, str) != isinstance(value, str):
        cell, value = (_unquoted(one) if isinstance(one, str) else one for one in (cell, value))
    return isinstance(cell, bool) == isinstance(value, bool) and bool(cell == value)


def _unquoted(text: str) -> Cell:
    """The number or truth value that a text says, or the text."""
    if (lowered := text.strip().lower()) in ("true", "false"):
        return lowered == "true"
    for number in (int, float):  # large whole numbers, as of ids, are rounded by float
        with suppress(ValueError):
            return number(text)
    return text


def absolute(records: Sequence[Record], folder: Path) -> list[Record]:
    """The records under names that mean the same from anywhere."""
    return [replace(r, file=str((folder / r.file).absolute())) for r in records]


def first_captions(records: Sequence[Record]) -> list[str]:
    """The first captions of the records, each once, in their order."""
    found = list(dict.fromkeys(r.captions[0] for r in records if r.captions))
    if not found:
        raise InputError("the data has no captions to draw; give a file of prompts")
    return found


def records_digest(records: Sequence[Record]) -> str:
    """SHA-256 of all that training reads of the records; their files are named after what they
    hold, or their metadata has its digest."""
    rows = (
        [r.file, r.captions, r.scores, *([r.extra.get(DIGEST)] if r.span else [])] for r in records
    )
    return config.digest_of_list(rows)


def _pushed(folder: Path, repo_id: str, family: Family) -> str:
    """Push what was trained; returns its address. OSError, with what to do, if that fails."""
    try:
        return hub.push(folder, repo_id, family.format.files)
    except (InputError, OSError) as error:
        later = f"ric push --adapter {folder} --to {repo_id}"
        raise OSError(f"{error}; {folder} is kept, push it with `{later}`") from error


def _write_sheet(backend: Any, name: str, prompts: Sequence[str], path: Path) -> Image | None:
    """One row per prompt: seed 0 along one reward from its 5th to its 95th percentile. A picture,
    which is returned, or where samples are texts a text; the first process writes it."""
    line = target_line(backend.adapter.space, name, 5)
    rows = [backend.sample([prompt] * len(line), line, [0] * len(line)) for prompt in prompts]
    if not is_main_process():
        return None
    captions = [f"{target[name]:+.1f}" for target in line]
    if backend.medium.name == "text":
        texts = [
            f"{name} {caption}\n{prompt}\n    {text}\n"
            for prompt, row in zip(prompts, rows, strict=True)
            for caption, text in zip(captions, row, strict=True)
        ]
        write_text(path.with_suffix(".txt"), "\n".join(texts))
        return None
    sheet = draw_sheet(rows, title=name, captions=[[c] for c in captions], row_titles=prompts)
    save_png(path.with_suffix(".png"), sheet)
    return sheet
