"""Enrolments for a batch of devices, made on the server."""

from __future__ import annotations

import csv
import json
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from edge.errors import SyncError
from gallery_sync.enrolment.batch import (
    Batch,
    BrokerAddress,
    make_batch,
    numbered,
    read_repository,
    read_tokens,
    retire,
    retire_all,
)
from gallery_sync.enrolment.broker_accounts import new_account, password_file, read_accounts
from gallery_sync.enrolment.document import read_text
from gallery_sync.enrolment.fetch import from_file
from gallery_sync.formats.enrolment import Enrolment
from gallery_sync.formats.fields import parse
from tests.trust_samples import SignedFolder

BROKER = BrokerAddress("broker.example.net", 8883, tls=True)


@pytest.fixture
def repo(tmp_path) -> Path:
    """A signed repository of the line `shop`."""
    made = SignedFolder(tmp_path / "repo")
    about = {"schema": 2, "line": "shop", "policy": "online", "offline_days": 365}
    (made.folder / "repository.json").write_text(json.dumps(about))
    return made.folder


def batch_of(count=3, **more):
    return Batch("https://updates.example.net/shop", numbered("cam-", count), "store-7", BROKER, **more)


def test_numbers_are_as_wide_as_the_last_one():
    assert numbered("cam-", 2) == ["cam-001", "cam-002"]
    assert numbered("cam-", 2, 999) == ["cam-0999", "cam-1000"]


@pytest.mark.parametrize(("count", "start"), [(0, 1), (-1, 1), (20_001, 1), (1, -1)])
def test_absurd_number_of_devices_is_refused(count, start):
    with pytest.raises(SyncError, match="expected 1 to"):
        numbered("cam-", count, start)


def test_batch_holds_a_file_for_each_device(tmp_path, repo):
    rows = make_batch(read_repository(repo), batch_of(), tmp_path / "batch", new_account)
    assert [row["device_id"] for row in rows] == ["cam-001", "cam-002", "cam-003"]
    one = from_file(tmp_path / "batch/cam-002.json")
    assert (one.device_id, one.line, one.group, one.policy) == ("cam-002", "shop", "store-7", "online")
    assert one.root.encode() == (repo / "metadata/1.root.json").read_bytes()
    assert one.broker is not None
    assert (one.broker.username, one.broker.tls) == ("cam-002", True)
    assert len(one.broker.password) == 24


def test_files_with_secrets_are_private(tmp_path, repo):
    make_batch(read_repository(repo), batch_of(), tmp_path / "batch", new_account)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "batch").iterdir()}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "batch").stat().st_mode) == 0o700


def test_every_device_has_a_password_of_its_own(tmp_path, repo):
    make_batch(read_repository(repo), batch_of(20), tmp_path / "batch", new_account)
    files = sorted((tmp_path / "batch").glob("cam-*.json"))
    assert len({json.loads(path.read_text())["broker"]["password"] for path in files}) == 20


def test_list_holds_texts_that_a_device_can_read(tmp_path, repo):
    make_batch(read_repository(repo), batch_of(claims=True), tmp_path / "batch", new_account)
    with (tmp_path / "batch/devices.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [read_text(row["text"]).device_id for row in rows] == ["cam-001", "cam-002", "cam-003"]
    assert [read_text(row["text"]).claim for row in rows] == [row["claim"] for row in rows]
    assert max(len(row["text"]) for row in rows) < 300


def test_five_hundred_devices_take_seconds(tmp_path, repo):
    start = time.process_time()
    rows = make_batch(read_repository(repo), batch_of(500, claims=True), tmp_path / "batch", new_account)
    assert len(rows) == len(list((repo / "enrolments").iterdir())) == 500
    assert time.process_time() - start < 10


def test_claims_say_nothing_without_their_token(tmp_path, repo):
    make_batch(read_repository(repo), batch_of(claims=True), tmp_path / "batch", new_account)
    for path in (repo / "enrolments").iterdir():
        assert b"cam-" not in path.read_bytes()
        assert "cam" not in path.name


def test_claims_are_retired_by_device_and_all_at_once(tmp_path, repo):
    make_batch(read_repository(repo), batch_of(claims=True), tmp_path / "batch", new_account)
    tokens = read_tokens(tmp_path / "batch/devices.csv", ["cam-002"])
    assert (retire(repo, tokens), retire(repo, tokens)) == (1, 0)
    assert len(list((repo / "enrolments").iterdir())) == 2
    assert (retire_all(repo), retire_all(repo)) == (2, 0)


def test_device_without_claim_cannot_be_retired(tmp_path, repo):
    make_batch(read_repository(repo), batch_of(claims=True), tmp_path / "batch", new_account)
    with pytest.raises(SyncError, match="cam-9"):
        read_tokens(tmp_path / "batch/devices.csv", ["cam-9"])
    with pytest.raises(SyncError, match=r"is no devices\.csv"):
        read_tokens(tmp_path / "batch/mosquitto.passwd", [])


def test_existing_folder_is_never_written_over(tmp_path, repo):
    make_batch(read_repository(repo), batch_of(), tmp_path / "batch", new_account)
    with pytest.raises(SyncError, match="never overwritten"):
        make_batch(read_repository(repo), batch_of(), tmp_path / "batch", new_account)


@pytest.mark.parametrize("device_id", ["", "../x", "a/b", ".hidden", "a b", "x" * 81, "cam\n1", "é"])
def test_id_that_is_no_name_is_refused_before_anything_is_written(tmp_path, repo, device_id):
    with pytest.raises(SyncError) as caught:
        make_batch(read_repository(repo), Batch("https://x", [device_id]), tmp_path / "batch", new_account)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "batch").exists()


@pytest.mark.parametrize("url", ["", "ftp://x", "https://x y", "updates.example.net", "https://" + "x" * 500])
def test_url_that_no_device_could_use_is_refused(tmp_path, repo, url):
    with pytest.raises(SyncError):
        make_batch(read_repository(repo), Batch(url, ["cam-1"]), tmp_path / "batch", new_account)


def test_device_twice_is_refused(tmp_path, repo):
    with pytest.raises(SyncError, match="'cam-1' is there twice"):
        make_batch(read_repository(repo), Batch("https://x", ["cam-1", "cam-1"]), tmp_path / "batch", new_account)


def test_folder_that_is_no_repository_is_refused(tmp_path):
    with pytest.raises(SyncError, match="edge-sync init"):
        read_repository(tmp_path)


def test_newest_root_is_given(tmp_path):
    made = SignedFolder(tmp_path / "repo")
    for _ in range(9):
        made.publish("root")
    (made.folder / "repository.json").write_text('{"line": "shop", "policy": "offline"}')
    (made.folder / "metadata/11.root.json.partial").write_text("{}")
    assert read_repository(made.folder).root_version == 10


def test_given_accounts_are_used(tmp_path, repo):
    path = tmp_path / "accounts.csv"
    path.write_text("device_id,username,password\ncam-001,u1,p 1\ncam-002,u2,p2\ncam-003,u3,p3\n")
    batch = batch_of(accounts=read_accounts(path))
    make_batch(read_repository(repo), batch, tmp_path / "batch", new_account)
    broker = from_file(tmp_path / "batch/cam-001.json").broker
    assert broker is not None
    assert (broker.username, broker.password) == ("u1", "p 1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "device_id,username\na,b\n",
        "device_id,username,password\na,,c\n",
        "device_id,username,password\n" + "a,b,c\n" * 2,
    ],
)
def test_damaged_accounts_are_refused(tmp_path, text):
    path = tmp_path / "accounts.csv"
    path.write_text(text)
    if text:
        with pytest.raises(SyncError):
            read_accounts(path)
    else:
        assert read_accounts(path) == {}


def test_password_of_the_enrolment_is_never_printed(tmp_path, repo):
    make_batch(read_repository(repo), batch_of(), tmp_path / "batch", new_account)
    one = from_file(tmp_path / "batch/cam-001.json")
    assert one.broker is not None
    assert one.broker.password not in repr(one)


def test_enrolment_of_another_root_is_refused(tmp_path, repo):
    make_batch(read_repository(repo), batch_of(), tmp_path / "batch", new_account)
    data = (tmp_path / "batch/cam-001.json").read_bytes().replace(b'\\"version\\":1', b'\\"version\\":2')
    with pytest.raises(SyncError, match="does not match its hash"):
        parse(Enrolment, data, "x")


@pytest.mark.skipif(shutil.which("mosquitto_passwd") is None, reason="mosquitto is not installed")
def test_mosquitto_reads_the_hashes(tmp_path):
    """Its own tool changes the password of one account and keeps the other lines as they are."""
    path = tmp_path / "passwd"
    path.write_bytes(password_file([("cam-1", "secret"), ("cam-2", "other")]))
    before = path.read_text().splitlines()
    subprocess.run(["mosquitto_passwd", "-b", path, "cam-2", "new"], check=True, capture_output=True)
    after = path.read_text().splitlines()
    assert after[0] == before[0]
    assert after[1].startswith("cam-2:$7$")
