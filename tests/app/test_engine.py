"""The engine: the command line's pictures, nothing encoded twice, stopped when asked."""

import json
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ric_diffusion.api import generate, load
from ric_diffusion.api.sweeps import sweep_result
from ric_diffusion.api.work import Stopped
from ric_diffusion.app import jobs
from ric_diffusion.app.choice import ModelChoice
from ric_diffusion.app.engine import MAX_PROMPT, MAX_SEED, REFINE, Engine, most_points
from ric_diffusion.app.jobs import Job, Jobs
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import Curve, to_targets
from scorers import ScorerError
from support.numbered import sample_file
from support.prompts import knowing

TARGETS = {"compressibility": 1.2, "colorfulness": -0.5}


def opened(path):
    with Image.open(path) as image:
        image.load()
        return np.array(image), {k: json.loads(image.text[k]) for k in ("targets", "obtained")}


@pytest.mark.parametrize("mode", ["embedding", "text"])
@pytest.mark.parametrize(
    "asked, words",
    [
        ({"targets": TARGETS}, ["--targets", "compressibility=1.2", "colorfulness=-0.5"]),
        ({"targets": {"colorfulness": 0.4}}, ["--targets", "colorfulness=0.4"]),
        ({"targets": {}}, []),
        (
            {"preference": {"compressibility": 70, "colorfulness": 30}},
            ["--preference", "compressibility=70", "colorfulness=30"],
        ),
    ],
)
def test_the_picture_is_the_command_lines(
    make_engine, ric, root, tmp_path, job, mode, asked, words
):
    engine = make_engine(mode)
    model = ["--model", root / "model", "--adapter", root / mode / "adapter"]
    args = ["--prompt", "red apple", "--seed", 3, *words, "--out", tmp_path]
    assert ric("generate", *model, *args).code == 0
    pixels, metadata = opened(sample_file(tmp_path, 3))
    engine.draw(engine.request("red apple", 3, targets={"colorfulness": 1.1}), job)
    drawn = engine.draw(
        engine.request("red apple", 3, **asked), job
    )  # the prompt's states from memory
    assert np.array_equal(np.array(drawn.sample), pixels)
    assert dict(drawn.targets) == metadata["targets"]
    assert drawn.obtained == pytest.approx(metadata["obtained"])


def test_a_slider_encodes_no_prompt_again(root, job, tmp_path):
    model = load(root / "model", root / "embedding" / "adapter")
    passes = []
    model.text_encoder.register_forward_pre_hook(lambda *_: passes.append(1))
    engine = Engine(model, ModelChoice.of("tiny"))
    Image.new("RGB", (70, 64), "teal").save(tmp_path / "teal.png")
    for z in (-1.0, 0.0, 1.0):
        request = engine.request("red apple", 0, targets={"colorfulness": z})
        engine.draw(request, job)
        engine.transform(request, tmp_path / "teal.png", 1.0, job)
    # Text to image and image to image share one prompt, encoded beside the empty one.
    assert len(passes) == 1
    engine.draw(engine.request("pizza", 0, targets={}), job)
    assert len(passes) == 2


def test_refined_it_is_the_command_lines_too(engine, ric, root, job, tmp_path):
    model = ["--model", root / "model", "--adapter", root / "embedding" / "adapter"]
    asked = ["--targets", "colorfulness=0.5", "--refine", REFINE]
    args = ["--prompt", "red apple", "--seed", 3, *asked, "--out", tmp_path]
    assert ric("generate", *model, *args).code == 0
    request = engine.request("red apple", 3, targets={"colorfulness": 0.5}, refine=True)
    drawn = engine.draw(request, job)
    assert np.array_equal(np.array(drawn.sample), opened(sample_file(tmp_path, 3))[0])
    assert drawn.refinement.passes <= REFINE
    assert job.total == engine.passes(engine.sampler.sampling) * (1 + REFINE) >= job.done > 0
    plain = engine.draw(replace(request, refine=False), job)
    assert plain.refinement is None
    with pytest.raises(InputError, match="refine: nothing is asked for"):
        engine.request("red apple", 3, targets={}, refine=True)


def test_preferences_are_mapped_as_everywhere(engine):
    weights = {"compressibility": 25, "colorfulness": 75}
    request = engine.request("red apple", 0, preference=weights)
    assert request.targets == pytest.approx(
        to_targets(weights, engine.space, engine.adapter.mapping)
    )


@pytest.mark.parametrize(
    "said, prompt, seed, asked",
    [
        ("prompt: empty", "  ", 0, {}),
        ("prompt: empty", None, 0, {}),
        (f"shorten it to {MAX_PROMPT}", "x" * 100_000, 0, {}),
        ("half a character", "a\ud800", 0, {}),
        ("seed must be a number", "a", None, {}),
        ("seed must be a number", "a", "0", {}),
        ("seed must be finite", "a", float("nan"), {}),
        ("seed 1.5: give a whole number", "a", 1.5, {}),
        ("seed -1: give a whole number", "a", -1, {}),
        ("give a whole number", "a", 2.0 * MAX_SEED, {}),
        ("must be finite", "a", 0, {"targets": {"colorfulness": float("nan")}}),
        ("must be a number", "a", 0, {"targets": {"colorfulness": "<script>"}}),
        ("unknown reward", "a", 0, {"targets": {"beauty": 1}}),
        ("must be finite", "a", 0, {"preference": {"colorfulness": float("inf")}}),
        ("every weight is 0", "a", 0, {"preference": {"colorfulness": 0}}),
    ],
)
def test_requests_that_are_refused(engine, said, prompt, seed, asked):
    with pytest.raises(InputError, match=said) as caught:
        engine.request(prompt, seed, **asked)
    assert "\n" not in str(caught.value)


def test_a_picture_moves_along_the_rewards(engine, job, tmp_path):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (90, 130, 3), dtype=np.uint8))
    noise.save(tmp_path / "noise.jpg")
    low, high, other = (
        engine.transform(
            engine.request("red apple", seed, targets={"colorfulness": z}),
            tmp_path / "noise.jpg", 1.0, job,
        )
        for z, seed in ((-1, 0), (1, 0), (1, 1))
    )  # fmt: skip
    assert low.sample.size == (64, 64)
    assert not np.array_equal(np.array(low.sample), np.array(high.sample))
    assert not np.array_equal(np.array(other.sample), np.array(high.sample))
    assert high.targets == {"colorfulness": 1.0}
    assert set(high.obtained) == set(engine.space.names)


@pytest.mark.parametrize("strength", [0, 0.1, 1.01, float("nan"), None])
def test_strengths_that_are_refused(engine, job, tmp_path, strength):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="strength"):
        engine.transform(engine.request("a", 0), tmp_path / "a.png", strength, job)


def test_pictures_that_are_refused(engine, job, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    Image.new("1", (9000, 9000)).save(tmp_path / "large.png")
    for name, said in (
        ("text.png", "not a picture of a known format"),
        ("large.png", "too large"),
        ("gone.png", "missing file"),
    ):
        with pytest.raises(InputError, match=f"picture: {said}.*; drop another one"):
            engine.transform(engine.request("a", 0), tmp_path / name, 0.5, job)


def test_sweeps(engine, job):
    request = engine.request("red apple", 2)
    line = engine.line("colorfulness", None, 3, {})
    assert [list(point.targets) for point in line] == [["colorfulness"]] * 3
    sweep, _ = engine.sweep(request, line, job)
    assert list(sweep.prompts) == ["red apple"] and list(sweep.seeds) == [2]
    assert sweep.z.shape == (3, 1, 1, 2)
    square = [point.targets for point in engine.line("colorfulness", "compressibility", 2, {})]
    assert len(square) == 4 and all(set(t) == set(engine.space.names) for t in square)
    assert square[0]["compressibility"] > square[2]["compressibility"]  # upwards on the page
    assert square[0]["colorfulness"] < square[1]["colorfulness"]
    points = engine.preferences(5)
    assert len(points) == 5
    assert points[2].preference == {"compressibility": 0.5, "colorfulness": 0.5}


def test_a_sweeps_pictures_are_drawn_again_one_by_one(engine, job):
    """Over two rewards, from where the sliders of a preference stand."""
    asked = {"preference": {"colorfulness": 1}, "negative_prompt": "blue", "sampling": {"steps": 2}}
    request = engine.request("red apple", 2, **asked)
    square = engine.line("colorfulness", "compressibility", 2, {})
    sweep, made = engine.sweep(request, square, job)
    assert (job.done, job.total) == (8, 8)
    result = sweep_result(engine.name, sweep, engine.space).made_from(made, "front")
    for point in result.points:
        again = engine.again(point.settings, Job())
        assert np.array_equal(np.array(again.sample), np.array(point.sample))
        assert again.targets == point.targets


def test_a_prompt_is_drawn_as_calibration_for_it_has_it(root, job, tmp_path):
    """What is asked waits for the model to be free; what is used is told with the picture."""
    model = load(root / "model", root / "embedding" / "adapter")
    features = model.prompt_features(["blue car", "red apple"])
    curve = knowing(Curve(requested=(-2, 2), obtained=(-0.5, 0.5)), features, offset=1.0)
    model.adapter = replace(model.adapter, calibration={"colorfulness": curve})
    engine = Engine(model, ModelChoice.of("tiny"))
    Image.new("RGB", (70, 64), "teal").save(tmp_path / "teal.png")
    for prompt, most in (("blue car", 0.5), ("red apple", 1.5)):
        request = engine.request(prompt, 0, targets={"colorfulness": 2.0})
        drawn = engine.draw(request, job)
        assert drawn.targets["colorfulness"] == pytest.approx(most)
        moved = engine.transform(request, tmp_path / "teal.png", 1.0, job)
        assert moved.targets["colorfulness"] == pytest.approx(most)
        swept, _ = engine.sweep(request, engine.line("colorfulness", None, 2, {}), job)
        assert swept.points[1].targets["colorfulness"] == pytest.approx(0.5)
    [sample] = generate(model, "red apple", targets={"colorfulness": 2.0})
    assert np.array_equal(np.array(sample.sample), np.array(drawn.sample))


def test_sweeps_stay_within_reach(engine, monkeypatch):
    plain = engine.line("compressibility", None, 5, {})
    curve = Curve(requested=(-2, 2), obtained=(-0.4, 0.6))
    calibrated = replace(engine.adapter, calibration={"colorfulness": curve})
    monkeypatch.setattr(engine, "adapter", calibrated)

    def asked(*line):
        return [point.targets["colorfulness"] for point in engine.line(*line, {})]

    assert asked("colorfulness", None, 5) == pytest.approx([-0.4, -0.15, 0.1, 0.35, 0.6])
    assert engine.line("compressibility", None, 5, {}) == plain
    assert asked("compressibility", "colorfulness", 2) == pytest.approx([0.6, 0.6, -0.4, -0.4])
    points = engine.preferences(3)
    for point in points:
        request = engine.request("red apple", 0, preference=point.preference)
        assert point.targets == request.targets
    assert points[-1].targets["colorfulness"] == 0.6


@pytest.mark.parametrize(
    "said, args",
    [
        ("points 1:", ("colorfulness", None, 1)),
        ("points 16:", ("colorfulness", None, 16)),
        ("points 9:", ("colorfulness", "compressibility", 9)),
        ("points must be finite", ("colorfulness", None, float("nan"))),
        ("points 2.5:", ("colorfulness", None, 2.5)),
        ("along it already", ("colorfulness", "colorfulness", 3)),
        ("unknown reward", ("beauty", None, 3)),
    ],
)
def test_sweeps_that_are_refused(engine, said, args):
    with pytest.raises(InputError, match=said):
        engine.line(*args, {})


def test_progress_and_stop(engine, monkeypatch):
    job = Job()
    request = engine.request("red apple", 40)
    before = engine.draw(request, job)
    assert (job.done, job.total) == (3, 3)
    again = Job()
    assert engine.draw(request, again) is before and again.done == 0  # not drawn again

    job, passes = Job(), []
    hook = engine.sampler.network().register_forward_pre_hook(
        lambda *_: (passes.append(1), job.stop())
    )
    request = engine.request("red apple", 41)
    with hook, pytest.raises(Stopped):
        engine.draw(request, job)
    assert len(passes) == 1
    assert engine.draw(request, Job()).seed == 41


def test_previews_cost_a_tenth_and_change_nothing(engine, monkeypatch):
    plain = engine.draw(engine.request("red apple", 50), Job())
    monkeypatch.setattr(jobs, "PREVIEWS_FROM", 0.0)
    engine.drawn.made.clear()
    job = Job()
    drawn = engine.draw(engine.request("red apple", 50), job)
    assert job.preview.size == (64, 64)
    assert np.array_equal(np.array(drawn.sample), np.array(plain.sample))
    looks = []
    job.look(lambda: looks.append(1))  # just after one that took next to nothing: a second later
    assert looks == []


def test_settings_of_sampling_are_the_command_lines(engine, ric, root, job, tmp_path):
    model = ["--model", root / "model", "--adapter", root / "embedding" / "adapter"]
    words = ["--negative-prompt", "blue", "--mapping", "linear", "--steps", 2]
    words += ["--guidance-scale", 2.5, "--contrast", 0.5, "--reward-start", 0.5]
    words += ["--preference", "colorfulness=1"]
    args = ["--prompt", "red apple", "--seed", 3, *words, "--out", tmp_path]
    assert ric("generate", *model, *args).code == 0
    request = engine.request(
        "red apple",
        3,
        preference={"colorfulness": 1},
        mapping="linear",
        negative_prompt="blue",
        sampling={"steps": 2, "guidance_scale": 2.5, "contrast": 0.5, "reward_start": 0.5},
    )
    drawn = engine.draw(request, job)
    [path] = tmp_path.glob("*.png")
    assert np.array_equal(np.array(drawn.sample), opened(path)[0])
    plain = engine.request("red apple", 3, sampling=engine.sampling)
    assert plain.options == {}  # what is as the adapter has it is not asked for
    wide = engine.request("red apple", 3, sampling={"width": 128})
    assert engine.draw(wide, job).sample.size == (128, 64)


@pytest.mark.parametrize(
    "said, sampling",
    [
        ("steps 0: give a whole number from 1 to 200", {"steps": 0}),
        ("steps 1.5: give a whole number", {"steps": 1.5}),
        ("guidance_scale 99: give 0 to 30", {"guidance_scale": 99}),
        ("contrast must be finite", {"contrast": float("nan")}),
        ("reward_start 1: give 0 to 0.9", {"reward_start": 1}),
        ("width 9999: give a whole number from 64 to 2048", {"width": 9999}),
        ("width is 65", {"width": 65}),
        ("true_cfg_scale: Stable Diffusion", {"true_cfg_scale": 2}),
    ],
)
def test_sampling_that_is_refused(engine, said, sampling):
    with pytest.raises(InputError, match=said):
        engine.request("a", 0, sampling=sampling)


def test_a_sweep_holds_the_other_sliders_where_they_stand(engine):
    held = {"compressibility": 0.7, "colorfulness": -0.3}
    line = engine.line("colorfulness", None, 3, held)
    assert [point.targets["compressibility"] for point in line] == [0.7] * 3
    assert len({point.targets["colorfulness"] for point in line}) == 3
    assert most_points(None) == 15 and most_points("colorfulness") == 8


def test_another_adapter_or_model(make_engine, root, job, tmp_path):
    engine = make_engine()
    model, before = engine.model, engine.draw(engine.request("red apple", 0), job)
    with pytest.raises(InputError):
        engine.exchanged(ModelChoice.of(str(root / "model"), root / "nowhere"))
    broken = Path(shutil.copytree(root / "embedding" / "adapter", tmp_path / "broken"))
    about = json.loads((broken / "ric_adapter.json").read_text())
    scorer = {"name": "compressibility", "options": {"quality": "x"}}
    about["reward_space"]["rewards"][0]["scorer"] = scorer
    (broken / "ric_adapter.json").write_text(json.dumps(about))
    (broken / "manifest.json").unlink()
    encoder = load_file(broken / "reward_encoder.safetensors")
    with safe_open(broken / "reward_encoder.safetensors", "pt") as file:
        metadata = file.metadata()
    doubled = {name: 2 * value for name, value in encoder.items()}
    save_file(doubled, broken / "reward_encoder.safetensors", metadata)
    with pytest.raises((InputError, ScorerError), match="quality"):
        engine.exchanged(ModelChoice.of(str(root / "model"), broken))
    engine.drawn.made.clear()
    again = engine.draw(engine.request("red apple", 0), job)
    assert again.targets == before.targets
    assert np.array_equal(np.array(again.sample), np.array(before.sample))
    text = engine.exchanged(ModelChoice.of(str(root / "model"), root / "text" / "adapter"))
    assert text.model is model and text.adapter.conditioner.mode == "text"
    drawn = text.draw(text.request("red apple", 0), job)
    assert not np.array_equal(np.array(drawn.sample), np.array(before.sample))
    with pytest.raises(InputError, match="model nowhere: no such folder"):
        text.exchanged(ModelChoice.of("nowhere"))


def test_jobs_by_session():
    jobs, one, other = Jobs(), Job(), Job()
    with jobs.of("a", "draw", one), jobs.of("b", "draw", other):
        assert jobs.stop("a") and not jobs.stop("c")
        assert one.stopped and not other.stopped
    assert not jobs.stop("a") and not jobs.running


def test_of_what_is_asked_meanwhile_the_last_is_drawn():
    jobs, old, new, sweep = Jobs(), Job(), Job(), Job()
    with ExitStack() as late:
        late.enter_context(jobs.of("a", "sweep", sweep))
        late.enter_context(jobs.of("a", "draw", old))
        with jobs.of("a", "draw", new):
            assert old.stopped and not new.stopped and not sweep.stopped
            assert jobs.current("a", "draw", new) and not jobs.current("a", "draw", old)
            late.close()
            assert not new.stopped
            assert jobs.stop("a") and new.stopped
    assert not jobs.running


def test_without_sliders(root):
    model = load(root / "model")
    with pytest.raises(InputError, match="has no adapter of its own; give one"):
        Engine(model, ModelChoice.of("tiny"))
