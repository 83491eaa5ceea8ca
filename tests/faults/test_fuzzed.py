"""Files that strangers wrote or a crash tore, at any byte: what is read of them is whole, or they
are refused by name. Grammar, mappings, selection, reward spaces and configs have such tests beside
their own."""

import io
import json
import tarfile
from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from ric_diffusion.api.picture_settings import TEXT, read_metadata
from ric_diffusion.data import png
from ric_diffusion.data.tar_reader import BrokenShard, read_tar
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.journal import Journal

FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=9,
)


def is_finite(value):
    text = json.dumps(value)
    return "NaN" not in text and "Infinity" not in text


@st.composite
def edits(draw, whole):
    """These bytes, some of them exchanged, left out or added."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        data[start:end] = draw(st.binary(max_size=40))
    return bytes(data)


def picture(**texts):
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_itxt(key, value, zip=True)
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def shard():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in (
            ("a.png", picture()),
            ("a.txt", b"red"),
            ("b.json", b'{"caption": "x"}'),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


@FEW
@given(edits(picture(prompt="a red apple", parameters="x")))
def test_texts_of_a_png(data):
    for text in png.texts(io.BytesIO(data)).values():
        assert isinstance(text, str)
    rest = png.without_text(io.BytesIO(data)).read()
    assert len(rest) <= max(len(data), len(png.SIGNATURE))
    assert png.texts(io.BytesIO(rest)) == {}


@FEW
@given(st.dictionaries(st.sampled_from(["version", "prompt", "seed", "sampling", "x"]), PLAIN))
def test_what_a_png_says_of_itself(said):
    with suppress(InputError):
        read_metadata(picture(**{TEXT: json.dumps({"version": 1, **said})}), "x.png")


@FEW
@given(edits(shard()))
def test_tar_shards(data):
    with suppress(BrokenShard):
        for unread in read_tar(io.BytesIO(data), "0.tar", "whole", {}):
            file = unread.record.file
            assert file.startswith("0.tar/") and ".." not in file.split("/")


@FEW
@given(st.lists(PLAIN.filter(is_finite), min_size=1, max_size=5), st.data())
def test_a_journal_torn_at_any_byte(tmp_path_factory, entries, data):
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder, "scores")
    journal.extend(entries)
    journal.close()
    [path] = folder.iterdir()
    whole = path.read_bytes()
    end = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:end])
    count = whole[:end].count(b"\n")
    assert Journal(folder, "scores").entries() == json.loads(json.dumps(entries[:count]))
