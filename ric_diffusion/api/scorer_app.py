"""What ``serve_scorers`` serves: scorers that answer requests of ``scorers.remote_schema``."""

# Annotations are what they say here, and no text: FastAPI reads them.
import base64
import logging
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from PIL.Image import Image

from ric_diffusion.api.http.guard import Guard, Hosts, Refused
from ric_diffusion.api.http.problems import PROBLEMS, health
from ric_diffusion.api.http.work import WorkThread
from ric_diffusion.api.work import Job
from ric_diffusion.data.images import MAX_PIXELS, UnreadableImage, open_image
from ric_diffusion.data.scoring import ask, each_alone, may_be_the_sample
from ric_diffusion.io.counting import counted
from scorers import Scorer, ScorerError
from scorers import remote_schema as schema
from scorers.base import first_line

MAX_SAMPLES = 64
RATE = 1000  # requests a second from one machine, where many processes may label small pictures
PIXELS = 2  # times those of the largest request: what all that are under way may hold together
MAX_BYTES = 256 * 2**20  # of a request: MAX_PIXELS in PNG that cannot be compressed, in base64

_log = logging.getLogger(__name__)


def build_app(
    scorers: Sequence[Scorer],
    *,
    token: str = "",
    hosts: Hosts = "any",
    roots: Sequence[Path] = (),
    max_samples: int = MAX_SAMPLES,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> FastAPI:
    """The scorers at /scorers/NAME, a single one at / as well, whether all is well at /health, and
    the JSON Schema of the messages at /schema.

    ``token`` is what all but /health want, unless it is empty, and ``hosts`` the names that are
    answered to. Files are read in and below the ``roots`` only. The limits are those of a request,
    and the pixels of all its pictures together.

    ScorerError for a scorer that cannot be described.
    """
    thread, pixels = WorkThread(), Pixels(PIXELS * max_pixels)
    served = [
        ServedScorer(
            scorer,
            thread,
            roots=[Path(os.path.realpath(root)) for root in roots],
            max_samples=max_samples,
            max_bytes=max_bytes,
            max_pixels=max_pixels,
            pixels=pixels,
        )
        for scorer in scorers
    ]
    app = FastAPI(openapi_url=None, exception_handlers=PROBLEMS)
    app.add_middleware(Guard, token=token, hosts=hosts, rate=RATE, max_bytes=max_bytes)
    app.add_api_route("/health", health, methods=["GET"], response_model=None)
    app.add_api_route("/schema", schema.json_schema, methods=["GET"], response_model=None)
    for one in served:
        paths = [f"/scorers/{one.description.name}", *(["/"] if len(served) == 1 else [])]
        for path in paths:
            app.add_api_route(path, one.describe, methods=["GET"], response_model=None)
            app.add_api_route(path, one.answer, methods=["POST"], response_model=None)
    return app


class Pixels:
    """Counts those of all pictures that are decoded and not yet scored."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._lock = threading.Lock()

    def take(self, image: Image) -> None:
        """Refused, with the picture counted, where that makes too many."""
        with self._lock:
            self._held += image.width * image.height
            if self._held > self._most:
                raise Refused(503, "too much is being scored; try again later", retry_after="1")

    def give(self, samples: Sequence[Any]) -> None:
        """What is no picture does not count."""
        with self._lock:
            for sample in samples:
                if isinstance(sample, Image):
                    self._held -= sample.width * sample.height


class ServedScorer:
    """One scorer. Requests are decoded in threads, several at a time, and scored one by one."""

    def __init__(
        self,
        scorer: Scorer,
        thread: WorkThread,
        *,
        roots: Sequence[Path],
        max_samples: int,
        max_bytes: int,
        max_pixels: int,
        pixels: "Pixels",
    ) -> None:
        self._scorer = scorer
        self._thread = thread
        self._pixels = pixels
        self._roots = roots
        self._has_worked = False
        self._max_samples, self._max_bytes, self._max_pixels = max_samples, max_bytes, max_pixels
        self.description = self._described()
        try:  # scorers of other packages may call themselves anything
            schema.parse(schema.Description, schema.to_json(self.description))
        except ScorerError as error:
            raise ScorerError(f"{scorer.name}: cannot be served: its {error}") from error

    def _described(self) -> schema.Description:
        scorer = self._scorer
        medium: schema.Medium = getattr(scorer, "medium", "image")
        return schema.Description(
            protocol=schema.PROTOCOL,
            name=scorer.name,
            unit=scorer.unit,
            fingerprint=scorer.fingerprint,
            medium=medium,
            needs_prompts=getattr(scorer, "needs_prompts", False),
            compares_within=getattr(scorer, "compares_within", None),
            reads_paths=bool(self._roots) and medium == "image",
            max_samples=self._max_samples,
            max_pixels=self._max_pixels if medium == "image" else None,
            max_bytes=self._max_bytes,
        )

    async def describe(self) -> Response:
        return _json(self._described())  # anew: the fingerprint may have changed

    async def answer(self, request: Request) -> Response:
        samples: list[Any] = []
        try:
            asked = await run_in_threadpool(self._decode, await request.body(), samples)
            prompts = None if asked.prompts is None else list(asked.prompts)

            def score(job: Job) -> schema.Answer:
                return self._score(samples, prompts)

            return _json(await self._thread.answer(score, request.receive))
        finally:
            self._pixels.give(samples)

    def _decode(self, body: bytes, samples: list[Any]) -> schema.Request:
        """What is asked; ``samples`` get what is sent."""
        try:
            asked = schema.parse(schema.Request, body)
        except ScorerError as error:
            raise HTTPException(422, f"no request: {error}") from error
        count = len(asked.samples)
        if count > self._max_samples:
            raise HTTPException(413, f"{counted(count, 'samples')}, at most {self._max_samples}")
        if asked.prompts is not None and len(asked.prompts) != count:
            raise HTTPException(
                422, f"{counted(len(asked.prompts), 'prompts')} for {counted(count, 'samples')}"
            )
        self._read(asked, samples)
        return asked

    def _score(self, samples: list[Any], prompts: list[str] | None) -> schema.Answer:
        try:
            scores = self._each(samples, prompts).tolist()
            fingerprint = self._scorer.fingerprint
        except ScorerError as error:
            raise HTTPException(422, str(error)) from error
        except (Exception, SystemExit) as error:  # of a scorer that anybody may have written
            _log.exception("%s failed", self._scorer.name)
            raise HTTPException(500, f"the scorer failed ({type(error).__name__})") from error
        self._has_worked = True
        # What is infinite is no score either.
        finite = tuple(score if abs(score) < float("inf") else None for score in scores)
        return schema.Answer(scores=finite, fingerprint=fingerprint)

    def _each(self, samples: list[Any], prompts: list[str] | None) -> np.ndarray:
        """Scores; NaN of samples on which the scorer fails, as `label` leaves them out. One that
        has never worked, and fails on all, is broken: its error is raised."""
        try:
            return ask(self._scorer, samples, prompts)
        except (Exception, SystemExit) as error:
            if not may_be_the_sample(error):
                raise
            scores = np.full(len(samples), math.nan)
            worked = self._has_worked

            def alone(i: int) -> float:
                return float(ask(self._scorer, [samples[i]], prompts and [prompts[i]])[0])

            for i, found in each_alone(alone, range(len(samples))):
                if isinstance(found, BaseException):
                    _log.warning("%s fails on a sample (%s)", self._scorer.name, first_line(found))
                else:
                    scores[i], worked = found, True
            if not worked:
                raise
            return scores

    def _read(self, asked: schema.Request, samples: list[Any]) -> None:
        if (asked.encoding == "text") != (self.description.medium == "text"):
            what = f"{self.description.medium}s, not samples of encoding {asked.encoding!r}"
            raise HTTPException(422, f"{self._scorer.name} scores {what}")
        if asked.encoding == "text":
            samples += asked.samples
            return
        pixels = self._max_pixels
        for index, sample in enumerate(asked.samples):
            try:
                if asked.encoding == "path":
                    image = open_image(self._path(sample), pixels)
                else:
                    image = open_image(base64.b64decode(sample, validate=True), pixels)
            except UnreadableImage as error:
                raise HTTPException(422, f"samples[{index}]: {error}") from error
            except ValueError as error:
                raise HTTPException(422, f"samples[{index}]: no base64") from error
            pixels -= image.width * image.height
            samples.append(image)
            self._pixels.take(image)

    def _path(self, given: str) -> str:
        """The file that a path leads to, links followed. Refused alike whether it is there or not,
        unless it is in or below a root."""
        try:
            real = os.path.realpath(given) if os.path.isabs(given) else ""
        except (OSError, ValueError):  # a loop of links, a zero byte
            real = ""
        if not real or not any(Path(real).is_relative_to(root) for root in self._roots):
            raise HTTPException(403, "a path leads out of the folders that this server reads")
        return real


def _json(message: schema.Description | schema.Answer) -> Response:
    return Response(schema.to_json(message), media_type="application/json")
