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
        expect(page.locator("#upload-says")).to_have_text("6 added · 1 not usable")
        expect(page.locator("#uploads .bad")).to_contain_text("page.jpg")
        page.click("#upload-show")
        expect(page.locator("#pictures img")).to_have_count(6)
        for number in range(6):
            expect(page.locator("#pictures img").nth(number)).to_have_js_property("naturalWidth", 256)
        page.set_input_files("#files", files)
        expect(page.locator("#upload-says")).to_have_text("0 added · 6 there already")
        page.click("#pictures a >> nth=0")
        page.wait_for_url("**/pictures/*")  # with its scripts
        page.keyboard.press("ArrowRight")
        page.wait_for_url("**/pictures/2")
        page.goto(f"{client.url}/sets/1")
        page.click("[data-opens=delete-set]")
        expect(page.locator("#delete-set")).to_contain_text("6 picture files")
        page.click("#delete-set .danger")
        page.wait_for_url("**/sets")
        expect(page.locator("main")).to_contain_text("No sets yet")
        assert not [path for path in tmp_path.rglob("*.jpg") if "uploads" in path.parts]


def test_what_a_dialog_is_told_lies_in_front_of_it(tmp_path, browser):
    with running_console(tmp_path) as client, logged_in(browser, client, 390, 844) as page:
        client.send("POST", "/api/v1/sets", {"name": "Shelf"})
        page.goto(f"{client.url}/sets")
        page.keyboard.press("n")
        page.get_by_role("textbox", name="Name").fill("Shelf")
        page.keyboard.press("Enter")
        expect(page.locator(".toast.bad")).to_contain_text("there is a set 'Shelf'")
        page.locator("#new-set [data-closes]").click()
        page.locator(".toast.bad button").click()  # it stays when the dialog closes
        expect(page.locator(".toast")).to_have_count(0)
        page.keyboard.press("n")
        page.context.clear_cookies()  # as if the session had ended
        page.get_by_role("textbox", name="Name").fill("Freezer")
        page.keyboard.press("Enter")
        expect(page.locator("dialog[open] .toast.bad")).to_contain_text("You are logged out. Log in in another tab")
        page.locator(".toast.bad button").click()  # also in front of the dialog, which keeps what was typed
        expect(page.get_by_role("textbox", name="Name")).to_have_value("Freezer")
