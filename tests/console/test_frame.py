"""What every page and action of the console does alike."""

from __future__ import annotations

from tests.console_samples import running_console


def test_start_page_needs_a_token(tmp_path):
    with running_console(tmp_path) as client:
        assert client.get("/").status == 200
        stranger = client.without_token()
        assert stranger.get("/").headers["location"] == "/login"
        assert stranger.get("/api/v1/tasks?key=x").status == 401


def test_other_origins_change_nothing(tmp_path):
    with running_console(tmp_path) as client:
        stranger = client.without_token()
        reply = stranger.send("POST", "/api/v1/tasks/stop", {"key": "x"}, Origin="http://elsewhere.example")
        assert reply.status == 403
        assert reply.json["reason"] == "denied"


def test_unknown_page_says_so(tmp_path):
    with running_console(tmp_path) as client:
        assert client.get("/nowhere").status == 404
        assert client.get("/api/v1/tasks?key=x").json["reason"] == "not_found"
