"""Who may talk to a kiosk."""

from __future__ import annotations

import pytest

from edge.kiosk.auth import COOKIE, cookie_value, refusal_reason

TOKEN = "s3cret token"


def asked(headers=None, cookies=None, *, changes=False, token=None):
    return refusal_reason({"host": "127.0.0.1:8090", **(headers or {})}, cookies or {}, changes=changes, token=token)


@pytest.mark.parametrize("host", ["127.0.0.1:8090", "localhost:8090", "localhost", "[::1]:8090", "127.0.0.1"])
def test_without_a_token_names_of_this_machine_are_answered(host):
    assert asked({"host": host}) is None


@pytest.mark.parametrize("host", ["kiosk.example:8090", "192.168.1.7:8090", "127.0.0.1.example", ""])
def test_without_a_token_another_name_is_refused(host):
    """A page elsewhere may have pointed a name of its own here."""
    assert asked({"host": host}) == "wrong_host"


def test_with_a_token_whoever_knows_it_is_answered_under_any_name():
    host = {"host": "kiosk.example"}
    assert asked(host | {"authorization": f"Bearer {TOKEN}"}, token=TOKEN) is None
    assert asked(host | {"authorization": f"bearer {TOKEN}"}, token=TOKEN) is None
    assert asked(host, {COOKIE: cookie_value(TOKEN)}, token=TOKEN) is None


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer other", f"Basic {TOKEN}", "Bearer ümlaut"])
def test_with_a_token_nobody_else_is(header):
    assert asked({"authorization": header}, {COOKIE: TOKEN}, token=TOKEN) == "no_token"


def test_the_cookie_does_not_hold_the_token():
    assert TOKEN not in cookie_value(TOKEN)


@pytest.mark.parametrize("token", [None, TOKEN])
def test_another_sites_page_can_change_nothing(token):
    cookies = {COOKIE: cookie_value(TOKEN)}
    other, own = {"origin": "http://evil.example"}, {"origin": "http://127.0.0.1:8090"}
    assert asked(other, cookies, changes=True, token=token) == "wrong_origin"
    assert asked({"origin": "null"}, cookies, changes=True, token=token) == "wrong_origin"
    assert asked(own, cookies, changes=True, token=token) is None
    assert asked({}, cookies, changes=True, token=token) is None
