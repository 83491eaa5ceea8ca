"""Why a request has no answer, as one line of JSON, whatever raised it."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from ric_diffusion.api.http.guard import Refused
from ric_diffusion.api.work import Stopped
from ric_diffusion.io.errors import InputError
from scorers import ScorerError
from scorers.remote_client import shown

GONE = 499  # nginx's status for a client that has closed its connection: it is not sent


async def health() -> dict[str, str]:
    """Whether the server answers."""
    return {"status": "ok"}


async def _refused(request: Request, error: Refused) -> Response:
    return _problem(error.status, error.line, error.headers)


async def _http(request: Request, error: HTTPException) -> Response:
    return _problem(error.status_code, str(error.detail), error.headers)


async def _input(request: Request, error: Exception) -> Response:
    return _problem(422, str(error))


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    return _problem(422, told(error))


def told(error: RequestValidationError | ValidationError) -> str:
    """The first field that is wrong, and what is wrong with it."""
    first = error.errors()[0]
    kind, place = first["type"], [str(part) for part in first["loc"] if part != "body"]
    where = ".".join(place)[:100] if place and kind != "json_invalid" else "body"
    return f"{where}: {_SAID.get(kind, first['msg'])}"


async def _gone(request: Request, error: Stopped) -> Response:
    return Response(status_code=GONE)


def _problem(status: int, line: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": shown(line)}, status, headers)


_SAID = {"extra_forbidden": "unknown field", "json_invalid": "no JSON"}  # for what pydantic says
# By their numbers those that Starlette itself raises, for bodies that are no text and for what is
# not served.
PROBLEMS: dict[Any, Callable[..., Any]] = {
    Refused: _refused,
    HTTPException: _http,
    400: _http,
    404: _http,
    405: _http,
    RequestValidationError: _invalid,
    InputError: _input,
    ScorerError: _input,
    Stopped: _gone,
}
