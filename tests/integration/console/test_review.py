"""The identity review in a browser: keys decide, nothing is lost, two people notice each other."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.console_browser import logged_in
from tests.console_review_samples import COLOURS, crops, decide, patch_set, propose, reviewing

NAMES = [f"{list(COLOURS)[i % 3]}*{i}" for i in range(9)]
PAGES = re.compile(r"/review/\d+/crops\?")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with reviewing(tmp_path_factory.mktemp("console")) as client:
        yield client


@pytest.fixture
def set_id(client, tmp_path):
    set_id = patch_set(client, tmp_path, [NAMES[:3], NAMES[3:6], [*NAMES[6:], "yellow*1"]])
    propose(client, set_id)
    return set_id


@pytest.fixture
def page(client, set_id, browser):
    with logged_in(browser, client) as page:
        page.goto(f"{client.url}/review/{set_id}")
        expect(page.locator(".cell[aria-current]")).to_have_count(1)
        yield page


def saved(page: Page) -> None:
    expect(page.locator("#saved")).to_have_text("all saved")


def states(client, set_id) -> dict[str, int]:
    found = [one["label"] or one["state"] for one in crops(client, set_id, "state=open&state=item&state=unknown")]
    return {name: found.count(name) for name in found}


def test_one_key_decides_and_moves_on(client, set_id, page):
    first = page.locator(".cell[aria-current]").get_attribute("data-id")
    page.keyboard.press("n")  # the worst is the one that no gallery has
    page.locator("#naming-label").fill("Yellow")
    page.keyboard.press("Enter")
    expect(page.locator(f".cell[data-id='{first}'] .mark")).to_have_text("Yellow")
    for _ in range(9):
        page.keyboard.press("1")
    saved(page)
    assert states(client, set_id) == {"Yellow": 1, "Red": 3, "Green": 3, "Blue": 3}
    page.keyboard.press("u")
    page.keyboard.press("0")
    saved(page)
    assert states(client, set_id)["unknown"] == 1
    page.goto(f"{client.url}/review/{set_id}/log")
    page.get_by_role("button", name="Undo unknown of crop").click()
    expect(page.get_by_text("undone")).to_have_count(2)  # that of the key, too
    assert states(client, set_id)["open"] == 1


def test_a_key_right_after_a_dialog_closed_belongs_to_the_page(page):
    focused = page.evaluate("""async () => {
      const dialog = document.getElementById("naming");
      dialog.showModal();
      document.getElementById("naming-label").focus();
      dialog.close();
      await null; // before the next key, and before the next frame
      return document.activeElement.tagName;
    }""")
    assert focused == "BODY"


def test_filters_that_a_key_closed_keep_the_focus(page):
    page.keyboard.press("/")
    filters = page.locator(".filters > summary")
    filters.press("Enter")
    expect(page.locator(".filters")).not_to_have_attribute("open", "")
    expect(filters).to_be_focused()


def test_a_key_before_the_next_page_means_its_first_crop(client, set_id, page):
    def four_and_the_rest_later(route):
        if "after=" not in route.request.url:
            route.continue_(url=route.request.url.replace("limit=60", "limit=4"))

    page.route(PAGES, four_and_the_rest_later)
    page.goto(f"{client.url}/review/{set_id}")
    expect(page.locator(".cell")).to_have_count(4)
    for key in "0000x":
        page.keyboard.press(key)
    expect(page.locator(".cell .mark")).to_have_count(4)
    page.unroute(PAGES)  # lets the held request go on
    expect(page.locator(".cell").nth(4).locator(".mark")).to_have_text("no object")
    saved(page)
    found = [one["state"] for one in crops(client, set_id, "state=open&state=unknown&state=nothing")]
    assert [found.count(state) for state in ("unknown", "nothing", "open")] == [4, 1, 5]


def test_keys_decide_all_selected(client, set_id, page):
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#selected")).to_contain_text("3 selected")
    page.keyboard.press("x")
    saved(page)
    assert len(crops(client, set_id)) == 7
    page.keyboard.press("Control+z")
    saved(page)
    assert len(crops(client, set_id)) == 10


def test_decisions_of_a_closed_tab_are_sent_later(client, set_id, page):
    page.context.set_offline(offline=True)
    page.keyboard.press("1")
    page.keyboard.press("0")
    expect(page.locator("#saved")).to_contain_text("2 waiting")
    assert len(crops(client, set_id)) == 10
    context = page.context
    page.close()
    context.set_offline(offline=False)
    again = context.new_page()
    again.goto(f"{client.url}/review/{set_id}")
    saved(again)
    expect(again.locator(".cell")).not_to_have_count(0)
    assert len(crops(client, set_id)) == 8


def test_conflict_shows_the_others_decision(client, set_id, page):
    first = int(page.locator(".cell[aria-current]").get_attribute("data-id"))
    decide(client, set_id, "theirs", [{"id": first, "version": 1}], state="unknown")
    page.keyboard.press("1")
    expect(page.locator("#conflict-text")).to_contain_text("local says: unknown.")
    page.get_by_role("button", name="Use mine").click()
    saved(page)
    assert next(one for one in crops(client, set_id, "state=item"))["id"] == first


def test_accept_above_after_a_look_and_undo(client, set_id, page):
    page.keyboard.press("a")
    expect(page.locator("#accept-count")).to_contain_text("Would name 9 of 10")
    page.locator("#accept-draw").click()
    expect(page.locator(".pair")).to_have_count(9)
    page.locator(".pair").first.click()
    expect(page.locator("#accept-says")).to_contain_text("1 of 9 are wrong")
    with page.expect_navigation():
        page.get_by_role("button", name="Name 8 crops").click()
    expect(page.locator(".cell")).to_have_count(2)
    with page.expect_navigation():
        page.keyboard.press("u")
    expect(page.locator(".cell")).to_have_count(10)


def test_picture_by_picture_shows_all_boxes(client, set_id, page):
    with page.expect_navigation():
        page.keyboard.press("p")
    expect(page.locator("#where")).to_have_text("a.png")
    expect(page.locator("#context rect.other")).to_have_count(2)
    page.keyboard.press("1")
    expect(page.locator("#context rect.decided")).to_have_count(1)
    saved(page)
