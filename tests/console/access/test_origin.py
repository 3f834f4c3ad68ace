"""Requests that a page of another server sends with the cookie of a user."""

from __future__ import annotations

import pytest

from console.access.origin import is_foreign

HOST = {"host": "console.example:8095"}


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://elsewhere.example"},
        {"origin": "https://console.example:8095"},  # of another scheme
        {"origin": "http://console.example"},  # of another port
        {"origin": "http://console.example:8095.elsewhere.example"},
        {"origin": "http://console.example:8095/path"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": ""},
        {"origin": "http://console.example:8095", "sec-fetch-site": "cross-site"},
        {"origin": "null", "sec-fetch-site": "same-origin"},
        {},
    ],
)
def test_request_of_another_page_is_refused(headers):
    assert is_foreign({**HOST, **headers}, ("http",), has_cookie=True)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://console.example:8095"},
        {"origin": "http://CONSOLE.example:8095"},
        {"sec-fetch-site": "same-origin"},
        {"origin": "http://console.example:8095", "sec-fetch-site": "same-origin"},
    ],
)
def test_request_of_an_own_page_is_allowed(headers):
    assert not is_foreign({**HOST, **headers}, ("http",), has_cookie=True)


def test_program_without_a_cookie_needs_no_origin():
    assert not is_foreign(HOST, ("http",), has_cookie=False)
    assert is_foreign({**HOST, "origin": "null"}, ("http",), has_cookie=False)


def test_origin_without_a_host_is_refused():
    assert is_foreign({"origin": "http://"}, ("http",), has_cookie=True)


def test_proxy_names_the_outer_scheme():
    headers = {"host": "console.example", "origin": "https://console.example"}
    assert not is_foreign(headers, ("https", "http"), has_cookie=True)
    assert is_foreign(headers, ("http",), has_cookie=True)
