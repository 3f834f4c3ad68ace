"""Every page of a console with the demo's data: readable by all, on every screen, without an error of a script."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import pytest

from console.demo.build import build_demo
from console.web.routes import ROUTES
from tests.console_browser import logged_in, serious_findings
from tests.console_galleries import read_gallery
from tests.console_samples import running_console

FILLED = {"set_id": "1", "id": "1", "category": "bottle", "picture_id": "1", "job_id": "1"}
QUERIES = {
    "/gallery/-/split": "?category=bottle&item=bottle-00",
    "/gallery/-/item": "?category=bottle&item=bottle-00",
    "/gallery/{category}/items": "?item=bottle-00",
    "/gallery/-/category": "?name=bottle",
}
PATHS = sorted(
    re.sub(r"{(\w+)(?::\w+)?}", lambda part: FILLED.get(part[1], "1"), route.path) + QUERIES.get(route.path, "")
    for route in ROUTES
    if route.method == "GET" and not route.is_api and "/parts/" not in route.path
)
SCREENS = {"desk": (1280, 800), "phone": (390, 844)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("console")
    below = folder / "demo"
    settings = {"repository": below / "repository", "keys": below / "repository.keys", "device": below / "state"}
    with running_console(folder, folders=(below / "pictures",), is_demo=True, **settings) as client:
        build_demo(client.services, say=lambda _: None)
        read_gallery(client)  # while it is read, its pages load again
        yield client


@pytest.fixture(scope="module")
def pages(browser, demo):
    """A page for each screen."""
    with logged_in(browser, demo, *SCREENS["desk"]) as desk, logged_in(browser, demo, *SCREENS["phone"]) as phone:
        yield {"desk": desk, "phone": phone}


@pytest.mark.parametrize("path", PATHS)
def test_page_is_accessible_and_fits_the_screen(path, pages):
    for screen, page in pages.items():
        answer = page.goto(urljoin(page.url, path))
        assert answer.status in (200, 404, 422), path  # of what the demo lacks
        assert serious_findings(page) == [], screen
        wide, seen = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= seen, f"{screen}: the page is {wide} px wide on a screen of {seen} px"
        assert page.evaluate("document.querySelectorAll('h1').length") == 1
