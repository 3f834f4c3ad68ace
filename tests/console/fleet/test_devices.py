"""Pages of devices, from the real fleet server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from console.fleet.devices import just_before
from tests.waiting import until


@pytest.fixture
def ada(who):
    return who["ada"]


FAILED = [{"release": 2, "bundle_id": "two", "outcome": "rolled back", "at": 1.0, "reason": "knows nothing"}]


def test_page_shows_what_a_device_runs(fleet, ada):
    fleet.report("one-1", state="trial", reason="4 min more")
    page = ada.get("/fleet?begins=one").text
    assert "one-1" in page
    assert "4 min more" in page
    assert "1/2" in page  # cameras online
    assert "berlin" in page


def test_filters_select_on_the_server(fleet, ada):
    fleet.report("two-1", state="prove")
    fleet.report("two-2", labels={"site": "munich", "group": "shop"})
    fleet.report("two-3", ago_s=90_000.0)

    def shown(query: str) -> list[str]:
        return [one["id"] for one in ada.get(f"/api/v1/fleet/devices?{query}").json["devices"]]

    assert shown("state=prove") == ["two-1"]
    assert shown("label=site%3Dmunich") == shown("group=shop") == ["two-2"]
    assert shown("silent_s=7200&begins=two") == ["two-3"]
    assert shown("release=9") == []
    assert shown("begins=two-2") == ["two-2"]
    assert "No device matches" in ada.get("/fleet?release=9").text


def test_failed_devices_are_listed(fleet, ada):
    fleet.report("three-1")
    fleet.report("three-2", tries=FAILED)
    until(lambda: "three-2" in ada.get("/fleet?failed=1").text, "the device that failed is listed")
    assert "three-1" not in ada.get("/fleet?failed=1").text


def test_pages_go_on_where_the_last_one_ended(fleet, ada):
    fleet.report_all([f"p-{number:02}" for number in range(53)])
    first = ada.get("/api/v1/fleet/devices?begins=p-").json
    assert (len(first["devices"]), first["next"]) == (50, "p-49")
    rest = ada.get("/api/v1/fleet/devices?begins=p-&after=p-49").json
    assert ([one["id"] for one in rest["devices"]], rest["next"]) == (["p-50", "p-51", "p-52"], None)
    assert "after=p-49" in ada.get("/fleet?begins=p-").text
    assert [one["id"] for one in ada.get("/api/v1/fleet/devices?begins=p-1").json["devices"]][-1] == "p-19"


@pytest.mark.parametrize("begins", ["c", "cam-", "cam-0", "0", "-", "a.b", "zz"])
def test_search_begins_just_before_the_first_match(begins):
    before = just_before(begins)
    assert before < begins
    ids = ["-", "-z", "0", "0a", "Z", "a.a", "a.b", "a.c", "b", "c", "c.", "cam", "cam-", "cam-0", "cam-1", "zy", "zz"]
    first = min((one for one in ids if one > before), default="")
    assert first == min(one for one in ids if one.startswith(begins))


def test_device_shows_all_of_it(fleet, ada):
    fleet.report("four-1")
    fleet.report("four-1", state="fetch", tries=FAILED, config="night-mode 3")
    page = ada.get("/fleet/devices/four-1").text
    for text in ("knows nothing", "night-mode 3", "idle → fetch", "finesight 0.1.0", "shelf", "onnxruntime fp32"):
        assert text in page
    assert ada.get("/api/v1/fleet/devices/four-1").json["has_failed"] is True
    assert ada.get("/api/v1/fleet/devices/cam-9").status == 404
    assert "no device" in ada.get("/fleet/devices/cam-9").text
    assert ada.get("/api/v1/fleet/devices/.hidden").status == 404


def test_command_is_sent_and_its_answer_arrives(fleet, ada):
    fleet.report("five-1")
    sent = ada.send("POST", "/api/v1/fleet/devices/five-1/commands", {"verb": "sync"}).json
    topic, request = fleet.broker.sent[-1]
    assert (topic, request["by"], request["id"]) == ("fleet/v1/device/five-1/cmd/sync", "ada", sent["id"])
    assert ada.get(f"/api/v1/fleet/commands/{sent['id']}").json["is_waiting"]
    page = ada.get("/fleet/devices/five-1").text
    assert "waiting for its answer" in page
    assert "/parts/fleet/commands" in page  # it looks again by itself
    fleet.answer("five-1", sent["id"], "done", "<b>looked</b>")
    until(lambda: ada.get(f"/api/v1/fleet/commands/{sent['id']}").json["state"] == "done", "the answer is shown")
    until(lambda: "&lt;b&gt;looked" in ada.get("/parts/fleet/commands?device=five-1").text, "the answer is shown")
    with ada.services.database.read() as rows:
        row = rows.execute("SELECT by, target, details FROM audit WHERE action = 'fleet.command'").fetchone()
    assert (row["by"], row["target"]) == ("ada", "five-1")
    assert sent["id"] in row["details"]


def test_command_that_a_device_does_not_take_is_not_sent(fleet, who):
    fleet.report("six-1")
    path = "/api/v1/fleet/devices/six-1/commands"
    for body, text in (
        ({"verb": "activate"}, "agent.yaml does not allow it"),
        ({"verb": "reboot"}, "expected one of"),
        ({"verb": "restart_camera"}, "say which camera"),
        ({"verb": "restart_camera", "argument": "roof"}, "no camera"),
        ({"verb": "sync", "argument": "x"}, "takes no argument"),
    ):
        reply = who["grace"].send("POST", path, body)
        assert (reply.status, text in reply.json["error"]) == (422, True), reply.text
    assert who["grace"].send("POST", path, {"verb": "restart_camera", "argument": "door"}).status == 200
    assert fleet.broker.sent[-1][0] == "finesight/berlin/six-1/cmd/restart_camera"
    assert who["vic"].send("POST", path, {"verb": "sync"}).status == 403
    assert "Look for a release now" not in who["vic"].get("/fleet/devices/six-1").text


def test_silent_device_is_marked(fleet, ada):
    fleet.report("seven-1", ago_s=9000.0)
    assert ada.get("/api/v1/fleet/devices/seven-1").json["is_silent"]
    assert ">silent<" in ada.get("/fleet?begins=seven").text


def test_stranger_sees_nothing(client):
    stranger = replace(client, token=None)
    assert stranger.get("/fleet").headers["location"].startswith("/login")
    assert stranger.get("/api/v1/fleet/devices").status == 401
