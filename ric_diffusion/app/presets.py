"""Settings that a user gave a name, in one file that outlives the app."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from ric_diffusion.app.settings import Settings
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_json
from ric_diffusion.rewards import checks

VERSION = 1
MAX_NAME = 80  # characters


def presets_path() -> Path:
    """``ric-diffusion/presets.json`` in the folder for settings: $XDG_CONFIG_HOME, or
    ``~/.config``."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "ric-diffusion" / "presets.json"


class Presets:
    """The file's presets, read anew each time: another app may write them, too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()

    def read(self) -> dict[str, Settings]:
        """By name, in the order of their names; none where there is no file. Those that cannot be
        read are left out, as an earlier release may have written. InputError for a file of another
        kind."""
        found = {}
        for name, plain in sorted(self._stored().items()):
            with suppress(InputError):
                found[name] = Settings.from_dict(plain)
        return found

    def _stored(self) -> dict[str, Any]:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise InputError(f"presets {self.path}: cannot be read ({error})") from error
        if not isinstance(stored, Mapping) or stored.get("version") != VERSION:
            raise InputError(f"presets {self.path}: this release reads version {VERSION}")
        return dict(checks.mapping(stored.get("presets"), f"presets {self.path}"))

    def save(self, name: str, settings: Settings) -> None:
        """Under a new name, or in place of what has it. InputError for an empty or a long one."""
        name = name.strip()
        if not 0 < len(name) <= MAX_NAME:
            raise InputError(f"preset: give it a name of 1 to {MAX_NAME} characters")
        with self._lock:
            self._write({**self._stored(), name: settings.to_dict()})

    def remove(self, name: str) -> None:
        """InputError if there is none of that name."""
        with self._lock:
            presets = self._stored()
            if name not in presets:
                raise InputError(f"preset {name}: there is none of that name")
            del presets[name]
            self._write(presets)

    def _write(self, presets: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {"version": VERSION, "presets": presets})
