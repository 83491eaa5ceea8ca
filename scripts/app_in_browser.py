"""``ric app`` in a process of its own and a headless Chromium, which talks to nobody else: for the
app's tests, its benchmark and its screenshots."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Of an image that is not the one it was: [selector, address before].
ANOTHER = """([what, before]) => {
  const image = document.querySelector(what + " img");
  return image && image.getAttribute("src") !== before && image.complete && image.naturalWidth > 0;
}"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running(*arguments: object, errors: IO[str] | None = None) -> Iterator[str]:
    """The address of ``ric app`` with these arguments; ``errors``: a file for what it says on
    stderr."""
    command = [sys.executable, "-m", "ric_diffusion", "app", "--port", free_port(), *arguments]
    app = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=errors, text=True
    )
    try:
        assert app.stdout is not None
        if not (address := app.stdout.readline().strip()):
            raise RuntimeError("ric app did not start")
        yield address
        assert app.poll() is None, "ric app died"
    finally:
        app.terminate()
        try:
            app.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            app.kill()
            app.communicate()


@contextmanager
def chromium() -> Iterator[Any]:
    """Playwright's browser, with a new profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def another_picture(page: Any, before: str | None, what: str = "#picture") -> None:
    """Wait until a picture other than the one at ``before`` is shown."""
    page.wait_for_function(ANOTHER, arg=[what, before])


def picture(page: Any, what: str = "#picture") -> str | None:
    """Where the picture comes from that is shown; None before there is one."""
    image = page.locator(f"{what} img").first
    address: str | None = image.get_attribute("src") if image.count() else None
    return address


def drag(page: Any, slider: str, place: float) -> None:
    """Take a slider by its thumb to a place from 0 to 1, and let go."""
    rail = page.locator(f"#{slider} input[type=range]")
    rail.scroll_into_view_if_needed()
    box = rail.bounding_box()
    low, high, value = (float(rail.evaluate(f"e => e.{key}")) for key in ("min", "max", "value"))
    left, length, y = box["x"] + 8, box["width"] - 16, box["y"] + box["height"] / 2
    page.mouse.move(left + length * (value - low) / (high - low), y)
    page.mouse.down()
    page.mouse.move(left + length * place, y, steps=4)
    page.mouse.up()
