"""The picture at the head of README: a report's page down to its chart, as a browser shows it.

    uv run --extra test python -m tests.browser.picture reports/table3c.html reports/table3c-page.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.browser.conftest import EXECUTABLE

WIDTH = 1080


def picture(page: Path, path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": 900}, device_scale_factor=1.5, color_scheme="light")
        tab.goto(page.resolve().as_uri())
        tab.evaluate("document.querySelector('nav').remove()")
        chart = tab.locator(".chart .wide").bounding_box()
        top = tab.locator("h1").bounding_box()
        assert chart is not None and top is not None, "the page has no chart"
        start = top["y"] - 16
        tab.screenshot(path=path, full_page=True, clip={"x": 0, "y": start, "width": WIDTH, "height": chart["y"] + chart["height"] + 16 - start})
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 3 or EXECUTABLE is None:
        sys.exit("usage: python -m tests.browser.picture PAGE.html PICTURE.png, with chromium on the PATH")
    picture(Path(sys.argv[1]), Path(sys.argv[2]))
