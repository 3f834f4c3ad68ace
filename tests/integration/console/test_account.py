"""Logging in, tokens, users and the audit log in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.console.access.access_samples import PASSWORD
from tests.console.web.web_samples import add, console
from tests.console_browser import PATIENCE_MS, serious_findings


@pytest.fixture
def client(tmp_path):
    with console(tmp_path / "data") as running:
        add(running, "ann")
        add(running, "bob", "viewer")
        yield running


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    yield page
    context.close()


def log_in(page, name, password=PASSWORD):
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")


def test_log_in_goes_on_to_the_page_that_was_wanted(page, client):
    page.goto(f"{client.url}/account/audit?action=login")
    assert serious_findings(page) == []
    log_in(page, "ann", "wrong")
    page.get_by_text("the name or the password is wrong").wait_for()
    log_in(page, "ann")
    page.get_by_role("heading", name="Audit log").wait_for()
    assert page.url.endswith("/account/audit?action=login")
    assert serious_findings(page) == []


def test_token_is_shown_once(page, client):
    page.goto(f"{client.url}/account")
    log_in(page, "ann")
    page.get_by_label("What it is for").fill("ci")
    page.get_by_role("button", name="Make a token").click()
    page.get_by_role("dialog", name="Copy the token now").wait_for()
    token = page.get_by_label("Token", exact=True).input_value()
    assert client.without_token().get("/api/v1/sets", Authorization=f"Bearer {token}").status == 200
    page.get_by_role("button", name="Done").click()
    page.get_by_role("button", name="Remove the token ci").wait_for()
    assert token not in page.content()
    assert serious_findings(page) == []


def test_user_is_removed_after_the_page_said_what_that_does(page, client):
    page.goto(f"{client.url}/account/users")
    log_in(page, "ann")
    page.get_by_role("button", name="Remove bob").click()
    dialog = page.get_by_role("dialog", name="Remove bob?")
    expect(dialog).to_contain_text("ends 0 sessions and 0 tokens of bob at once")
    assert serious_findings(page) == []
    dialog.get_by_role("button", name="Remove bob").click()
    page.get_by_text("bob is removed").wait_for()
    expect(page.get_by_role("button", name="Remove bob")).to_have_count(0)


def test_wrong_old_password_is_named(page, client):
    page.goto(f"{client.url}/account")
    log_in(page, "bob")
    page.get_by_label("Old password").fill("not the old one")
    page.get_by_label("New password").fill("another password")
    page.get_by_role("button", name="Change").click()
    expect(page.locator(".toast.bad")).to_contain_text("the name or the password is wrong")


def test_log_out_ends_the_session(page, client):
    page.goto(f"{client.url}/account")
    log_in(page, "bob")
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Log in").wait_for()
    page.goto(f"{client.url}/account")
    page.get_by_role("heading", name="Log in").wait_for()
