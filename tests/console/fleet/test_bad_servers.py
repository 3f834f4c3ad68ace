"""A fleet server that is missing, dead, refuses, or passes on what hostile devices report."""

from __future__ import annotations

import itertools
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from console.fleet.device_details import read_device
from console.fleet.devices import DeviceFilter, read_page, read_summary
from console.fleet.reader import FleetReader
from console.settings import Settings
from edge.errors import ConsoleError
from gallery_sync.fleet_client.client import Limits
from tests.console.fleet.fleet_samples import TOKEN, fake_server, report, small_fleet
from tests.console_samples import running_console
from tests.integration.mosquitto import free_port

PAGES = ("/", "/parts/overview/fleet", "/fleet", "/fleet?failed=1", "/fleet/devices/cam-1", "/fleet/rollouts",
         "/fleet/fragments")  # fmt: skip
EVIL = "<script>alert(1)</script>\x00\u202e"


def row(device: str = "cam-1", **reported: object) -> dict:
    now = time.time()
    return {
        "device": device, "line": "demo", "labels": {}, "first_seen": now, "last_seen": now, "available": None,
        "reported": report(device, **reported), "tries": [],
    }  # fmt: skip


def summary(**counts: object) -> dict:
    usual = {"devices": 1, "silent": 0, "failed": 0, "oldest_report": None, "waiting_for_turn": {}}
    return {**usual, **{f"by_{name}": {} for name in ("line", "release", "state", "engine")}, **counts}


def test_without_a_server_pages_say_how_to_name_one(tmp_path):
    with running_console(tmp_path) as client:
        for path in PAGES:
            assert client.get(path).status == 200, path
        assert "--fleet" in client.get("/fleet").text
        assert client.get("/api/v1/fleet/devices").json["reason"] == "missing"
        assert "--repo" in client.get("/fleet/rollouts").text


def test_dead_server_is_named_and_holds_up_nothing(tmp_path):
    with running_console(tmp_path, fleet=f"http://127.0.0.1:{free_port()}") as client:
        started = time.monotonic()
        for path in PAGES:
            assert client.get(path).status == 200, path
        assert time.monotonic() - started < 20.0  # of a busy machine
        page = client.get("/fleet").text
        assert "cannot reach the fleet server" in page
        assert "edge-sync fleet serve" in page


def test_server_that_never_answers_costs_one_wait(tmp_path):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(64)
        settings = Settings(tmp_path, fleet=f"http://127.0.0.1:{deaf.getsockname()[1]}")
        reader = FleetReader(settings, Limits(timeout_s=0.2, request_s=0.3, largest_bytes=1000))
        started = time.monotonic()
        for _ in range(20):
            with pytest.raises(ConsoleError, match="cannot reach"):
                reader.page((), "", 10)
            with pytest.raises(ConsoleError, match="cannot reach"):
                reader.summary()
        assert time.monotonic() - started < 5.0  # 40 waits of 0.2 s would take 8 s


def test_wrong_token_is_said_and_not_shown(tmp_path):
    with (
        small_fleet(tmp_path / "server") as fleet,
        running_console(tmp_path / "console", fleet=fleet.url, fleet_token="not-the-right-one-at-all") as client,
    ):
        page = client.get("/fleet").text
        assert "FINESIGHT_FLEET_TOKEN" in page
        assert "not-the-right-one" not in page
        assert TOKEN not in page


NONSENSE = {
    "empty": b"",
    "html": b"<html>hello</html>",
    "list": b"[]",
    "object": b"{}",
    "no-list": b'{"devices": "3", "next": 1}',
    "wrong-next": b'{"devices": [], "next": []}',
    "deep": b"[" * 5000,
    "nan": b'{"devices": NaN}',
    "huge": b'{"devices": 1' + b"0" * 400 + b"}",
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_of_a_server_is_our_error(tmp_path, answer):
    with fake_server({"*": answer}) as url:
        reader = FleetReader(Settings(tmp_path, fleet=url), clock=itertools.count(step=10).__next__)
        with pytest.raises(ConsoleError, match="fleet server"):
            read_summary(reader)
        with pytest.raises(ConsoleError):
            read_device(reader, "cam-1", 0.0)
        with pytest.raises(ConsoleError, match="fleet server"):
            read_page(reader, DeviceFilter(), "", 0.0)


def test_hostile_report_is_shown_escaped_or_left_out(tmp_path):
    """HTML in every field that takes any text, huge numbers, and rows that are no reports."""
    huge = row(
        state=EVIL, reason=EVIL, engine=EVIL, config=EVIL, problem=EVIL, site=EVIL, cameras={EVIL: EVIL}, fps=1e308,
        versions={EVIL: EVIL}, counters={EVIL: 2**53 - 1}, allowed=[EVIL], since=1e11, expires_at=1e11, plan=EVIL,
        running={"bundle_id": EVIL, "gallery": EVIL, "release": 2**53 - 1, "trial": EVIL},
        tries=[{"release": 2**53 - 1, "bundle_id": EVIL, "outcome": "refused", "reason": EVIL, "at": 1e11}],
        quarantine=[{"release": 1, "reason": EVIL, "until": 1e11}],
    )  # fmt: skip
    wrong = [row("cam-2", fps=-1), row("cam-3", state=None), {}, row("cam-4", reason="x" * 10_000_000)]
    details = {
        "row": huge,
        "history": [{"at": EVIL, "kind": EVIL, "change": {"from": EVIL, "to": {EVIL: EVIL}, "reason": EVIL}}, None, 3],
        "commands": [{"id": EVIL, "verb": EVIL, "arguments": {EVIL: EVIL}, "by": EVIL, "at": 1e300, "sent": EVIL}, []],
        "answers": [{"id": EVIL, "state": EVIL, "text": EVIL}, None],
        "turn": {"release": EVIL},
    }
    answers = {
        "/v1/summary": summary(by_state={EVIL: 1, "idle": -3}, by_release={EVIL: 2**60}, by_engine=EVIL),
        "/v1/devices": json.dumps({"devices": [huge, *wrong], "next": None}).encode(),
        "/v1/devices/cam-1": details,
    }
    with fake_server(answers) as url, running_console(tmp_path, fleet=url) as client:
        for path in PAGES:
            reply = client.get(path)
            assert reply.status == 200, path
            assert "<script>alert" not in reply.text, path
            assert "\x00" not in reply.text, path
            assert "\u202e" not in reply.text, path
        assert "&lt;script&gt;" in client.get("/fleet").text
        assert "4 devices on this page" in client.get("/fleet").text
        assert client.get("/api/v1/fleet/devices").json["unreadable"] == 4


def test_ten_people_are_not_ten_requests(tmp_path):
    asked: list[str] = []
    answers = {"/v1/summary": summary(), "/v1/devices": {"devices": [row()], "next": None}}
    with fake_server(answers, asked) as url:
        reader = FleetReader(Settings(tmp_path, fleet=url), clock=lambda: 1.0)
        with ThreadPoolExecutor(10) as people:
            list(people.map(lambda _: (reader.summary(), reader.page((), "", 50)), range(10)))
    assert sorted(asked) == ["/v1/devices", "/v1/summary"]


def test_report_of_another_device_is_not_shown(tmp_path):
    with fake_server({"*": {"row": row("cam-9")}}) as url, running_console(tmp_path, fleet=url) as client:
        assert "cannot be read" in client.get("/fleet/devices/cam-1").text
