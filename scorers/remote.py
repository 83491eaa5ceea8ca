"""Scores from another process or machine: JSON over HTTP, nothing of theirs is run here."""

from __future__ import annotations

import base64
import io
import json
import os
import tempfile
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scorers.base import BaseScorer, ScorerError, TextScorer, check_called, check_integer
from scorers.parallel import map_images
from scorers.remote_client import TOKEN, Client, Stop
from scorers.remote_schema import MOST_SAMPLES, Answer, Description, Encoding, Request, to_json
from scorers.rgb import to_rgb

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

IN_FLIGHT = 4  # requests at once: while one is scored others are on the way
_ANSWER = 2**16  # bytes of an answer, beside …
_SCORE = 64  # … those of each score
_ENVELOPE = 1024  # bytes of a request beside its samples
_LONGEST_TIMEOUT = 86400


@dataclass(frozen=True, kw_only=True)
class Part:
    """One sample of a request: a base64 picture, the bytes of one for a file, or a text."""

    sample: str | bytes
    prompt: str | None
    pixels: int = 0

    @cached_property
    def size(self) -> int:
        """Bytes of it in a request, or a few more."""
        sample = len(self.sample) if self.pixels else len(json.dumps(self.sample))
        return sample + len(json.dumps(self.prompt)) + 8


class RemoteImages(BaseScorer):
    """The scorer of a server, of ``ric serve-scorer`` or any other that speaks ``remote_schema``.

    Name, unit, fingerprint, and whether it reads prompts, are the server's own: scores and
    fingerprint are what they would be if the scorer were here. An answer with another fingerprint
    than at first is refused.

    Options: ``url``; ``called``, the name of the scorer and its reward, by default the server's;
    ``batch_size``, samples a request at most; ``timeout``, seconds; ``retries``, how often a
    request is repeated while the server cannot be reached or is busy, with 0.5, 1, 2 … seconds in
    between; ``folder``, on a file system that the server sees under the same path: pictures are
    written there, and deleted, instead of being sent; ``token_variable``, which environment
    variable has the token, if the server wants one.
    """

    kind = "remote"

    def __init__(
        self,
        client: Client,
        description: Description,
        *,
        options: dict[str, Any],
        batch_size: int,
        folder: Path | None,
    ) -> None:
        """``batch_size`` and ``folder`` checked; ``options`` with the name under ``called``."""
        self.name = options["called"]
        self.unit = description.unit
        self.medium = description.medium
        self.needs_prompts = description.needs_prompts
        self.compares_within = description.compares_within
        self.fingerprint = description.fingerprint
        self.options = options
        self._client = client
        self._limits = description
        self._batch_size = min(batch_size, description.max_samples or MOST_SAMPLES)
        self._folder = folder

    def _score(self, samples: list[Any], prompts: list[str] | None) -> np.ndarray:
        import numpy as np

        scores: list[float | None] = []
        waiting: deque[Future[tuple[float | None, ...]]] = deque()
        stop = Stop()
        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            try:
                for parts in self._requests(samples, prompts):
                    waiting.append(threads.submit(self._ask, parts, stop))
                    if len(waiting) > IN_FLIGHT:  # one more than are sent: it is ready by then
                        scores += waiting.popleft().result()
                # One that fails is heard of at once, and not after those that were sent before it.
                for done in wait(waiting, return_when=FIRST_EXCEPTION).done:
                    done.result()
                for future in waiting:
                    scores += future.result()
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                stop.set()
                raise
        found: np.ndarray = np.array(scores, dtype=np.float32)  # None becomes NaN
        return found

    def _requests(self, samples: list[Any], prompts: list[str] | None) -> Iterator[list[Part]]:
        """The samples in order, cut into requests that the server takes."""
        for start in range(0, len(samples), self._batch_size):
            some = slice(start, start + self._batch_size)
            # Nobody is told prompts that are not read.
            read = prompts[some] if prompts is not None and self.needs_prompts else None
            yield from cut(self._parts(samples[some], read), self._limits)

    def _parts(self, samples: list[Any], prompts: list[str] | None) -> list[Part]:
        encode = _png if self._folder else _base64
        sent: Sequence[str | bytes] = map_images(encode, samples)
        return [
            Part(sample=sample, prompt=prompt, pixels=image.width * image.height)
            for image, sample, prompt in zip(
                samples, sent, _each(prompts, len(samples)), strict=True
            )
        ]

    def _ask(self, parts: list[Part], stop: Stop) -> tuple[float | None, ...]:
        """The scores of one request."""
        if self._folder is None:
            samples = tuple(str(part.sample) for part in parts)
            encoding: Encoding = "base64" if self.medium == "image" else "text"
            return self._post(samples, encoding, parts, stop)
        with tempfile.TemporaryDirectory(prefix=".ric-scorer-", dir=self._folder) as name:
            os.chmod(name, 0o755)  # the server may run as another user
            paths = []
            for index, part in enumerate(parts):
                path = Path(name) / f"{index}.png"
                path.write_bytes(part.sample if isinstance(part.sample, bytes) else b"")
                paths.append(str(path))
            return self._post(tuple(paths), "path", parts, stop)

    def _post(
        self, samples: tuple[str, ...], encoding: Encoding, parts: list[Part], stop: Stop
    ) -> tuple[float | None, ...]:
        prompts = tuple(part.prompt for part in parts if part.prompt is not None)
        request = Request(samples=samples, encoding=encoding, prompts=prompts or None)
        most = _ANSWER + _SCORE * len(parts)
        answer = self._client.ask(Answer, to_json(request), most_bytes=most, stop=stop)
        if len(answer.scores) != len(parts):
            raise ScorerError(
                f"{self.name}: {self._client.url} answers with another number of scores than of "
                f"samples, {len(answer.scores)} for {len(parts)}; mend the server"
            )
        if answer.fingerprint != self.fingerprint:
            raise ScorerError(
                f"{self.name}: {self._client.url} changed while it scored: now "
                f"{answer.fingerprint}, before {self.fingerprint}; start again with one of them"
            )
        return answer.scores


class RemoteTexts(RemoteImages, TextScorer):
    """The same for a scorer of texts."""

    def _parts(self, samples: list[Any], prompts: list[str] | None) -> list[Part]:
        return [
            Part(sample=sample, prompt=prompt)
            for sample, prompt in zip(samples, _each(prompts, len(samples)), strict=True)
        ]


def remote(
    *,
    url: str,
    called: str | None = None,
    batch_size: int = 16,
    timeout: float = 60,
    retries: int = 5,
    folder: str | os.PathLike[str] | None = None,
    token_variable: str = TOKEN,
) -> RemoteImages:
    """The scorer that the server at ``url`` describes; its options are those of RemoteImages.

    WeightsError if the server does not answer.
    """
    where = check_called(RemoteImages.kind, called)
    check_integer(where, "batch_size", batch_size, 1, MOST_SAMPLES)
    check_integer(where, "retries", retries, 0, 20)
    if isinstance(timeout, bool | str) or not 0 < timeout <= _LONGEST_TIMEOUT:
        raise ScorerError(f"{where}: timeout={timeout!r} is not allowed; give seconds above 0")
    client = Client(
        url, token_variable=token_variable, timeout=timeout, retries=retries, where=where
    )
    description = client.ask(Description, most_bytes=_ANSWER)
    shared = None if folder is None else _check_folder(folder, description, where)
    options = {
        "url": client.url,
        "called": called or description.name,
        "batch_size": batch_size,
        "timeout": timeout,
        "retries": retries,
        "folder": None if shared is None else str(shared),
        "token_variable": token_variable,
    }
    kind = RemoteTexts if description.medium == "text" else RemoteImages
    return kind(client, description, options=options, batch_size=batch_size, folder=shared)


def _each(prompts: list[str] | None, count: int) -> Sequence[str | None]:
    return [None] * count if prompts is None else prompts


def cut(parts: Sequence[Part], limits: Description) -> Iterator[list[Part]]:
    """The parts in order, in lists that keep within the pixels and bytes of a request; a part that
    does not keep within them stands alone, for the server to say so."""
    some: list[Part] = []
    pixels, size = 0, _ENVELOPE
    for part in parts:
        pixels, size = pixels + part.pixels, size + part.size
        too_many = limits.max_pixels is not None and pixels > limits.max_pixels
        if some and (too_many or (limits.max_bytes is not None and size > limits.max_bytes)):
            yield some
            some, pixels, size = [], part.pixels, _ENVELOPE + part.size
        some.append(part)
    if some:
        yield some


def _check_folder(folder: str | os.PathLike[str], description: Description, where: str) -> Path:
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise ScorerError(f"{where}: folder={str(folder)!r}: no such folder")
    if not description.reads_paths:
        raise ScorerError(
            f"{where}: folder={str(folder)!r}: the server reads no files; start it with "
            f"--root {path}, or leave folder out"
        )
    return path


def _png(image: Image) -> bytes:
    """What every scorer sees of the picture; quick rather than small."""
    file = io.BytesIO()
    # Run lengths alone: a third quicker than level 1, and on photographs no larger.
    to_rgb(image).save(file, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return file.getvalue()


def _base64(image: Image) -> str:
    return base64.b64encode(_png(image)).decode()
