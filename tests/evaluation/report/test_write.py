"""The page is whole, safe and right: it says what the result says."""

import io
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ric_diffusion.data.medium import IMAGE, TEXT
from ric_diffusion.evaluation.report.schema import Estimate, EvaluationResult
from ric_diffusion.evaluation.report.summary import summarise
from ric_diffusion.evaluation.report.text import number, percent, statements, with_interval
from ric_diffusion.evaluation.report.write import draw_grid, sample_rows, write_report
from support.scores import PROMPTS, base_of, config_of, scores_of

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
    """What would be read: a colour that depends on the file's name."""
    rng = np.random.default_rng(list(str(path.name).encode()))
    return Image.new("RGB", (64, 64), tuple(rng.integers(0, 255, 3).tolist()))


class Medium:
    """What is read instead of files, of the medium called ``name``."""

    def __init__(self, name, read):
        self.name, self.read = name, read


PICTURES = Medium(IMAGE.name, picture)


def report_of(out, given, config, medium=PICTURES):
    result = summarise(
        given, config, out, model="emoji <64>", versions={"torch": "2.14", "ric-diffusion": "1"}
    )
    write_report(result, out, medium)
    text = (out / "index.html").read_text(encoding="utf-8")
    return EvaluationResult.load(out / "metrics.json"), text


@pytest.fixture(scope="module")
def config():
    return config_of(held_out=["aesthetic"])


@pytest.fixture(scope="module")
def compared(config, tmp_path_factory):
    """Three methods, one of them without sliders and one with a name that is no HTML."""
    out = tmp_path_factory.mktemp("compared")
    given = [
        scores_of(config, name="mine", gain=0.9, rejected={"blank": 2}),
        scores_of(config, name='<img src=x onerror="1">', gain=0.5, seed=1),
        base_of(config),
    ]
    return (*report_of(out, given, config), out)


@pytest.fixture(scope="module")
def page(compared):
    return Page(compared[1])


def test_files(compared):
    out = compared[2]
    names = {path.name for path in out.iterdir()}
    report = {"metrics.json", "front.png", "control.png", "grid.png", "index.html"}
    assert names == report | {"methods"}
    for name in ("front.png", "control.png", "grid.png"):
        with Image.open(out / name) as image:
            image.load()
            assert min(image.size) > 300


def test_what_is_not_ours_is_escaped(compared, page):
    result, text, _ = compared
    assert result.prompts == tuple(PROMPTS)
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
    method = compared[0].methods[0]
    end = method.points[0].obtained["compressibility"].value
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


def test_statements_come_first(page, compared):
    headings = [text for tag, text in page.texts if tag == "h2"]
    assert headings[0] == "What was found" and headings[-1] == "How it was measured"
    said = [text for tag, text in page.texts if tag == "li"]
    assert said[: len(statements(compared[0]))] == statements(compared[0])


def test_methods_table_is_the_result(page, compared):
    rows = page.table("hypervolume")
    methods = compared[0].methods
    assert [row["method"] for row in rows] == [method.name for method in methods]
    for row, method in zip(rows, methods, strict=True):
        value, low, high = (
            float(text.replace("−", "-")) for text in re.findall(r"[−\d.]+", row["hypervolume"])
        )
        stored = method.hypervolume
        assert [value, low, high] == pytest.approx(
            [stored.value, stored.low, stored.high], abs=0.005
        )
        assert row["rejected"] == f"{sum(method.rejected.values())} of {method.samples}"
    assert rows[0]["× mine"] == "1"
    assert rows[1]["× mine"] == with_interval(methods[1].hypervolume_ratio)


def test_control_table_is_the_result(page, compared):
    rows = page.table("saturation")
    assert [row["reward"] for row in rows] == ["colorfulness"] * 2 + ["compressibility"] * 2
    sweeps = {
        (method.name, sweep.reward): sweep
        for method in compared[0].methods
        for sweep in method.control
    }
    assert len(sweeps) == 4
    for row in rows:
        sweep = sweeps[row["method"], row["reward"]]
        assert row["error, z"] == with_interval(sweep.error)
        assert row["saturation"].startswith(percent(sweep.saturation.value))
        assert row["rank correlation"] == number(sweep.spearman_of_means, 3)


def test_points_tables_are_the_result(page, compared):
    tables = [table for table in page.tables if table[0][0] == "point"]
    for table, method in zip(tables, compared[0].methods, strict=True):
        assert len(table) - 1 == len(method.points)
        for row, point in zip(table[1:], method.points, strict=True):
            cells = dict(zip(table[0], row, strict=True))
            for name, figure in point.obtained.items():
                assert cells[f"{name}, z"] == with_interval(figure, sign=True)
                if point.preference:
                    assert cells[f"weight of {name}"] == number(point.preference[name])
            assert cells["aesthetic"] == with_interval(point.held_out["aesthetic"])


def test_how_it_was_measured(page):
    said = " ".join(text for tag, text in page.texts if tag in ("dd", "dt"))
    for word in ("(−2, −2)", "1000 draws", "1001, 1002", "compressibility <v1>", "aesthetic"):
        assert word in said
    lines = [text for tag, text in page.texts if tag == "li"]
    for line in ("adapter: runs/mine", "sampling.num_inference_steps: 20", "torch 2.14"):
        assert line in lines
    assert not any("{" in line for line in lines)  # settings are lines, not JSON


def test_intervals_may_go_under_their_figures(compared):
    volume = compared[0].methods[0].hypervolume
    interval = f"({number(volume.low)} to {number(volume.high)})"
    shown = f'<td>{number(volume.value)} <span class="interval">{interval}</span></td>'
    assert shown in compared[1]


def test_points_of_many_methods_are_folded(config, tmp_path):
    given = [scores_of(config, name=f"method {i}", seed=i) for i in range(4)]
    folded = Page(report_of(tmp_path, given, config)[1]).all("details")
    assert len(folded) == 5  # and the prompts


def test_verdicts():
    config = config_of()
    strong, weak = scores_of(config, "strong", gain=0.9), scores_of(config, "weak", gain=0.2)
    twin = scores_of(config, "twin", gain=0.9, noise=0.6, seed=3)

    def said(*given):
        result = summarise(given, config, Path(), model="m", versions={})
        return statements(result)[1]

    assert said(strong, weak).endswith("times as much as strong: it covers less.")
    assert said(weak, strong).endswith("times as much as weak: it covers more.")
    assert said(twin, scores_of(config, "other", gain=0.9, noise=0.6, seed=4)).endswith(
        "the two cannot be told apart."
    )


def test_one_reward_has_no_front_picture(tmp_path):
    config = config_of(1)
    _, text = report_of(tmp_path, [scores_of(config)], config)
    assert not (tmp_path / "front.png").exists() and (tmp_path / "control.png").exists()
    assert len(Page(text).all("img")) == 2


def test_samples_that_are_neither_pictures_nor_texts(tmp_path):
    config = config_of()
    _, text = report_of(
        tmp_path, [scores_of(config)], config, Medium("point", lambda path: (1.0, 2.0))
    )
    assert not (tmp_path / "grid.png").exists()
    assert "Samples" not in [text for tag, text in Page(text).texts if tag == "h2"]


def test_texts_stand_in_the_page(tmp_path):
    """The first prompts, at the ends and in the middle of the sweep."""
    config = config_of()
    given = [scores_of(config), base_of(config)]
    result, text = report_of(
        tmp_path,
        given,
        config,
        Medium(TEXT.name, lambda path: f"<b>poem</b> of {path.parent.name}"),
    )
    assert not (tmp_path / "grid.png").exists()
    shown = [row["Response"] for row in Page(text).table("Response")]
    points = [point.files[0][0].split("/")[-2] for point in result.methods[0].points]
    wanted = [f"<b>poem</b> of {points[i]}" for i in (0, 2, 4)]
    assert shown[:4] == [*wanted, "<b>poem</b> of 000"]  # the base has a single point
    assert len(shown) == 4 * len(PROMPTS)


def test_base_model_alone(tmp_path):
    config = config_of()
    result, text = report_of(tmp_path, [base_of(config)], config)
    assert not (tmp_path / "control.png").exists()
    assert Page(text).table("hypervolume")[0]["method"] == "no adapter"
    assert result.methods[0].control == ()


def test_nothing_known_is_a_dash(tmp_path):
    config = config_of()
    given = scores_of(config, rejected={"blank": 90})
    given.scores[:] = np.nan
    given.diversity[:] = np.nan
    _, text = report_of(tmp_path, [given], config)
    (row,) = Page(text).table("hypervolume")
    assert row["diversity"] == "–" and row["rejected"] == "90 of 90"
    assert not re.search(r"\bnan\b|None", re.sub(r"base64,[^\"]*", "", text))


def test_grid_shows_the_samples_of_the_result(compared):
    """The first column of the first row is the first method's first sample."""
    result, _, out = compared
    seen = []

    def read(path):
        seen.append(path)
        return picture(path)

    sheet = draw_grid(sample_rows(result, out, Medium(IMAGE.name, read)))
    assert seen[0] == out / result.methods[0].points[0].files[0][0]
    assert picture(seen[0]).getpixel((0, 0)) in {c for _, c in sheet.getcolors(2**24)}
    assert len(seen) == 2 * (5 + 5 + 1)  # two prompts, three methods
    with Image.open(io.BytesIO((out / "grid.png").read_bytes())) as image:
        assert image.size == sheet.size


@pytest.mark.parametrize(
    "value, text",
    [(1.234, "1.23"), (-1.236, "−1.24"), (None, "–"), (0.0, "0.00")],
)
def test_numbers(value, text):
    assert number(value) == text


def test_intervals_in_words():
    assert with_interval(Estimate(value=1, low=-0.5, high=2)) == "1.00 (−0.50 to 2.00)"
    assert with_interval(Estimate(value=1, low=-0.5, high=2), 1, sign=True) == "+1.0 (−0.5 to +2.0)"
    assert with_interval(Estimate(value=None, low=None, high=None)) == "–"
    assert percent(0.125) == "12 %"
