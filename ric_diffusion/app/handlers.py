"""What happens when a control is used: from its values to what is shown."""

from __future__ import annotations

import functools
import logging
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import gradio as gr

from ric_diffusion.api.picture_settings import ModelUsed, read_metadata
from ric_diffusion.api.sweeps import sweep_result
from ric_diffusion.api.work import Stopped, Work, WorkQueue
from ric_diffusion.app import sheets, views
from ric_diffusion.app.choice import ModelChoice
from ric_diffusion.app.engine import MAX_SEED, Engine, SampleRequest, most_points
from ric_diffusion.app.front import Front
from ric_diffusion.app.gallery import KEPT, Entry, Galleries
from ric_diffusion.app.jobs import Job, Jobs
from ric_diffusion.app.presets import Presets
from ric_diffusion.app.settings import Form, Settings
from ric_diffusion.app.sliders import PREFERENCE, TARGETS
from ric_diffusion.io.errors import InputError
from scorers import ScorerError

ALL_WEIGHTS = "all, by preference"  # what a sweep can go along beside single rewards
NONE = "nothing"
SHOWN_FROM, SHOWN_EVERY = 1.0, 0.25  # s

_log = logging.getLogger(__name__)

Shown = tuple[Any, ...]


def explained(method: Callable[..., Iterator[Shown]]) -> Callable[..., Iterator[Shown]]:
    """A handler whose last output is one line about how it went; what stops it is said there, and
    its other outputs stay as they are."""

    @functools.wraps(method)
    def handler(self: Handlers, *args: Any) -> Iterator[Shown]:
        try:
            yield from method(self, *args)
            return
        except Stopped:
            line = views.said("Cancelled.")
        except Superseded:
            line = gr.skip()  # what took its place says how it goes
        except (InputError, ScorerError, FloatingPointError) as error:
            line = views.said(str(error), "error")
        except Exception:
            # The app outlives whatever one request runs into.
            _log.exception("%s failed", method.__name__)
            line = views.said("This failed; the terminal of ric app says why.", "error")
        yield (*self.unchanged(method.__name__), line)

    return handler


# How many things each handler shows, the line about how it went included.
OUTPUTS = {
    "draw": 4,
    "sweep": 5,
    "transform": 3,
    "switch": 2,
    "copy": 2,
    "save_preset": 2,
    "remove_preset": 2,
    "drop": 4,  # and all controls
}


class Superseded(Exception):
    """The same session asks for something else by now."""


class Handlers:
    """All of them, around one engine. What all controls stand on comes as one row of arguments, as
    ``Form`` has it."""

    def __init__(
        self,
        engine: Engine,
        front: Front | None,
        folder: Path,
        thread: WorkQueue,
        presets: Presets,
        change: Callable[[ModelChoice], None],
    ) -> None:
        """``folder``: for files to download; ``thread``: where the engine computes; ``change``:
        puts another model in the place of this one, called there."""
        self.engine, self.front, self.folder, self.thread = engine, front, folder, thread
        self.presets, self.change = presets, change
        self.form = Form(engine)
        self.sliders, self.names = self.form.sliders, self.form.names
        self.jobs, self.galleries = Jobs(), Galleries(folder)

    @explained
    def draw(self, request: gr.Request, *row: Any) -> Iterator[Shown]:
        """→ what the page is fed with, response, scores, line; a sample at a time."""
        settings = self.form.settings(row)
        asked = self._requests(settings)
        session = _session(request)
        with self.jobs.of(session, "draw", Job()) as job:
            for i, wanted in enumerate(asked):
                told = "Drawing" if len(asked) == 1 else f"Drawing {i + 1} of {len(asked)}"

                def work(wanted: SampleRequest = wanted) -> Any:
                    return self.engine.draw(wanted, job), self.engine.expected(wanted.prompt)

                for state in self._watched(session, "draw", job, work, told):
                    if isinstance(state, str):
                        preview = job.preview and {
                            "kind": "preview", "src": views.preview(job.preview)
                        }  # fmt: skip
                        yield preview or gr.skip(), gr.skip(), gr.skip(), state
                    else:
                        drawn, expected = state.result()
                entry = self.galleries.of(session).add(drawn, settings, expected)
                yield *self._shown(entry, "sample"), views.said(views.how(drawn))

    @explained
    def transform(
        self, request: gr.Request, picture: Any, strength: Any, *row: Any
    ) -> Iterator[Shown]:
        """→ picture, scores, line."""
        if not picture:
            raise InputError("picture: none there; drop one first")
        wanted = self.form.request(self.form.settings(row))
        session = _session(request)
        with self.jobs.of(session, "transform", Job()) as job:

            def work() -> Any:
                drawn = self.engine.transform(wanted, picture, strength, job)
                return drawn, self.engine.expected(wanted.prompt)

            for state in self._watched(session, "transform", job, work, "Drawing"):
                if isinstance(state, str):
                    yield gr.skip(), gr.skip(), state
                else:
                    drawn, expected = state.result()
        shown = views.scores(drawn, self.sliders, expected)
        yield _image(sheets.write_picture(self.folder, drawn)), shown, DONE

    @explained
    def sweep(
        self, request: gr.Request, along: Any, across: Any, count: Any, *row: Any
    ) -> Iterator[Shown]:
        """→ sheet, its PNG, its JSON, all of its pictures, line."""
        settings = self.form.settings(row)
        wanted = self.form.request(settings)
        other = None if across == NONE else across
        if along == ALL_WEIGHTS:
            if other is not None:
                raise InputError(f"across {other}: a sweep by preference has one direction")
            points = self.engine.preferences(count, settings.mapping)
        else:
            points = self.engine.line(along, other, count, self.form.targets(settings))
        session = _session(request)
        with self.jobs.of(session, "sweep", Job()) as job:
            told = f"Drawing {len(points)} pictures"
            work: Work = lambda: self.engine.sweep(wanted, points, job)  # noqa: E731
            for state in self._watched(session, "sweep", job, work, told):
                if isinstance(state, str):
                    yield *self.unchanged("sweep"), state
                else:
                    sweep, made = state.result()
        sheet = sheets.sheet_of(sweep, wanted, self.engine.space, along, other)
        result = sweep_result(self.engine.name, sweep, self.engine.space, sheet)
        result = result.made_from(made, settings.mapping or self.engine.adapter.mapping)
        written = sheets.write_sweep(self.folder, result)
        yield _image(written[0]), *map(_download, written), DONE

    def restore(self, request: gr.Request, event: gr.EventData) -> Shown:
        """A sample of the gallery was chosen → all controls, what the page is fed with, response,
        scores, line."""
        entry = self.galleries.of(_session(request)).entries.get(event.index)
        if entry is None:
            line = views.said("picture: no longer kept; draw it again", "error")
            return *self._skipped, *[gr.skip()] * 3, line
        line = views.said(views.how(entry.drawn))
        return *self.form.row(entry.settings), *self._shown(entry, "restored"), line

    @explained
    def drop(self, request: gr.Request, picture: Any) -> Iterator[Shown]:
        """A picture that says what made it → all controls, what the page is fed with, response,
        scores, line."""
        if not picture:
            raise InputError("picture: none there; drop one first")
        made = read_metadata(Path(picture), "picture").settings
        session = _session(request)
        with self.jobs.of(session, "draw", Job()) as job:

            def work() -> Any:
                return self.engine.again(made, job), self.engine.expected(made.prompt)

            for state in self._watched(session, "draw", job, work, "Drawing it again"):
                if isinstance(state, str):
                    yield *self.unchanged("drop"), state
                else:
                    drawn, expected = state.result()
        settings = self.form.of_picture(made)
        entry = self.galleries.of(session).add(drawn, settings, expected)
        line = views.said(_of_another(made.model, drawn.settings.model) or views.how(drawn))
        yield *self.form.row(entry.settings), *self._shown(entry, "sample"), line

    def choose(self, event: gr.EventData, x: Any, y: Any) -> Shown:
        """A point of the front was clicked → chart, mode, positions of all sliders."""
        assert self.front is not None
        index = event.index
        if not isinstance(index, int) or not 0 <= index < len(self.front.places):
            raise gr.Error("no such point; reload the page")
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

    @explained
    def copy(self, way: str, *row: Any) -> Iterator[Shown]:
        """``way``: command or python → the text, line."""
        settings = self.form.settings(row)
        self._requests(settings)  # what cannot be drawn is not worth copying
        write = settings.command if way == "command" else settings.python
        yield write(self.engine.choice), views.said("Copied.")

    @explained
    def save_preset(self, name: Any, *row: Any) -> Iterator[Shown]:
        """→ the list of presets, line."""
        name = str(name or "").strip()
        self.presets.save(name, self.form.settings(row))
        yield self._listed(name), views.said(f"Saved in {self.presets.path}.")

    @explained
    def remove_preset(self, name: Any) -> Iterator[Shown]:
        """→ the list of presets, line."""
        self.presets.remove(str(name or ""))
        yield self._listed(None), views.said(f"Removed {name}.")

    def use_preset(self, name: Any) -> Shown:
        """→ all controls, line."""
        try:
            presets = self.presets.read()
            if name not in presets:
                raise InputError(f"preset {name}: there is none of that name")
            return *self.form.row(presets[name]), DONE
        except InputError as error:
            return *self._skipped, views.said(str(error), "error")

    def preset_names(self) -> list[str]:
        """None where the file cannot be read: using one says why."""
        try:
            return list(self.presets.read())
        except InputError:
            return []

    @explained
    def switch(self, request: gr.Request, model: Any, adapter: Any) -> Iterator[Shown]:
        """→ a word that has the page loaded anew, line."""
        name = str(model or "").strip()
        if not name:
            raise InputError("model: empty; give a bundled name, a folder or a hub id")
        own = self.engine.choice
        choice = ModelChoice.of(name, str(adapter or "").strip(), own.dtype)
        if choice.name == own.name:
            choice = ModelChoice.of(own.checkpoint, choice.adapter, own.dtype)
        session = _session(request)
        with self.jobs.of(session, "switch", Job()) as job:
            work: Work = lambda: self.change(choice)  # noqa: E731
            for state in self._watched(session, "switch", job, work, f"Loading {name}"):
                if isinstance(state, str):
                    yield gr.skip(), state
                else:
                    state.result()
        yield secrets.token_hex(4), views.said("Loaded.")

    def stop(self, request: gr.Request) -> str:
        """→ line."""
        running = self.jobs.stop(_session(request))
        return views.said("Cancelled." if running else "Nothing of yours is running or waiting.")

    def leave(self, request: gr.Request) -> None:
        """The page was closed or loaded anew: nobody could cancel what it had running."""
        self.jobs.stop(_session(request))
        self.galleries.leave(_session(request))

    def points_slider(self, along: Any, across: Any, count: Any) -> Any:
        """The slider ends where a sweep in these directions does."""
        most = most_points(None if along == ALL_WEIGHTS or across == NONE else across)
        return gr.Slider(maximum=most, value=min(count or most, most))

    def directions(self, along: Any, across: Any) -> Any:
        """What a sweep along one direction can go across."""
        others = [name for name in self.names if name != along]
        if along == ALL_WEIGHTS:
            return gr.Radio([NONE], value=NONE)
        return gr.Radio([NONE, *others], value=across if across in others else NONE)

    def _requests(self, settings: Settings) -> list[SampleRequest]:
        """One for each sample; all of them are checked before the first is drawn."""
        first = self.form.request(settings, refine=settings.refine)
        last = first.seed + settings.count - 1
        if last > MAX_SEED:
            raise InputError(f"seed {first.seed}: the last of {settings.count} is above {MAX_SEED}")
        return [
            self.form.request(settings, seed=seed, refine=settings.refine)
            for seed in range(first.seed, last + 1)
        ]

    def _watched(
        self, session: str, purpose: str, job: Job, work: Work, told: str
    ) -> Generator[Any, None, None]:
        """Lines about how the work goes, for what takes long, and then the piece of it that is
        done. Raises Stopped where the job was stopped, Superseded where another took its place."""
        piece, start, line = self.thread.submit(work), time.monotonic(), ""
        while not wait([piece], SHOWN_EVERY).done:
            if job.stopped:
                piece.cancel()  # unless it is begun
                break
            now = self._told(self.thread.before(piece), job, told)
            if time.monotonic() - start >= SHOWN_FROM and now != line:
                line = now
                yield line
        if job.stopped:
            if self.jobs.current(session, purpose, job):
                raise Stopped
            raise Superseded
        yield piece

    def _told(self, before: int, job: Job, told: str) -> str:
        if before:
            return views.progress(f"In the queue, {before} before you.", 0, 0)
        percent = f": {100 * job.done // job.total} %" if job.total else " …"
        return views.progress(f"{told}{percent}", job.done, job.total)

    def _shown(self, entry: Entry, kind: str) -> Shown:
        """→ what the page is fed with, response, scores."""
        drawn, places = entry.drawn, {}
        for slider in self.sliders:
            if slider.name in entry.expected:
                places[slider.name] = views.places(slider, entry.expected[slider.name])
        fed = {
            "kind": kind,
            "id": entry.number,
            "alt": entry.title,
            "expected": places,
            "most": KEPT,
        }
        if entry.path is not None:
            fed |= {"src": f"gradio_api/file={entry.path}", "name": entry.path.name}
        response = gr.skip() if entry.path is not None else drawn.sample
        return fed, response, views.scores(drawn, self.sliders, entry.expected)

    def unchanged(self, name: str) -> list[Any]:
        """All that a handler shows but its line stays as it is."""
        return [*(self._skipped if name == "drop" else ()), *[gr.skip()] * (OUTPUTS[name] - 1)]

    @property
    def _skipped(self) -> list[Any]:
        """All controls stay as they are."""
        return [gr.skip()] * len(self.form.row(self.form.initial("")))

    def _listed(self, chosen: str | None) -> Any:
        return gr.Dropdown(self.preset_names(), value=chosen)


DONE = views.said("")


def _session(request: gr.Request) -> str:
    """Whose request it is; one of no page is its own."""
    return request.session_hash or secrets.token_hex(8)


def _of_another(made: ModelUsed, here: ModelUsed) -> str:
    """What to say of a picture that another model or adapter made; nothing where it is this one."""
    if (made.digest, made.adapter_digest) == (here.digest, here.adapter_digest):
        return ""
    adapter = f" with the adapter {made.adapter}" if made.adapter else ""
    return f"It was made by {made.checkpoint.model}{adapter}, so this is another picture."


def _image(path: str) -> Any:
    return gr.Image(value=path, visible=True)


def _download(path: str) -> Any:
    return gr.DownloadButton(value=path, interactive=True)
