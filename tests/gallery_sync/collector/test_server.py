"""The HTTP API, over loopback, against its own description."""

from __future__ import annotations

import json
import re
import threading
from urllib.parse import quote

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.errors import ConfigError, SyncError
from gallery_sync.collector.api import openapi
from gallery_sync.collector.inbox import LARGEST_BYTES
from gallery_sync.collector.messages import Arrived
from gallery_sync.collector.server import FleetServer, Listen, Parts
from gallery_sync.fleet_client.client import FleetClient
from tests.gallery_sync.collector.collector_samples import NOW, Desk, a_try, answer, ask, message, report
from tests.integration.certificates import Authority

CONTRACT = openapi()
TOKEN, INBOX_TOKEN = "a-token-of-operators", "a-token-of-devices"
JPEG, ZIP = b"\xff\xd8\xff and so on", b"PK\x03\x04 and so on"


class Running:
    """A server with its parts, and a thread that writes."""

    def __init__(self, folder, **listen):
        self.desk = Desk(folder)
        parts = Parts(
            *(self.desk.database, self.desk.inflow, self.desk.link, self.desk.commands, self.desk.counters),
            inbox=self.desk.inbox,
        )
        self.server = FleetServer(parts, Listen(port=0, **listen))
        self.stopped = threading.Event()
        self.writing = threading.Thread(target=self.write)

    def write(self):
        while not self.stopped.wait(0.002):
            self.desk.writer.step(0.0)

    def __enter__(self):
        self.writing.start()
        self.server.__enter__()
        return self

    def __exit__(self, *_):
        self.server.__exit__()
        self.stopped.set()
        self.writing.join()
        self.desk.database.close()

    def take(self, *messages):
        for one in messages:
            self.desk.inflow.put(one)
        self.desk.writer.call(lambda _: None)
        self.desk.writer.call(lambda _: None)

    def ask(self, method, path, body=None, **headers):
        """Status and JSON of a response, validated against the contract."""
        status, found, _ = ask(self.server.port, method, path, body, **headers)
        if specified := schema_of(method, path, status):
            jsonschema.validate(found, specified)
        return status, found


def schema_of(method, path, status):
    path = re.sub(r"^/v1/devices/[^/]+", "/v1/devices/{device}", path.partition("?")[0])
    path = re.sub(r"^/v1/commands/.+", "/v1/commands/{id}", path)
    path = re.sub(r"^/inbox/[^/]+/[^/]+$", "/inbox/{device}/{name}", path)
    operation = CONTRACT["paths"].get(path, {}).get(method.lower())
    if operation is None:
        return None
    content = operation["responses"][str(status)].get("content")
    return content and {**content["application/json"]["schema"], "components": CONTRACT["components"]}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """One server for all tests that do not mind each other's devices."""
    with Running(tmp_path_factory.mktemp("server")) as running:
        tries = [a_try(4, "rolled back", reason="slow"), a_try(3)]
        running.take(*(message(report(f"cam-{number}", tries=tries, site="berlin")) for number in range(5)))
        yield running


@pytest.fixture
def locked(tmp_path):
    with Running(tmp_path, token=TOKEN, inbox_token=INBOX_TOKEN, host_names=("fleet.example.com",)) as running:
        yield running


def test_devices_come_in_pages(running):
    status, page = running.ask("GET", "/v1/devices?limit=2")
    assert (status, [one["device"] for one in page["devices"]], page["next"]) == (200, ["cam-0", "cam-1"], "cam-1")
    _, page = running.ask("GET", "/v1/devices?limit=3&after=cam-1&label=site=berlin&group=lab&line=shop")
    assert ([one["device"] for one in page["devices"]], page["next"]) == (["cam-2", "cam-3", "cam-4"], None)


def test_device_shows_everything(running):
    status, found = running.ask("GET", "/v1/devices/cam-1")
    assert status == 200
    assert [one["outcome"] for one in found["row"]["tries"]] == ["rolled back", "confirmed"]
    assert [one["kind"] for one in found["history"]] == ["running", "state"]
    assert running.ask("GET", "/v1/devices/cam-99")[0] == 404


def test_summary_counts(running):
    status, found = running.ask("GET", "/v1/summary?line=shop")
    assert (status, found["devices"], found["by_release"], found["failed"]) == (200, 5, {"3": 5}, 5)
    assert running.ask("GET", "/v1/summary")[1]["by_line"] == {"shop": 5}


def test_metrics_are_text_for_prometheus(running):
    status, text, headers = ask(running.server.port, "GET", "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert 'finesight_fleet_devices_by_release{release="3"} 5\n' in text
    assert "finesight_fleet_devices_failed 5\n" in text
    assert 'finesight_fleet_reports_total{result="new"} 5\n' in text
    helped = re.findall(r"# HELP (\S+) (.+)", text)
    assert len(helped) == len({name for name, _ in helped}) > 10
    assert all(len(text) > 15 for _, text in helped)


def test_health_shows_the_broker(running):
    assert running.ask("GET", "/healthz") == (200, {"broker": True, "problem": None})


def test_openapi_is_served_and_describes_every_address(running):
    status, found = running.ask("GET", "/openapi.json")
    assert (status, found["openapi"]) == (200, "3.1.0")
    assert found == json.loads(json.dumps(CONTRACT))
    jsonschema.Draft202012Validator.check_schema({"$defs": found["components"]["schemas"]})
    references = re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(found))
    assert set(references) <= set(found["components"]["schemas"])


def test_command_is_sent_stored_and_answered(running):
    body = json.dumps({"verb": "sync", "arguments": {"now": True}, "by": "ann"})
    status, sent = running.ask("POST", "/v1/devices/cam-1/commands", body)
    assert status == 202
    topic, request = running.desk.link.sent[-1]
    assert topic == "fleet/v1/device/cam-1/cmd/sync"
    assert request == {"id": sent["id"], "by": "ann", "at": NOW, "until": NOW + 86_400, "arguments": {"now": True}}
    running.take(message(answer("cam-1", sent["id"]), "answer"), message(answer("cam-2", sent["id"]), "answer"))
    status, found = running.ask("GET", f"/v1/commands/{sent['id']}")
    assert (status, found["sent"], found["device"]) == (200, "sent", "cam-1")
    assert [one["device"] for one in found["answers"]] == ["cam-1"]
    assert running.ask("GET", "/v1/devices/cam-1")[1]["commands"][0]["id"] == sent["id"]


def test_restart_camera_goes_to_edge_run(running):
    body = json.dumps({"verb": "restart_camera", "arguments": {"camera": "desk"}, "by": "ann"})
    _, sent = running.ask("POST", "/v1/devices/cam-2/commands", body)
    assert running.desk.link.sent[-1] == (
        *("finesight/berlin/cam-2/cmd/restart_camera", {"camera": "desk", "id": sent["id"]}),
    )
    reply = {"device": "cam-2", "schema": "finesight.reply/1", "id": sent["id"], "verb": "restart_camera", "ok": True}
    running.take(message(reply, "reply"))
    assert running.ask("GET", f"/v1/commands/{sent['id']}")[1]["answers"][0]["state"] == "done"


def test_command_that_cannot_be_sent_is_stored_and_reported(tmp_path):
    with Running(tmp_path) as running:
        running.take(message(report()))
        order = {"verb": "sync", "by": "ann", "keep_s": 0}
        running.desk.link.problem = "not connected"
        status, found = running.ask("POST", "/v1/devices/cam-1/commands", json.dumps(order))
        assert (status, found["reason"]) == (503, "not_sent")
        (stored,) = running.ask("GET", "/v1/devices/cam-1")[1]["commands"]
        assert "not connected" in stored["sent"]
        running.desk.link.problem = None
        camera = json.dumps(order | {"verb": "restart_camera"})
        assert "did not report the site" in running.ask("POST", "/v1/devices/cam-1/commands", camera)[1]["error"]
        assert running.ask("POST", "/v1/devices/cam-7/commands", json.dumps(order))[0] == 404


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", "not JSON"),
        ("[]", "not a command"),
        ("{", "not JSON"),
        ('{"verb": "sync"}', "by: Field required"),
        ('{"verb": "Sync!", "by": "ann"}', "verb: "),
        ('{"verb": "sync", "by": "ann", "argument": {}}', "unknown key 'argument'"),
        ('{"verb": "sync", "verb": "sync", "by": "ann"}', "twice"),
        (json.dumps({"verb": "sync", "by": "ann", "arguments": {str(n): n for n in range(17)}}), "arguments: "),
    ],
)
def test_wrong_command_is_refused(running, body, problem):
    status, found = running.ask("POST", "/v1/devices/cam-1/commands", body)
    assert (status, found["reason"]) == (400, "wrong_request")
    assert problem in found["error"]


@pytest.mark.parametrize(
    "query",
    [
        *("lable=site=berlin", "limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "label=berlin", "label=a b=c"),
        *("release=-1", "release=" + "9" * 30, "silent_s=nan", "silent_s=-1", "after=..%2F", "state=" + "s" * 200),
        *("line=a&line=b", "group=a%20b", "&".join(["label=a=b"] * 40)),
    ],
)
def test_wrong_query_is_refused(running, query):
    assert running.ask("GET", f"/v1/devices?{query}".replace(" ", "%20"))[0] == 400


@pytest.mark.parametrize("path", ["/v1/devices/cam-1?x=1", "/v1/summary?x=1", "/metrics?x", "/openapi.json?x=1"])
def test_unknown_keys_are_refused_everywhere(running, path):
    assert running.ask("GET", path)[0] == 400


@given(
    st.sampled_from(["/v1/devices?", "/v1/devices/", "/v1/commands/", "/v1/summary?line=", "/inbox/", "/"]),
    st.text(max_size=30),
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]),
    st.binary(max_size=40),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_fails_on_the_server(running, path, more, method, body):
    status, _, _ = ask(running.server.port, method, path + quote(more, safe="=&/%"), body)
    assert status < 500


def test_token_opens_everything_but_the_inbox(locked):
    own, devices = {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": f"Bearer {INBOX_TOKEN}"}
    for path in ("/v1/devices", "/v1/summary", "/metrics", "/openapi.json", "/v1/devices/x", "/no"):
        assert locked.ask("GET", path)[0] == 401
        assert locked.ask("GET", path, **devices)[0] == 401
        assert locked.ask("GET", path, **own)[0] in (200, 404)
    assert locked.ask("GET", "/healthz")[0] == 200
    assert locked.ask("PUT", "/inbox/cam-1/a.jpg", JPEG, **own)[0] == 401
    assert locked.ask("PUT", "/inbox/cam-1/a.jpg", JPEG, **devices)[0] == 201


def test_names_of_others_and_pages_of_others_are_refused(locked):
    own = {"Authorization": f"Bearer {TOKEN}"}
    assert locked.ask("GET", "/v1/devices", Host="evil.example.com", **own)[0] == 421
    assert locked.ask("GET", "/v1/devices", Host="fleet.example.com:8090", **own)[0] == 200
    order = json.dumps({"verb": "sync", "by": "ann"})
    sent = locked.ask("POST", "/v1/devices/x/commands", order, Origin="http://evil.example.com", **own)
    assert sent[0] == 403


def test_uploads_are_stored(running):
    assert running.ask("PUT", "/inbox/cam-1/a.jpg", JPEG) == (201, {"new": True})
    assert running.ask("PUT", "/inbox/cam-1/a.jpg", JPEG) == (201, {"new": False})
    assert running.ask("PUT", "/inbox/cam-1/b.zip", ZIP)[0] == 201
    folder = running.desk.database.path.parent / "inbox/cam-1"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.jpg": JPEG, "b.zip": ZIP}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/inbox/cam-1/a.exe", JPEG, 400),
        ("/inbox/cam-1/.jpg", JPEG, 400),
        ("/inbox/..%2f..%2fx/a.jpg", JPEG, 404),
        ("/inbox/%2e%2e/a.jpg", JPEG, 400),
        ("/inbox/cam-1/a.jpg", ZIP, 415),
        ("/inbox/cam-1/a.zip", b"", 415),
    ],
)
def test_wrong_uploads_are_refused(running, path, body, status):
    assert running.ask("PUT", path, body)[0] == status


def test_long_upload_is_refused_before_it_is_read(running):
    status, found = running.ask("PUT", "/inbox/cam-1/a.jpg", None, Content_Length=str(LARGEST_BYTES + 1))
    assert (status, found["reason"]) == (413, "too_large")


def test_database_that_cannot_be_read_is_an_error(tmp_path):
    with Running(tmp_path) as running:
        running.take(message(report()), Arrived("cam-1", "available", b"online", NOW))
        running.desk.writer.call(lambda db: db.execute("DROP TABLE report"))
        status, found = running.ask("GET", "/v1/devices")
        assert (status, found["reason"]) == (503, "failed")


def test_server_speaks_https(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server")
    with Running(tmp_path / "fleet", certificate=certificate, key=key) as running:
        running.take(message(report()))
        with FleetClient(running.server.url, ca_file=authority.certificate) as client:
            assert [row.device for row in client.devices().rows] == ["cam-1"]
        with FleetClient(running.server.url) as client, pytest.raises(SyncError, match="certificate is not valid"):
            client.devices()


def test_taken_address_and_wrong_certificate_are_errors(running, tmp_path):
    parts = Parts(*(running.desk.database, running.desk.inflow, running.desk.link), *(running.desk.commands, None))
    with pytest.raises(ConfigError, match=r"cannot listen on 127.0.0.1:\d+: Address already in use"):
        FleetServer(parts, Listen(port=running.server.port))
    with pytest.raises(ConfigError, match="cannot load"):
        FleetServer(parts, Listen(port=0, certificate=tmp_path / "none.pem"))
