"""What happens when a control is used: from its values to what is shown."""

from __future__ import annotations

import functools
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from ric_diffusion.api.samples import GeneratedSample
from ric_diffusion.api.sweeps import sweep_result
from ric_diffusion.app import sheets, views
from ric_diffusion.app.engine import Engine, SampleRequest
from ric_diffusion.app.front import Front
from ric_diffusion.app.jobs import Job, Jobs, ModelThread, Stopped
from ric_diffusion.app.sliders import PREFERENCE, TARGETS, asked, sliders_of
from ric_diffusion.io.errors import InputError
from scorers import ScorerError

RANDOM_SEEDS = 2**31
ALL_WEIGHTS = "all, by preference"  # what a sweep can go along beside single rewards
NONE = "nothing"
SHOWN_FROM, SHOWN_EVERY = 1.0, 0.25  # s

_log = logging.getLogger(__name__)


def explained(method: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose last output is one line about how it went; what stops it is said there, and
    its other outputs stay as they are."""

    @functools.wraps(method)
    def handler(self: Handlers, *args: Any) -> Any:
        try:
            return method(self, *args)
        except Stopped:
            line = views.said("Cancelled.")
        except (InputError, ScorerError) as error:
            line = views.said(str(error), "error")
        except Exception:
            # The app outlives whatever one request runs into.
            _log.exception("%s failed", method.__name__)
            line = views.said("This failed; the terminal of ric app says why.", "error")
        return (*[gr.skip()] * (OUTPUTS[method.__name__] - 1), line)

    return handler


# How many things each handler shows, the line about how it went included.
OUTPUTS = {"draw": 4, "sweep": 4, "transform": 3}


class Handlers:
    """All of them, around one engine. Positions of the sliders come as one row of arguments:
    weights, values in z, autos, n each."""

    def __init__(
        self, engine: Engine, front: Front | None, folder: Path, thread: ModelThread
    ) -> None:
        """``folder``: for files to download; ``thread``: where the engine computes."""
        self.engine, self.front, self.folder, self.thread = engine, front, folder, thread
        self.sliders = sliders_of(engine.adapter)
        self.names = [slider.name for slider in self.sliders]
        self.jobs = Jobs()

    @explained
    def draw(
        self,
        request: gr.Request,
        prompt: Any,
        seed: Any,
        locked: Any,
        refine: Any,
        mode: Any,
        *positions: Any,
    ) -> tuple[Any, ...]:
        """→ picture or response, scores, seed, line. A locked seed is the user's, who may be
        typing another by now."""
        new_seed = gr.skip()
        if not locked:
            new_seed = seed = secrets.randbelow(RANDOM_SEEDS)
        wanted = self._wanted(prompt, seed, mode, positions, refine=bool(refine))
        with self._job(request) as job:
            drawn = self.thread.run(lambda: self.engine.draw(wanted, job))
        shown = self._shown(drawn), views.scores(drawn, self.sliders)
        return *shown, new_seed, views.said(views.how(drawn))

    @explained
    def transform(
        self,
        request: gr.Request,
        picture: Any,
        strength: Any,
        prompt: Any,
        seed: Any,
        mode: Any,
        *positions: Any,
    ) -> tuple[Any, ...]:
        """→ picture, scores, line."""
        if not picture:
            raise InputError("picture: none there; drop one first")
        wanted = self._wanted(prompt, seed, mode, positions)
        with self._job(request) as job:
            drawn = self.thread.run(lambda: self.engine.transform(wanted, picture, strength, job))
        return self._shown(drawn), views.scores(drawn, self.sliders), DONE

    @explained
    def sweep(
        self,
        request: gr.Request,
        along: Any,
        across: Any,
        count: Any,
        prompt: Any,
        seed: Any,
    ) -> tuple[Any, ...]:
        """→ sheet, its PNG, its JSON, line."""
        wanted = self._wanted(prompt, seed, TARGETS, self._untouched)
        if along == ALL_WEIGHTS:
            if across != NONE:
                raise InputError(f"across {across}: a sweep by preference has one direction")
            points = self.engine.preferences(count)
            across = NONE
        else:
            points = self.engine.line(along, None if across == NONE else across, count)
        with self._job(request) as job:
            sweep = self.thread.run(lambda: self.engine.sweep(wanted, points, job))
        other = None if across == NONE else across
        sheet = sheets.sheet_of(sweep, wanted, self.engine.space, along, other)
        result = sweep_result(self.engine.name, sweep, self.engine.space, sheet)
        png, plain = sheets.write_sweep(self.folder, result)
        return png, _download(png), _download(plain), DONE

    def choose(self, event: gr.EventData, x: Any, y: Any) -> tuple[Any, ...]:
        """A point of the front was clicked → chart, mode, positions of all sliders."""
        assert self.front is not None
        index = event.index
        if not isinstance(index, int) or not 0 <= index < len(self.front.places):
            raise gr.Error("no such point")
        place = self.front.places[index]
        # By another mapping the same preference would ask for something else.
        ours = self.front.mapping in (None, self.engine.adapter.mapping)
        weights = [round(100 * place.preference[name]) for name in self.names]
        values = [
            min(max(place.targets.get(slider.name, 0.0), slider.low), slider.high)
            for slider in self.sliders
        ]
        autos = [name not in place.targets for name in self.names]
        mode = PREFERENCE if ours and len(self.names) > 1 else TARGETS
        return views.chart(self.front, x, y, index), mode, *weights, *values, *autos

    def stop(self, request: gr.Request) -> str:
        """→ line; Gradio takes back what waits."""
        running = self.jobs.stop(request.session_hash)
        return views.said("Cancelled." if running else "Nothing of yours runs or waits now.")

    def leave(self, request: gr.Request) -> None:
        """The page was closed or loaded anew: nobody could cancel what it had running."""
        self.jobs.stop(request.session_hash)

    @property
    def _untouched(self) -> list[Any]:
        """Positions that ask for nothing."""
        count = len(self.names)
        return [0] * count + [0.0] * count + [True] * count

    def _wanted(
        self, prompt: Any, seed: Any, mode: Any, positions: Sequence[Any], *, refine: bool = False
    ) -> SampleRequest:
        count = len(self.names)
        weights, values, autos = (positions[i * count : (i + 1) * count] for i in range(3))
        auto = {name for name, on in zip(self.names, autos, strict=True) if on}
        wanted = asked(self.names, mode, weights, values, auto)
        return self.engine.request(prompt, seed, **wanted, refine=refine)

    @contextmanager
    def _job(self, request: gr.Request) -> Iterator[Job]:
        with self.jobs.of(request.session_hash, Job(now_and_then(gr.Progress()))) as job:
            yield job

    def _shown(self, drawn: GeneratedSample) -> Any:
        """A picture as a file that holds its metadata, a response as it is."""
        return sheets.write_picture(self.folder, drawn) if self.engine.pictures else drawn.sample


DONE = views.said("")


def now_and_then(progress: Any) -> Callable[[int, int], None]:
    """Tells a progress bar no more often than anybody sees; every time is work for the browser,
    often on the cores that the model needs."""
    shown_at = time.monotonic() + SHOWN_FROM - SHOWN_EVERY

    def tell(done: int, total: int) -> None:
        nonlocal shown_at
        if (now := time.monotonic()) - shown_at >= SHOWN_EVERY:
            shown_at = now
            progress((done, total))

    return tell


def _download(path: str) -> Any:
    return gr.DownloadButton(value=path, interactive=True)
