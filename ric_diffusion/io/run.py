"""The folder of one run: what the run is, whether it may go on, and what changed since it began.

``run.json`` holds the verb, and the identity: all that decides the result, as plain data. Two runs
with equal identities are the same run; a folder holds one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ric_diffusion.io import config
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import create_json, read_file

RUN_FILE = "run.json"
SHOWN = 40  # characters of a value that changed


class RunFolder:
    """A folder for one run of ``verb``, which for a script is its file. Nothing is written before
    ``begin``. ``writes``: names that the run writes there, over whatever has them. ``mend``: what
    the user is told to do where the folder holds a run with another identity."""

    def __init__(
        self,
        path: Path,
        verb: str,
        *,
        writes: Sequence[str] = (),
        mend: str = "restore that, or choose another --out",
    ) -> None:
        self.path, self.verb, self._writes, self._mend = path, verb, writes, mend
        self.identity: Mapping[str, Any] = {}

    @property
    def digest(self) -> str:
        """SHA-256 of the identity."""
        return config.digest(self.identity)

    @property
    def begun(self) -> bool:
        """Whether a run of any verb began here."""
        return (self.path / RUN_FILE).exists()

    def check_free(self, *, resume: bool) -> None:
        """InputError if a run began here and is not to go on, or if it is one of another verb; and
        if none did, for a file or folder that it would write over."""
        # Looked for before the question whether a run began: another process may begin it now.
        others = [name for name in self._writes if os.path.lexists(self.path / name)]
        if not self.begun:
            if others:
                raise InputError(
                    f"{self.path}: holds {others[0]}, which this would write over; choose another "
                    "--out"
                )
            return
        if (verb := str(self.stored()["verb"])) != self.verb:
            of = verb if verb.endswith(".py") else f"ric {verb}"
            raise InputError(f"{self.path}: holds a run of {of}; choose another --out")
        if not resume:
            raise InputError(
                f"{self.path}: holds a run already; add --resume, or choose another --out"
            )

    def check_same(
        self, identity: Mapping[str, Any], *, advice: Mapping[str, str] | None = None
    ) -> None:
        """InputError that names what differs, if a run with another identity began here; ``advice``
        by name: how the line ends where that alone differs."""
        if not self.begun:
            return
        changes = list(changed(self.stored().get("identity", {}), config.to_dict(identity)))
        if changes:
            end = self._mend
            if len(changes) == 1:
                end = (advice or {}).get(changes[0].partition(" ")[0], end)
            raise InputError(f"{self.path}: holds a run with other {', '.join(changes)}; {end}")

    def begin(self, identity: Mapping[str, Any], *, resume: bool = True) -> None:
        """Begin the run with this identity, or go on with it; InputError as the checks have it."""
        plain = config.to_dict(identity)
        run = {"verb": self.verb, "identity": plain}
        self.check_free(resume=resume)
        if self.begun or not create_json(self.path / RUN_FILE, run):
            self.check_free(resume=resume)  # also of what another process has just begun
            self.check_same(identity)
        self.identity = plain

    def stored(self) -> dict[str, Any]:
        """The verb and the identity of the run that began here; InputError if they cannot be
        read."""
        path = self.path / RUN_FILE
        try:
            stored = json.loads(read_file(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not valid JSON ({error}); choose another --out") from error
        if not isinstance(stored, dict) or not isinstance(stored.get("verb"), str):
            raise InputError(
                f"{path}: was not written by ric train or ric online; choose another --out"
            )
        return stored


def changed(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """What differs, by dotted names; short values are shown: ``loop.seed (0, now 1)``."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in [*before, *(key for key in now if key not in before)]:
            inner = f"{name}.{key}" if name else str(key)
            yield from changed(before.get(key), now.get(key), inner)
    elif before != now:
        shown = [json.dumps(value, ensure_ascii=False) for value in (before, now)]
        brief = all(len(text) <= SHOWN for text in shown)
        yield f"{name} ({shown[0]}, now {shown[1]})" if brief else name
