"""ric generate --like: the same picture again, bit for bit, and told where it cannot be."""

import json
import logging
import shutil
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest
from diffusers import EulerDiscreteScheduler
from PIL import Image

import check_like
from ric_diffusion import api
from ric_diffusion.api import drawing
from ric_diffusion.api.picture_settings import read_metadata
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import Curve
from support.numbered import sample_file
from support.pictures import changed
from support.prompts import knowing

ASKED = {"preference": {"colorfulness": 0.7, "compressibility": 0.3}, "sampling": {"steps": 2}}


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture
def apple(root, tmp_path):
    """A picture with all that made it, by an adapter of its own folder."""
    adapter = shutil.copytree(root / "embedding" / "adapter", tmp_path / "adapter")
    [made] = api.generate(
        root / "model", "red apple", adapter=adapter, seed=3, out=tmp_path / "made", **ASKED
    )
    return made


def test_random_settings(ric, model, tmp_path, monkeypatch):
    """A few of scripts/check_like.py's fifty, on the tiny model, in this process."""
    named = [str(word) for word in model]
    check_like.make(tmp_path, 3, 7, named, ["colorfulness", "compressibility"])
    with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_like, "PROMPTS", ["half \ud800"])
        check_like.make(tmp_path / "bad", 1, 0, named, ["colorfulness"])
    monkeypatch.chdir(tmp_path / "made")
    check_like.make_again(tmp_path, named[1], named[3])
    for door in ("again", "app"):
        assert check_like.differing(tmp_path, door) == []
        one, other = sorted((tmp_path / door).iterdir())[:2]
        Image.fromarray(pixels(one) ^ 1).save(one)
        other.unlink()
        assert check_like.differing(tmp_path, door) == [one.name, other.name]


def test_everything_made_the_same_way_is_the_same_file(ric, apple, tmp_path):
    assert ric("generate", "--like", apple.path, "--out", tmp_path / "again").code == 0
    again = tmp_path / "again" / apple.path.name
    assert again.read_bytes() == apple.path.read_bytes()  # its metadata, too
    found = read_metadata(apple.path)
    assert found.settings == apple.settings and found.obtained == apple.obtained
    [same] = api.generate(like=found.settings)
    assert np.array_equal(np.array(same.sample), pixels(apple.path))


def test_options_take_the_place_of_what_was(ric, root, apple, tmp_path):
    cases = {
        "seed": (["--seed", 5], {"seed": 5, **ASKED}),
        "prompt": (["--prompt", "pizza"], {"prompt": "pizza", **ASKED}),
        "steps": (["--steps", 3], ASKED | {"sampling": {"steps": 3}}),
        "mapping": (["--mapping", "linear"], {"mapping": "linear", **ASKED}),
        "targets": (
            ["--targets", "colorfulness=1"],
            {"targets": {"colorfulness": 1}, "sampling": {"steps": 2}},
        ),
    }
    model = api.load(root / "model", tmp_path / "adapter")
    for name, (options, asked) in cases.items():
        done = ric("generate", "--like", apple.path, *options, "--out", tmp_path / name)
        assert done.code == 0, done.err
        [path] = (tmp_path / name).iterdir()
        [expected] = api.generate(model, **{"prompt": "red apple", "seed": 3, **asked})
        assert np.array_equal(pixels(path), np.array(expected.sample)), name
        assert not np.array_equal(pixels(path), pixels(apple.path)), name


def test_negative_targets_and_contrast_give_way_to_each_other(root, apple, tmp_path):
    model = api.load(root / "model", tmp_path / "adapter")
    against = {"negative_targets": {"colorfulness": -1}}
    [first] = api.generate(model, like=apple.path, sampling={"contrast": 0.5})
    [second] = api.generate(model, like=first.settings, **against)
    assert second.settings.negative_targets and "contrast" not in second.settings.sampling
    [third] = api.generate(model, like=second.settings, sampling={"contrast": 0.5})
    assert third.settings == first.settings
    assert np.array_equal(np.array(third.sample), np.array(first.sample))


def test_another_adapter_or_model_is_refused_unless_it_was_chosen(ric, root, apple, tmp_path):
    about = tmp_path / "adapter" / "ric_adapter.json"
    curve = Curve(requested=(-2, 2), obtained=(-0.5, 0.5))
    stored = json.loads(about.read_text()) | {"calibration": {"colorfulness": curve.to_dict()}}
    about.write_text(json.dumps(stored))
    (tmp_path / "adapter" / "manifest.json").unlink()
    again = ["generate", "--like", apple.path, "--out", tmp_path / "again"]
    done = ric(*again)
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert "was made with another adapter" in done.err
    done = ric(*again, "--adapter", tmp_path / "adapter")
    assert done.code == 0 and "was made with another adapter" in done.err
    shutil.rmtree(tmp_path / "adapter")
    done = ric(*again)
    assert done.code == 2 and "which is not here; give it as the adapter" in done.err
    done = ric(*again, "--adapter", root / "embedding" / "adapter")
    assert done.code == 0 and done.err == ""  # the same one in another place
    other = changed(apple.path, tmp_path / "other.png", settings__model__digest="0" * 64)
    done = ric(*again, "--like", other, "--adapter", root / "embedding" / "adapter")
    assert done.code == 2 and "was made with another model" in done.err


def test_what_else_may_change_pixels_is_told(ric, root, apple, tmp_path):
    versions = {"ric-diffusion": "0.0.1", "torch": metadata.version("torch")}
    other = changed(
        apple.path,
        tmp_path / "other.png",
        settings__model__versions=versions,
        settings__model__device="mps",
        settings__model__dtype="float16",
    )
    done = ric("generate", "--like", other, "--dtype", "float32", "--out", tmp_path / "again")
    assert done.code == 0, done.err
    said = done.err.splitlines()
    assert len(said) == 3 and all("pixels may differ" in line for line in said)
    for words in ("ric-diffusion 0.0.1", "weights in float16", "made with mps, here it is cpu"):
        assert words in done.err


def test_nothing_is_fetched_because_a_picture_names_it(ric, apple, tmp_path):
    hub = changed(apple.path, tmp_path / "hub.png", settings__model__checkpoint__model="user/name")
    adapter = changed(apple.path, tmp_path / "a.png", settings__model__adapter="user/name")
    away = changed(apple.path, tmp_path / "away.png", settings__model__adapter="\\\\host\\x")
    for path, said in (
        (hub, "was made with user/name, which is not here; give it as the model"),
        (adapter, "was made with the adapter user/name, which is not here"),
        (away, "on another machine"),
    ):
        done = ric("generate", "--like", path, "--out", tmp_path / "again")
        assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1


def test_a_picture_from_a_picture(ric, root, apple, tmp_path, monkeypatch):
    Image.effect_noise((90, 70), 90).convert("RGB").save(tmp_path / "photo.png")
    begin = ["--init-image", tmp_path / "photo.png", "--strength", 0.7, "--steps", 4]
    asked = ["--prompt", "red apple", "--targets", "colorfulness=1", "--model", root / "model"]
    asked += ["--adapter", root / "embedding" / "adapter"]
    done = ric("generate", *asked, *begin, "--out", tmp_path)
    assert done.code == 0, done.err
    path = sample_file(tmp_path)
    plain = ric("generate", *asked, "--steps", 4, "--out", tmp_path / "plain")
    assert plain.code == 0 and not np.array_equal(pixels(sample_file(tmp_path / "plain")),
                                                  pixels(path))  # fmt: skip
    image = read_metadata(path).settings.init_image
    assert (image.name, image.strength) == ("photo.png", 0.7)
    again = ["generate", "--like", path, "--out", tmp_path / "again"]
    assert ric(*again).code == 0
    assert np.array_equal(pixels(sample_file(tmp_path / "again")), pixels(path))
    (tmp_path / "photo.png").rename(tmp_path / "moved.png")
    monkeypatch.chdir(tmp_path)
    done = ric(*again)
    assert done.code == 2 and "was made from the picture photo.png (digest" in done.err
    done = ric(*again[:-1], "more", "--init-image", "moved.png")
    assert done.code == 0
    assert np.array_equal(pixels(sample_file(tmp_path / "more")), pixels(path))


@pytest.mark.parametrize("name", ["Screenshot at 10.00\u202fAM.png", "a\\b.png", "two\nlines.png"])
def test_names_as_systems_and_people_write_them(ric, root, tmp_path, name):
    """Spaces of every kind in the names of pictures, models and adapters."""
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / name)
    sliders, model = tmp_path / "my\u3000sliders", tmp_path / "base\u00a0model"
    sliders.symlink_to(root / "embedding" / "adapter")
    model.symlink_to(root / "model")
    done = ric("generate", "--model", model, "--prompt", "red apple",
               "--adapter", sliders, "--steps", "2",
               "--init-image", tmp_path / name, "--out", tmp_path / "out")  # fmt: skip
    assert done.code == 0, done.err
    if "\\" not in name:
        said = read_metadata(sample_file(tmp_path / "out")).settings.init_image.name
        assert said == name.replace("\n", "?")


@pytest.mark.parametrize("option", ["--variant", "--revision", "--base-config"])
def test_what_says_more_of_a_model_goes_with_one(ric, apple, option, tmp_path):
    done = ric("generate", "--like", apple.path, option, "x", "--out", tmp_path / "out")
    assert done.code == 2 and f"{option}: goes with --model; give that too" in done.err


def test_the_family_is_asked_for_its_image_to_image(root, monkeypatch):
    model = api.load(root / "model")
    picture = Image.new("RGB", (64, 64), "teal")
    for strength, said in ((0.1, "give 0.5 to 1 with 2 steps"), (float("nan"), "finite")):
        with pytest.raises(InputError, match=said):
            api.generate(model, "x", init_image=picture, strength=strength, sampling={"steps": 2})
    [by_sampling] = api.generate(
        model, "x", init_image=picture, sampling={"steps": 2, "strength": 0.9}
    )
    [by_name] = api.generate(model, "x", init_image=picture, strength=0.9, sampling={"steps": 2})
    assert by_sampling.settings.init_image.strength == 0.9
    assert np.array_equal(np.array(by_sampling.sample), np.array(by_name.sample))
    with pytest.raises(InputError, match="strength: says how much of init_image is drawn anew"):
        api.generate(model, "x", sampling={"steps": 2, "strength": 0.9})
    monkeypatch.setattr(drawing, "IMAGE_TO_IMAGE", "a door that nobody has")
    with pytest.raises(InputError, match=r"init_image: Stable .* no image-to-image pipeline"):
        api.generate(model, "x", init_image=picture)


def test_calibration_that_knows_the_prompt(root, tmp_path, caplog):
    """What is used of a target depends on the prompt: its own features, of this adapter alone."""
    model = api.load(root / "model", root / "embedding" / "adapter")
    features = model.prompt_features(["blue car", "red apple"])
    curve = knowing(Curve(requested=(-2, 2), obtained=(-0.5, 0.5)), features, offset=1.0)
    plain, known = model.adapter, replace(model.adapter, calibration={"colorfulness": curve})
    model.adapter = known
    asked = {"targets": {"colorfulness": 2.0}, "sampling": {"steps": 2}, "refine": 1}
    [made] = api.generate(model, "red apple", **asked)
    assert made.settings.targets == {"colorfulness": 2.0} and made.settings.refine == 1
    [once] = api.generate(model, "red apple", **(asked | {"refine": None}))
    assert once.targets == {"colorfulness": pytest.approx(1.5)}
    model.save_adapter(tmp_path / "adapter")
    for one in (made, once):
        [same] = api.generate(root / "model", like=one.settings, adapter=tmp_path / "adapter")
        assert np.array_equal(np.array(same.sample), np.array(one.sample))
        assert same.targets == one.targets
    model.adapter = plain
    caplog.set_level(logging.WARNING)
    api.generate(model, like=once.settings)
    assert "the picture was made with another adapter" in caplog.text


@pytest.mark.parametrize("times", [{"timesteps": [900, 500, 100]}, {"sigmas": [9.0, 3.0, 0.5]}])
def test_lists_of_times_are_kept(root, times, tmp_path):
    model = api.load(root / "model")
    with pytest.raises(InputError, match=f"^{next(iter(times))}: DDIMScheduler takes no list"):
        api.generate(model, "x", sampling=times)
    model.scheduler = EulerDiscreteScheduler.from_config(model.scheduler.config)
    [made] = api.generate(model, "x", sampling=times, out=tmp_path)
    [same] = api.generate(model, like=made.path)
    [other] = api.generate(model, "x", sampling={"steps": 3})
    assert np.array_equal(np.array(same.sample), pixels(made.path))
    assert not np.array_equal(np.array(other.sample), pixels(made.path))


def test_what_is_asked_for_twice_or_out_of_bounds(root):
    model = api.load(root / "model")
    for asked in ({"prompt": "x", "prompts": ["y"]}, {"seed": -1, "prompt": "x"}):
        with pytest.raises(InputError, match=r"^(prompt and prompts|seed -1)"):
            api.generate(model, **asked)
