"""Access to the kiosk and the live view."""

from __future__ import annotations

import base64
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.http_server.access import cookie_value, is_known_host, own_names, refusal_reason, wrong_host_message

TOKEN = "s3cret token"


def reason_for(headers=None, cookie="", *, changes=False, token=None):
    return refusal_reason({"host": "127.0.0.1:8090", **(headers or {})}, cookie, changes=changes, token=token)


def basic(credentials):
    return {"authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


NAMES = own_names("0.0.0.0", ["Shelf-1.shop.lan"])


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8090",
        "localhost:8090",
        "LOCALHOST",
        "[::1]:8090",
        "127.0.0.1",
        "192.168.1.7:9464",
        "[fe80::1%eth0]",
        "shelf-1.shop.lan:9464",
        "shelf-1.shop.lan.",
        socket.gethostname(),
        f"{socket.gethostname()}.local:80",
    ],
)
def test_address_and_name_of_the_device_are_known(host):
    assert is_known_host({"host": host}, NAMES)


@pytest.mark.parametrize(
    "host", ["kiosk.example:8090", "127.0.0.1.example", "evil.localhost.example", "", ":80", "[", "1.2.3", "a" * 9999]
)
def test_other_name_is_unknown(host):
    """Another website may have pointed a name of its own at this device."""
    assert not is_known_host({"host": host}, NAMES)


def test_request_without_a_host_comes_from_no_browser():
    assert is_known_host({}, NAMES)


def test_name_to_listen_on_is_known():
    assert is_known_host({"host": "kiosk.shop.lan"}, own_names("kiosk.shop.lan", []))


def test_message_for_a_wrong_host_says_what_to_do():
    assert wrong_host_message({"host": "a.example"}, "health") == (
        "'a.example' is not a name of this device; use its address, or add the name to health.host_names"
    )


def test_valid_token_is_allowed():
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
    assert without in {None, "wrong_origin"}
    assert is_known_host(headers, NAMES) in {True, False}
    reason = refusal_reason(headers, cookie, changes=changes, token=TOKEN)
    assert reason in {None, "no_token", "wrong_origin"}
    knows_token = headers.get("authorization") == f"Bearer {TOKEN}"
    assert (reason == "no_token") != knows_token
