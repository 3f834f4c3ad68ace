"""`edge-sync enrolment new`, `enrolment retire` and `enrol`, as people type them."""

from __future__ import annotations

import json

import pytest

from edge.errors import SyncError
from gallery_sync.cli import build_parser
from tests.trust_samples import SignedFolder


@pytest.fixture
def run(capsys):
    """Run a command and return what it prints."""

    def act(*arguments):
        parsed = build_parser().parse_args([str(one) for one in arguments])
        assert parsed.act(parsed) == 0
        return capsys.readouterr()

    return act


@pytest.fixture
def repo(tmp_path):
    made = SignedFolder(tmp_path / "repo")
    (made.folder / "repository.json").write_text('{"line": "shop", "policy": "online"}')
    return made.folder


def new(run, tmp_path, repo, *more):
    out = run(
        "enrolment", "new", repo, "--url", f"file://{repo}", "-o", tmp_path / "out", "--count", 2, *more, "--json"
    ).out
    return json.loads(out)


def test_batch_is_made_claimed_and_retired(run, tmp_path, repo):
    made = new(run, tmp_path, repo, "--claims", "--broker", "mqtts://broker.example.net", "--group", "store")
    assert made["devices"] == 2
    listed = [line.split(",") for line in (tmp_path / "out/devices.csv").read_text().splitlines()[1:]]
    token, state = listed[1][3], tmp_path / "state"
    out = run("enrol", "--claim", token, "--url", f"file://{repo}", "--state-dir", state).out
    assert "device_id: cam-002" in out
    assert "FINESIGHT_MQTT_PORT='8883'" in (state / "broker.env").read_text()
    assert "retired: 1" in run("enrolment", "retire", repo, "cam-002", "--list", tmp_path / "out/devices.csv").out
    assert len(list((repo / "enrolments").iterdir())) == 1
    assert "retired: 1" in run("enrolment", "retire", repo, "--all").out


def test_adopting_is_said_loudly(run, tmp_path, repo):
    new(run, tmp_path, repo)
    state = tmp_path / "state"
    state.mkdir()
    (state / "sync.json").write_text('{"line": "shop", "sequence": 3}')
    printed = run("enrol", tmp_path / "out/cam-001.json", "--state-dir", state, "--adopt")
    assert printed.err.startswith("WARNING: THIS DEVICE FOLLOWED A REPOSITORY WITHOUT SIGNATURES")


def test_text_alone_names_the_repository(run, tmp_path, repo):
    new(run, tmp_path, repo)
    text = (tmp_path / "out/devices.csv").read_text().splitlines()[1].split(",")[2]
    assert "device_id: cam-001" in run("enrol", "--text", text, "--state-dir", tmp_path / "state").out


def test_claim_without_url_says_what_is_missing(run, tmp_path):
    with pytest.raises(SyncError, match="give --url"):
        run("enrol", "--claim", "A" * 26, "--state-dir", tmp_path)


@pytest.mark.parametrize(
    "url", ["broker", "http://broker", "mqtt://", "mqtt://u:p@broker", "mqtt://broker:x", "mqtt://b/path"]
)
def test_broker_that_is_none_is_refused(run, tmp_path, repo, url):
    with pytest.raises(SyncError, match="--broker is not"):
        new(run, tmp_path, repo, "--broker", url)


def test_accounts_must_cover_every_device(run, tmp_path, repo):
    (tmp_path / "a.csv").write_text("device_id,username,password\ncam-001,u,p\n")
    with pytest.raises(SyncError, match="no account for device cam-002"):
        new(run, tmp_path, repo, "--broker", "mqtt://broker", "--credentials", tmp_path / "a.csv")


def test_named_devices_are_made(run, tmp_path, repo):
    run("enrolment", "new", repo, "--url", "https://x", "-o", tmp_path / "out", "--device", "till-7")
    assert (tmp_path / "out/till-7.json").is_file()
