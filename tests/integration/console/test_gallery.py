"""The gallery in a browser: rename, merge, undo, delete with its dialog, publish; then a device's reader sees it."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.console_browser import logged_in, serious_findings
from tests.console_galleries import add_pictures, curating, devices_see, draft
from tests.fleet_bundles import CATEGORY

SCREENS = ((1280, 800), (390, 844))


def item_url(client, item):
    return f"{client.url}/gallery/{CATEGORY}/items?item={item}"


def publish(page, release):
    page.get_by_role("link", name="to publish").click()
    page.get_by_role("button", name="Publish…").click()
    page.get_by_role("dialog").get_by_role("button", name="Publish", exact=True).click()
    expect(page.get_by_role("status").filter(has_text=f"release {release} is published")).to_be_visible()


def test_edits_reach_devices_only_when_published(browser, tmp_path):
    with curating(tmp_path) as client, logged_in(browser, client) as page:
        page.goto(f"{client.url}/gallery")
        page.get_by_role("link", name=re.compile(CATEGORY)).click()
        page.wait_for_url(f"**/gallery/{CATEGORY}*")  # with its scripts
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.get_by_label("Label").fill("Renamed")
        page.get_by_role("button", name="Rename").click()
        expect(page.get_by_role("heading", name="Renamed")).to_be_visible()

        page.goto(item_url(client, "item-3"))
        page.get_by_label("Merge into", exact=False).first.fill("item-1")
        page.get_by_role("button", name="Merge", exact=True).click()
        expect(page.get_by_text("3 vectors of 'Item 3' go to 'Renamed'").first).to_be_visible()

        page.goto(item_url(client, "item-2"))
        page.get_by_role("button", name="Delete…").click()
        dialog = page.get_by_role("dialog", name="Delete Item 2?")
        expect(dialog.get_by_text("delete item 'item-2' of 'shelf': 'Item 2'").first).to_be_visible()
        dialog.get_by_label("Urgently").check()
        expect(dialog.get_by_text("every device deletes them at its next poll")).to_be_visible()
        dialog.get_by_label("As usual").check()
        dialog.get_by_role("button", name="Delete when I publish").click()
        page.wait_for_url("**/gallery/-/changes")
        assert len(devices_see(tmp_path / "repo")) == 4

        publish(page, 2)
        assert devices_see(tmp_path / "repo") == {"item-0": "Item 0", "item-1": "Renamed"}

        page.get_by_role("button", name="Undo: merge item-3").click()
        expect(page.get_by_text("restore item 'item-3'").first).to_be_visible()
        publish(page, 3)
        seen = devices_see(tmp_path / "repo")
        assert seen == {"item-0": "Item 0", "item-1": "Item 1", "item-3": "Item 3"}


def test_pages_with_changes_have_no_serious_axe_finding(browser, tmp_path):
    with curating(tmp_path) as client, logged_in(browser, client) as page:
        draft(client, "rename", "item-1", label="Better")
        add_pictures(client, "new", "New", 7, 7)
        for path in (
            "/gallery",
            f"/gallery/{CATEGORY}",
            f"/gallery/{CATEGORY}/items?item=item-1",
            "/gallery/-/changes",
            "/gallery/-/warnings",
            f"/gallery/-/new?category={CATEGORY}",
            f"/gallery/-/split?category={CATEGORY}&item=item-1",
        ):
            page.goto(client.url + path, wait_until="networkidle")
            for width, height in SCREENS:
                page.set_viewport_size({"width": width, "height": height})
                assert serious_findings(page) == [], (path, width)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
