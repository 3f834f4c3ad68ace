"""Sets of pictures in Chromium: made, filled by several files at once, looked at, and deleted."""

from __future__ import annotations

import numpy as np
from playwright.sync_api import expect

from edge.imaging.image import encode_image
from tests.console_browser import logged_in
from tests.console_samples import running_console


def picture(seed):
    pattern = np.random.default_rng(seed).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return encode_image(pattern.repeat(40, 0).repeat(40, 1), ".jpg")


def test_several_files_are_uploaded_and_a_bad_one_is_named(tmp_path, browser):
    files = [{"name": f"{n}.jpg", "mimeType": "image/jpeg", "buffer": picture(n)} for n in range(6)]
    bad = {"name": "page.jpg", "mimeType": "image/jpeg", "buffer": b"<!doctype html><p>no picture</p>"}
    with running_console(tmp_path) as client, logged_in(browser, client) as page:
        page.goto(f"{client.url}/sets")
        page.keyboard.press("n")
        page.get_by_role("textbox", name="Name").fill("Shelf")
        page.keyboard.press("Enter")
        page.wait_for_url("**/sets/1")
        page.set_input_files("#files", [*files, bad])
        page.wait_for_selector("#upload-show:not([hidden])")
        assert page.inner_text("#upload-says") == "6 added · 1 not usable"
        assert "page.jpg" in page.inner_text("#uploads .bad")
        page.click("#upload-show")
        expect(page.locator("#pictures img")).to_have_count(6)
        for number in range(6):
            expect(page.locator("#pictures img").nth(number)).to_have_js_property("naturalWidth", 256)
        page.set_input_files("#files", files)
        expect(page.locator("#upload-says")).to_have_text("0 added · 6 there already")
        page.click("#pictures a >> nth=0")
        page.wait_for_selector("figure.large img")
        page.keyboard.press("ArrowRight")
        page.wait_for_url("**/pictures/2")
        page.goto(f"{client.url}/sets/1")
        page.click("[data-opens=delete-set]")
        assert "6 picture files" in page.inner_text("#delete-set")
        page.click("#delete-set .danger")
        page.wait_for_url("**/sets")
        assert "No sets yet" in page.inner_text("main")
        assert not [path for path in tmp_path.rglob("*.jpg") if "uploads" in path.parts]
