"""What ``serve`` serves: a model over HTTP, as JSON or PNG, and a page that says how to ask it."""

# Annotations are what they say here, and no text: FastAPI reads them.
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPBearer

from ric_diffusion import __version__
from ric_diffusion.api import messages
from ric_diffusion.api.http.guard import Guard, Hosts
from ric_diffusion.api.http.problems import PROBLEMS, health
from ric_diffusion.api.http.work import WorkThread
from ric_diffusion.api.model_page import page_of
from ric_diffusion.api.served_model import ServedModel, png_of, sample_of, sweep_of
from ric_diffusion.io.errors import InputError

RATE = 100  # requests a second from one address
MAX_BYTES = 32 * 2**20  # of a request: pictures in base64
OPEN = frozenset({"/", "/health", "/openapi.json"})  # they say nothing of the model
ABOUT = (
    "A diffusion model or language model with reward sliders. Requests and answers are JSON; with "
    "`Accept: image/png` one picture, or the sheet of a sweep, is the answer. Whatever is refused "
    "or fails is answered with one line, `error`. Requests wait in a queue that is bounded: 503 "
    "says that it is full, 429 that one address asks too often. A client that closes its "
    "connection is not drawn for."
)
PNG: dict[str, Any] = {"image/png": {"schema": {"type": "string", "format": "binary"}}}


def build_model_app(
    model: ServedModel,
    thread: WorkThread,
    *,
    token: str = "",
    hosts: Hosts = "any",
    max_bytes: int = MAX_BYTES,
) -> FastAPI:
    """The model behind /generate, /sweep, /score and /adapters, whether all is well at /health, and
    what to ask at / and /openapi.json.

    ``thread``: the one that loaded the model, which all requests wait for; ``token``: what all but
    the pages want, unless it is empty; ``hosts``: the names that are answered to.
    """
    bearer = [Depends(HTTPBearer(auto_error=False))] if token else []  # for the document alone
    app = FastAPI(
        title="ric serve",
        version=__version__,
        description=ABOUT,
        docs_url=None,  # FastAPI's pages have a browser load scripts from elsewhere
        redoc_url=None,
        exception_handlers=PROBLEMS,
        responses={"4XX": {"model": messages.Problem}, "5XX": {"model": messages.Problem}},
    )
    app.add_middleware(
        Guard, token=token, hosts=hosts, rate=RATE, max_bytes=max_bytes, open_paths=OPEN
    )
    doors = Doors(model, thread)
    for path, door, answer, content in (
        ("/generate", doors.generate, messages.GenerateAnswer, PNG),
        ("/sweep", doors.sweep, messages.SweepAnswer, PNG),
        ("/score", doors.score, messages.ScoreAnswer, {}),
    ):
        app.add_api_route(
            path,
            door,
            methods=["POST"],
            response_model=answer,
            responses={200: {"content": content}},
            dependencies=bearer,
        )
    app.add_api_route("/adapters", doors.adapters, methods=["GET"], dependencies=bearer)
    app.add_api_route("/health", health, methods=["GET"])
    page = page_of(app.openapi())

    async def show() -> Response:
        return Response(page.html, headers=page.headers, media_type="text/html")

    app.add_api_route("/", show, methods=["GET"], include_in_schema=False)
    return app


class Doors:
    """The routes. Each waits for the model's thread, and encodes in another one what that made."""

    def __init__(self, model: ServedModel, thread: WorkThread) -> None:
        self._model, self._thread = model, thread
        self._about = model.about()

    async def generate(self, asked: messages.GenerateRequest, request: Request) -> Response:
        """Make pictures of a prompt, or respond to it, steered by rewards."""
        png = _wants_png(request)
        if asked.samples > messages.MAX_COUNT:
            raise InputError(
                f"count, prompts: {asked.samples} samples together; ask for {messages.MAX_COUNT} "
                "or fewer"
            )
        if png and asked.samples > 1:
            raise InputError(
                f"count, prompts: {asked.samples} samples, but image/png is one picture; ask for "
                "JSON"
            )
        if png and not self._model.makes_pictures:
            raise InputError("model: makes texts, and no image/png; ask for JSON")
        samples, notes = await self._thread.answer(
            lambda job: self._model.generate(asked, job), request.receive
        )
        if png:
            return await _encoded(lambda: png_of(samples[0]))
        return await _json(
            lambda: messages.GenerateAnswer(
                model=self._model.name,
                samples=[sample_of(sample) for sample in samples],
                notes=notes,
            )
        )

    async def sweep(self, asked: messages.SweepRequest, request: Request) -> Response:
        """Draw the same prompt and seed at places of the sliders."""
        swept, notes = await self._thread.answer(
            lambda job: self._model.sweep(asked, job), request.receive
        )
        if _wants_png(request):
            return await _encoded(swept.sheet_png)
        return await _json(lambda: sweep_of(swept, notes))

    async def score(self, asked: messages.ScoreRequest, request: Request) -> Response:
        """Score pictures, or texts, by the rewards of an adapter."""
        answer = await self._thread.answer(
            lambda job: self._model.score(asked, job), request.receive
        )
        return await _json(lambda: answer)

    async def adapters(self) -> messages.AdaptersAnswer:
        """What the model is, and the adapters that requests may name, with their rewards."""
        return self._about


def _wants_png(request: Request) -> bool:
    """Whether PNG is what a client names first."""
    first: str = request.headers.get("accept", "").partition(",")[0]
    return first.strip().startswith("image/png")


async def _encoded(make: Any) -> Response:
    return Response(await run_in_threadpool(make), media_type="image/png")


async def _json(make: Any) -> Response:
    text = await run_in_threadpool(lambda: make().model_dump_json())
    return Response(text, media_type="application/json")
