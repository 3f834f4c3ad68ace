"""A key or a click while something is saved or read: it acts on what comes, or on nothing, never on what goes."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.console_box_samples import boxes_in, made_set, set_of
from tests.console_box_samples import propose as propose_boxes
from tests.console_browser import PATIENCE_MS, logged_in
from tests.console_review_samples import crops, decide, patch_set, propose, reviewing

ITEMS = re.compile(r"/review/\d+/items\?")
COPIES = ["red*1"], ["green*2"], ["red*1"], ["blue*3"], ["red*1"]  # the reds are folded
NAMES = ("a.png", "b.png", "c.png")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with reviewing(tmp_path_factory.mktemp("console")) as client:
        yield client


@pytest.fixture
def page(browser, client):
    with logged_in(browser, client) as page:
        yield page


@pytest.fixture
def set_id(client, tmp_path):
    set_id = patch_set(client, tmp_path, COPIES)
    propose(client, set_id)
    return set_id


def review(page: Page, client, set_id: int, query: str = "") -> None:
    page.goto(f"{client.url}/review/{set_id}{query}")
    expect(page.locator(".cell[aria-current]")).to_have_count(1)


def saved(page: Page) -> None:
    expect(page.locator("#saved")).to_have_text("all saved")


def hold(page: Page, pattern: object) -> list[Route]:
    """Keep requests back; return them as they come."""
    held: list[Route] = []
    page.route(pattern, lambda route, _: held.append(route))
    return held


def until(page: Page, held: list[Route], count: int = 1) -> None:
    for _ in range(int(PATIENCE_MS) // 5):
        if len(held) >= count:
            return
        page.wait_for_timeout(5)
    pytest.fail(f"{len(held)} requests came, expected {count}")


def test_key_after_unfold_decides_one_crop_not_the_group(client, set_id, page):
    many = next(one for one in crops(client, set_id) if one["folded"])
    review(page, client, set_id, f"?crop={many['id']}")
    held = hold(page, "**/unfold")
    mark = page.locator(f".cell[data-id='{many['id']}'] .mark")
    page.keyboard.press("f")
    page.keyboard.press("0")
    until(page, held)
    assert mark.count() == 0  # it would be stored for the whole group
    held[0].continue_()
    expect(mark).to_have_text("unknown")
    saved(page)
    assert client.get(f"/api/v1/review/{set_id}/progress").json["unknown"] == 1


def test_key_after_accept_decides_nothing(client, set_id, page):
    review(page, client, set_id)
    held = hold(page, "**/cells")
    page.keyboard.press("a")
    page.keyboard.press("0")
    until(page, held)
    expect(page.locator(".cell .mark")).to_have_count(0)
    held[0].continue_()
    expect(page.locator("#accept")).to_be_visible()
    assert crops(client, set_id, "state=unknown") == []


def test_enter_takes_the_marked_item_of_an_untyped_list(client, set_id, page):
    first, other, _ = crops(client, set_id)
    decide(client, set_id, "d", [other], state="item", category="colour", label="Teal")
    review(page, client, set_id)
    page.keyboard.press("n")
    page.keyboard.press("Enter")  # before the list has come
    saved(page)
    expect(page.locator(f".cell[data-id='{first['id']}'] .mark")).to_have_text("Teal")


def test_enter_pressed_twice_names_one_crop(client, set_id, page):
    review(page, client, set_id)
    held = hold(page, ITEMS)
    page.keyboard.press("n")
    page.locator("#naming-label").fill("Teal")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    until(page, held, 2)
    page.unroute_all()  # lets held requests go on
    expect(page.locator("#naming")).to_be_hidden()
    saved(page)
    assert {one["label"] for one in crops(client, set_id, "state=item")} == {"Teal"}
    assert len(crops(client, set_id)) == 2  # groups that stay open


def test_arrow_right_after_typing_moves_in_the_list_that_comes(client, set_id, page):
    seen = crops(client, set_id)
    for number, one in enumerate(seen[1:]):
        decide(client, set_id, f"d{number}", [one], state="item", category="colour", label=f"Teal {number}")
    items = client.get(f"/api/v1/review/{set_id}/items?text=teal&crop={seen[0]['id']}").json["items"]
    review(page, client, set_id)
    page.keyboard.press("n")
    page.locator("#naming-label").press_sequentially("teal")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    saved(page)
    expect(page.locator(f".cell[data-id='{seen[0]['id']}'] .mark")).to_have_text(items[1]["label"])


def test_cancelled_name_is_not_given_when_the_list_comes(client, set_id, page):
    other = crops(client, set_id)[1]
    decide(client, set_id, "d", [other], state="item", category="colour", label="Teal")
    named = crops(client, set_id, "state=item")
    review(page, client, set_id)
    held = hold(page, ITEMS)
    page.keyboard.press("n")
    page.locator("#naming-label").fill("Teal")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.keyboard.press("n")  # on the same crop
    until(page, held, 3)
    page.unroute_all()
    expect(page.locator("#naming-list li")).not_to_have_count(0)
    expect(page.locator("#naming")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("0")
    saved(page)
    assert len(crops(client, set_id, "state=item")) == len(named)


def test_sample_of_sliders_that_moved_meanwhile_is_not_shown(client, set_id, page):
    review(page, client, set_id)
    page.keyboard.press("a")
    expect(page.locator("#accept")).to_be_visible()
    held = hold(page, "**/samples")
    page.locator("#accept-draw").click()
    until(page, held)
    page.locator("#accept-similarity").fill("20")
    with page.expect_response("**/samples") as came:
        held[0].continue_()
    came.value.finished()
    page.evaluate("() => new Promise(requestAnimationFrame)")
    expect(page.locator("#accept-draw")).to_be_enabled()
    expect(page.locator("#accept-sample")).to_be_hidden()


def test_undo_of_a_crop_that_was_deleted_meanwhile(client, set_id, page):
    review(page, client, set_id)
    crop = crops(client, set_id)[0]
    page.keyboard.press("0")
    saved(page)
    assert client.send("DELETE", f"/api/v1/pictures/{crop['picture']}").status == 200
    page.keyboard.press("u")
    page.keyboard.press("u")  # nothing is left
    expect(page.locator(".toast", has_text="Nothing to undo")).to_have_count(1)
    saved(page)


def editor(page: Page, client, picture_id: int) -> None:
    page.goto(f"{client.url}/boxes/{set_of(client.services, picture_id)}?picture={picture_id}")
    expect(page.locator("#boxes-name")).to_have_text("a.png")


def test_edit_while_boxes_are_saved_is_of_the_next_picture(client, tmp_path, page):
    first, second, _ = made_set(client.services, tmp_path, NAMES)
    propose_boxes(client.services, first, (50, 30, 110, 90), uncertainty=0.9)
    editor(page, client, first)
    held = hold(page, f"**/boxes/pictures/{first}")
    for key in ("Enter", "n", "ArrowRight", "0"):  # the last would confirm what was not shown
        page.keyboard.press(key)
    page.locator("#boxes-new").click()  # of the picture that goes
    until(page, held)
    held[0].continue_()
    expect(page.locator("#boxes-name")).to_have_text("b.png")
    expect(page.locator(".box")).to_have_attribute("aria-label", "Box 1 of 1, card: left 76, top 45, 50 by 30 pixels")
    assert boxes_in(client.services, first) == [(50, 30, 110, 90)]
    assert client.get(f"/api/v1/boxes/pictures/{second}").json["state"] == "none"
    page.unroute_all()
    page.goto(f"{client.url}/boxes/{set_of(client.services, first)}?picture={first}")
    expect(page.locator("#boxes-state")).to_have_text("confirmed")
    expect(page.locator("#boxes-draft")).to_be_hidden()
    expect(page.locator("#boxes-conflict")).to_be_hidden()


def test_key_held_down_saves_one_picture(client, tmp_path, page):
    first, second, _ = made_set(client.services, tmp_path, NAMES)
    editor(page, client, first)
    page.keyboard.down("0")
    expect(page.locator("#boxes-name")).to_have_text("b.png")
    page.keyboard.down("0")  # the keyboard repeats it
    page.keyboard.up("0")
    page.locator("#boxes-next").click()
    expect(page.locator("#boxes-name")).to_have_text("c.png")
    assert client.get(f"/api/v1/boxes/pictures/{second}").json["state"] == "none"


def test_held_key_to_save_leaves_the_browsers_own_dialog_shut(client, tmp_path, page):
    first = made_set(client.services, tmp_path, NAMES)[0]
    editor(page, client, first)
    hold(page, f"**/boxes/pictures/{first}")
    page.evaluate("() => { window.left = []; addEventListener('keydown', (e) => left.push(e.defaultPrevented)); }")
    page.keyboard.down("Control")
    for _ in range(2):
        page.keyboard.down("s")
    page.keyboard.up("s")
    page.keyboard.press("s")
    page.keyboard.up("Control")
    left = page.evaluate("left")
    assert left == [False, True, True, True]  # Control itself, then what saves, repeats, and comes too early


def test_double_click_saves_one_picture(client, tmp_path, page):
    first, second, _ = made_set(client.services, tmp_path, NAMES)
    editor(page, client, first)
    page.locator("#boxes-none").click()
    expect(page.locator("#boxes-name")).to_have_text("b.png")
    page.locator("#boxes-none").dispatch_event("click", {"detail": 2, "bubbles": True})
    page.locator("#boxes-next").click()
    expect(page.locator("#boxes-name")).to_have_text("c.png")
    assert client.get(f"/api/v1/boxes/pictures/{second}").json["state"] == "none"


def test_save_whose_answer_was_lost_is_no_conflict(client, tmp_path, page):
    first = made_set(client.services, tmp_path, NAMES)[0]
    editor(page, client, first)
    page.keyboard.press("n")
    mine = {"version": 1, "boxes": [{"box_px": [75, 45, 125, 75], "category": "card"}]}
    assert client.send("PUT", f"/api/v1/boxes/pictures/{first}", mine).status == 200  # as the lost request did
    page.keyboard.press("Enter")
    expect(page.locator("#boxes-name")).to_have_text("b.png")


def test_next_picture_that_was_deleted_meanwhile(client, tmp_path, page):
    first, second, _ = made_set(client.services, tmp_path, NAMES)
    reads: list[Route] = []

    def deleted_meanwhile(route: Route, _: object) -> None:
        reads.append(route)
        if len(reads) == 1:
            route.abort()  # it is not read ahead
            return
        assert client.send("DELETE", f"/api/v1/pictures/{second}").status == 200
        route.continue_()

    page.route(f"**/boxes/pictures/{second}", deleted_meanwhile)
    editor(page, client, first)
    page.keyboard.press("0")
    expect(page.locator("#boxes-name")).to_have_text("c.png")
