"""The page is whole, safe and right: it says what metrics.json says."""

import io
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ric_diffusion.evaluation.findings import findings, number, percent, with_interval
from ric_diffusion.evaluation.report import draw_grid, sample_rows, write_report
from ric_diffusion.evaluation.summary import summarise
from support.outcomes import PROMPTS, base_of, outcome_of, setup_of

VOID = {"meta", "img", "source", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Reads a page; complains of tags that are not closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.texts = [], [], []
        self.tables, self.row, self.cell = [], None, None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self.cell)
            self.cell = None

    def handle_data(self, text):
        self.texts.append((self.open[-1] if self.open else "", text))
        if self.cell is not None:
            self.cell += text

    def all(self, *names):
        return [(tag, attributes) for tag, attributes in self.tags if tag in names]

    def table(self, column):
        """The one whose header has this column, as dicts."""
        (table,) = [table for table in self.tables if column in table[0]]
        return [dict(zip(table[0], row, strict=True)) for row in table[1:]]


def picture(path):
    """What a sampler would read: a colour that depends on the file's name."""
    rng = np.random.default_rng(list(str(path.name).encode()))
    return Image.new("RGB", (64, 64), tuple(rng.integers(0, 255, 3).tolist()))


def report_of(out, outcomes, setup, read=picture):
    metrics = summarise(
        outcomes, setup, out, model="emoji <64>", versions={"torch": "2.14", "ric-diffusion": "1"}
    )
    write_report(metrics, out, read)
    text = (out / "index.html").read_text(encoding="utf-8")
    return json.loads((out / "metrics.json").read_text()), text


@pytest.fixture(scope="module")
def setup():
    return setup_of(held_out=["aesthetic"])


@pytest.fixture(scope="module")
def compared(setup, tmp_path_factory):
    """Three models, one of them without sliders and one with a name that is no HTML."""
    out = tmp_path_factory.mktemp("compared")
    outcomes = [
        outcome_of(setup, name="mine", gain=0.9, faults={"blank": 2}),
        outcome_of(setup, name='<img src=x onerror="1">', gain=0.5, seed=1),
        base_of(setup),
    ]
    return (*report_of(out, outcomes, setup), out)


@pytest.fixture(scope="module")
def page(compared):
    return Page(compared[1])


def test_files(compared):
    out = compared[2]
    names = {path.name for path in out.iterdir()}
    assert names == {"metrics.json", "front.png", "control.png", "grid.png", "index.html"}
    for name in ("front.png", "control.png", "grid.png"):
        with Image.open(out / name) as image:
            image.load()
            assert min(image.size) > 300


def test_what_is_not_ours_is_escaped(compared, page):
    metrics, text, _ = compared
    assert metrics["prompts"] == PROMPTS
    assert page.all("script") == []
    assert "<script" not in text and "<img src=x" not in text
    assert all("onerror" not in attributes for _, attributes in page.tags)
    said = [text for tag, text in page.texts if tag == "li"]
    assert PROMPTS[1] in said  # as it was written, once it is read
    assert any(text == '<img src=x onerror="1">' for _, text in page.texts)
    assert any("emoji <64>" in text for tag, text in page.texts if tag == "h1")


def test_nothing_is_needed_beside_it(compared, page):
    text = re.sub(r"base64,[^\"]*", "", compared[1])
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link|<iframe|srcdoc", text)
    for _, attributes in page.tags:
        for key in ("src", "srcset", "href", "poster", "data"):
            assert attributes.get(key, "data:").startswith("data:")
        assert not any(key.startswith("on") for key in attributes)


def test_pictures_are_inside_and_described(page, compared):
    images = [attributes for _, attributes in page.all("img")]
    assert len(images) == 4  # front, two rewards, grid
    for attributes in images:
        assert len(attributes["alt"]) > 20
        assert attributes["src"].startswith("data:image/png;base64,")
    sources = [attributes for _, attributes in page.all("source")]
    assert len(sources) == 3  # the grid is the same by day and by night
    assert {attributes["media"] for attributes in sources} == {"(prefers-color-scheme: dark)"}
    model = compared[0]["models"][0]
    end = model["points"][0]["obtained"]["compressibility"]["value"]
    assert f"mine from compressibility {number(end)}" in images[0]["alt"]


def test_page_can_be_read_by_anyone(page, compared):
    text = compared[1]
    assert page.tags[0] == ("html", {"lang": "en"})
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert len(page.all("main")) == 1
    assert len(page.all("caption")) == len(page.all("table")) == len(page.tables) == 5
    assert {a["scope"] for _, a in page.all("th")} == {"col", "row"}
    viewport = [a for _, a in page.all("meta") if a.get("name") == "viewport"]
    assert viewport[0]["content"] == "width=device-width, initial-scale=1"
    assert "prefers-color-scheme: dark" in text
    for _, attributes in page.all("div"):
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0" and attributes["aria-label"]


def test_findings_come_first(page, compared):
    headings = [text for tag, text in page.texts if tag == "h2"]
    assert headings[0] == "What was found" and headings[-1] == "How it was measured"
    said = [text for tag, text in page.texts if tag == "li"]
    assert said[: len(findings(compared[0]))] == findings(compared[0])


def test_models_table_is_metrics_json(page, compared):
    rows = page.table("hypervolume")
    models = compared[0]["models"]
    assert [row["model"] for row in rows] == [model["name"] for model in models]
    for row, model in zip(rows, models, strict=True):
        value, low, high = (
            float(text.replace("−", "-")) for text in re.findall(r"[−\d.]+", row["hypervolume"])
        )
        stored = model["hypervolume"]
        assert [value, low, high] == pytest.approx(
            [stored["value"], stored["low"], stored["high"]], abs=0.005
        )
        assert row["faults"] == f"{sum(model['faults'].values())} of {model['samples']}"
    assert rows[0]["× mine"] == "1"
    assert rows[1]["× mine"] == with_interval(models[1]["hypervolume_ratio"])


def test_control_table_is_metrics_json(page, compared):
    rows = page.table("saturation")
    assert [row["reward"] for row in rows] == ["colorfulness"] * 2 + ["compressibility"] * 2
    sweeps = {
        (model["name"], sweep["reward"]): sweep
        for model in compared[0]["models"]
        for sweep in model["control"]
    }
    assert len(sweeps) == 4
    for row in rows:
        sweep = sweeps[row["model"], row["reward"]]
        assert row["error, z"] == with_interval(sweep["error"])
        assert row["saturation"].startswith(percent(sweep["saturation"]["value"]))
        assert row["rank correlation"] == number(sweep["spearman_of_means"], 3)


def test_points_tables_are_metrics_json(page, compared):
    tables = [table for table in page.tables if table[0][0] == "point"]
    for table, model in zip(tables, compared[0]["models"], strict=True):
        assert len(table) - 1 == len(model["points"])
        for row, point in zip(table[1:], model["points"], strict=True):
            cells = dict(zip(table[0], row, strict=True))
            for name, figure in point["obtained"].items():
                assert cells[f"{name}, z"] == with_interval(figure, sign=True)
                if point["preference"]:
                    assert cells[f"weight of {name}"] == number(point["preference"][name])
            assert cells["aesthetic"] == with_interval(point["held_out"]["aesthetic"])


def test_how_it_was_measured(page):
    said = " ".join(text for tag, text in page.texts if tag in ("dd", "dt"))
    for word in ("(−2, −2)", "1000 draws", "1001, 1002", "compressibility <v1>", "runs/mine",
                 "num_inference_steps", "torch 2.14", "aesthetic"):  # fmt: skip
        assert word in said


def test_verdicts():
    setup = setup_of()
    strong, weak = outcome_of(setup, "strong", gain=0.9), outcome_of(setup, "weak", gain=0.2)
    twin = outcome_of(setup, "twin", gain=0.9, noise=0.6, seed=3)

    def said(*outcomes):
        metrics = summarise(outcomes, setup, Path(), model="m", versions={})
        return findings(metrics)[1]

    assert said(strong, weak).endswith("times as much as strong: it covers less.")
    assert said(weak, strong).endswith("times as much as weak: it covers more.")
    assert said(twin, outcome_of(setup, "other", gain=0.9, noise=0.6, seed=4)).endswith(
        "the two cannot be told apart."
    )


def test_one_reward_has_no_front_picture(tmp_path):
    setup = setup_of(1)
    _, text = report_of(tmp_path, [outcome_of(setup)], setup)
    assert not (tmp_path / "front.png").exists() and (tmp_path / "control.png").exists()
    assert len(Page(text).all("img")) == 2


def test_samples_that_are_neither_pictures_nor_texts(tmp_path):
    setup = setup_of()
    _, text = report_of(tmp_path, [outcome_of(setup)], setup, read=lambda path: (1.0, 2.0))
    assert not (tmp_path / "grid.png").exists()
    assert "Samples" not in [text for tag, text in Page(text).texts if tag == "h2"]


def test_texts_stand_in_the_page(tmp_path):
    """The first prompts, at the ends and in the middle of the sweep."""
    setup = setup_of()
    outcomes = [outcome_of(setup), base_of(setup)]
    metrics, text = report_of(
        tmp_path, outcomes, setup, read=lambda path: f"<b>poem</b> of {path.parent.name}"
    )
    assert not (tmp_path / "grid.png").exists()
    shown = [row["Response"] for row in Page(text).table("Response")]
    points = [point["files"][0][0].split("/")[-2] for point in metrics["models"][0]["points"]]
    wanted = [f"<b>poem</b> of {points[i]}" for i in (0, 2, 4)]
    assert shown[:4] == [*wanted, "<b>poem</b> of 000"]  # the base has a single point
    assert len(shown) == 4 * len(PROMPTS)


def test_base_model_alone(tmp_path):
    setup = setup_of()
    metrics, text = report_of(tmp_path, [base_of(setup)], setup)
    assert not (tmp_path / "control.png").exists()
    assert Page(text).table("hypervolume")[0]["model"] == "no adapter"
    assert metrics["models"][0]["control"] == []


def test_nothing_known_is_a_dash(tmp_path):
    setup = setup_of()
    outcome = outcome_of(setup, faults={"blank": 90})
    outcome.scores[:] = np.nan
    outcome.diversity[:] = np.nan
    _, text = report_of(tmp_path, [outcome], setup)
    (row,) = Page(text).table("hypervolume")
    assert row["diversity"] == "–" and row["faults"] == "90 of 90"
    assert not re.search(r"\bnan\b|None", re.sub(r"base64,[^\"]*", "", text))


def test_grid_shows_the_samples_of_metrics_json(compared):
    """The first column of the first row is the first model's first sample."""
    metrics, _, out = compared
    seen = []

    def read(path):
        seen.append(path)
        return picture(path)

    sheet = draw_grid(sample_rows(metrics, out, read))
    assert seen[0] == out / metrics["models"][0]["points"][0]["files"][0][0]
    assert picture(seen[0]).getpixel((0, 0)) in {c for _, c in sheet.getcolors(2**24)}
    assert len(seen) == 2 * (5 + 5 + 1)  # two prompts, three models
    with Image.open(io.BytesIO((out / "grid.png").read_bytes())) as image:
        assert image.size == sheet.size


@pytest.mark.parametrize(
    "value, text",
    [(1.234, "1.23"), (-1.236, "−1.24"), (None, "–"), (0.0, "0.00")],
)
def test_numbers(value, text):
    assert number(value) == text


def test_intervals_in_words():
    assert with_interval({"value": 1, "low": -0.5, "high": 2}) == "1.00 (−0.50 to 2.00)"
    assert (
        with_interval({"value": 1, "low": -0.5, "high": 2}, 1, sign=True) == "+1.0 (−0.5 to +2.0)"
    )
    assert with_interval({"value": None, "low": None, "high": None}) == "–"
    assert percent(0.125) == "12 %"
