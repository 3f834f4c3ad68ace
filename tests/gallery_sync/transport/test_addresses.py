"""Addresses of a repository, and where redirects may lead."""

from __future__ import annotations

import pytest

from edge.errors import SyncError
from gallery_sync.transport.addresses import follow_redirect, parse_address
from gallery_sync.transport.errors import InterruptedTransferError

HERE = "https://user:pw@shop.example/repo/release.json?sig=s3cret"
USER_PW = "dXNlcjpwdw=="


@pytest.mark.parametrize(
    ("location", "url", "credentials"),
    [
        ("https://shop.example/new/release.json", "https://shop.example/new/release.json", USER_PW),
        ("/new/release.json?a=1", "https://shop.example/new/release.json?a=1", USER_PW),
        ("release-2.json", "https://shop.example/repo/release-2.json", USER_PW),
        ("HTTPS://SHOP.example./x", "https://shop.example/x", USER_PW),
        ("https://shop.example:8443/x", "https://shop.example:8443/x", None),
        ("https://cdn.example/x", "https://cdn.example/x", None),
        ("https://other:pw@cdn.example/x", "https://cdn.example/x", None),
        ("//cdn.example/x", "https://cdn.example/x", None),
        ("/a b\u00e9\x1b", "https://shop.example/a%20b%C3%A9%1B", USER_PW),
    ],
)
def test_redirect_leads_to_an_address_and_keeps_credentials_at_home(location, url, credentials):
    there = follow_redirect(parse_address(HERE), location, {"cdn.example"})
    assert (there.url, there.credentials) == (url, credentials)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://shop.example/x", "redirects from https to 'http'; expected https or better"),
        ("ftp://shop.example/x", "redirects from https to 'ftp'"),
        ("file:///etc/passwd", "redirects from https to 'file'"),
        ("data:text/plain,x", "redirects from https to 'data'"),
        ("javascript:x", "redirects from https to 'javascript'"),
        ("https://[::1/x", "redirects to an invalid address"),
        ("https://shop.example:99999/x", "is not a valid URL"),
    ],
)
def test_redirect_to_a_worse_address_is_refused(location, message):
    with pytest.raises(SyncError, match=message) as caught:
        follow_redirect(parse_address(HERE), location, {"cdn.example"})
    assert "s3cret" not in str(caught.value)
    assert not isinstance(caught.value, InterruptedTransferError)


@pytest.mark.parametrize(
    "host", ["login.wifi.example", "shop.example.evil.example", "127.0.0.1", "xn--shp-0na.example"]
)
def test_redirect_to_another_host_names_it_and_may_be_retried(host):
    with pytest.raises(InterruptedTransferError, match=f"to host '{host}'; .*login page.*--allow-host {host}"):
        follow_redirect(parse_address(HERE), f"https://{host}/x", {"cdn.example"})


def test_upgrade_to_https_on_the_same_host_keeps_the_credentials():
    there = follow_redirect(parse_address("http://user:pw@shop.example/x"), "https://shop.example/x", ())
    assert (there.scheme, there.credentials) == ("https", USER_PW)


def test_files_are_below_the_address_and_its_query_stays():
    address = parse_address("https://user:p%40w@Shop.example:8443/a b/?sig=s3cret&x=1")
    assert address.child("objects/aa/x").target == "/a%20b/objects/aa/x?sig=s3cret&x=1"
    assert address.host_header == "shop.example:8443"
    assert address.credentials == "dXNlcjpwQHc="
    assert "s3cret" not in str(address)
    assert "p@w" not in str(address)


@pytest.mark.parametrize(
    "text", ["http://", "http://:80/x", "https://a b/x", "http://u:pw@h:x/y", "http://\udc80/x", "http://a..b/", "x"]
)
def test_invalid_address_is_our_error_without_its_password(text):
    with pytest.raises(SyncError, match="is not a valid URL") as caught:
        parse_address(text)
    assert "pw" not in str(caught.value)
