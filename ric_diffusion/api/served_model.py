"""A loaded model with its adapters, as ``ric serve`` asks it: for the one thread that loaded it."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.api import messages
from ric_diffusion.api.http.guard import Refused
from ric_diffusion.api.models import Dtype, load, name_of, require_adapter
from ric_diffusion.api.samples import GeneratedSample, Scoring, generate
from ric_diffusion.api.sweeps import SweepResult, sweep
from ric_diffusion.api.work import Job, Stopped
from ric_diffusion.data.images import UnreadableImage, open_image, png_bytes
from ric_diffusion.data.scoring import keeping_scorers
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.models.checkpoint import ModelName
from ric_diffusion.rewards import MAPPINGS
from scorers import Scorer, ScorerError

MAX_PIXELS = 2**25  # of all pictures of a request to score
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
        self.name = name_of(self.model)
        self.medium = self.model.family.medium
        if self.makes_pictures:
            self.model.set_progress_bar_config(disable=True)
        self._scorers: dict[str, Scorer] = {}
        self.adapters: dict[str, Adapter] = {}
        for name in adapters:
            self.model.load_adapter(name)
            self.adapters[name] = self.model.adapter
            self._current = name
        if not adapters and self.model.adapter is not None:
            self.adapters[self.name] = self.model.adapter
            self._current = self.name
        with keeping_scorers(self._scorers):  # which may be fetched, or large
            for adapter in self.adapters.values():
                Scoring.of(adapter.space, self.medium)

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
        with self._working(asked.adapter, job) as notes:
            samples = generate(
                self.model,
                asked.prompt,
                preference=asked.preference,
                targets=asked.targets,
                negative_targets=asked.negative_targets,
                negative_prompt=asked.negative_prompt,
                mapping=asked.mapping,
                seed=asked.seed,
                count=asked.count,
                refine=asked.refine,
                sampling=asked.sampling,
                progress=job.check,
            )
        return samples, notes

    def sweep(self, asked: messages.SweepRequest, job: Job) -> tuple[SweepResult, list[str]]:
        """The sweep, with its notes."""
        with self._working(asked.adapter, job) as notes:
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
        return swept, notes

    def score(self, asked: messages.ScoreRequest, job: Job) -> messages.ScoreAnswer:
        """The scores of finished samples, by the scorers of an adapter."""
        with self._working(asked.adapter, job) as notes:
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
                image = _opened(sample, index, pixels)
                pixels -= image.width * image.height
                sample = image
            prompt = asked.prompts[index] if asked.prompts else ""
            yield scoring.measured(sample, prompt=prompt, seed=0, model=self.name, targets={})

    @contextmanager
    def _working(self, adapter: str | None, job: Job) -> Iterator[list[str]]:
        """Inside the block the adapter is the one asked for, every pass of the model asks whether
        anybody still waits for it, and what our modules have to say is collected.

        InputError, ScorerError and Stopped pass; whatever else fails is told without its cause.
        """
        network = self.model.family.sampler(self.model).network()
        hook = network.register_forward_pre_hook(job.check)
        try:
            with keeping_scorers(self._scorers), noting() as notes:
                self._use(adapter)
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
                image=encoded(png_bytes(point.sample)),
                preference=None if point.preference is None else dict(point.preference),
                targets=dict(point.targets),
                scores=dict(point.scores),
                obtained=dict(point.obtained),
            )
            for point in swept.points
        ],
        sheet=encoded(png_bytes(swept.sheet)),
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


def _opened(sample: str, index: int, pixels: int) -> Any:
    try:
        return open_image(base64.b64decode(sample, validate=True), pixels)
    except UnreadableImage as error:
        raise InputError(f"images[{index}]: {error.reason}") from error
    except ValueError as error:
        raise InputError(f"images[{index}]: no base64") from error
