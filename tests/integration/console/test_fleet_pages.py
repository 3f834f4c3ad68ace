"""A rollout from the console, in a browser: one person plans it, another approves, watches and aborts it."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import pytest
from playwright.sync_api import expect

from console.access.gate import COOKIE
from console.access.sessions import Client as Where
from console.access.sessions import begin_session
from console.access.users import add_user
from gallery_sync.repository.publish import publish
from tests.console.fleet.fleet_samples import TOKEN, small_fleet, took
from tests.console_browser import PATIENCE_MS, serious_findings
from tests.console_samples import running_console
from tests.store_samples import make_bundle, make_gallery
from tests.sync_samples import keys_of, publish_release, published

DEVICES = [f"cam-{number}" for number in range(5)]


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    folder, now = tmp_path_factory.mktemp("repo"), datetime.now(timezone.utc)
    publish_release(folder, "one", 1, 3, now=now)
    bundle, gallery = make_bundle(folder / "two", "two", 2), make_gallery(folder / "g4", 4)
    publish(folder / "repo", keys_of(folder / "repo"), now, bundle_folder=bundle, gallery_folder=gallery, hold=True)
    return folder / "repo"


@contextmanager
def opened(browser, client, name: str, role: str, path: str):
    """Open a page as a user who is logged in; a script that fails, fails the test."""
    with client.services.database.write() as rows:
        user = add_user(rows, time.time(), "test", name, role, "no password")
        cookie = begin_session(rows, time.time(), user, Where())
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_cookies([{"name": COOKIE, "value": cookie, "url": client.url}])
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{client.url}{path}")
    yield page
    context.close()
    assert problems == []


def screenshot(page, name: str) -> None:
    """See that everybody can read the page; save a screenshot if FINESIGHT_SHOTS names a folder."""
    page.wait_for_load_state("load")  # with its style
    assert serious_findings(page) == []
    if folder := os.environ.get("FINESIGHT_SHOTS"):
        page.screenshot(path=Path(folder) / f"fleet-{name}.png", full_page=True)


def test_rollout_from_plan_to_abort(browser, repo, tmp_path):
    with small_fleet(tmp_path / "server") as fleet:
        fleet.report_all(DEVICES)
        settings = {"fleet": fleet.url, "fleet_token": TOKEN, "repository": repo, "keys": repo.with_name("repo.keys")}
        with running_console(tmp_path / "console", **settings) as client:
            with opened(browser, client, "ada", "admin", "/fleet/rollouts") as ada:
                plan(ada)
            with opened(browser, client, "grace", "operator", "/fleet/rollouts") as grace:
                approve(grace)
                watch(grace, fleet, published(repo).plan)
                abort(grace)
    assert published(repo).plan is None
    assert published(repo).release.rollback_to == 1


def plan(page) -> None:
    page.get_by_role("link", name="Plan a rollout").click()
    page.get_by_label("Name").fill("cola")
    page.get_by_label("Canary, devices at least").fill("2")
    page.get_by_label("Waves after it, %").fill("")
    preview = page.locator("#preview")
    expect(preview).to_contain_text("Wave 1 adds 2 known devices")
    expect(preview).to_contain_text("Wave 2 adds 3 known devices")
    page.get_by_label("Soak between waves").fill("soon")
    expect(preview.get_by_role("alert")).to_contain_text("soak")
    page.get_by_role("button", name="Write the plan").click()
    expect(page.locator("[data-problem]")).to_contain_text("soak")  # and nothing typed is lost
    page.get_by_label("Soak between waves").fill("1h")
    page.get_by_label("Pause above failed, %").fill("60")
    screenshot(page, "plan")
    page.get_by_role("button", name="Write the plan").click()
    expect(page.get_by_role("heading", name="Plan cola")).to_be_visible()


def approve(page) -> None:
    page.get_by_role("link", name="cola").click()
    page.get_by_role("button", name="Approve…").press("Enter")
    dialog = page.get_by_role("dialog", name="Approve cola")
    expect(dialog).to_contain_text("2 known devices")
    dialog.get_by_role("button", name="Approve, open wave 1").press("Enter")
    expect(page.get_by_role("heading", name="Rollout cola")).to_be_visible()


def watch(page, fleet, plan) -> None:
    """Devices of the first wave report; the page shows it without being read again."""
    expect(page.locator("#rollout")).to_contain_text("2 away")
    first, second = [name for name in DEVICES if plan.wave_of(name) == 0]
    fleet.report(first, ago_s=-2, **took(plan.release))
    fleet.report(second, ago_s=-2, **took(plan.release, "rolled back"))
    expect(page.locator("#rollout")).to_contain_text("1 confirmed")
    expect(page.locator("#rollout")).to_contain_text(f"{second} failed knows nothing")
    screenshot(page, "rollout")


def abort(page) -> None:
    page.get_by_role("button", name="Abort…").click()
    dialog = page.get_by_role("dialog", name="Abort rollout cola")
    expect(dialog).to_contain_text("2 known devices took release 2, or began to, and go back")
    screenshot(page, "abort")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Abort…").click()
    dialog.get_by_label("Reason").fill("it knows nothing")
    dialog.get_by_role("button", name="Abort the rollout").click()
    expect(page.get_by_text("No rollout is under way.")).to_be_visible()
    expect(page.get_by_role("table").last).to_contain_text("it knows nothing")


def test_command_and_its_answer(browser, tmp_path):
    with small_fleet(tmp_path / "server") as fleet:
        fleet.report("cam-1")
        with (
            running_console(tmp_path / "console", fleet=fleet.url, fleet_token=TOKEN) as client,
            opened(browser, client, "ada", "admin", "/fleet") as page,
        ):
            page.get_by_role("link", name="cam-1").click()
            page.get_by_role("button", name="Go back to the pair before").click()
            dialog = page.get_by_role("dialog")
            expect(dialog).to_contain_text("Other devices are not touched")
            screenshot(page, "command")
            dialog.get_by_role("button", name="Send rollback").click()
            expect(page.locator("#commands")).to_contain_text("waiting for its answer")
            fleet.answer("cam-1", fleet.broker.sent[-1][1]["id"], "done", "release 1 serves again", verb="rollback")
            expect(page.locator("#commands")).to_contain_text("release 1 serves again")
