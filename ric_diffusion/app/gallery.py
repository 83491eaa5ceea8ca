"""What a session has drawn so far: each with its settings, to be shown and drawn again."""

from __future__ import annotations

import secrets
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from ric_diffusion.api.samples import GeneratedSample
from ric_diffusion.app.settings import Settings
from ric_diffusion.data.images import save_png
from ric_diffusion.data.numbered import file_name

KEPT = 100  # samples of a session
SESSIONS = 64  # galleries; who only calls the API never says that it has left


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A sample that was drawn, without its pixels.

    Attributes:
        number: counts on through a session.
        path: of the picture; None for a response, which is in ``drawn``.
        settings: those that give this one sample alone.
        expected: what can be had of each reward with its prompt, in z.
    """

    number: int
    path: Path | None
    drawn: GeneratedSample
    settings: Settings
    expected: Mapping[str, tuple[float, float]]

    @property
    def title(self) -> str:
        return f"{self.drawn.prompt}, seed {self.drawn.seed}"


class Gallery:
    """The last samples of a session, in a folder whose name cannot be guessed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / secrets.token_hex(16)
        self.entries: OrderedDict[int, Entry] = OrderedDict()
        self._next = 1

    def add(
        self,
        drawn: GeneratedSample,
        settings: Settings,
        expected: Mapping[str, tuple[float, float]],
    ) -> Entry:
        """Written as ``ric generate`` writes it, if it is a picture; the oldest makes room. What is
        there already as the last is not there twice: a number counts as set whenever it is left."""
        settings = replace(settings, seed=drawn.seed, count=1)
        last = next(reversed(self.entries.values()), None)
        same = last is not None and last.settings == settings
        if last is not None and same and last.drawn.settings == drawn.settings:
            return last
        number, path = self._next, None
        self._next += 1
        if not isinstance(drawn.sample, str):
            path = self.folder / file_name(number, drawn.prompt, drawn.seed)
            save_png(path, drawn.sample, drawn.metadata)
            drawn = replace(drawn, sample=None)
        entry = Entry(
            number=number, path=path, drawn=drawn, settings=settings, expected=dict(expected)
        )
        self.entries[number] = entry
        while len(self.entries) > KEPT:
            _, oldest = self.entries.popitem(last=False)
            if oldest.path is not None:
                oldest.path.unlink(missing_ok=True)
        return entry

    def clear(self) -> None:
        self.entries.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


class Galleries:
    """That of each session; of those that were not used lately, none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._galleries: OrderedDict[str, Gallery] = OrderedDict()
        self._lock = Lock()

    def of(self, session: str) -> Gallery:
        with self._lock:
            found = self._galleries.setdefault(session, Gallery(self.folder))
            self._galleries.move_to_end(session)
            while len(self._galleries) > SESSIONS:
                self._galleries.popitem(last=False)[1].clear()
            return found

    def leave(self, session: str) -> None:
        """Its pictures are removed with it."""
        with self._lock:
            gallery = self._galleries.pop(session, None)
        if gallery is not None:
            gallery.clear()

    def clear(self) -> None:
        """Those of all sessions."""
        for session in list(self._galleries):
            self.leave(session)
