"""Draw the app's screenshots for the docs, docs/figures/app-light.png and app-dark.png.

    python scripts/draw_app.py

Needs the `dev` extra and Chromium.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from app_in_browser import another_picture, chromium, drag, picture, running

FIGURES = Path(__file__).parents[1] / "docs" / "figures"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with running("--model", "emoji-64") as address, chromium() as browser:
        for scheme in ("light", "dark"):
            page = browser.new_page(
                viewport={"width": 1280, "height": 960},
                color_scheme=scheme,
                reduced_motion="reduce",
            )
            page.set_default_timeout(300_000)
            page.goto(address)
            another_picture(page, None)
            page.locator("#prompt").locator("textarea, input").fill("octopus")
            page.get_by_label("Targets").check()
            for place in (0.2, 0.85):  # two for the gallery
                before = picture(page)
                drag(page, "target-colorfulness", place)
                another_picture(page, before)
            page.locator("#start-sweep").click()
            another_picture(page, None, "#sheet")
            page.mouse.move(0, 0)
            page.evaluate("scrollTo(0, 0)")
            page.wait_for_timeout(1000)  # what faded in is there
            page.screenshot(path=FIGURES / f"app-{scheme}.png")
            page.close()


if __name__ == "__main__":
    main()
