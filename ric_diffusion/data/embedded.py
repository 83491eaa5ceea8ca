"""The prompt that a generated picture carries in itself, as the programs that make pictures write
it."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from PIL import Image

from ric_diffusion.data import png
from ric_diffusion.data.images import FORMATS, MAX_BYTES
from ric_diffusion.io.files import check_regular

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286  # of EXIF
_UNICODE, _ASCII = b"UNICODE\0", b"ASCII\0\0\0"  # EXIF 2.32, table 9
# Inputs of ComfyUI's nodes on the way to a text, the last to follow first.
_LEADING = (
    "positive", "conditioning", "conditioning_2", "conditioning_1", "text_l", "text_g", "clip_l",
    "t5xxl", "value", "string", "text",
)  # fmt: skip
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
    code, text = comment[:8], comment[8:]
    if code == _ASCII:
        return text.decode("ascii", "replace").rstrip("\0")
    return _utf16(text).rstrip("\0") if code == _UNICODE else ""


def _utf16(data: bytes) -> str:
    """Text in the order of bytes that its mark tells; without one, which EXIF does not ask for, in
    that in which more of it is Latin: the bytes of zero then come first, or last."""
    if data[:2] in (codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE):
        return data.decode("utf-16", "replace")
    little = data[1::2].count(0) > data[::2].count(0)
    return data.decode("utf-16-le" if little else "utf-16-be", "replace")


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
    """The text that a sampler's positive input comes from; where no node has one, as with FLUX,
    that of a guider's."""
    begins = [inputs["positive"] for inputs in graph.values() if "positive" in inputs]
    if not begins:
        guiders = [inputs["guider"] for inputs in graph.values() if "guider" in inputs]
        begins = [guider for guider in guiders if isinstance(guider, list)]
    return next((text for begin in begins if (text := _text_behind(graph, begin))), None)


def _text_behind(graph: dict[str, Any], begin: Any) -> str | None:
    """The first text that is found by going from links to the nodes that they lead to."""
    waiting, seen = [begin], set[str]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and value.strip():
            return value
        # A link: the number of a node, and which of its outputs.
        if isinstance(value, list) and value and str(value[0]) not in seen:
            seen.add(str(value[0]))
            found = graph.get(str(value[0]), {})
            waiting += [found[name] for name in _LEADING if name in found]
    return None
