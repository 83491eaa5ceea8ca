"""Settings: the row of all controls and back, in a file, on the command line and in Python."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ric_diffusion.api.picture_settings import read_metadata
from ric_diffusion.app.choice import ModelChoice
from ric_diffusion.app.gallery import KEPT, SESSIONS, Galleries
from ric_diffusion.app.jobs import Job
from ric_diffusion.app.presets import Presets, presets_path
from ric_diffusion.app.settings import SAMPLING, Form, Settings
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def form(engine):
    return Form(engine)


@pytest.fixture
def settings(form):
    """Not one of them as the page begins."""
    return Settings(
        prompt="red 'apple'",
        negative_prompt="blue",
        seed=7,
        count=2,
        refine=True,
        mode="targets",
        weights={"compressibility": 25, "colorfulness": 75},
        values={"compressibility": 0.5, "colorfulness": -0.25},
        autos={"compressibility": True, "colorfulness": False},
        mapping="linear",
        sampling={"steps": 2, "guidance_scale": 2.5},
    )


def test_a_row_and_back(form, settings):
    assert form.settings(form.row(settings)) == settings
    first = form.initial("red apple")
    assert form.settings(form.row(first)) == first
    assert first.asked == {"preference": {"compressibility": 50, "colorfulness": 50}}
    assert settings.asked == {"targets": {"colorfulness": -0.25}}
    far = replace(settings, values={"compressibility": -99, "colorfulness": 99})
    kept = form.settings(form.row(far)).values
    assert kept == {s.name: (s.low, s.high)[s.name == "colorfulness"] for s in form.sliders}


@pytest.mark.parametrize(
    "change",
    [{"prompt": "-cat", "negative_prompt": "--seed"}, {"mode": "preference", "refine": False}],
)
def test_they_are_said_elsewhere(form, settings, engine, job, ric, tmp_path, monkeypatch, change):
    """What is copied draws what the app draws, bit for bit."""
    settings = replace(settings, **change)
    monkeypatch.chdir(tmp_path)
    word, *words = shlex.split(settings.command(engine.choice))
    assert word == "ric" and ric(*words).code == 0
    told = {}
    exec(settings.python(engine.choice), told)
    pictures = sorted((tmp_path / "out").glob("*.png"))
    assert len(pictures) == len(told["samples"]) == 2
    for seed, path, sample in zip((7, 8), pictures, told["samples"], strict=True):
        drawn = engine.draw(form.request(settings, seed=seed, refine=settings.refine), job)
        with Image.open(path) as image:
            assert np.array_equal(np.array(image), np.array(drawn.sample))
        assert np.array_equal(np.array(sample.sample), np.array(drawn.sample))


def test_a_model_is_said_with_all_that_was_said_of_it():
    file = Checkpoint(model="a.safetensors", base_config="b", revision="r")
    choice = ModelChoice.of(file, "c", "float16")
    assert choice.command() == shlex.split(
        "--model a.safetensors --base-config b --revision r --adapter c --dtype float16"
    )
    expression, arguments = choice.python()
    assert eval(expression) == file and arguments == {"adapter": "c", "dtype": "float16"}
    assert ModelChoice.of("emoji-64", "").command() == ["--model", "emoji-64"]


@pytest.mark.parametrize(
    "said, change",
    [
        ("unknown field 'evil'", {"evil": 1}),
        ("settings: prompt must be a text", {"prompt": 1}),
        ("mode 'x': choose", {"mode": "x"}),
        ("settings: mapping 'x' is unknown", {"mapping": "x"}),
        ("colorfulness must be finite", {"values": {"colorfulness": float("nan")}}),
        ("settings: weights must map", {"weights": [1]}),
        ("settings: count 0: give a whole number", {"count": 0}),
    ],
)
def test_stored_settings_that_are_refused(settings, said, change):
    with pytest.raises(InputError, match=said):
        Settings.from_dict(settings.to_dict() | change)


def test_settings_of_other_rewards(form, settings):
    other = replace(settings, weights={"beauty": 1})
    with pytest.raises(InputError, match="they are for beauty, and this model has compress"):
        form.row(other)
    with pytest.raises(InputError, match="this page shows another model; reload it"):
        form.settings(form.row(settings)[:-1])


def test_presets_are_kept_in_a_file(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    presets = Presets(presets_path())
    assert presets.read() == {} and presets.path.parent.parent == tmp_path
    presets.save(" bright ", settings)
    presets.save("another", replace(settings, seed=1))
    presets.save("bright", replace(settings, seed=2))
    assert list(Presets(presets_path()).read()) == ["another", "bright"]
    assert presets.read()["bright"] == replace(settings, seed=2)
    presets.remove("another")
    assert list(presets.read()) == ["bright"]
    for name in ("", "x" * 81):
        with pytest.raises(InputError, match="preset: give it a name of 1 to 80"):
            presets.save(name, settings)
    with pytest.raises(InputError, match="preset another: there is none"):
        presets.remove("another")


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 9}', '{"version": 1, "presets": [1]}'])
def test_files_that_are_no_presets_stay_as_they_are(settings, tmp_path, text):
    path = tmp_path / "presets.json"
    path.write_text(text)
    with pytest.raises(InputError, match="presets"):
        Presets(path).save("bright", settings)
    assert path.read_text() == text


def test_a_gallery_keeps_the_last_and_goes_with_its_session(engine, settings, job, tmp_path):
    galleries = Galleries(tmp_path)
    drawn = engine.draw(engine.request("red apple", 3), job)
    gallery = galleries.of("a")
    for i in range(KEPT + 1):
        entry = gallery.add(drawn, replace(settings, sampling={"steps": i + 1}), {})
    settings = replace(settings, sampling={"steps": KEPT + 1})
    assert gallery.add(drawn, settings, {}) is entry  # not twice
    assert entry.settings == replace(settings, seed=3, count=1) and entry.drawn.sample is None
    assert list(gallery.entries) == list(range(2, KEPT + 2))
    assert len(list(tmp_path.rglob("*.png"))) == KEPT
    with Image.open(entry.path) as image:
        assert image.text["prompt"] == "red apple" and "obtained" in image.text
        assert json.loads(image.text["seed"]) == 3
    for i in range(SESSIONS - 1):
        galleries.of(str(i))
    assert galleries.of("a") is gallery
    galleries.of("one more")
    galleries.of("and another")
    assert galleries.of("a") is gallery and galleries.of("0") is not None
    galleries.leave("a")
    galleries.leave("nobody")
    assert list(tmp_path.rglob("*.png")) == []


def test_a_picture_of_the_app_is_drawn_again_from_what_it_says(
    form, settings, engine, job, ric, tmp_path
):
    """By the app and on the command line, bit for bit; the controls stand where they stood."""
    for mode in ("targets", "preference"):
        asked = replace(settings, mode=mode, count=1)
        drawn = engine.draw(form.request(asked, refine=True), job)
        path = Galleries(tmp_path / mode).of("a").add(drawn, asked, {}).path
        assert path.name == "0001-red-apple-seed7.png"
        made = read_metadata(path)
        assert made.settings == drawn.settings and "Steps: 2" in made.as_a1111((64, 64))
        again = engine.again(made.settings, Job())
        assert np.array_equal(np.array(again.sample), np.array(drawn.sample))
        stands = form.of_picture(made.settings)
        assert stands.asked == asked.asked and stands.sampling == asked.sampling
        assert (stands.prompt, stands.negative_prompt, stands.refine) == (
            asked.prompt,
            "blue",
            True,
        )
        assert ric("generate", "--like", path, "--out", tmp_path / f"{mode}-like").code == 0
        [like] = (tmp_path / f"{mode}-like").glob("*.png")
        with Image.open(like) as image:
            assert np.array_equal(np.array(image), np.array(drawn.sample))


def test_weights_of_a_picture_share_100_and_targets_stay_on_their_sliders(form, engine, job):
    request = engine.request("a", 0, preference={"colorfulness": 0.5, "compressibility": 1})
    made = engine.draw(request, job).settings
    assert form.of_picture(made).weights == {"compressibility": 67, "colorfulness": 33}
    made = replace(made, preference=None, mapping=None, targets={"colorfulness": 99.0})
    stands = form.of_picture(made)
    assert stands.values["colorfulness"] == form.sliders[1].high
    assert stands.autos == {"compressibility": True, "colorfulness": False}


def test_an_empty_field_is_said_to_be_that(form, settings):
    row = form.row(settings)
    seed, steps = row.index(settings.seed), len(row) - len(SAMPLING) + list(SAMPLING).index("steps")
    for place, said in ((seed, "seed must be a number"), (steps, "steps must be a number")):
        with pytest.raises(InputError, match=said):
            form.settings([None if i == place else value for i, value in enumerate(row)])
    assert form.settings([float(v) if i == seed else v for i, v in enumerate(row)]) == settings


def test_a_preset_that_cannot_be_read_hides_no_other(settings, tmp_path):
    presets = Presets(tmp_path / "presets.json")
    presets.save("good", settings)
    stored = json.loads(presets.path.read_text())
    stored["presets"]["bad"] = {**stored["presets"]["good"], "seed": None}
    presets.path.write_text(json.dumps(stored))
    assert presets.read() == {"good": settings}
    presets.save("third", settings)
    assert set(json.loads(presets.path.read_text())["presets"]) == {"good", "bad", "third"}
    presets.remove("bad")
    assert set(presets.read()) == {"good", "third"}
