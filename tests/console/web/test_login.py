"""Logging in and out over HTTP, cookies, and requests of other pages."""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.request

import pytest

from console.access.gate import COOKIE
from console.access.login_limits import PER_NAME
from tests.console.access.access_samples import PASSWORD
from tests.console.web.web_samples import Browser, add, browser, console
from tests.console_samples import TOKEN
from tests.integration.certificates import Authority


@pytest.fixture
def client(tmp_path):
    with console(tmp_path / "data") as running:
        yield running


def cookie_of(reply):
    return re.match(rf"{COOKIE}=([^;]*); (.*)", reply.headers["set-cookie"]).groups()


def test_printed_address_opens_the_console_without_users(client):
    reply = Browser(client).get(f"/login?token={TOKEN}&next=/review")
    value, attributes = cookie_of(reply)
    assert (reply.status, reply.headers["location"]) == (303, "/review")
    assert {one.strip() for one in attributes.split(";")} == {
        "HttpOnly",
        "Max-Age=1209600",
        "Path=/",
        "SameSite=strict",
    }
    assert Browser(client, value).get("/account").status == 200
    assert TOKEN not in value


def test_wrong_printed_token_opens_nothing(client):
    reply = Browser(client).get("/login?token=wrong")
    assert reply.status == 401
    assert "set-cookie" not in reply.headers
    assert "opens nothing any more" in reply.text


def test_user_logs_in_and_out(client):
    add(client, "ann")
    stranger = Browser(client)
    assert stranger.get("/review?x=1").headers["location"] == "/login?next=/review%3Fx%3D1"
    reply = stranger.send("POST", "/api/v1/login", {"name": "Ann", "password": PASSWORD, "next": "/review?x=1"})
    assert (reply.status, reply.json["go"]) == (200, "/review?x=1")
    user = Browser(client, cookie_of(reply)[0])
    assert "ann" in user.get("/account").text
    ended = user.send("POST", "/api/v1/logout")
    assert cookie_of(ended)[0] == '""'
    assert user.get("/account").status == 303


def test_printed_token_is_over_with_the_first_user(client):
    local = Browser(client, cookie_of(Browser(client).get(f"/login?token={TOKEN}"))[0])
    body = {"name": "ann", "role": "viewer", "password": PASSWORD}
    assert local.send("POST", "/api/v1/users", body).status == 409
    assert local.send("POST", "/api/v1/users", {**body, "role": "admin"}).json["go"] == "/login"
    assert local.get("/account").status == 303
    assert client.get("/account").status == 303


def test_log_in_leads_to_own_pages_only(client):
    add(client, "ann")
    hostile = ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "x", "/a\tb", "//[x")
    for wanted in hostile:
        body = {"name": "ann", "password": PASSWORD, "next": wanted}
        assert Browser(client).send("POST", "/api/v1/login", body).json["go"] == "/"


def test_too_many_attempts_say_how_long_to_wait(client):
    add(client, "ann")
    stranger = Browser(client)
    for _ in range(PER_NAME):
        assert stranger.send("POST", "/api/v1/login", {"name": "ann", "password": "wrong"}).status == 401
    reply = stranger.send("POST", "/api/v1/login", {"name": "ann", "password": PASSWORD})
    assert (reply.status, reply.json["reason"]) == (429, "limited")
    assert int(reply.headers["retry-after"]) > 800
    assert "wait 15 minutes" in reply.json["error"]


def test_cookie_of_a_user_is_no_use_to_another_page(client):
    add(client, "ann")
    user = browser(client, "ann")
    for headers in (
        {"Origin": "null"},
        {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": None, "Sec-Fetch-Site": None},
        {"Origin": None, "Sec-Fetch-Site": "same-site"},
    ):
        assert user.send("POST", "/api/v1/logout", **headers).status == 403
    assert user.get("/account").status == 200
    assert user.send("POST", "/api/v1/logout", Origin=None).status == 200


def test_cookie_is_not_used_beside_a_token(client):
    add(client, "ann")
    user = browser(client, "ann")
    assert user.send("POST", "/api/v1/logout", Authorization="Bearer x", Origin=None, Sec_Fetch_Site=None).status == 401


def test_own_password_needs_the_old_one_and_ends_other_sessions(client):
    add(client, "ann")
    here, elsewhere = browser(client, "ann"), browser(client, "ann")
    path = "/api/v1/account/password"
    assert here.send("POST", path, {"old": "wrong", "new": "another password"}).status == 401
    assert here.send("POST", path, {"old": PASSWORD, "new": "short"}).status == 422
    assert elsewhere.get("/account").status == 200
    assert here.send("POST", path, {"old": PASSWORD, "new": "another password"}).status == 200
    assert (here.get("/account").status, elsewhere.get("/account").status) == (200, 303)


def test_token_works_and_changes_no_account(client):
    add(client, "ann")
    user = browser(client, "ann")
    made = user.send("POST", "/api/v1/account/tokens", {"name": "ci", "role": "admin"}).json["token"]
    program = {"Authorization": f"Bearer {made}"}
    stranger = client.without_token()
    assert stranger.get("/api/v1/users", **program).json["users"][0]["name"] == "ann"
    assert made not in user.get("/account").text
    for path in ("/api/v1/account/tokens", "/api/v1/users", "/api/v1/account/password"):
        bodies = {"name": "x", "role": "viewer"}, {"name": "x", "role": "viewer", "password": "y" * 10}
        body = {"old": PASSWORD, "new": "y" * 10} if "password" in path else bodies["users" in path]
        reply = stranger.send("POST", path, body, **program)
        assert (reply.status, reply.json["reason"]) == (403, "denied")


def test_part_of_a_page_leads_the_whole_page_to_the_log_in(client):
    add(client, "ann")
    reply = Browser(client).get("/parts/task?key=x", HX_Request="true")
    assert (reply.status, reply.headers["hx-redirect"]) == (401, "/login")
    shown = {"HX_Request": "true", "HX_Current_URL": f"{client.url}/review/3?state=all"}
    reply = Browser(client).get("/parts/task?key=x", **shown)
    assert reply.headers["hx-redirect"] == "/login?next=/review/3%3Fstate%3Dall"
    reply = Browser(client).get("/parts/task?key=x", HX_Request="true", HX_Current_URL="http://[")
    assert (reply.status, reply.headers["hx-redirect"]) == (401, "/login")


def test_form_sent_after_the_log_out_keeps_its_page(client):
    add(client, "ann")
    reply = Browser(client).send("POST", "/api/v1/sets", {"name": "typed"}, HX_Request="true")
    assert (reply.status, "hx-redirect" in reply.headers) == (401, False)


def test_cookie_goes_over_tls_alone_behind_a_proxy(tmp_path):
    with console(tmp_path, proxy_https=True) as client:
        add(client, "ann")
        host = client.url.removeprefix("http://")
        stranger = Browser(client)
        body = {"name": "ann", "password": PASSWORD}
        headers = {"Origin": f"https://{host}", "X-Forwarded-For": "203.0.113.9, 198.51.100.4"}
        reply = stranger.send("POST", "/api/v1/login", body, **headers)
        assert "Secure" in reply.headers["set-cookie"]
        user = Browser(client, cookie_of(reply)[0])
        assert user.get("/api/v1/account/sessions").json["sessions"][0]["address"] == "198.51.100.4"


def test_forwarded_address_counts_from_a_proxy_alone(client):
    add(client, "ann")
    body = {"name": "ann", "password": PASSWORD}
    reply = Browser(client).send("POST", "/api/v1/login", body, X_Forwarded_For="198.51.100.4")
    user = Browser(client, cookie_of(reply)[0])
    assert user.get("/api/v1/account/sessions").json["sessions"][0]["address"] == "127.0.0.1"


def test_console_with_a_certificate_speaks_tls_alone(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.sign("console")
    with console(tmp_path / "data", certificate=certificate, key=key) as client:
        add(client, "ann")
        trusting = ssl.create_default_context(cafile=authority.certificate)
        body = json.dumps({"name": "ann", "password": PASSWORD}).encode()
        headers = {"Content-Type": "application/json", "Origin": client.url}
        request = urllib.request.Request(f"{client.url}/api/v1/login", body, headers)
        with urllib.request.urlopen(request, context=trusting, timeout=60) as answer:
            assert "; Secure" in answer.headers["set-cookie"]
        request.add_header("Origin", client.url.replace("https", "http"))
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, context=trusting, timeout=60)
