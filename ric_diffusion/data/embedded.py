"""The prompt that a generated picture carries in itself, as the programs that make pictures write
it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from ric_diffusion.data import png
from ric_diffusion.data.images import FORMATS, MAX_BYTES
from ric_diffusion.io.files import check_regular

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286  # of EXIF
_ENCODINGS = {b"UNICODE\0": "utf-16-be", b"ASCII\0\0\0": "ascii"}  # EXIF 2.32, table 9
_SETTINGS = ("\nNegative prompt:", "\nSteps:")  # what follows the prompt in A1111's texts


def prompt_in(path: Path) -> str | None:
    """The prompt in a picture's file, or None.

    Read are, of a PNG, its texts: ``prompt`` as we write it, or as ComfyUI does, which keeps its
    whole graph there; then ``parameters`` as A1111 writes it. Of others the comment in their EXIF,
    where A1111 has that text.
    """
    try:
        check_regular(path)
        if path.stat().st_size > MAX_BYTES:  # which nothing decodes
            return None
        with path.open("rb") as file:
            is_png = file.read(len(png.SIGNATURE)) == png.SIGNATURE
            if not is_png:
                return _before_settings(_comment(path))
            texts = png.texts(file)
    except Exception:  # whoever opens the picture says what is wrong with it
        return None
    prompt = texts.get("prompt", "")
    if (graph := _graph(prompt)) is not None:
        prompt = _positive(graph) or ""
    return prompt.strip() or _before_settings(texts.get("parameters", ""))


def _before_settings(text: str) -> str | None:
    ends = [text.find(mark) for mark in _SETTINGS]
    end = min((at for at in ends if at >= 0), default=len(text))
    return text[:end].strip() or None


def _comment(path: Path) -> str:
    with Image.open(path, formats=FORMATS) as image:
        comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT, b"")
    if isinstance(comment, str):
        return comment
    encoding = _ENCODINGS.get(comment[:8])
    return comment[8:].decode(encoding, "replace") if encoding else ""


def _graph(text: str) -> dict[str, Any] | None:
    """A graph of nodes in ComfyUI's API format: inputs by name of each node by its number."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        nodes = json.loads(text)
        return {key: dict(node["inputs"]) for key, node in nodes.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _positive(graph: dict[str, Any]) -> str | None:
    """The text that a sampler's positive input comes from."""
    for inputs in graph.values():
        if "positive" in inputs:
            waiting, seen = [inputs["positive"]], set[str]()
            while waiting:
                value = waiting.pop()
                if isinstance(value, str) and value.strip():
                    return value
                # A link: the number of a node, and which of its outputs.
                if isinstance(value, list) and value and str(value[0]) not in seen:
                    seen.add(str(value[0]))
                    found = graph.get(str(value[0]), {})
                    names = ("positive", "conditioning", "text_l", "text_g", "string", "text")
                    waiting += [found[name] for name in names if name in found]
    return None
