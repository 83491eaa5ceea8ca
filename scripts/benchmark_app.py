"""Print how long the app takes from a slider that was let go of to the new picture in the browser,
its gallery and its file with all metadata included, beside the same call of the bare pipeline.

    python scripts/benchmark_app.py

Needs the `dev` extra and Chromium; a minute on two idle CPU cores. The two take turns, so that what
else the machine does weighs on both.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from app_in_browser import another_picture, chromium, drag, picture, running
from ric_diffusion import RiCPipeline

SECONDS, RATIO = 2.5, 1.15  # the bars
PROMPT = "red apple"  # which the page begins with
# Both ends are timed by the browser, so that what drives it does not count.
CLOCK = """() => {
  addEventListener("pointerup", () => { window.released = performance.now(); }, true);
  document.addEventListener("load", event => {
    if (event.target.matches?.("#picture .now")) window.shown = performance.now();
  }, true);
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    pipe = RiCPipeline.from_pretrained("emoji-64")
    pipe.set_progress_bar_config(disable=True)
    bare, shown = [], []
    with running("--model", "emoji-64") as address, chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        another_picture(page, None)  # of the page's own first prompt
        page.evaluate(CLOCK)
        for turn in range(options.turns + 1):
            place = 0.2 + 0.6 * turn / options.turns
            before = picture(page)
            drag(page, "weight-colorfulness", place)
            another_picture(page, before)
            page.wait_for_function("window.shown > window.released")
            shown.append(page.evaluate("window.shown - window.released") / 1000)
            weights = {"compressibility": 1 - place, "colorfulness": place}
            generator, start = torch.Generator().manual_seed(0), time.perf_counter()
            pipe(PROMPT, preference=weights, generator=generator)
            bare.append(time.perf_counter() - start)
    print_table(bare[1:], shown[1:])  # the first turn warms up


def print_table(bare: list[float], shown: list[float]) -> None:
    """The table, medians over the turns."""
    call, browser = statistics.median(bare), statistics.median(shown)
    ratio = statistics.median(b / a for a, b in zip(bare, shown, strict=True))
    rows = [
        ("bare pipeline call, s", f"{call:.2f}", ""),
        ("slider to picture in the browser, s", f"{browser:.2f}", met(browser, SECONDS)),
        ("browser / bare call", f"{ratio:.2f}", met(ratio, RATIO)),
    ]
    print(f"{torch.get_num_threads()} threads, medians of {len(bare)}")
    for name, value, bar in rows:
        print(f"| {name} | {value} | {bar} |")


def met(value: float, bar: float) -> str:
    return f"≤ {bar}, {'met' if value <= bar else 'missed'}"


if __name__ == "__main__":
    main()
