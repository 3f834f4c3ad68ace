"""The editor of boxes in a browser: keyboard, mouse, touch, and what survives a closed tab."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from console.sets.pictures import add_picture
from console.sets.sets import create_set
from tests.console_box_samples import boxes_in, made_set, propose, set_of
from tests.console_browser import logged_in
from tests.console_samples import Client, running_console

DATA = Path(os.environ.get("FINESIGHT_DATA", Path(__file__).parents[3] / "../shared/data")).resolve()
NAMES = ("a.png", "b.png", "c.png")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with running_console(tmp_path_factory.mktemp("console")) as client:
        yield client


@pytest.fixture(scope="module")
def page(browser, client):
    with logged_in(browser, client) as page:
        yield page


def editor(page: Page, client: Client, picture_id: int, picture: str = "a.png") -> None:
    page.goto(f"{client.url}/boxes/{set_of(client.services, picture_id)}")
    expect(page.locator("#boxes-name")).to_have_text(picture)


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def screen_point(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a point of the picture lies on the screen."""
    return tuple(
        page.evaluate(
            "([x, y]) => { const p = new DOMPoint(x, y).matrixTransform("
            "document.getElementById('boxes-svg').getScreenCTM()); return [p.x, p.y]; }",
            [x, y],
        )
    )


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*screen_point(page, *start))
    page.mouse.down()
    page.mouse.move(*screen_point(page, (start[0] + end[0]) / 2, (start[1] + end[1]) / 2))
    page.mouse.move(*screen_point(page, *end))
    page.mouse.up()


def test_proposals_are_corrected_by_keyboard(page, client, tmp_path):
    first, second, third = made_set(client.services, tmp_path, NAMES)
    propose(client.services, first, (50, 30, 110, 90), uncertainty=0.9)
    propose(client.services, second, (10, 10, 20, 20), uncertainty=0.8)
    propose(client.services, third, uncertainty=0.7)
    editor(page, client, first)
    press(page, "Tab")
    expect(page.locator(".box.selected")).to_have_attribute("aria-label", "Box 1 of 1, card, proposed with "
        "score 0.50: left 50, top 30, 60 by 60 pixels")  # fmt: skip
    press(page, "ArrowRight", "ArrowDown", "Shift+ArrowRight", "Control+Shift+ArrowDown", "Alt+ArrowLeft")
    expect(page.locator("#boxes-live")).to_have_text("Box 1: left 50, top 31, 62 by 70 pixels")
    press(page, "Enter")
    expect(page.locator("#boxes-name")).to_have_text("b.png")
    assert boxes_in(client.services, first) == [(50, 31, 112, 101)]
    press(page, "0")  # there is no object
    expect(page.locator("#boxes-name")).to_have_text("c.png")
    assert boxes_in(client.services, second) == []
    press(page, "n", "Control+ArrowLeft", "Control+ArrowLeft", "z", "s")
    expect(page.get_by_role("heading", name="All boxes of this set are confirmed")).to_be_visible()
    assert boxes_in(client.services, third) == [(75, 45, 125, 75)]


def test_boxes_are_drawn_and_dragged_by_mouse(page, client, tmp_path):
    first = made_set(client.services, tmp_path, NAMES)[0]
    editor(page, client, first)
    drag(page, (60, 30), (120, 90))
    expect(page.locator(".box")).to_have_attribute("aria-label", "Box 1 of 1, card: left 60, top 30, 60 by 60 pixels")
    drag(page, (90, 60), (100, 55))  # move
    drag(page, (130, 85), (140, 80))  # its corner
    drag(page, (70, 55), (65, 55))  # its left edge
    expect(page.locator(".box")).to_have_attribute("aria-label", "Box 1 of 1, card: left 65, top 25, 75 by 55 pixels")
    page.get_by_role("button", name="Save and next").click()
    expect(page.locator("#boxes-name")).to_have_text("b.png")
    assert boxes_in(client.services, first) == [(65, 25, 140, 80)]


def test_fingers_draw_and_zoom(page, client, tmp_path):
    first = made_set(client.services, tmp_path, NAMES)[0]
    editor(page, client, first)
    device = page.context.new_cdp_session(page)
    device.send("Emulation.setTouchEmulationEnabled", {"enabled": True})

    def touch(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        device.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    touch("touchStart", screen_point(page, 60, 30))
    touch("touchMove", screen_point(page, 100, 60))
    touch("touchMove", screen_point(page, 120, 90))
    touch("touchEnd")
    box = page.locator(".box")
    expect(box).to_have_attribute("aria-label", "Box 1 of 1, card: left 60, top 30, 60 by 60 pixels")
    before = page.locator("#boxes-svg").get_attribute("viewBox")
    left, right = screen_point(page, 80, 60), screen_point(page, 100, 60)
    touch("touchStart", left, right)
    touch("touchMove", (left[0] - 60, left[1]), (right[0] + 60, right[1]))
    touch("touchEnd")
    expect(page.locator("#boxes-svg")).not_to_have_attribute("viewBox", before)
    after = page.locator("#boxes-svg").get_attribute("viewBox")
    assert float(after.split()[2]) < float(before.split()[2]) / 1.5
    expect(box).to_have_attribute("aria-label", "Box 1 of 1, card: left 60, top 30, 60 by 60 pixels")
    device.send("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_unsaved_edits_survive_a_closed_tab(page, client, tmp_path):
    first = made_set(client.services, tmp_path, NAMES)[0]
    editor(page, client, first)
    press(page, "b", "ArrowRight")
    page.reload()
    expect(page.get_by_text("Your unsaved edits of this picture are back.")).to_be_visible()
    expect(page.locator(".box")).to_have_attribute("aria-label", "Box 1 of 1, card: left 76, top 45, 50 by 30 pixels")
    press(page, "Enter")
    expect(page.locator("#boxes-name")).to_have_text("b.png")
    page.goto(f"{client.url}/boxes/{set_of(client.services, first)}?picture={first}")
    expect(page.locator("#boxes-state")).to_have_text("confirmed")
    expect(page.locator("#boxes-draft")).to_be_hidden()


def test_two_people_at_once_see_both_versions(page, client, tmp_path):
    first = made_set(client.services, tmp_path, NAMES)[0]
    editor(page, client, first)
    press(page, "n")
    other = {"version": 1, "boxes": [{"box_px": [1, 2, 30, 40]}]}
    assert client.send("PUT", f"/api/v1/boxes/pictures/{first}", other).status == 200
    press(page, "Enter")
    expect(page.get_by_role("alert")).to_contain_text("Somebody saved other boxes")
    expect(page.locator(".theirs")).to_have_count(1)
    page.get_by_role("button", name="Save mine").click()
    expect(page.locator("#boxes-name")).to_have_text("b.png")
    assert boxes_in(client.services, first) == [(75, 45, 125, 75)]


def test_key_pressed_too_often_saves_once(page, client, tmp_path):
    first, second, _ = made_set(client.services, tmp_path, NAMES)
    waiting, saved = [], []
    page.route(f"**/api/v1/boxes/pictures/{second}", lambda route, _: waiting.append(route))
    page.on("request", lambda request: saved.append(request.url) if request.method == "PUT" else None)
    editor(page, client, first)
    press(page, "n")
    with page.expect_response("**/api/v1/boxes/pictures/*"):
        press(page, "Enter")
    press(page, "Enter", "Enter")  # the next picture is not here yet
    while len(waiting) < 2:  # it is read ahead, and then to be shown
        page.wait_for_timeout(5)
    for route in waiting:
        route.continue_()
    expect(page.locator("#boxes-name")).to_have_text("b.png")
    expect(page.get_by_role("alert")).to_be_hidden()
    assert saved == [f"{client.url}/api/v1/boxes/pictures/{first}"]
    assert boxes_in(client.services, first) == [(75, 45, 125, 75)]
    page.unroute_all()


@pytest.mark.data
def test_real_photos_by_keyboard(page, client, tmp_path):
    folder = DATA / "playing_cards/train"
    paths = sorted(folder.glob("*.jpg"))[:3]
    with client.services.database.write() as connection:
        set_id = create_set(connection, 1.0, "ann", "Photos", "folder", folder, "card")
        ids = [add_picture(connection, 1.0, set_id, one.name, one, whole=False) for one in paths]
    propose(client.services, ids[0], (100, 100, 300, 400), uncertainty=1.0)
    page.set_viewport_size({"width": 390, "height": 844})
    editor(page, client, ids[0], paths[0].name)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    press(page, "Tab", "ArrowLeft", "Shift+ArrowUp", "Enter")
    expect(page.locator("#boxes-name")).to_have_text(paths[1].name)
    assert boxes_in(client.services, ids[0]) == [(99, 100, 299, 399)]
