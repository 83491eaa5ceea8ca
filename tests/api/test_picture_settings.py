"""What a PNG says of its picture: read back as written, refused where it makes no sense."""

import io
import json
import re
import zlib
from dataclasses import replace

import pytest
from PIL import Image

from ric_diffusion.api.picture_settings import (
    A1111,
    TEXT,
    InitImage,
    ModelUsed,
    PictureMetadata,
    PictureSettings,
    read_metadata,
)
from ric_diffusion.api.refinement import Refinement
from ric_diffusion.data.embedded import prompt_in
from ric_diffusion.data.images import png_bytes
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.checkpoint import Checkpoint

SIZE = (16, 8)
METADATA = PictureMetadata(
    settings=PictureSettings(
        prompt="Äpfel 🍎,\nripe",
        negative_prompt="blurry",
        seed=2**63 - 1,
        targets={"colorfulness": 1.26},
        negative_targets={"colorfulness": -0.1},
        refine=3,
        sampling={"num_inference_steps": 20, "guidance_scale": 3.5, "clip_skip": None},
        init_image=InitImage(name="photo.png", digest="0" * 64, strength=0.3),
        model=ModelUsed(
            checkpoint=Checkpoint(model="models/sd.safetensors", base_config="user/base"),
            digest="a" * 64,
            adapter="runs/a",
            adapter_digest="b" * 64,
            scheduler="EulerAncestralDiscreteScheduler",
            dtype="float32",
            device="cpu",
            versions={"ric-diffusion": "1.2", "torch": "2.14.1"},
        ),
    ),
    targets={"colorfulness": 1.2},
    scores={"colorfulness": 55.1},
    obtained={"colorfulness": None},
    refinement=Refinement(passes=2, distance=0.1, reached=False, model_targets={"colorfulness": 2}),
)


def written(metadata=METADATA, **texts):
    return png_bytes(Image.new("RGB", SIZE), {**metadata.texts(SIZE), **texts})


def test_what_is_written_is_read_back(tmp_path):
    data = written()
    assert read_metadata(data) == METADATA
    assert data == written()  # byte for byte the same
    (tmp_path / "x.png").write_bytes(data)
    assert read_metadata(tmp_path / "x.png") == METADATA
    assert prompt_in(tmp_path / "x.png") == METADATA.settings.prompt
    preferred = replace(
        METADATA.settings, preference={"colorfulness": 0.1 + 0.2}, mapping="linf", targets=None
    )
    assert read_metadata(written(replace(METADATA, settings=preferred))).settings == preferred


def test_a1111_reads_it():
    said = METADATA.as_a1111((640, 480))
    *prompt, negative, last = said.split("\n")
    assert "\n".join(prompt) == METADATA.settings.prompt
    assert negative == "Negative prompt: blurry"
    # The pattern that A1111 takes the last line apart with (modules/infotext_utils.py).
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    assert dict(pairs) == {
        "Steps": "20",
        "Sampler": "Euler a",
        "CFG scale": "3.5",
        "Seed": str(2**63 - 1),
        "Size": "640x480",
        "Model": "sd.safetensors",
        "Denoising strength": "0.3",
        "Reward targets": '"colorfulness: 1.2"',
        "Version": "ric-diffusion 1.2",
    }
    with Image.open(io.BytesIO(written())) as image:
        assert image.text[A1111] == METADATA.as_a1111(SIZE)


def changed(**values):
    """The JSON of METADATA with other values at dotted places; ``...`` takes one out."""
    stored = json.loads(METADATA.texts(SIZE)[TEXT])
    for place, value in values.items():
        *above, last = place.split("__")
        inner = stored
        for name in above:
            inner = inner[name]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
    return json.dumps(stored)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("is damaged", "{"),
        ("is damaged", "[" * 100_000),
        ("is not of version 1", "[]"),
        ("is not of version 1", changed(version=2)),
        ("is not of version 1", changed(version=...)),
        ("unknown field", changed(more=1)),
        ("settings.prompt: missing", changed(settings__prompt=...)),
        ("settings.prompt", changed(settings__prompt=7)),
        ("no text", changed(settings__prompt="a\ud800")),
        ("no text", changed(settings__negative_prompt="a\0")),
        ("seed is -1", changed(settings__seed=-1)),
        ("settings.seed", changed(settings__seed=1.5)),
        ("settings.seed", changed(settings__seed=True)),
        ("both preference and targets", changed(settings__preference={"a": 1})),
        ("mapping 'x'", changed(settings__mapping="x")),
        ("refine 21", changed(settings__refine=21)),
        ("finite", changed(settings__targets={"a": float("nan")})),
        ("finite", changed(settings__targets={"a": "<script>"})),
        ("printed", changed(settings__targets={"\x1b[2J": 1})),
        ("settings.sampling", changed(settings__sampling={"height": ["a"]})),
        ("strength is 0", changed(settings__init_image__strength=0)),
        ("holds a folder", changed(settings__init_image__name="../x.png")),
        ("holds a folder", changed(settings__init_image__name="\\\\host\\x.png")),
        ("digest is 'xyz'", changed(settings__init_image__digest="xyz")),
        ("dtype is 'a b'", changed(settings__model__dtype="a b")),
        ("device is", changed(settings__model__device="cpu; rm")),
        ("printed", changed(settings__model__checkpoint__model="a\nb")),
        ("on another machine", changed(settings__model__checkpoint__model="//host/x")),
        ("on another machine", changed(settings__model__adapter="\\\\host\\x")),
        ("missing", changed(settings__model__checkpoint=...)),
        ("refinement.passes", changed(refinement__passes="many")),
        ("their.png: ?[2J?[2J", changed(**{"\x1b[2J" * 1000: 1})),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(said, text):
    data = png_bytes(Image.new("RGB", SIZE), {TEXT: text})
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        read_metadata(data, "their.png")
    line = str(caught.value)
    assert line.startswith("their.png: ") and line.isprintable() and len(line) < 400


def test_pictures_that_say_nothing(tmp_path):
    plain = png_bytes(Image.new("RGB", SIZE), {"prompt": "x", "parameters": "x\nSteps: 3"})
    bomb = png_bytes(Image.new("RGB", SIZE), {TEXT: "x" * (2**20 + 1)})
    start = plain.index(b"IDAT") - 4
    packed = TEXT.encode() + b"\0\0" + zlib.compress(b" " * 2**22)
    chunk = b"zTXt" + packed
    packed_bomb = (
        plain[:start]
        + len(packed).to_bytes(4, "big")
        + chunk
        + zlib.crc32(chunk).to_bytes(4, "big")
        + plain[start:]
    )
    with pytest.raises(InputError, match=r"^their.png: its text 'ric_diffusion' is damaged"):
        read_metadata(written()[:60], "their.png")
    for data in (plain, bomb, packed_bomb, b"", b"JFIF", written()[:40]):
        with pytest.raises(InputError, match=r"^their.png: says nothing of how it was made"):
            read_metadata(data, "their.png")
    for path in (tmp_path, tmp_path / "none.png"):
        with pytest.raises(InputError, match="cannot be read"):
            read_metadata(path)
