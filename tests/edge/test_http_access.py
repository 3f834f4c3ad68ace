"""Access to the kiosk and the live view."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.http_access import cookie_value, refusal_reason

TOKEN = "s3cret token"


def reason_for(headers=None, cookie="", *, changes=False, token=None):
    return refusal_reason({"host": "127.0.0.1:8090", **(headers or {})}, cookie, changes=changes, token=token)


def basic(credentials):
    return {"authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


@pytest.mark.parametrize("host", ["127.0.0.1:8090", "localhost:8090", "localhost", "[::1]:8090", "127.0.0.1"])
def test_loopback_host_is_allowed_without_a_token(host):
    assert reason_for({"host": host}) is None


@pytest.mark.parametrize("host", ["kiosk.example:8090", "192.168.1.7:8090", "127.0.0.1.example", ""])
def test_other_host_is_refused_without_a_token(host):
    """Another website may have pointed a name of its own at this machine."""
    assert reason_for({"host": host}) == "wrong_host"


def test_valid_token_is_allowed_under_any_host_name():
    host = {"host": "kiosk.example"}
    assert reason_for(host | {"authorization": f"Bearer {TOKEN}"}, token=TOKEN) is None
    assert reason_for(host | {"authorization": f"bearer {TOKEN}"}, token=TOKEN) is None
    assert reason_for(host | basic(f"anybody:{TOKEN}"), token=TOKEN) is None
    assert reason_for(host, cookie_value(TOKEN), token=TOKEN) is None


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer other", f"Basic {TOKEN}", "Bearer ümlaut", "Basic ////"])
def test_wrong_token_is_refused(header):
    assert reason_for({"authorization": header}, TOKEN, token=TOKEN) == "no_token"


@pytest.mark.parametrize("credentials", [f"{TOKEN}:", f"{TOKEN}:other", TOKEN, ":"])
def test_token_is_the_password_and_not_the_user_name(credentials):
    assert reason_for(basic(credentials), token=TOKEN) == "no_token"


def test_cookie_does_not_contain_the_token():
    assert TOKEN not in cookie_value(TOKEN)


@pytest.mark.parametrize("token", [None, TOKEN])
def test_foreign_origin_cannot_change_anything(token):
    cookie = cookie_value(TOKEN)
    other, own = {"origin": "http://evil.example"}, {"origin": "http://127.0.0.1:8090"}
    assert reason_for(other, cookie, changes=True, token=token) == "wrong_origin"
    assert reason_for({"origin": "null"}, cookie, changes=True, token=token) == "wrong_origin"
    assert reason_for(own, cookie, changes=True, token=token) is None
    assert reason_for({}, cookie, changes=True, token=token) is None


LATIN = st.text(st.characters(max_codepoint=255), max_size=40)  # what a server makes of header bytes
HEADERS = st.dictionaries(st.sampled_from(["host", "authorization", "origin"]), LATIN | st.just(f"Bearer {TOKEN}"))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(headers=HEADERS, cookie=LATIN, changes=st.booleans())
def test_any_headers_give_a_refusal_or_none(headers, cookie, changes):
    without = refusal_reason(headers, cookie, changes=changes, token=None)
    assert without in {None, "wrong_host", "wrong_origin"}
    reason = refusal_reason(headers, cookie, changes=changes, token=TOKEN)
    assert reason in {None, "no_token", "wrong_origin"}
    knows_token = headers.get("authorization") == f"Bearer {TOKEN}"
    assert (reason == "no_token") != knows_token
