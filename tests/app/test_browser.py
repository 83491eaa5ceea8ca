"""Every tab and every error in a real Chromium, with emoji-64 and a few steps."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

import ric_diffusion
from app_in_browser import CHROMIUM, another_picture, chromium, drag, picture, running
from ric_diffusion.app.page import SHARE
from support.report import write_report

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

ASSETS = Path(ric_diffusion.__file__).parent / "assets" / "emoji-64"
NAMES = ["compressibility", "colorfulness"]
PATIENCE = 120_000  # ms; on an idle machine everything takes a fraction of it


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """``ric app`` with the bundled model and adapter, at six steps, and a report."""
    home = tmp_path_factory.mktemp("app")
    adapter = home / "adapter"
    shutil.copytree(ASSETS / "ric_adapter", adapter)
    about = json.loads((adapter / "ric_adapter.json").read_text())
    about["sampling"]["num_inference_steps"] = 6
    (adapter / "ric_adapter.json").write_text(json.dumps(about))
    report = write_report(home / "report", NAMES)
    with running("--adapter", adapter, "--report", report) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser, address):
    """visit(**settings): a page with the app on it, which asks nobody else for anything."""
    contexts = []

    def open_page(width=1280, **settings):
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, accept_downloads=True, **settings)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
        page.goto(address)
        page.wait_for_selector("#cancel")
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            ours = (address, "data:", "blob:")
            assert [url for url in page.asked if not url.startswith(ours)] == []
        context.close()


@pytest.fixture
def page(visit):
    return visit()


def write(page, prompt):
    page.locator("#prompt").locator("textarea, input").fill(prompt)


def after(page, act, what="#picture"):
    """Do something, and wait for another picture."""
    before = picture(page, what)
    act()
    another_picture(page, before, what)


def obtained(page, name):
    """z of the picture shown, requested and obtained."""
    cells = page.locator(f"#scores tr[data-reward={name}] td").all_inner_texts()
    return [None if "auto" in text else float(text.split()[0]) for text in cells]


def value_of(page, slider):
    return float(page.locator(f"#{slider} input[type=number]").input_value())


def set_seed(page, number):
    page.locator("#seed input").fill(number)
    page.locator("#seed input").press("Tab")


def told(page, words):
    """Draw, and wait until the line says these words. On a machine that is busy a click may come
    before the page has taken what was typed; a person would click again, too."""
    said = f"document.querySelector('#line').innerText.includes('{words}')"
    for last in (False, False, True):
        page.locator("#go").click()
        try:
            page.wait_for_function(said, timeout=20_000)
            return
        except playwright.TimeoutError:
            if last:
                raise


def error(page):
    page.wait_for_selector("#line .error")
    return page.locator("#line").inner_text().strip()


def test_a_slider_makes_another_picture_with_a_higher_score(page):
    write(page, "red apple")
    after(page, lambda: page.keyboard.press("Enter"))
    after(page, lambda: drag(page, "weight-colorfulness", 0.0))
    assert [value_of(page, f"weight-{name}") for name in NAMES] == [100, 0]
    low = obtained(page, "colorfulness")
    after(page, lambda: drag(page, "weight-colorfulness", 1.0))
    assert [value_of(page, f"weight-{name}") for name in NAMES] == [0, 100]
    high = obtained(page, "colorfulness")
    assert high[0] > low[0] + 1 and high[1] > low[1] + 0.3
    assert obtained(page, "compressibility")[0] < 0.5
    with page.expect_download() as download:
        page.locator("#picture [aria-label=Download]").click()
    with Image.open(download.value.path()) as image:
        assert image.size == (64, 64) and image.text["prompt"] == "red apple"


@pytest.mark.parametrize(
    "moved, weights, shared",
    [
        (0, [98, 20, 20, 20, 20], [98, 1, 1, 0, 0]),
        (1, [50, 150], [0, 100]),
        (0, [-5, 30, 70], [0, 30, 70]),
        (2, [0, 0, 40], [30, 30, 40]),
    ],
)
def test_weights_share_100(browser, moved, weights, shared):
    page = browser.new_page()
    assert page.evaluate(f"({SHARE % moved})(...{weights})") == shared
    page.close()


def test_targets_and_auto_by_keyboard(page):
    write(page, "cat")
    page.get_by_label("Targets, in z").check()
    after(page, lambda: page.locator("#go").click())
    assert [obtained(page, name)[0] for name in NAMES] == [None, None]
    rail = page.locator("#target-colorfulness input[type=range]")
    rail.focus()
    after(page, lambda: rail.press("End"))
    assert not page.locator("#auto-colorfulness input").is_checked()
    requested, _ = obtained(page, "colorfulness")
    assert requested == value_of(page, "target-colorfulness") > 1
    assert obtained(page, "compressibility")[0] is None
    number = page.locator("#target-compressibility input[type=number]")
    number.fill("0.5")
    after(page, lambda: number.press("Enter"))
    assert obtained(page, "compressibility")[0] == 0.5
    auto = page.locator("#auto-colorfulness input")
    after(page, auto.focus)  # a number that is left counts as set
    after(page, lambda: auto.press("Space"))
    assert obtained(page, "colorfulness")[0] is None


def test_seeds(page):
    write(page, "cat")
    seed = page.locator("#seed input")
    seed.fill("7")
    after(page, lambda: page.locator("#go").click())
    first = page.locator("#picture img").evaluate("e => e.src")
    assert first.endswith("/7.png")
    page.get_by_label("Keep this seed").uncheck()
    after(page, lambda: page.locator("#go").click())
    assert seed.input_value() != "7" and picture(page).endswith(f"/{seed.input_value()}.png")


def test_sweep_and_download(page):
    write(page, "fish <b>&")
    page.locator("#points input[type=number]").fill("2")
    page.locator("#points input[type=number]").press("Enter")
    page.locator("#along input").click()
    page.get_by_role("option", name="colorfulness").click()
    after(page, lambda: page.locator("#start-sweep").click(), "#sheet")
    with page.expect_download() as download:
        page.locator("#png").click()
    assert download.value.suggested_filename == "grid.png"
    with Image.open(download.value.path()) as sheet:
        assert sheet.width > 200
    with page.expect_download() as download:
        page.locator("#json").click()
    metadata = json.loads(Path(download.value.path()).read_text())
    assert metadata["prompt"] == "fish <b>&" and len(metadata["points"]) == 2
    assert list(metadata["points"][0]["targets"]) == ["colorfulness"]
    page.locator("#across input").click()
    page.get_by_role("option", name="compressibility").last.click()
    after(page, lambda: page.locator("#start-sweep").click(), "#sheet")


def test_front(page):
    write(page, "rocket")
    page.get_by_role("tab", name="Front").click()
    after(page, lambda: page.locator("[data-place='1']").click())
    assert [value_of(page, f"weight-{name}") for name in NAMES] == [75, 25]
    assert page.locator(".chosen").get_attribute("data-place") == "1"
    page.locator("[data-place='4']").focus()
    after(page, lambda: page.keyboard.press("Enter"))
    assert [value_of(page, f"weight-{name}") for name in NAMES] == [0, 100]


def drop(page, path):
    page.get_by_role("tab", name="Image to image").click()
    page.locator("#dropped input[type=file]").set_input_files(path)
    page.wait_for_selector("#dropped img", state="attached")


def test_image_to_image(page, tmp_path):
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "disc.png")
    write(page, "ball")
    page.get_by_role("tab", name="Image to image").click()
    page.locator("#start-transform").click()
    assert error(page) == "picture: none there; drop one first"
    drop(page, tmp_path / "disc.png")
    after(page, lambda: page.locator("#start-transform").click(), "#moved")
    assert "obtained" in page.locator("#moved-scores").inner_text()
    assert page.locator("#line").inner_text().strip() == ""


def test_what_is_dropped_must_be_a_picture(page, tmp_path):
    (tmp_path / "text.png").write_text("this is no picture")
    write(page, "ball")
    drop(page, tmp_path / "text.png")
    page.locator("#start-transform").click()
    assert error(page) == "picture: not a picture of a known format; drop another one"


def test_errors_say_what_to_change(page):
    page.locator("#go").click()
    assert error(page) == "prompt: empty; write what you want"
    write(page, "x" * 3000)
    told(page, "shorten")
    write(page, "cat")
    set_seed(page, "1.5")
    told(page, "whole number")
    set_seed(page, "0")
    # What was wrong is over once it is right.
    after(page, lambda: page.locator("#go").click())
    assert page.locator("#line .error").count() == 0


def test_scripts_are_text(page):
    write(page, "<img src=x onerror=alert(1)><script>alert(2)</script>")
    after(page, lambda: page.locator("#go").click())
    page.locator("#points input[type=number]").fill("2")
    page.locator("#points input[type=number]").press("Enter")
    after(page, lambda: page.locator("#start-sweep").click(), "#sheet")
    assert page.locator("img[src=x]").count() == 0


def test_cancel(page):
    page.locator("#cancel").click()
    said = "Nothing of yours runs or waits now"
    page.wait_for_function(f"document.querySelector('#line').innerText.includes('{said}')")
    write(page, "cat")
    page.locator("#points input[type=number]").fill("8")
    page.locator("#points input[type=number]").press("Enter")
    page.locator("#along input").click()
    page.get_by_role("option", name="colorfulness").click()
    page.locator("#across input").click()
    page.get_by_role("option", name="compressibility").last.click()
    page.locator("#start-sweep").click()
    page.wait_for_selector("#sheet >> text=/[0-9.]+%/")  # it is under way, and says how far
    page.locator("#cancel").click()
    page.wait_for_function("document.querySelector('#line').innerText.includes('Cancelled')")
    assert picture(page, "#sheet") is None
    after(page, lambda: page.locator("#go").click())  # and the next is drawn at once


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_pages(visit, scheme):
    page = visit(width=400, color_scheme=scheme)
    write(page, "cat")
    after(page, lambda: page.locator("#go").click())
    page.get_by_label("Targets, in z").check()
    for tab in ("Sweep", "Front", "Image to image"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
    dark = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] < 128"
    )
    assert dark == (scheme == "dark")


def test_what_holds_the_keys(page):
    """Tab goes from the prompt through the sliders to the buttons."""
    page.locator("#prompt").locator("textarea, input").focus()
    seen = []
    for _ in range(16):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.closest('[id]')?.id ?? ''"))
    order = [re.sub(r"range_id_\d+", "slider", name) for name in seen]
    assert order.index("seed") < order.index("slider") < order.index("go") < order.index("cancel")
