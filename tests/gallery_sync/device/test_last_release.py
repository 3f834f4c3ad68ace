"""Which releases a device accepts: its own line, not older, not far newer; and what it knows when files are lost."""

from __future__ import annotations

import json

import pytest

from edge.bundle import slots
from edge.bundle.active_pointer import read_active_pointer, read_staged_pointer
from edge.errors import SyncError
from gallery_sync.cli import main
from gallery_sync.device.last_release import MOST_AHEAD, LastRelease, check_follows, read_last_release
from gallery_sync.device.pull import Allowed
from gallery_sync.formats.unsigned import Release
from tests.store_samples import trusted
from tests.sync_samples import active, embedder_for, publish_release, pull_from


def release(sequence: int, line: str = "demo") -> Release:
    ref = {"sha256": "a" * 64, "size": 1}
    gallery = {"generation": "0" * 16, "created_at": "now", "heads": {}}
    return Release(line=line, sequence=sequence, created_at="now", bundle=ref, gallery=gallery)


LAST = LastRelease("demo", 7, None)
NEW = LastRelease(None, 0, None)


@pytest.mark.parametrize(
    ("found", "last"),
    [
        (release(7), LAST),
        (release(8), LAST),
        (release(7 + MOST_AHEAD), LAST),
        (release(20261128), NEW),
        (release(9), LastRelease(None, 7, None)),
        (release(1, "other"), LastRelease("other", 0, None)),
    ],
)
def test_release_that_follows_is_accepted(found, last):
    check_follows(found, last)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (release(6), "release 6 is older than release 7, which this device had; .* edge-sync pull --allow-jump"),
        (release(8 + MOST_AHEAD), "is more than 1000000 above release 7, .* edge-sync pull --allow-jump"),
        (release(8, "other"), "found a release of line 'other', expected 'demo'; .* edge-sync pull --line other"),
    ],
)
def test_release_that_does_not_follow_is_refused_with_the_way_out(found, message):
    with pytest.raises(SyncError, match=message):
        check_follows(found, LAST)


def test_operator_allows_any_number_but_not_any_line():
    for sequence in (1, 2**53 - 1):
        check_follows(release(sequence), LAST, allow_jump=True)
        check_follows(release(sequence, "other"), LAST, line="other")
    with pytest.raises(SyncError, match=r"found a release of line 'other', expected 'third'$"):
        check_follows(release(8, "other"), LAST, line="third", allow_jump=True)
    with pytest.raises(SyncError, match="older than release 7"):
        check_follows(release(6), LAST, line="demo")


def test_false_answer_does_not_lock_out_true_releases(device, server, tmp_path):
    true = (server.folder / "release.json").read_text()
    for sequence in (2**62, 2**53, 2**53 - 1, 2_000_000):
        (server.folder / "release.json").write_text(true.replace('"sequence":2', f'"sequence":{sequence}'))
        with pytest.raises(SyncError):
            pull_from(server, device)
    (server.folder / "release.json").write_text(true)
    assert pull_from(server, device).sequence == 2
    publish_release(tmp_path, "three", 3, 5)
    assert pull_from(server, device).sequence == 3


def test_refused_or_incomplete_release_does_not_count(device, server):
    (server.folder / embedder_for(server)).unlink()
    with pytest.raises(SyncError):
        pull_from(server, device)
    assert read_last_release(device) == LastRelease("demo", 1, None)


RECORDS = [None, b"", b'{"sequence": 4611686018427387904}', b"[" * 10_000]


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("activated", [True, False])
def test_lost_record_is_known_from_what_is_installed(device, server, tmp_path, caplog, record, activated):
    old = (server.folder / "release.json").read_bytes()
    publish_release(tmp_path, "three", 3, 5)
    pull_from(server, device)
    if activated:
        slots.activate(device, prove=trusted)
    (device / "sync.json").unlink()
    if record is not None:
        (device / "sync.json").write_bytes(record)
    assert read_last_release(device).sequence == 3
    new = (server.folder / "release.json").read_bytes()
    (server.folder / "release.json").write_bytes(old)
    with pytest.raises(SyncError, match="release 2 is older than release 3"):
        pull_from(server, device)
    (server.folder / "release.json").write_bytes(new)
    caplog.clear()
    assert pull_from(server, device).repaired == 1
    assert len([one for one in caplog.records if "release 3 is the last one known" in one.message]) == 1
    assert pull_from(server, device).repaired == 0
    assert json.loads((device / "sync.json").read_text()) == {"line": "demo", "sequence": 3}


def test_previous_release_counts_after_a_rollback(device, server):
    old = (server.folder / "releases/1.json").read_bytes()
    pull_from(server, device)
    slots.activate(device, prove=trusted)
    slots.rollback(device)
    (device / "sync.json").unlink()
    (server.folder / "release.json").write_bytes(old)
    with pytest.raises(SyncError, match="release 1 is older than release 2"):
        pull_from(server, device)


def test_line_is_that_of_the_first_release_until_the_operator_changes_it(device, server, tmp_path):
    (tmp_path / "repo").rename(tmp_path / "old")
    publish_release(tmp_path, "other", 1, 6, line="other")
    with pytest.raises(SyncError, match=r"of line 'other', expected 'demo'; .*--line other"):
        pull_from(server, device)
    pulled = pull_from(server, device, allowed=Allowed(line="other"))
    assert (pulled.line, pulled.sequence) == ("other", 1)
    assert pull_from(server, device).line == "other"
    assert active(device) == ("one", 3)


def test_record_of_an_older_version_is_read(device, server):
    (device / "sync.json").write_text('{"sequence": 1}')
    assert pull_from(server, device).sequence == 2
    assert json.loads((device / "sync.json").read_text())["line"] == "demo"


def test_new_number_of_the_active_pair_replaces_what_is_staged(device, server, tmp_path):
    pull_from(server, device)
    assert read_staged_pointer(device).release.sequence == 2
    assert main(["publish", str(tmp_path / "repo"), "--rollback-to", "1"]) == 0
    pulled = pull_from(server, device)
    assert (pulled.sequence, pulled.bundle_id, pulled.serving) == (3, "one", True)
    assert read_staged_pointer(device) is None
    assert read_active_pointer(device).release.sequence == 3
