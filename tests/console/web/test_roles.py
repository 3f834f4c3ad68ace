"""Every route, without a user and with a role that is too low. A new route is covered by being in the table."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from console.access.gate import ROLES
from console.web.routes import ROUTES
from tests.console.web.web_samples import add, browser, console
from tests.console_box_samples import made_set, propose

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


def offered(text):
    """Return the routes that a page's forms, buttons and links lead to."""
    found = [(method.upper(), path) for method, path in re.findall(r'hx-(post|put|patch|delete)="([^"?]+)', text)]
    found += [("GET", path) for path in re.findall(r'(?:href|hx-get)="(/[^"?#]*)', text)]
    for route in ROUTES:
        pattern = re.compile(re.sub(r"{(\w+)(?::(\w+))?}", lambda part: r"\d+" if part[2] else "[^/]+", route.path))
        yield from (route for method, path in found if method == route.method and pattern.fullmatch(path))


def test_no_page_offers_what_its_reader_may_not_do(client, tmp_path):
    propose(client.services, made_set(client.services, tmp_path / "cards", ("a.png",))[0], (60, 30, 120, 90))
    found, seen = set(), set()
    for role in ROLES[:-1]:
        user = browser(client, role)
        for one in ROUTES:
            if one.method == "GET" and not one.is_api and (reply := user.get(address(one))).status == 200:
                routes = list(offered(reply.text))
                seen |= {route.path for route in routes}
                bad = [r for r in routes if r.access in ROLES and ROLES.index(r.access) > ROLES.index(role)]
                found |= {(role, one.path, route.path) for route in bad}
    assert found == set()
    assert {"/api/v1/boxes/{set_id:int}/propose", "/training/new"} <= seen


def test_only_the_log_in_is_open_to_anyone():
    assert {one.path for one in ROUTES if one.access == "anyone"} == {"/login", "/api/v1/login"}


def test_pages_change_nothing_and_changes_are_in_the_api():
    assert [one.path for one in ROUTES if one.method != "GET" and not one.is_api] == []


def test_no_address_is_declared_twice():
    declared = [(one.method, one.path) for one in ROUTES]
    assert sorted({one for one in declared if declared.count(one) > 1}) == []
