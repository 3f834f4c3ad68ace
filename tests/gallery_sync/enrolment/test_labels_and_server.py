"""Labels of devices, and the account of the fleet's server at the broker."""

from __future__ import annotations

import csv
import json
import stat

import pytest

from edge.errors import SyncError
from gallery_sync.cli import build_parser
from gallery_sync.enrolment.broker_accounts import access_file, server_account
from gallery_sync.enrolment.document import LARGEST_TEXT, read_text
from gallery_sync.enrolment.fetch import from_text
from gallery_sync.trust.enrolment_file import read_enrolment
from tests.trust_samples import SignedFolder

BROKER = ("--broker", "mqtt://broker.example.com")


@pytest.fixture
def new(tmp_path, capsys):
    """Make enrolments, and return their folder."""
    made = SignedFolder(tmp_path / "repo")
    (made.folder / "repository.json").write_text('{"line": "shop", "policy": "online"}')

    def act(name, *more, device="cam-1"):
        words = ["enrolment", "new", made.folder, "--url", "https://updates.example.com", "-o", tmp_path / name]
        parsed = build_parser().parse_args([str(one) for one in [*words, "--device", device, *more]])
        assert parsed.act(parsed) == 0
        return tmp_path / name

    return act


def texts(folder):
    """Return the texts of a batch."""
    with (folder / "devices.csv").open() as file:
        return [row["text"] for row in csv.DictReader(file)]


def test_labels_reach_the_device(new, tmp_path):
    batch = new("batch", "--group", "lab", "--label", "site=berlin", "--label", "rack=b-7")
    parsed = build_parser().parse_args(["enrol", str(batch / "cam-1.json"), "--state-dir", str(tmp_path / "state")])
    assert parsed.act(parsed) == 0
    assert read_enrolment(tmp_path / "state").all_labels() == {
        "site": "berlin",
        "rack": "b-7",
        "group": "lab",
        "device": "cam-1",
        "line": "shop",
    }


def test_text_carries_labels_that_fit(new):
    text = read_text(texts(new("batch", "--label", "site=berlin", "--label", "rack=7"))[0])
    assert text.labels == {"site": "berlin", "rack": "7"}


def test_text_without_labels_is_as_it_was(new):
    text = texts(new("batch"))[0]
    assert "&t=" not in text
    assert read_text(text).labels == {}


def many(count):
    return [word for n in range(count) for word in ("--label", f"label-{n}={'x' * 40}")]


def test_labels_that_do_not_fit_are_left_to_the_claim(new):
    batch = new("batch", "--claims", *many(10))
    text = texts(batch)[0]
    assert len(text) <= LARGEST_TEXT
    assert read_text(text).labels == {}
    assert len(json.loads((batch / "cam-1.json").read_text())["labels"]) == 10


def test_labels_that_do_not_fit_without_a_claim_are_refused(new):
    with pytest.raises(SyncError, match="fewer labels or --claims"):
        new("batch", *many(10))


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (("site",), "expected a label such as site=berlin"),
        (("=x",), "expected a label"),
        (("site=a", "site=b"), "a label twice"),
        (("line=shop",), "the label line is one that every device has"),
        (("Site=a",), "labels"),
        (("site=a b",), "labels"),
    ],
)
def test_wrong_label_is_refused(new, labels, told):
    with pytest.raises(SyncError, match=told):
        new("batch", *[word for one in labels for word in ("--label", one)])


@pytest.mark.parametrize("damaged", ["t=site", "t=a=b,a", "t=,", "t=Site=x"])
def test_damaged_labels_of_a_text_are_refused(new, damaged):
    text = f"{texts(new('batch'))[0]}&{damaged}"
    with pytest.raises(SyncError, match="scan it again"):
        read_text(text)


def test_server_has_one_account_for_all_batches(new, tmp_path):
    first, second = new("batch-1", *BROKER), new("batch-2", *BROKER, device="cam-2")
    account = tmp_path / "fleet.env"
    assert stat.S_IMODE(account.stat().st_mode) == 0o600
    _, password = server_account(account, "other.example.com", 1, tls=True)
    assert f"FINESIGHT_MQTT_PASSWORD='{password}'" in account.read_text()
    assert "FINESIGHT_MQTT_HOST='broker.example.com'" in account.read_text()
    for batch in (first, second):
        assert [line.split(":")[0] for line in (batch / "mosquitto.passwd").read_text().splitlines()][-1] == "fleet"
        assert password not in (batch / "mosquitto.passwd").read_text()


def test_account_of_the_server_goes_into_the_file_that_is_named(new, tmp_path, capsys):
    new("batch", *BROKER, "--fleet-account", tmp_path / "server/fleet.env")
    assert (tmp_path / "server/fleet.env").is_file()
    assert f"fleet_account: {tmp_path / 'server/fleet.env'}" in capsys.readouterr().out


def test_account_of_the_server_may_have_another_name(new, tmp_path):
    (tmp_path / "fleet.env").write_text("FINESIGHT_MQTT_USERNAME='boss'\nFINESIGHT_MQTT_PASSWORD='secret'\n")
    batch = new("batch", *BROKER)
    assert "user boss\n" in (batch / "mosquitto.acl").read_text()
    assert "boss:" in (batch / "mosquitto.passwd").read_text()


def test_damaged_account_of_the_server_is_not_replaced(new, tmp_path):
    (tmp_path / "fleet.env").write_text("FINESIGHT_MQTT_HOST='x'\n")
    with pytest.raises(SyncError, match="holds no account of the fleet's server; move it away"):
        new("batch", *BROKER)
    assert not (tmp_path / "batch").exists()


def test_device_cannot_have_the_name_of_the_server(new):
    with pytest.raises(SyncError, match="give the device another id"):
        new("batch", *BROKER, device="fleet")


def test_topics_of_devices_cannot_hold_those_of_the_fleet(new):
    with pytest.raises(SyncError, match="choose another word"):
        new("batch", *BROKER, "--topic-root", "fleet")


def test_no_rule_lets_a_device_write_what_is_meant_for_it():
    rules = [line.split() for line in access_file("finesight").decode().splitlines() if line.startswith("pattern")]
    written = {topic for _, access, topic in rules if access in ("write", "readwrite")}
    assert written == {
        "finesight/+/%u/#",
        *(f"fleet/v1/device/%u/{leaf}" for leaf in ("reported", "available", "answer")),
    }
    assert all("%u" in topic or topic == "fleet/v1/line/+/desired" for _, _, topic in rules)


def test_text_alone_makes_an_enrolment_with_its_labels(new, tmp_path):
    text = read_text(texts(new("batch", "--label", "site=berlin"))[0])

    class Repository:
        def get_small(self, path, _):
            return (tmp_path / "repo" / path).read_bytes()

    assert from_text(text, Repository()).labels == {"site": "berlin"}
