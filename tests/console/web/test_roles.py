"""Every route, without a user and with a role that is too low. A new route is covered by being in the table."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from console.access.gate import ROLES
from console.web.routes import ROUTES
from tests.console.web.web_samples import add, browser, console

LOWER = {role: lower for lower, role in pairwise(ROLES)}


def address(route):
    """Return the path with its parts filled."""
    return re.sub(r"{(\w+)(?::(\w+))?}", lambda part: "1" if part[2] == "int" else "x", route.path)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with console(tmp_path_factory.mktemp("console")) as running:
        add(running, "admin")
        for role in ROLES[:-1]:
            add(running, role, role)
        yield running


def test_strangers_get_nothing_from_any_route(client):
    stranger = client.without_token()
    found = {}
    for route in ROUTES:
        if route.access == "anyone":
            continue
        reply = stranger.ask(route.method, address(route), b"", {})
        is_refused = (
            reply.status == 401 if route.is_api else (reply.status, reply.headers["location"][:6]) == (303, "/login")
        )
        if not is_refused:
            found[route.method, route.path] = reply.status
    assert found == {}


def test_lower_role_is_refused_by_every_route(client):
    users = {role: browser(client, role) for role in ROLES}
    found = {}
    for route in ROUTES:
        if route.access in LOWER:
            reply = users[LOWER[route.access]].send(route.method, address(route))
            if reply.status != 403 or f"needs the role {route.access}" not in reply.text:
                found[route.method, route.path] = reply.status
    assert found == {}


def test_only_the_log_in_is_open_to_anyone():
    assert {one.path for one in ROUTES if one.access == "anyone"} == {"/login", "/api/v1/login"}


def test_pages_change_nothing_and_changes_are_in_the_api():
    assert [one.path for one in ROUTES if one.method != "GET" and not one.is_api] == []


def test_no_address_is_declared_twice():
    declared = [(one.method, one.path) for one in ROUTES]
    assert sorted({one for one in declared if declared.count(one) > 1}) == []
