"""The search in a browser: somebody drops a picture, and sees what it shows and where it is."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect

from edge.imaging import image
from edge.shipped.examples import shipped
from tests.console.search.test_search import FakeLocaliser
from tests.console_browser import logged_in
from tests.console_samples import running_console

DEMO = shipped("demo")
BOX = (372, 158, 450, 307)  # of the carton "Dale milk morning" in a frame of the demo's video
AT_FRAME = 60
_TRANSFER = """data => {
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
  return transfer;
}"""

_PASTE = """([kind, text]) => {
  const clipboardData = new DataTransfer();
  clipboardData.setData(kind, text);
  document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true}));
}"""


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with running_console(tmp_path_factory.mktemp("console"), is_demo=True) as client:
        yield client


@pytest.fixture
def page(browser, client):
    with logged_in(browser, client) as page:
        yield page


@pytest.fixture(scope="module")
def frame(tmp_path_factory) -> Path:
    """Return a frame of the demo's video, as a file."""
    from edge.capture.frame_source import CaptureOptions
    from edge.capture.open_source import open_source
    from edge.config.camera_url import parse_source

    source = open_source(parse_source((DEMO / "stream.mp4").resolve().as_uri()), "opencv", CaptureOptions())
    try:
        for _ in range(AT_FRAME):
            source.read(10.0)
        found = source.read(10.0)
    finally:
        source.close()
    path = tmp_path_factory.mktemp("frame") / "frame.png"
    path.write_bytes(image.encode_image(found.image_rgb, ".png"))
    return path


def test_dropped_crop_of_the_video_shows_the_right_item_first(client, page, frame):
    crop = image.encode_image(image.crop(image.read_image(frame), BOX), ".png")
    page.goto(f"{client.url}/search")
    transfer = page.evaluate_handle(_TRANSFER, base64.b64encode(crop).decode())
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    expect(page.locator(".object h3")).to_have_text(["Dale milk morning"])
    first = page.locator(".near li").first
    expect(first.locator("a")).to_have_attribute("href", "/gallery/carton/items?item=carton-03")
    assert float(first.locator(".right").inner_text()) > 0.9
    expect(page.locator("#about-short")).to_contain_text(client.services.models.load().models.gallery_id)
    # the whole frame, with keys alone
    page.set_input_files("#file", frame)
    page.check("input[value=detect]")
    expect(page.locator(".object")).to_have_count(4)
    expect(page.locator("#shown svg rect.halo")).to_have_count(4)
    page.keyboard.press("2")
    expect(page.locator(".object.chosen h3")).to_have_text("Pop cola sun")
    page.keyboard.press("t")
    page.wait_for_url("**/review/**")
    with client.services.database.read() as rows:
        (name,) = rows.execute("SELECT name FROM sets").fetchone()
    assert name == "from search"


def test_silhouette_is_drawn_and_a_bad_file_is_explained(client, page, frame, tmp_path):
    bad = tmp_path / "page.jpg"
    bad.write_bytes(b"<html><script>alert(1)</script></html>")
    models = client.services.models
    pair = models.load()
    stages = replace(pair.models.stages, localiser=FakeLocaliser())
    models._loaded["demo"] = replace(pair, models=replace(pair.models, stages=stages))
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{client.url}/search")
    page.set_input_files("#file", frame)
    page.wait_for_selector("#shown svg path", state="attached")
    models._loaded["demo"] = pair
    # 32 runs of half the square's width: the picture is 640x360, and its crop with margin, too
    path = page.locator("#shown svg path").get_attribute("d")
    assert path.count("M") == 32
    assert path.startswith("M0 -140h320v10h-320z")
    page.set_input_files("#file", bad)
    expect(page.locator("#problem")).to_contain_text("no picture")
    expect(page.locator(".object")).to_have_count(0)


def test_object_is_found_in_a_scene(client, page, frame, tmp_path):
    crop = tmp_path / "crop.png"
    crop.write_bytes(image.encode_image(image.crop(image.read_image(frame), BOX), ".png"))
    page.goto(f"{client.url}/search/scene")
    page.set_input_files("[data-slot=query] .file", crop)
    page.set_input_files("[data-slot=scene] .file", frame)
    page.wait_for_selector("#heat:not([hidden]) svg rect.halo")
    expect(page.locator("#says")).to_contain_text("found it")
    is_over_the_object(page)
    page.select_option("#way", "similarity")
    expect(page.locator("#says")).to_contain_text("Similarity map")
    is_over_the_object(page)


def is_over_the_object(page):
    shown = page.locator("#heat svg rect.halo").first
    x, y, wide, high = (float(shown.get_attribute(name)) for name in ("x", "y", "width", "height"))
    assert BOX[0] < x + wide / 2 < BOX[2]
    assert BOX[1] < y + high / 2 < BOX[3]


def test_what_is_pasted_without_a_picture_is_answered(client, page):
    page.goto(f"{client.url}/search")
    expect(page.locator("#choose")).to_be_visible()
    for kind, text in (("text/plain", "https://example.org/a.jpg"), ("text/html", "<img src='a.jpg'>")):
        page.evaluate(_PASTE, [kind, text])
    expect(page.locator(".toast.bad")).to_have_count(1)  # said once, however often
    expect(page.locator(".toast.bad")).to_contain_text("The clipboard holds no picture")


def test_a_new_picture_is_announced_before_it_is_read(client, page, frame):
    page.goto(f"{client.url}/search")
    page.set_input_files("#file", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"})
    expect(page.locator("#problem")).to_contain_text("no picture")
    page.evaluate("() => { window.createImageBitmap = () => new Promise(() => {}); }")  # a picture that takes for ever
    page.set_input_files("#file", frame)
    expect(page.locator("#state")).to_have_text("Reading the picture …")
    expect(page.locator("#problem")).to_be_hidden()
