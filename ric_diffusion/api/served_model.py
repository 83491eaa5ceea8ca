"""A loaded model with its adapters, as ``ric serve`` asks it: for the one thread that loaded it."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from PIL import Image
from pydantic import ValidationError

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.api import messages
from ric_diffusion.api.drawing import model_used
from ric_diffusion.api.http.guard import Refused
from ric_diffusion.api.http.problems import told
from ric_diffusion.api.models import (
    Dtype,
    load,
    name_of,
    require_adapter,
    require_pictures,
)
from ric_diffusion.api.picture_settings import PictureSettings, as_stored, read_metadata
from ric_diffusion.api.samples import GeneratedSample, Scoring, generate
from ric_diffusion.api.sweeps import SweepResult, sweep
from ric_diffusion.api.values import COMMON
from ric_diffusion.api.work import Job, Stopped
from ric_diffusion.data.images import UnreadableImage, open_image, png_bytes
from ric_diffusion.data.scoring import keeping_scorers
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.models.checkpoint import Checkpoint, ModelName
from ric_diffusion.models.diffusion.digests import adapter_digest
from ric_diffusion.rewards import MAPPINGS
from scorers import Scorer, ScorerError

MAX_PIXELS = 2**25  # of all pictures that a request sends
MAX_NOTES = 20

_log = logging.getLogger(__name__)


class ServedModel:
    """A model that answers one request after the other, each with the adapter that it names.

    ``adapters``: folders or hub ids, by which requests name them; without any, the model has its
    own, by the model's name, or none. All are loaded once here, so that one that does not fit is
    heard of at the start: InputError.
    """

    def __init__(
        self, model: ModelName, adapters: Sequence[str] = (), dtype: Dtype = "float32"
    ) -> None:
        self.model: Any = load(model, dtype=dtype)
        self.name, self.checkpoint = name_of(self.model), Checkpoint.of(model)
        self.medium = self.model.family.medium
        if self.makes_pictures:
            self.model.set_progress_bar_config(disable=True)
        self._scorers: dict[str, Scorer] = {}
        self.adapters: dict[str, Adapter] = {}
        self._digests: dict[str, str | None] = {}  # by adapter, of what makes pictures
        for name in adapters:
            self.model.load_adapter(name)
            self._add(name)
        if not adapters and self.model.adapter is not None:
            self._add(self.name)
        with keeping_scorers(self._scorers):  # which may be fetched, or large
            for adapter in self.adapters.values():
                Scoring.of(adapter.space, self.medium)

    def _add(self, name: str) -> None:
        """Requests may name the adapter that the model has now."""
        self.adapters[name], self._current = self.model.adapter, name
        if self.makes_pictures:
            self._digests[name] = adapter_digest(self.model)

    @property
    def makes_pictures(self) -> bool:
        return bool(self.medium.name == "image")

    def about(self) -> messages.AdaptersAnswer:
        """What there is to ask for."""
        return messages.AdaptersAnswer(
            model=self.name,
            family=self.model.family.title,
            medium=self.medium.name,
            adapters=[_about(name, adapter) for name, adapter in self.adapters.items()],
            mappings=list(MAPPINGS),
        )

    def generate(
        self, asked: messages.GenerateRequest, job: Job
    ) -> tuple[list[GeneratedSample], list[str]]:
        """The samples, with their notes."""
        with self._working(job) as notes:
            made, adapter = None, asked.adapter
            if asked.like is not None:
                made, adapter = self._made(asked.like, asked)
            init = None
            if asked.init_image is not None:
                init = _opened(asked.init_image, "init_image")
            self._use(adapter)
            samples = generate(
                self.model,
                asked.prompt,
                prompts=asked.prompts,
                like=made,
                preference=asked.preference,
                targets=asked.targets,
                negative_targets=asked.negative_targets,
                negative_prompt=asked.negative_prompt,
                mapping=asked.mapping,
                seed=asked.seed,
                count=asked.count,
                refine=asked.refine,
                init_image=init,
                strength=asked.strength,
                sampling=asked.sampling,
                progress=job.check,
            )
        return [replace(one, settings=self._told(one.settings)) for one in samples], notes

    def sweep(self, asked: messages.SweepRequest, job: Job) -> tuple[SweepResult, list[str]]:
        """The sweep, with its notes."""
        with self._working(job) as notes:
            self._use(asked.adapter)
            swept = sweep(
                self.model,
                asked.prompt,
                points=asked.points,
                along=asked.along,
                seed=asked.seed,
                mapping=asked.mapping,
                refine=asked.refine,
                sampling=asked.sampling,
                progress=job.check,
            )
        points = tuple(replace(one, settings=self._told(one.settings)) for one in swept.points)
        return replace(swept, points=points), notes

    def score(self, asked: messages.ScoreRequest, job: Job) -> messages.ScoreAnswer:
        """The scores of finished samples, by the scorers of an adapter."""
        with self._working(job) as notes:
            self._use(asked.adapter)
            require_adapter(self.model, self.name)
            space = self.model.adapter.space
            found = list(self._scored(Scoring.of(space, self.medium), asked, job))
        return messages.ScoreAnswer(
            units=dict(zip(space.names, space.units, strict=True)),
            scores=[dict(one.scores) for one in found],
            obtained=[dict(one.obtained) for one in found],
            notes=notes,
        )

    def _scored(
        self, scoring: Scoring, asked: messages.ScoreRequest, job: Job
    ) -> Iterator[GeneratedSample]:
        samples = asked.images if self.makes_pictures else asked.texts
        given = "images" if self.makes_pictures else "texts"
        if samples is None or None not in (asked.images, asked.texts):
            raise InputError(f"{given}: missing, or not alone; give the {self.medium.plural}")
        if asked.prompts is not None and len(asked.prompts) != len(samples):
            raise InputError(f"prompts: {len(asked.prompts)} for {len(samples)} {given}")
        if asked.prompts is None:
            for scorer in scoring.scorers:
                if getattr(scorer, "needs_prompts", False):
                    raise InputError(f"prompts: missing, and {scorer.name} reads them")
        pixels = MAX_PIXELS
        for index, sample in enumerate(samples):
            job.check()
            if self.makes_pictures:
                image = _opened(sample, f"images[{index}]", pixels)
                pixels -= image.width * image.height
            prompt = asked.prompts[index] if asked.prompts else ""
            found = image if self.makes_pictures else sample
            yield scoring.measured(found, prompt=prompt, seed=0, model=self.name, targets={})

    def _made(
        self, like: str, asked: messages.GenerateRequest
    ) -> tuple[PictureSettings, str | None]:
        """What made the picture that is asked for again, and the adapter to do it with. InputError
        where that is more than a request may ask for, and where this model cannot do it."""
        require_pictures(self.model.family, self.name)
        made = read_metadata(_decoded(like, "like"), "like").settings
        adapter = asked.adapter or self._adapter_of(made)
        own = self.adapters[adapter].sampling if adapter in self.adapters else {}
        self._check_bounds(made, asked, own)
        if made.init_image is not None and asked.init_image is None:  # no file here is looked at
            raise InputError(
                f"like: was made from the picture {made.init_image.name}; give it as init_image"
            )
        here, used = model_used(self.model, self.checkpoint), made.model
        known = here.dtype == used.dtype and None not in (here.digest, used.digest)
        if known and here.digest != used.digest:
            raise InputError(
                f"like: was made with another model ({used.checkpoint.model}) than this server's; "
                "give its prompt and settings in place of it"
            )
        return made, adapter

    def _check_bounds(
        self, made: PictureSettings, asked: messages.GenerateRequest, own: Mapping[str, Any]
    ) -> None:
        """InputError unless a request could ask for the same; ``own``: arguments of sampling that
        the adapter brings."""
        names = {theirs: ours for ours, theirs in self.model.family.options.items()}
        fields: dict[str, Any] = {
            "prompt": made.prompt,
            "negative_prompt": made.negative_prompt,
            "seed": made.seed,
            "refine": made.refine,
        }
        for name in ("preference", "targets", "negative_targets"):
            if (values := getattr(made, name)) is not None:
                fields[name] = dict(values)
        for name, value in made.sampling.items():
            if (ours := names.get(name, name)) in COMMON:
                fields[ours] = value
            elif value is not None and value != as_stored(own.get(name)):
                raise InputError(f"like: was made with {name} {value}, which no request can set")
        given = asked.model_dump(exclude_none=True, exclude={"like", "init_image", "prompts"})
        try:
            messages.GenerateRequest.model_validate(fields | given)
        except ValidationError as error:
            raise InputError(f"like: {told(error)}") from None

    def _adapter_of(self, made: PictureSettings) -> str | None:
        """The adapter that made a picture. InputError if it is none of the server's."""
        used = made.model
        for name, digest in self._digests.items():
            if digest == used.adapter_digest:
                return name
        if used.adapter_digest is None and not self.adapters:
            return None
        with_it = f"with an adapter ({used.adapter or 'its own'}) that this server does not have"
        raise InputError(
            f"like: was made {with_it if used.adapter_digest else 'without an adapter'}; give one "
            "of /adapters as the adapter to draw it with"
        )

    def _told(self, settings: PictureSettings | None) -> PictureSettings | None:
        """With all that the server was told of its model, as files of the command line have it."""
        if settings is None:
            return None
        return replace(settings, model=replace(settings.model, checkpoint=self.checkpoint))

    @contextmanager
    def _working(self, job: Job) -> Iterator[list[str]]:
        """Inside the block every pass of the model asks whether anybody still waits for it, and
        what our modules have to say is collected.

        InputError, ScorerError and Stopped pass; whatever else fails is told without its cause.
        """
        network = self.model.family.sampler(self.model).network()
        hook = network.register_forward_pre_hook(job.check)
        try:
            with keeping_scorers(self._scorers), noting() as notes:
                yield notes
        except (InputError, ScorerError, Stopped):
            raise
        except FloatingPointError as error:
            raise Refused(500, str(error)) from error
        except Exception as error:
            _log.exception("a request failed")
            raise Refused(500, f"the model failed ({type(error).__name__})") from error
        finally:
            hook.remove()

    def _use(self, name: str | None) -> None:
        """Load the adapter of this name in place of another; the first by default. Only those that
        the server was started with can be named: a name is never opened as a path."""
        if name is None and self.adapters:
            name = next(iter(self.adapters))
        if name is not None and name not in self.adapters:
            raise InputError(f"adapter {name!r}: unknown{suggest(name, self.adapters)}")
        if name is not None and name != self._current:
            self.model.load_adapter(name)
            self._current = name


def sample_of(sample: GeneratedSample) -> messages.Sample:
    """A sample as JSON has it."""
    text = sample.sample if isinstance(sample.sample, str) else None
    return messages.Sample(
        image=None if text is not None else encoded(png_of(sample)),
        text=text,
        prompt=sample.prompt,
        seed=sample.seed,
        targets=dict(sample.targets),
        scores=dict(sample.scores),
        obtained=dict(sample.obtained),
        refinement=None if sample.refinement is None else asdict(sample.refinement),
    )


def sweep_of(swept: SweepResult, notes: list[str]) -> messages.SweepAnswer:
    """A sweep as JSON has it."""
    return messages.SweepAnswer(
        model=swept.model,
        prompt=swept.prompt,
        seed=swept.seed,
        units=dict(swept.units),
        points=[
            messages.Point(
                image=encoded(png_of(swept.generated(point))),
                preference=None if point.preference is None else dict(point.preference),
                targets=dict(point.targets),
                scores=dict(point.scores),
                obtained=dict(point.obtained),
                refinement=None if point.refinement is None else asdict(point.refinement),
            )
            for point in swept.points
        ],
        sheet=encoded(swept.sheet_png()),
        notes=notes,
    )


def png_of(sample: GeneratedSample) -> bytes:
    """The file that ``ric generate`` writes of it."""
    return png_bytes(sample.sample, sample.metadata)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@contextmanager
def noting() -> Iterator[list[str]]:
    """What our modules warn of in this thread inside the block, a line each, MAX_NOTES at most."""
    handler = _Notes()
    loggers = [logging.getLogger(name) for name in ("ric_diffusion", "scorers")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


class _Notes(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if threading.get_ident() == self._thread and len(self.lines) < MAX_NOTES:
            self.lines.append(record.getMessage())


def _about(name: str, adapter: Adapter) -> messages.AdapterAbout:
    space = adapter.space
    return messages.AdapterAbout(
        name=name,
        base_model=adapter.base_model,
        mode=adapter.conditioner.mode,
        mapping=adapter.mapping,
        sampling=dict(adapter.sampling),
        rewards=[
            messages.RewardAbout(
                name=reward.name,
                unit=reward.unit,
                mean=reward.mean,
                std=reward.std,
                lowest=space.range(reward.name)[0],
                highest=space.range(reward.name)[1],
            )
            for reward in space.rewards
        ],
    )


def _opened(sample: str, name: str, pixels: int = MAX_PIXELS) -> Image.Image:
    try:
        return open_image(_decoded(sample, name), pixels)
    except UnreadableImage as error:
        raise InputError(f"{name}: {error.reason}") from error


def _decoded(sample: str, name: str) -> bytes:
    try:
        return base64.b64decode(sample, validate=True)
    except ValueError as error:
        raise InputError(f"{name}: no base64") from error
