"""What operators type, and the client below it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edge.errors import SyncError
from gallery_sync.cli import main
from gallery_sync.collector.messages import Arrived
from gallery_sync.collector.records import forget_old
from gallery_sync.fleet_client.client import FleetClient
from gallery_sync.fleet_client.command_verbs import wait_for_answers
from gallery_sync.fleet_client.show import WIDTH, age
from gallery_sync.fleet_client.verbs import seconds
from gallery_sync.formats.reports import Answer
from tests.gallery_sync.collector.collector_samples import NOW, a_try, answer, message, report
from tests.gallery_sync.collector.test_server import Running
from tests.sync_server import serving

TOKEN = "a-token-of-operators"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with Running(tmp_path_factory.mktemp("verbs"), token=TOKEN) as running:
        long = {"engine": "onnxruntime-tensorrt", "reason": "no space on the disk " * 9, "cameras": {"a": "online"}}
        running.take(
            message(report("cam-1", cameras={"desk": "online", "door": "offline"})),
            message(report("cam-2" + "x" * 60, labels={"site": "s" * 40, "group": "g" * 30}, **long)),
            message(report("cam-3", state="trial", tries=[a_try(4, "rolled back", reason="slow")], running=None)),
            Arrived("cam-3", "available", b"offline", NOW),
        )
        yield running


@pytest.fixture
def address(fleet, monkeypatch):
    monkeypatch.setenv("FINESIGHT_FLEET", fleet.server.url)
    monkeypatch.setenv("FINESIGHT_FLEET_TOKEN", TOKEN)
    return fleet


def test_devices_are_a_table_of_120_columns(address, capsys):
    assert main(["devices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["device", "cam-1"]
    assert "lab/berlin" in lines[1]
    assert "1/2" in lines[1]
    assert max(len(line) for line in lines) == WIDTH
    assert lines[0].index("reason") == lines[2].index("no space")


def test_columns_are_as_wide_as_their_cells(address, capsys):
    assert main(["devices", "--label", "site=berlin"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("device  group/site  release  state  engine  cameras  seen")
    assert [line.find("lab/berlin") for line in lines] == [-1, 8, 8]


@pytest.mark.parametrize(("columns", "width"), [("200", 200), ("80", WIDTH)])
def test_table_is_as_wide_as_the_terminal(address, capsys, monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["devices"]) == 0
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) == width


def test_devices_are_selected(address, capsys):
    assert main(["devices", "--state", "trial", "--label", "site=berlin", "--group", "lab", "--json"]) == 0
    assert [one["device"] for one in json.loads(capsys.readouterr().out)["devices"]] == ["cam-3"]
    assert main(["devices", "--silent", "1000d"]) == 0
    assert "no device" in capsys.readouterr().err
    assert main(["devices", "--line", "other", "--release", "9"]) == 0


def test_devices_are_waited_for(fleet, address, capsys, monkeypatch):
    def next_look(_):
        fleet.take(message(report("cam-8", state="idle"), at=NOW))

    monkeypatch.setattr("gallery_sync.fleet_client.verbs.time.sleep", next_look)
    assert main(["devices", "--line", "shop", "--wait-for", "4", "--within", "1m"]) == 0
    assert "cam-8" in capsys.readouterr().out
    assert main(["devices", "--state", "trial", "--wait-for", "2", "--within", "0s"]) == 1
    assert "found 1 such devices in 0s, expected 2" in capsys.readouterr().err
    assert main(["devices", "--fleet", "http://127.0.0.1:1", "--wait-for", "1", "--within", "0s"]) == 1
    assert "cannot reach the fleet server" in capsys.readouterr().err
    fleet.desk.writer.call(lambda db: db.execute("UPDATE device SET last_seen = 0 WHERE device = 'cam-8'"))
    fleet.desk.writer.call(lambda db: forget_old(db, 1.0, 10))


def test_device_shows_everything(address, capsys):
    assert main(["device", "cam-3"]) == 0
    printed = capsys.readouterr().out
    assert "connected: no" in printed
    assert "release 4: rolled back: slow" in printed
    assert "state: None -> trial" in printed
    assert main(["device", "cam-3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["row"]["device"] == "cam-3"
    assert main(["device", "cam-9"]) == 1
    assert "no device 'cam-9' has reported" in capsys.readouterr().err


class AnsweringLink:
    """A link whose devices answer at once."""

    def __init__(self, running, **states):
        self.running, self.states, self.sent = running, states, []

    def send(self, topic, payload):
        device, request = topic.split("/")[3], json.loads(payload)
        self.sent.append((device, request["arguments"]))
        for state in self.states[device.replace("-", "_")]:
            self.running.desk.inflow.put(message(answer(device, request["id"], state, text="so"), "answer"))


@pytest.fixture
def answering(address, monkeypatch):
    link = AnsweringLink(address, cam_1=["accepted", "done"], cam_3=["refused"])
    monkeypatch.setattr("gallery_sync.fleet_client.command_verbs._POLL_S", 0.02)
    object.__setattr__(address.desk.commands, "link", link)
    return link


def test_send_prints_each_answer(answering, capsys):
    assert main(["send", "sync", "cam-1", "--argument", "n=3", "--argument", "name=a", "--by", "ann"]) == 0
    assert capsys.readouterr().out.splitlines() == ["cam-1: accepted: so", "cam-1: done: so"]
    assert answering.sent == [("cam-1", {"n": 3, "name": "a"})]


def test_send_fails_if_one_refuses_or_does_not_answer(answering, capsys):
    answering.running.take(Arrived("cam-3", "available", b"online", NOW))
    assert main(["send", "sync", "--select", "site=berlin", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (sorted(found["commands"]), found["problems"]) == (["cam-1", "cam-3"], {"cam-3": "refused"})
    answering.states["cam_1"] = []
    assert main(["send", "sync", "cam-1", "cam-9", "--wait", "0s"]) == 1
    printed = capsys.readouterr().err
    assert "cam-1: no answer in 0s" in printed
    assert "cam-9: not sent: " in printed


def test_send_by_nobody_is_refused(answering, capsys):
    assert main(["send", "sync", "cam-1", "--by", " "]) == 1
    assert "found an empty name" in capsys.readouterr().err
    assert answering.sent == []


def test_command_that_nobody_keeps_for_so_long_is_refused(answering, capsys):
    assert main(["send", "sync", "cam-3", "--keep", "40d", "--by", "Ida"]) == 1
    assert "--keep: found 40d, expected at most 30d" in capsys.readouterr().err


def test_command_to_a_device_that_is_off_is_listed_and_withdrawn(answering, capsys):
    answering.running.take(Arrived("cam-3", "available", b"offline", NOW))
    assert main(["send", "sync", "cam-3", "--keep", "2d", "--wait", "0s", "--by", "Jörg"]) == 1
    assert "cam-3: waits: the device is off, or the broker is; it is kept until 2027-01-17" in capsys.readouterr().err
    assert main(["commands"]) == 0
    listed = capsys.readouterr().out
    assert "cam-3 sync by Jörg: waiting, until 2027-01-17 08:00:00Z" in listed
    assert "by Jörg: waiting" in "".join(device_lines("cam-3", capsys))
    command = next(line for line in listed.splitlines() if "by Jörg" in line).split()[2]
    assert main(["commands", "--withdraw", command, "nothing", "--by", "Ida"]) == 1
    assert "command 'nothing' does not wait: it was sent, or ended" in capsys.readouterr().err
    assert "by Jörg: withdrawn by Ida" in "".join(device_lines("cam-3", capsys))
    assert answering.sent == []


def device_lines(device, capsys):
    assert main(["device", device]) == 0
    return capsys.readouterr().out.splitlines()


def test_selection_reports_rows_that_cannot_be_read(answering, capsys, monkeypatch):
    devices = FleetClient.devices
    monkeypatch.setattr(FleetClient, "devices", lambda *given: replace(devices(*given), unreadable=2))
    assert main(["send", "sync", "--select", "device=cam-1"]) == 0
    assert "2 devices are left out: their rows cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["send", "sync"], "name devices, or select them"),
        (["send", "sync", "cam-1", "--select", ""], "name devices, or select them"),
        (["send", "sync", "--select", "x"], "--select: found 'x'"),
        (["send", "sync", "--select", "site=nowhere"], "no device matches"),
        (["send", "sync", "cam-1", "--argument", "x"], "expected a key, = and a value"),
        (["send", "sync", "cam-1", "--wait", "soon"], "expected a time such as"),
        (["devices", "--silent", "1 year"], "expected a time such as"),
        (["devices", "--label", "berlin"], "expected one such as site=berlin"),
        (["devices", "--fleet", "ftp://x"], "is not a valid URL"),
        (["devices", "--fleet", "http://127.0.0.1:1"], "cannot reach the fleet server"),
        (["devices", "--token-file", "/dev/null"], "cannot read"),
    ],
)
def test_wrong_use_is_one_line(address, capsys, arguments, problem):
    assert main(arguments) == 1
    printed = capsys.readouterr().err
    assert problem in printed
    assert printed.count("\n") == 1


def test_address_and_token_are_needed(fleet, monkeypatch, capsys):
    monkeypatch.delenv("FINESIGHT_FLEET", raising=False)
    monkeypatch.delenv("FINESIGHT_FLEET_TOKEN", raising=False)
    assert main(["devices"]) == 1
    assert "--fleet http://HOST:8090, or $FINESIGHT_FLEET" in capsys.readouterr().err
    assert main(["devices", "--fleet", fleet.server.url]) == 1
    assert "check the token: $FINESIGHT_FLEET_TOKEN or --token-file" in capsys.readouterr().err


def rows_of(url, token=None, **query):
    with FleetClient(url, token) as client:
        return list(client.devices(list(query.items())).rows)


def test_all_pages_are_read(fleet, monkeypatch):
    monkeypatch.setattr("gallery_sync.fleet_client.client._ROWS", 1)
    assert [row.device[:5] for row in rows_of(fleet.server.url, TOKEN, line="shop")] == ["cam-1", "cam-2", "cam-3"]
    assert rows_of(fleet.server.url + "/", TOKEN, line="other") == []


def test_server_that_is_none_is_one_error(tmp_path):
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1/devices").write_text("[]")
    with serving(tmp_path) as server, pytest.raises(SyncError, match="no fleet server"):
        rows_of(server.url)


def test_waiting_ends_with_the_last_answer():
    class Client:
        calls = 0

        def answers(self, command):
            self.calls += 1
            given = ["accepted", "done"][: self.calls // 2]
            return [Answer.model_validate(answer("cam-1", command, state)) for state in given]

    states, slept = [], []
    last = wait_for_answers(
        *(Client(), {"cam-1": "c1"}, 60.0, lambda device, one: states.append(one.state)),
        clock=lambda: 0.0,
        sleep=slept.append,
    )
    assert (states, last["cam-1"].state, len(slept)) == (["accepted", "done"], "done", 3)


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("1.5h", 5400), ("2d", 172_800), ("3m", 180)])
def test_times_are_read(text, expected):
    assert seconds(text) == expected


def test_ages_are_short():
    assert [age(one) for one in (-5, 59, 61, 3601, 90_000, 200_000)] == ["0 s", "59 s", "1 min", "1 h", "25 h", "2 d"]
