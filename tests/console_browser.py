"""A headless Chromium for tests of the console's pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.console_samples import TOKEN, Client

PATIENCE_MS = 60_000.0  # of a test that fails; a busy machine takes its time
expect.set_options(timeout=PATIENCE_MS)
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
SERIOUS = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
    .filter((one) => ["serious", "critical"].includes(one.impact))
    .map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ")}`)"""
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium."""
    program = shutil.which("chromium")
    assert program, "chromium is not installed; install Debian's package"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def logged_in(browser: Browser, client: Client, width: int = 1280, height: int = 800) -> Iterator[Page]:
    """Open a page that is logged in; it fails the test if a script fails or anything is requested from elsewhere."""
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    own = (client.url, "data:", "blob:")
    page.on("request", lambda one: None if one.url.startswith(own) else problems.append(one.url))
    page.goto(f"{client.url}/login?token={TOKEN}")
    yield page
    context.close()
    assert problems == []


def serious_findings(page: Page) -> list[str]:
    """Return the serious and critical faults of accessibility that axe-core finds on a page."""
    page.wait_for_load_state("load")  # with its style
    if page.evaluate("typeof axe") == "undefined":
        page.evaluate(AXE)
    found: list[str] = page.evaluate(SERIOUS)
    return found
