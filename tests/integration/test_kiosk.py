"""A running device with a kiosk, used through a browser."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from edge.bundle import slots
from edge.bundle.install import install_gallery
from tests.edge.uploads.test_upload import http_server
from tests.integration.edge_process import running_edge
from tests.integration.kiosk_scene import DEMO, KNOWN_LABEL, UNKNOWN, UNKNOWN_LABEL, install_without, poses, write_video
from tests.integration.mosquitto import free_port
from tests.store_samples import trusted
from tests.waiting import until

ROOT = Path(__file__).parents[2]
TOKEN = "open sesame, please"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    assert chromium, "chromium is not installed; install Debian's package"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def device(folder: Path, port: int, upload_url: str):
    config = folder / "device.yaml"
    config.write_text(
        f"state_dir: {folder / 'state'}\n"
        f"cameras:\n  counter: {{source: 'file://{folder / 'counter.mp4'}', framing: whole_frame}}\n"
        f"recognition: {{min_looks: 2}}\n"
        f"kiosk: {{camera: counter, port: {port}, token: '{TOKEN}', upload_url: '{upload_url}'}}\n"
    )
    with running_edge(config, TOKEN):
        _wait_until_served(port)
        yield


def _wait_until_served(port: int) -> None:
    def answers() -> bool:
        try:
            return ask(port, "GET", "/v1/state", token=None)[0] == 401
        except ConnectionRefusedError:
            return False

    until(answers, f"the kiosk answers on port {port}")


def ask(port: int, method: str, path: str, body: bytes | None = None, token: str | None = TOKEN) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    status, data = response.status, response.read()
    connection.close()
    return status, json.loads(data) if data else {}


def screenshot(page: Page, name: str) -> None:
    """Save screenshots if FINESIGHT_SHOTS names a folder."""
    if folder := os.environ.get("FINESIGHT_SHOTS"):
        for size, (width, height) in {"touch": (1280, 800), "phone": (390, 844)}.items():
            page.set_viewport_size({"width": width, "height": height})
            page.screenshot(path=Path(folder) / f"{name}-{size}.png")


def fits(page: Page) -> bool:
    """Whether the page fits on a phone and on a kiosk without horizontal scrolling."""
    wide = []
    for width, height in ((390, 844), (1280, 800)):
        page.set_viewport_size({"width": width, "height": height})
        wide.append(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
    return all(wide)


def check_answer_and_unknown(page: Page) -> None:
    expect(page.get_by_role("heading", name="I don't know this")).to_be_visible()  # nobody asked
    expect(page.locator("#answer-label")).to_have_text(KNOWN_LABEL)
    expect(page.locator("#live")).to_have_js_property("naturalWidth", 960)
    expect(page.locator("#answer-picture")).not_to_have_js_property("naturalWidth", 0)
    assert fits(page)
    screenshot(page, "1-answer")
    expect(page.locator("#waiting")).to_be_visible()  # the known car is gone
    screenshot(page, "2-waiting")
    page.get_by_role("button", name="What is this?").click()
    expect(page.get_by_role("heading", name="I don't know this")).to_be_visible()
    assert fits(page)
    screenshot(page, "3-unknown")


def teach(page: Page) -> None:
    page.get_by_role("button", name="Teach me").click()
    expect(page.locator("#looks li.taken")).to_have_count(4)
    learn = page.get_by_role("button", name="Learn it")
    expect(learn).to_be_disabled()
    page.get_by_label("Its name").fill(UNKNOWN_LABEL)
    assert fits(page)
    screenshot(page, "4-teaching")
    learn.click()
    expect(page.locator("#learnt-label")).to_have_text(UNKNOWN_LABEL)
    screenshot(page, "5-learnt")


def check_taught_item_is_recognised(page: Page) -> None:
    page.locator("#learnt-done").click()
    expect(page.locator("#answer-label")).to_have_text(UNKNOWN_LABEL)
    assert fits(page)
    screenshot(page, "6-recognised")
    page.get_by_role("button", name="What I was taught here").click()
    expect(page.locator("#taught-items li")).to_have_count(1)
    screenshot(page, "7-taught")
    page.get_by_role("button", name="Close").click()


def look_up(port: int, pose: int) -> dict:
    status, answer = ask(port, "POST", "/v1/lookup", cv2.imencode(".jpg", poses(UNKNOWN)[pose])[1].tobytes())
    assert status == 200
    return answer


def retired(port: int) -> list[str | None]:
    """Return why each taught item is no longer used; None: it is."""
    return [one["retired"] for one in ask(port, "GET", "/v1/taught")[1]["taught"]]


def test_kiosk_recognises_a_taught_item_until_the_gallery_has_it(tmp_path, browser):
    state, port = tmp_path / "state", free_port()
    install_without(UNKNOWN, state, tmp_path)
    write_video(tmp_path / "counter.mp4", known_s=12, poses_s=3.0, rounds=4, held_s=8)
    page = browser.new_page()
    page.set_default_timeout(240_000)
    expect.set_options(timeout=240_000)  # several rounds of the video
    page_errors: list[str] = []
    page.on("pageerror", lambda error: page_errors.append(str(error)))
    with http_server(201) as (trainer, uploads), device(tmp_path, port, trainer):
        page.goto(f"http://127.0.0.1:{port}/?token={TOKEN}")
        assert "token" not in page.url
        check_answer_and_unknown(page)
        teach(page)
        item = look_up(port, 1)["match"]["item"]
        check_taught_item_is_recognised(page)
    expect(page.locator("#lost")).to_be_visible()  # and the last picture is hidden
    expect(page.locator("#live")).to_be_hidden()
    assert [path for path, _, _ in uploads] == [f"/{item}.zip"]

    write_video(tmp_path / "counter.mp4", known_s=0, poses_s=1.5, rounds=8)
    with device(tmp_path, port, trainer):
        page.goto(f"http://127.0.0.1:{port}/")  # the browser kept its cookie
        expect(page.locator("#answer-label")).to_have_text(UNKNOWN_LABEL)
        expect(page.locator("#answer-category")).to_have_text("car")
        assert look_up(port, 0)["match"]["item"] == item

        generation = install_gallery(DEMO / "gallery", state)
        slots.activate(state, "a", generation, trusted)
        until(lambda: look_up(port, 0)["gallery"] == generation, "the new gallery serves")
        assert look_up(port, 0)["match"]["item"] == UNKNOWN
        until(lambda: retired(port) == ["same_name"], "its copy is retired")
    page.close()
    assert page_errors == []


def test_check_names_the_page_and_missing_extra_is_one_line(tmp_path):
    install_without(UNKNOWN, tmp_path / "state", tmp_path)
    config = tmp_path / "device.yaml"
    config.write_text(
        f"state_dir: {tmp_path / 'state'}\ncameras: {{c: {{source: 'v4l2://0', framing: whole_frame}}}}\n"
        f"kiosk: {{camera: c, port: 8099, token: '{TOKEN}'}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "edge", "check", "-c", config], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "kiosk http://127.0.0.1:8099/ (token)" in done.stdout
    assert TOKEN not in done.stdout + done.stderr
    without = (
        "import importlib.util as u, sys; found = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'uvicorn' else found(name, *more)\n"
        f"from edge.cli import main; sys.exit(main(['run', '-c', {str(config)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", without], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("edge: kiosk: package 'uvicorn' is not installed; run: ")
    assert done.stderr.endswith('pip install "finesight[kiosk]"\n')
