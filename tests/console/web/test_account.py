"""The pages of the account, of users and of the audit log."""

from __future__ import annotations

import pytest

from tests.console.access.access_samples import PASSWORD
from tests.console.web.web_samples import Browser, add, browser, console


@pytest.fixture
def client(tmp_path):
    with console(tmp_path / "data") as running:
        yield running


def test_console_without_users_says_how_to_add_one(client):
    assert "Add the first user" in client.get("/account").text
    assert "There is no user yet" in client.get("/account/users").text


def test_admin_adds_changes_and_removes_users(client):
    add(client, "ann")
    admin = browser(client, "ann")
    assert admin.send("POST", "/api/v1/users", {"name": "bob", "role": "viewer", "password": PASSWORD}).status == 200
    bob = next(one for one in admin.get("/api/v1/users").json["users"] if one["name"] == "bob")
    user = browser(client, "bob")
    assert user.get("/account/audit").status == 403
    assert admin.send("POST", f"/api/v1/users/{bob['id']}/role", {"role": "operator"}).status == 200
    assert user.get("/account/audit").status == 200
    page = admin.get("/account/users").text
    assert "This ends 1 session and 0 tokens of bob at once" in page
    assert admin.send("DELETE", f"/api/v1/users/{bob['id']}").status == 200
    assert user.get("/account").status == 303
    assert admin.send("DELETE", f"/api/v1/users/{bob['id']}").status == 404


def test_last_admin_cannot_be_removed_from_the_page(client):
    ann = add(client, "ann")
    reply = browser(client, "ann").send("DELETE", f"/api/v1/users/{ann}")
    assert (reply.status, reply.json["reason"]) == (409, "conflict")


def test_audit_log_is_filtered_and_escaped(client):
    add(client, "ann")
    admin = browser(client, "ann")
    hostile = "<script>alert(1)</script>"
    assert Browser(client).send("POST", "/api/v1/login", {"name": hostile, "password": "x"}).status == 401
    text = admin.get("/account/audit?by=%3F").text
    assert "login.failed" in text
    assert hostile not in text
    assert "&lt;script&gt;" in text
    assert "user.add" not in admin.get("/account/audit?action=login").text.partition("<tbody>")[2]
    assert "No row is like that" in admin.get("/account/audit?until=1999-12-31").text


def test_hostile_query_of_the_audit_log_is_no_failure(client):
    for query in ("since=x", "offset=1e9", "since=0001-01-01", "before=x"):
        assert client.get(f"/account/audit?{query}").status == 422
    assert client.get("/account/audit?since=9999-12-31&until=9999-12-31&offset=840").status == 200


def test_session_of_another_user_cannot_be_ended(client):
    add(client, "ann")
    add(client, "bob", "viewer")
    ann, bob = browser(client, "ann"), browser(client, "bob")
    session = ann.get("/api/v1/account/sessions").json["sessions"][0]
    assert bob.send("DELETE", f"/api/v1/account/sessions/{session['id']}").status == 404
    assert ann.send("DELETE", f"/api/v1/account/sessions/{session['id']}").status == 200
    assert ann.get("/account").status == 303
