"""Sliders, the front and what is shown of them."""

from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import pytest
from PIL import Image

from ric_diffusion.api import GeneratedSample, Refinement
from ric_diffusion.app import views
from ric_diffusion.app.front import read_front
from ric_diffusion.app.sheets import sheet_of
from ric_diffusion.app.sliders import asked, shares, sliders_of
from ric_diffusion.io import config
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import Centring, Curve
from support.report import result_of, write_report

NAMES = ["compressibility", "colorfulness"]


def measured(obtained):
    """A picture for which nothing was asked."""
    return GeneratedSample(
        sample=None, prompt="", seed=0, model="", targets={}, scores=obtained, obtained=obtained
    )


def test_sliders_have_the_adapters_range(engine):
    for slider in sliders_of(engine.adapter):
        low, high = engine.space.range(slider.name)
        assert low <= slider.low < low + 0.011 and high - 0.011 < slider.high <= high
        assert slider.common == tuple(sorted(slider.common))
        assert slider.score(0) == pytest.approx(slider.reward.mean, abs=1e-3 * slider.reward.std)
        # The way to z and back leaves nothing to be shown of a score that was 0.
        assert f"{slider.score(-slider.reward.mean / slider.reward.std - 1e-12):.3g}" == "0"
        assert (slider.place(slider.low), slider.place(99)) == (0, 1)
    for obtained, ends in (
        ((-0.5, 0.25), (-0.5, 0.25)),
        ((-0.004, 0.003), (-0.01, 0.01)),
        ((0.001, 0.006), (0, 0.01)),
    ):
        curve = Curve(requested=(-1, 1), obtained=obtained)
        calibrated = replace(engine.adapter, calibration={"colorfulness": curve})
        slider = sliders_of(calibrated)[engine.space.names.index("colorfulness")]
        assert (slider.low, slider.high) == ends
        assert (slider.place(-99), slider.place(99)) == (0, 1)


@pytest.mark.parametrize(
    "distance, reached, passes, said",
    [
        (0.03, True, 1, "On target after 1 more pass."),
        (0.41, False, 3, "The nearest after 3 more passes is 0.41 z off."),
        (
            None,
            False,
            2,
            "Nothing has a score, neither what came first nor 2 more passes.",
        ),
    ],
)
def test_how_a_refined_sample_came_near(distance, reached, passes, said):
    how = Refinement(passes=passes, distance=distance, reached=reached, model_targets={})
    drawn = measured({"colorfulness": 0.0})
    assert views.how(drawn) == "" and views.how(replace(drawn, refinement=how)) == said


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares(count):
    assert sum(shares(count)) == 100 and max(shares(count)) - min(shares(count)) <= 1


def test_what_positions_ask_for():
    positions = [60, 40], [0.5, -1.0]
    assert asked(NAMES, "preference", *positions, set()) == {
        "preference": {"compressibility": 60, "colorfulness": 40}
    }
    assert asked(NAMES, "targets", *positions, {"compressibility"}) == {
        "targets": {"colorfulness": -1.0}
    }
    with pytest.raises(InputError, match="mode"):
        asked(NAMES, "<b>", *positions, set())


def test_what_has_no_score_says_so(engine):
    slider, *_ = sliders_of(engine.adapter)
    shown = views.scores(measured({slider.name: None}), [slider], {})
    assert shown.count("<b>auto</b>") == shown.count("<b>no score</b>") == 1
    assert "mark" not in shown


def test_a_reward_compared_within_its_prompt_says_so(engine):
    centring = Centring(mean=0.0, between=1.0, within=1.0, variation=0.0)
    reward = replace(engine.space.rewards[0], unit="kB", centring=centring)
    slider = replace(sliders_of(engine.adapter)[0], reward=reward)
    assert views.strip(slider, 0.0).count("kB, within its prompt") == 4
    one = replace(measured({slider.name: None}), scores={slider.name: 12.345})
    shown = views.scores(one, [slider], {})
    assert "<b>12.3 kB</b><br><small>a sweep compares it within its prompt</small>" in shown
    assert shown.count("<b>auto</b>") == 1 and "no score" not in shown


def test_raw_units_come_first_and_what_to_expect_is_framed(engine):
    slider, *_ = sliders_of(engine.adapter)
    middle = (slider.low + slider.high) / 2
    drawn = replace(measured({slider.name: middle}), targets={slider.name: slider.low})
    shown = views.scores(drawn, [slider], {slider.name: (slider.low, middle)})
    score = f"{slider.score(middle):.3g} {slider.reward.unit}"
    z = f"{'−' if middle < 0 else '+'}{abs(middle):.2f} z"
    assert f'<td data-z="{middle:.4f}"><b>{score}</b><br><small>{z}</small></td>' in shown
    assert '<i class="expected" style="left:0.0%;width:50.0%"></i>' in shown
    assert "what to expect with this prompt" in shown and views.Z in shown
    plain = views.scores(drawn, [slider], {})
    assert "what to expect" not in plain and " hidden></i>" in plain


@pytest.mark.parametrize(
    "text, about",
    [
        ("prompt: empty; write what you want", "prompt"),
        ("seed 1.5: give a whole number", "seed"),
        ('"><b>: x', "&quot;&gt;&lt;b&gt;"),
    ],
)
def test_an_error_names_the_control_it_is_about(text, about):
    assert f'role="alert" data-about="{about}">' in views.said(text, "error")
    assert "data-about" not in views.said(text)


def test_a_preview_is_small_and_leaves_no_file():
    address = views.preview(Image.new("RGB", (2000, 1000), "red"))
    kind, data = address.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    with Image.open(BytesIO(b64decode(data))) as image:
        assert image.size == (512, 256) and image.format == "JPEG"


def test_whatever_is_not_ours_is_escaped(engine, tmp_path):
    evil = "<script>alert(1)</script>"
    slider, *_ = sliders_of(engine.adapter)
    slider = replace(slider, reward=replace(slider.reward, unit=evil))
    result = result_of(NAMES)
    methods = (result.methods[0], replace(result.methods[1], name=evil))
    replace(result, methods=methods).save(tmp_path / "metrics.json")
    front = read_front(tmp_path, engine.adapter)
    shown = [
        views.said(evil, "error"),
        views.strip(slider, 0.0),
        views.scores(measured({slider.name: 1.0}), [slider], {}),
        views.chart(front, *NAMES),
    ]
    for html in shown:
        assert "<script" not in html and "&lt;script&gt;" in html
    assert "auto" in shown[2] and "+1.00 z" in shown[2]


def test_the_front_of_a_report(engine, tmp_path):
    front = read_front(write_report(tmp_path, NAMES, mapping="linf"), engine.adapter)
    assert (front.model, front.mapping, len(front.places)) == ("ours", "linf", 5)
    assert front.places[0].preference == {"compressibility": 1.0, "colorfulness": 0.0}
    chart = views.chart(front, *NAMES, chosen=2)
    assert "<p>ours</p>" in chart
    assert chart.count("data-place=") == 5 and chart.count("chosen") == 1
    assert chart.count('"point on') == 4
    assert "nan" not in views.chart(front, NAMES[0], NAMES[0])


def test_the_front_is_that_of_the_adapters_calibration(engine, tmp_path):
    curve = Curve(requested=(-1, 1), obtained=(-0.5, 0.25))
    calibrated = replace(engine.adapter, calibration={"colorfulness": curve})
    other = replace(engine.adapter, calibration={"compressibility": curve})
    result = result_of(NAMES)
    digest = config.digest({"colorfulness": curve.to_dict()})[:16]  # as in a report
    ours = result.methods[1]
    about = {**ours.about, "calibration": digest}
    more = replace(ours, name="calibrated", about=about)
    replace(result, methods=(*result.methods, more)).save(tmp_path / "metrics.json")
    assert read_front(tmp_path, calibrated).model == "calibrated"
    assert read_front(tmp_path, engine.adapter).model == read_front(tmp_path, other).model == "ours"


@pytest.mark.parametrize(
    "said, text",
    [
        ("has no metrics.json; make a report with ric evaluate", None),
        ("not valid JSON", "{"),
        ("schema_version is None, and this release reads 2", "[]"),
        ("schema_version is None", '{"rewards": [], "models": []}'),
        ("model: missing", '{"schema_version": 2, "rewards": "x"}'),
        ("its rewards are beauty", None),
        ("no method in it has sliders", None),
    ],
)
def test_reports_that_are_refused(engine, tmp_path, said, text):
    if said.startswith("its rewards"):
        write_report(tmp_path, ["beauty", "colorfulness"])
    if said.startswith("no method"):
        result = result_of(NAMES)
        replace(result, methods=result.methods[:1]).save(tmp_path / "metrics.json")
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_front(tmp_path, engine.adapter)
    assert str(caught.value).startswith("report ")


def test_sheets(engine, job):
    request = engine.request("red <b>apple</b>", 2)
    line, _ = engine.sweep(request, engine.line("colorfulness", None, 3, {}), job)
    row = sheet_of(line, request, engine.space, "colorfulness", None)
    square, _ = engine.sweep(request, engine.line("colorfulness", "compressibility", 2, {}), job)
    sheet = sheet_of(square, request, engine.space, "colorfulness", "compressibility")
    assert row.width > row.height and sheet.height > row.height
