import importlib.metadata
import subprocess
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import scorers
from scorers.spec import parse_spec

BUILTINS = [
    "aesthetic",
    "aesthetic_v2_5",
    "brevity",
    "brightness",
    "clip_iqa",
    "clip_score",
    "colorfulness",
    "compressibility",
    "hps",
    "image_reward",
    "incompressibility",
    "length",
    "pickscore",
    "positivity",
    "readability",
    "relevance",
    "remote",
    "reward_model",
    "vlm_judge",
    "warmth",
]


class Greyness(scorers.BaseScorer):
    """What another package might add, after the example in the package's docstring."""

    name = "greyness"
    unit = "grey level"

    def __init__(self, *, gain: float = 1.0) -> None:
        if gain == 0:
            raise ZeroDivisionError("gain is zero\nand this is the second line")
        self.options = {"gain": gain}
        self.fingerprint = f"greyness gain={gain} {scorers.RGB_FINGERPRINT}"

    def _score(self, images, prompts):
        return [self.options["gain"] * np.mean(scorers.to_rgb(image)) for image in images]


class WrongName(Greyness):
    name = "darkness"


class NoText(Greyness):
    unit = None


class Leaves(Greyness):
    @property
    def unit(self):
        raise SystemExit(3)


def leaves():
    raise SystemExit(3)


def no_scorer():
    return lambda images, prompts: None


def takes_anything(**options):
    return Greyness(**options)


def needs_gain(gain, **options):
    return Greyness(gain=gain)


not_callable = 3


@pytest.fixture
def offer(monkeypatch):
    """Pretend that packages are installed: offer(scorer, attribute of this file, package)."""
    entries = []

    def entry_points(*, group):
        assert group == "ric.scorers"
        return entries

    def add(name, attribute, package="otherpkg", module="fake_scorers"):
        entry = EntryPoint(name, f"{module}:{attribute}", "ric.scorers")
        vars(entry).update(dist=SimpleNamespace(name=package))
        entries.append(entry)

    monkeypatch.setitem(sys.modules, "fake_scorers", SimpleNamespace(**globals()))
    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return add


def refused(spec, **options):
    with pytest.raises(scorers.ScorerError) as caught:
        scorers.load(spec, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_built_in_names(offer):
    assert scorers.available() == BUILTINS


def test_importing_scorers_is_light():
    code = (
        "import sys, scorers; scorers.available();"
        "print([m for m in ('torch', 'numpy', 'PIL', 'open_clip') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_compressibility_needs_no_torch():
    code = (
        "import sys, scorers; from PIL import Image;"
        "image = Image.new('RGB', (8, 8));"
        "[scorers.load(name)([image]) for name in ('compressibility', 'colorfulness')];"
        "print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("spec", "name", "options"),
    [
        ("a", "a", {}),
        (" a ", "a", {}),
        ("a:x=1", "a", {"x": 1}),
        ("a:x=-2, y = 0.5", "a", {"x": -2, "y": 0.5}),
        ("a:x=none,y=True,z=FALSE", "a", {"x": None, "y": True, "z": False}),
        ("a:path=C:/b=c.pth", "a", {"path": "C:/b=c.pth"}),
        ("a:x=1e3", "a", {"x": 1000.0}),
    ],
)
def test_parse(spec, name, options):
    parsed = parse_spec(spec)
    assert parsed == (name, options)
    assert [type(value) for value in parsed[1].values()] == [type(v) for v in options.values()]


@pytest.mark.parametrize("spec", ["a:", "a:x", "a:x=", "a:=1", "a:x=1,", "a:x=1,x=2"])
def test_parse_refuses(spec):
    with pytest.raises(scorers.ScorerError, match=r"^scorer 'a:"):
        parse_spec(spec)


def test_a_name_that_is_no_text():
    assert "None" in refused(None)


def test_unknown_name_gets_a_suggestion():
    assert "did you mean 'colorfulness'?" in refused("colourfulness")


def test_unknown_name_without_a_near_one_gets_the_list(offer):
    message = refused("zzz")
    assert "'zzz'" in message
    assert ", ".join(BUILTINS[:12]) in message


def test_unknown_option_gets_a_suggestion():
    message = refused("compressibility:qualty=90")
    assert "'qualty'" in message
    assert "did you mean 'quality'?" in message
    assert "its options: none" in refused("colorfulness", quality=3)


def test_an_option_that_is_needed(offer):
    offer("greyness", "needs_gain")
    assert "'reward_model' needs 'model'; write reward_model:model=" in refused("reward_model")
    assert "did you mean 'model'?" in refused("reward_model:modle=gpt2")
    assert "'greyness' needs 'gain'; write greyness:gain=" in refused("greyness:gian=1")
    assert scorers.load("greyness:gain=2").options == {"gain": 2}


def test_an_option_given_twice():
    assert "quality" in refused("compressibility:quality=90", quality=80)


def test_another_packages_scorer(offer, pictures):
    offer("greyness", "Greyness")
    assert scorers.available() == sorted([*BUILTINS, "greyness"])
    scorer = scorers.load("greyness:gain=0.5")
    expected = [0.5 * np.asarray(image).mean() for image in pictures]
    np.testing.assert_allclose(scorer(pictures), expected, rtol=1e-6)
    assert scorers.load(scorer.name, **scorer.options).fingerprint == scorer.fingerprint
    assert "did you mean 'gain'?" in refused("greyness:gian=2")
    assert "did you mean 'greyness'?" in refused("greynes")


def test_a_factory_that_takes_any_option(offer):
    offer("greyness", "takes_anything")
    assert scorers.load("greyness:gain=2").options == {"gain": 2}
    assert "otherpkg" in refused("greyness:gian=2")


def test_a_built_in_name_is_not_taken_over(offer, pictures):
    offer("colorfulness", "Greyness", package="greedy")
    with pytest.warns(UserWarning, match="greedy.*colorfulness.*built-in"):
        scorer = scorers.load("colorfulness")
    assert type(scorer).__module__ == "scorers.colorfulness"
    assert scorers.available() == BUILTINS


def test_two_packages_with_one_name(offer):
    offer("greyness", "Greyness", package="one")
    offer("greyness", "WrongName", package="two")
    assert "one, two" in refused("greyness")


@pytest.mark.parametrize(
    ("attribute", "module", "told"),
    [
        ("Greyness", "no_such_module_here", "ModuleNotFoundError"),
        ("Missing", "fake_scorers", "AttributeError"),
        ("not_callable", "fake_scorers", "int"),
        ("no_scorer", "fake_scorers", ".name"),
        ("WrongName", "fake_scorers", "'darkness'"),
        ("NoText", "fake_scorers", ".unit is a NoneType, not a str"),
        ("Leaves", "fake_scorers", ".unit fails: SystemExit: 3"),
        ("leaves", "fake_scorers", "fails with options {}: SystemExit: 3"),
    ],
)
def test_a_broken_package_is_named(offer, attribute, module, told):
    offer("greyness", attribute, package="brokenpkg", module=module)
    assert "greyness" in scorers.available()
    message = refused("greyness")
    assert "brokenpkg" in message
    assert told in message


def test_a_scorer_that_fails_to_start_names_its_package(offer):
    offer("greyness", "Greyness")
    message = refused("greyness:gain=0")
    assert "otherpkg" in message
    assert "ZeroDivisionError: gain is zero" in message


# What every scorer checks of its arguments.


@pytest.mark.parametrize(
    "name", ["brightness", "compressibility", "incompressibility", "colorfulness", "warmth"]
)
@pytest.mark.parametrize("prompts", [None, []])
def test_nothing_to_score(name, prompts):
    scores = scorers.load(name)([], prompts)
    assert (scores.shape, scores.dtype) == ((0,), np.float32)


@pytest.mark.parametrize(
    ("images", "prompts", "told"),
    [
        (Image.new("RGB", (2, 2)), None, "[image]"),
        (np.zeros((1, 2, 2, 3), np.uint8), None, "images[0] is a numpy.ndarray"),
        ([Image.new("RGB", (2, 2)), "a.png"], None, "images[1] is a builtins.str"),
        ([Image.new("RGB", (0, 5))], None, "0x5"),
        ([Image.new("RGB", (2, 2))], ["a", "b"], "images and prompts differ in number, 1 and 2"),
        ([], ["a"], "images and prompts differ in number, 0 and 1"),
        ([Image.new("RGB", (2, 2))], "a", "one string"),
    ],
)
def test_wrong_arguments(images, prompts, told):
    with pytest.raises(scorers.ScorerError) as caught:
        scorers.load("colorfulness")(images, prompts)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "prompts", "told"),
    [
        ("one text", None, "[text]"),
        ([Image.new("RGB", (2, 2))], None, "texts[0] is a PIL.Image.Image; this scorer reads"),
        (["a", None], None, "texts[1] is a builtins.NoneType"),
        (
            ["a"],
            ["a", "b"],
            "texts and prompts differ in number, 1 and 2; pass one prompt per text",
        ),
    ],
)
def test_wrong_arguments_of_texts(texts, prompts, told):
    with pytest.raises(scorers.ScorerError) as caught:
        scorers.load("length")(texts, prompts)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_prompts_are_read_by_nobody_here(pictures):
    scorer = scorers.load("colorfulness")
    assert np.array_equal(scorer(pictures, [None] * len(pictures)), scorer(pictures))


def test_a_subclass_with_the_wrong_number_of_scores(pictures):
    class Short(Greyness):
        def _score(self, images, prompts):
            return super()._score(images, prompts)[1:]

    with pytest.raises(scorers.ScorerError, match="one number per image"):
        Short()(pictures)
