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
        page.focus("[data-opens=delete-set]")
        page.keyboard.down("Enter")
        page.keyboard.down("Enter")  # held: repeats
        page.keyboard.up("Enter")
        expect(page.get_by_role("button", name="Keep it")).to_be_focused()
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


def test_a_chosen_picture_whose_name_begins_with_a_dot_is_named(tmp_path, browser):
    with running_console(tmp_path) as client, logged_in(browser, client) as page:
        client.send("POST", "/api/v1/sets", {"name": "Shelf"})
        page.goto(f"{client.url}/sets/1")
        sent = [{"name": name, "mimeType": "image/jpeg", "buffer": picture(1)} for name in (".shelf.jpg", "._a.jpg")]
        page.set_input_files("#files", sent)
        expect(page.locator("#upload-says")).to_contain_text("0 added · 1 with a dot before the name left out")


def test_a_dropped_link_is_explained_and_not_opened(tmp_path, browser):
    drop = """(name) => {
      const dataTransfer = new DataTransfer();
      dataTransfer.setData("text/uri-list", "https://example.org/a.jpg");
      const event = new DragEvent(name, {dataTransfer, bubbles: true, cancelable: true});
      document.body.dispatchEvent(event);
      return event.defaultPrevented;
    }"""
    with running_console(tmp_path) as client, logged_in(browser, client) as page:
        client.send("POST", "/api/v1/sets", {"name": "Shelf"})
        page.goto(f"{client.url}/sets/1")
        assert page.evaluate(drop, "dragover")
        assert page.evaluate(drop, "drop")
        expect(page.locator(".toast.bad")).to_contain_text("There is no file in it")


def test_what_is_sent_twice_while_it_waits_is_done_once(tmp_path, browser):
    sent = []
    with running_console(tmp_path) as client, logged_in(browser, client) as page:
        client.send("POST", "/api/v1/sets", {"name": "Shelf"})
        client.upload("/api/v1/sets/1/pictures", {"a.jpg": picture(1)})
        page.goto(f"{client.url}/exchange/1")
        page.route("**/exports", lambda route: sent.append(route))  # noqa: PLW0108  no built-in; held
        with page.expect_request("**/exports"):
            page.get_by_role("button", name="Export").press("Enter")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        with page.expect_download():
            sent[0].continue_()
        page.evaluate("fetch('/api/v1/sets').then((answer) => answer.text())")
        assert len(sent) == 1
        with page.expect_request("**/exports"):  # the next one is sent again
            page.keyboard.press("Enter")
        page.unroute_all(behavior="ignoreErrors")
