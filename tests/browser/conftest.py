"""Chromium from the system, driven by Playwright; every test fails on an error in the console or a request to anywhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def browser():
    if EXECUTABLE is None:
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail("no chromium, and REQUIRE_BROWSER is set")
        pytest.skip("NO CHROMIUM: pages were not looked at; install it (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser):
    """A function that opens a file at a width, in a light or dark scheme."""
    contexts, complaints, requests = [], [], []

    def opened(page: Path, *, width: int = 1280, height: int = 900, scheme: str = "light", fragment: str = ""):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else complaints.append(f"asked for {asked.url}"))
        tab.on("request", lambda asked: requests.append(asked.url))
        tab.goto(page.resolve().as_uri() + fragment)
        return tab

    opened.complaints, opened.requests = complaints, requests
    yield opened
    for context in contexts:
        context.close()
    assert not complaints
