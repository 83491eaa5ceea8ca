"""The engine: the command line's pictures, nothing encoded twice, stopped when asked."""

import json
import threading
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ric_diffusion.app.engine import MAX_PROMPT, MAX_SEED
from ric_diffusion.app.jobs import Desk, Job, Jobs, Stopped
from ric_diffusion.commands.model import load_model
from ric_diffusion.errors import InputError
from ric_diffusion.rewards import Curve, to_targets

TARGETS = {"compressibility": 1.2, "colorfulness": -0.5}


def opened(path):
    with Image.open(path) as image:
        image.load()
        return np.array(image), {k: json.loads(image.text[k]) for k in ("targets", "obtained")}


@pytest.mark.parametrize("mode", ["embedding", "text"])
@pytest.mark.parametrize(
    "wish, words",
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
def test_the_picture_is_the_command_lines(make_engine, ric, root, tmp_path, job, mode, wish, words):
    engine = make_engine(mode)
    model = ["--model", root / "model", "--adapter", root / mode / "adapter"]
    args = ["--prompt", "red apple", "--seed", 3, *words, "--out", tmp_path]
    assert ric("generate", *model, *args).code == 0
    pixels, story = opened(tmp_path / "3.png")
    engine.draw(engine.wish("red apple", 3, targets={"colorfulness": 1.1}), job)
    drawn = engine.draw(engine.wish("red apple", 3, **wish), job)  # the prompt's states from memory
    assert np.array_equal(np.array(drawn.sample), pixels)
    assert dict(drawn.story["targets"]) == story["targets"]
    assert drawn.story["obtained"] == pytest.approx(story["obtained"])


def test_a_slider_encodes_nothing_anew(root, make_engine, job, tmp_path, monkeypatch):
    from ric_diffusion.app.engine import Engine

    model = load_model(str(root / "model"), str(root / "embedding" / "adapter"))
    calls = {"text": 0, "picture": 0}
    text, picture = model.text_encoder.forward, model.vae.encode

    def count(key, function):
        def counted(*args, **kwargs):
            calls[key] += 1
            return function(*args, **kwargs)

        return counted

    model.text_encoder.forward = count("text", text)
    model.vae.encode = count("picture", picture)
    engine = Engine(model, "tiny")
    Image.new("RGB", (70, 64), "teal").save(tmp_path / "teal.png")
    for z in (-1.0, 0.0, 1.0):
        wish = engine.wish("red apple", 0, targets={"colorfulness": z})
        engine.draw(wish, job)
        engine.transform(wish, tmp_path / "teal.png", 1.0, job)
    # Text to image and image to image share one prompt, encoded beside the empty one.
    assert calls == {"text": 1, "picture": 1}
    engine.draw(engine.wish("pizza", 0, targets={}), job)
    assert calls["text"] == 2


def test_preferences_are_mapped_as_everywhere(engine):
    weights = {"compressibility": 25, "colorfulness": 75}
    wish = engine.wish("red apple", 0, preference=weights)
    assert wish.targets == pytest.approx(to_targets(weights, engine.space, engine.adapter.mapping))


@pytest.mark.parametrize(
    "said, prompt, seed, wish",
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
def test_wishes_that_are_refused(engine, said, prompt, seed, wish):
    with pytest.raises(InputError, match=said) as caught:
        engine.wish(prompt, seed, **wish)
    assert "\n" not in str(caught.value)


def test_a_picture_moves_along_the_rewards(engine, job, tmp_path):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (90, 130, 3), dtype=np.uint8))
    noise.save(tmp_path / "noise.jpg")
    low, high, other = (
        engine.transform(
            engine.wish("red apple", seed, targets={"colorfulness": z}),
            tmp_path / "noise.jpg", 1.0, job,
        )
        for z, seed in ((-1, 0), (1, 0), (1, 1))
    )  # fmt: skip
    assert low.sample.size == (64, 64)
    assert not np.array_equal(np.array(low.sample), np.array(high.sample))
    assert not np.array_equal(np.array(other.sample), np.array(high.sample))
    assert high.story["targets"] == {"colorfulness": 1.0}
    assert set(high.story["obtained"]) == set(engine.space.names)


@pytest.mark.parametrize("strength", [0, 0.1, 1.01, float("nan"), None])
def test_strengths_that_are_refused(engine, job, tmp_path, strength):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="strength"):
        engine.transform(engine.wish("a", 0), tmp_path / "a.png", strength, job)


def test_pictures_that_are_refused(engine, job, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    Image.new("1", (9000, 9000)).save(tmp_path / "large.png")
    for name, said in (
        ("text.png", "not a picture of a known format"),
        ("large.png", "too large"),
        ("gone.png", "missing file"),
    ):
        with pytest.raises(InputError, match=f"picture: {said}.*; drop another one"):
            engine.transform(engine.wish("a", 0), tmp_path / name, 0.5, job)


def test_sweeps(engine, job):
    wish = engine.wish("red apple", 2)
    line = engine.line("colorfulness", None, 3)
    assert [list(t) for t in line] == [["colorfulness"]] * 3
    sweep = engine.sweep(wish, line, job)
    assert (sweep.prompts, sweep.seeds, sweep.z.shape) == (["red apple"], [2], (3, 1, 1, 2))
    square = engine.line("colorfulness", "compressibility", 2)
    assert len(square) == 4 and all(set(t) == set(engine.space.names) for t in square)
    assert square[0]["compressibility"] > square[2]["compressibility"]  # upwards on the page
    assert square[0]["colorfulness"] < square[1]["colorfulness"]
    weights, targets = engine.preferences(5)
    assert weights[2] == {"compressibility": 0.5, "colorfulness": 0.5} and len(targets) == 5


def test_sweeps_stay_within_reach(engine, monkeypatch):
    plain = engine.line("compressibility", None, 5)
    curve = Curve(requested=(-2, 2), obtained=(-0.4, 0.6))
    calibrated = replace(engine.adapter, calibration={"colorfulness": curve})
    monkeypatch.setattr(engine, "adapter", calibrated)
    line = [target["colorfulness"] for target in engine.line("colorfulness", None, 5)]
    assert line == pytest.approx([-0.4, -0.15, 0.1, 0.35, 0.6])
    assert engine.line("compressibility", None, 5) == plain
    square = engine.line("compressibility", "colorfulness", 2)
    assert [target["colorfulness"] for target in square] == pytest.approx([0.6, 0.6, -0.4, -0.4])
    weights, targets = engine.preferences(3)
    for preference, target in zip(weights, targets, strict=True):
        assert target == engine.wish("red apple", 0, preference=preference).targets
    assert targets[-1]["colorfulness"] == 0.6


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
        engine.line(*args)


def test_progress_and_stop(engine):
    seen = []
    job = Job(lambda done, total: seen.append((done, total)))
    wish = engine.wish("red apple", 40)
    before = engine.draw(wish, job)
    assert seen == [(0, 3), (1, 3), (2, 3)]
    assert engine.draw(wish, job) is before and len(seen) == 3  # not drawn again

    def tell(done, total):
        if done == 1:
            job.stop()

    job = Job(tell)
    wish = engine.wish("red apple", 41)
    with pytest.raises(Stopped):
        engine.draw(wish, job)
    assert engine.draw(wish, Job()).story["seed"] == 41


def test_jobs_by_session():
    jobs, one, other = Jobs(), Job(), Job()
    with jobs.of("a", one), jobs.of("b", other):
        assert jobs.stop("a") and not jobs.stop("c")
        assert one.stopped.is_set() and not other.stopped.is_set()
    assert not jobs.stop("a") and not jobs.running


def test_a_stopped_job_that_ends_late_leaves_the_next_one_to_be_stopped():
    jobs, old, new = Jobs(), Job(), Job()
    with ExitStack() as late:
        late.enter_context(jobs.of("a", old))
        assert jobs.stop("a")
        with jobs.of("a", new):
            late.close()
            assert not new.stopped.is_set()
            assert jobs.stop("a") and new.stopped.is_set()
    assert not jobs.running


def asking(desk, *works):
    """What each comes to, asked for from threads of their own while this one serves."""
    came = [None] * len(works)

    def ask(i):
        try:
            came[i] = desk.do(works[i])
        except BaseException as error:
            came[i] = error

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    return came, threads


def test_the_desk_works_in_one_thread():
    desk, wrong = Desk(), InputError("no")

    def fail():
        raise wrong

    came, threads = asking(desk, threading.get_ident, fail, threading.get_ident)
    ended = threading.Timer(0.2, desk.close)
    ended.start()
    desk.serve()
    for thread in threads:
        thread.join()
    here = threading.get_ident()
    assert came == [here, wrong, here]
    with pytest.raises(Stopped):
        desk.do(threading.get_ident)


def test_an_interrupted_desk_leaves_nobody_waiting():
    desk, busy = Desk(), threading.Event()

    def interrupt():
        busy.wait()
        raise KeyboardInterrupt

    came, threads = asking(desk, interrupt)
    while desk.asked.qsize() < 1:
        pass
    waiting, more = asking(desk, threading.get_ident)
    while desk.asked.qsize() < 2:
        pass
    busy.set()
    with pytest.raises(KeyboardInterrupt):
        desk.serve()
    for thread in threads + more:
        thread.join()
    assert isinstance(came[0], Stopped) and isinstance(waiting[0], Stopped)


def test_without_sliders(root):
    from ric_diffusion.app.engine import Engine

    model = load_model(str(root / "model"), None)
    with pytest.raises(InputError, match="has no adapter of its own; give one with --adapter"):
        Engine(model, "tiny")


def test_memory_forgets_the_oldest():
    from ric_diffusion.app.memory import Remembered

    asked = []
    remembered = Remembered(lambda x: asked.append(float(x)) or x + 1, kept=2)
    for value in (1.0, 2.0, 1.0, 3.0, 1.0, 2.0):
        assert remembered(torch.tensor([value])) == value + 1
    assert asked == [1.0, 2.0, 3.0, 2.0]
