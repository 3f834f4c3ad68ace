from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest

from edge.errors import SyncError
from gallery_sync.repository import files
from gallery_sync.repository import metadata as module
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.metadata import SignedMetadata, expiry_report
from gallery_sync.repository.roles import commit
from tests.signing_samples import GALLERY, LINE, MODEL, NOW, RELEASE, client, days, development, publish


def test_client_reads_what_was_put(tmp_path):
    repo, _ = development(tmp_path)
    assert client(tmp_path, repo).read(repo, MODEL, GALLERY, RELEASE) == [b'{"first":1}'] * 3


def test_removed_target_is_gone_for_a_client(tmp_path):
    repo, keys = development(tmp_path)
    metadata = SignedMetadata.open(repo, keys, NOW)
    metadata.remove("models", MODEL)
    metadata.remove("models", "models/demo/never.json")
    assert metadata.targets("models") == {}
    metadata.commit(NOW)
    assert client(tmp_path, repo).read(repo, MODEL, RELEASE) == [None, b'{"first":1}']


def test_nothing_to_do_costs_600_bytes_at_most(tmp_path):
    repo, _ = development(tmp_path)
    assert (repo / "metadata/timestamp.json").stat().st_size < 600


def test_commit_without_changes_writes_nothing(tmp_path):
    repo, keys = development(tmp_path)
    assert publish(repo, keys, b'{"first":1}').versions == {}


def test_commit_writes_only_the_roles_that_changed(tmp_path):
    repo, keys = development(tmp_path)
    metadata = SignedMetadata.open(repo, keys, NOW)
    metadata.put("gallery", GALLERY, b"{}")
    assert metadata.read_target(GALLERY) == b"{}"
    assert set(metadata.commit(NOW).versions) == {"gallery", "snapshot", "timestamp"}
    assert metadata.read_target(GALLERY) == b"{}"


def test_snapshot_lists_every_role_with_its_hash(tmp_path):
    repo, _ = development(tmp_path)
    listed = json.loads((repo / "metadata/2.snapshot.json").read_bytes())["signed"]["meta"]
    assert sorted(listed) == ["gallery.json", "models.json", "rollout.json", "targets.json"]
    assert all(one["hashes"]["sha256"] for one in listed.values())


def test_gallery_role_reserves_all_sixteen_prefixes(tmp_path):
    repo, _ = development(tmp_path)
    roles = json.loads((repo / "metadata/1.targets.json").read_bytes())["signed"]["delegations"]["roles"]
    assert [(role["name"], role["terminating"]) for role in roles] == [
        ("models", True),
        ("rollout", True),
        ("gallery", False),
    ]
    assert roles[2]["path_hash_prefixes"] == list("0123456789abcdef")


def test_timestamp_names_the_time_of_signing(tmp_path):
    repo, keys = development(tmp_path)
    issued = json.loads((repo / "metadata/timestamp.json").read_bytes())["signed"]["x-issued"]
    assert issued == "2026-11-28T12:00:00Z"
    SignedMetadata.open(repo, keys).refresh(NOW - days(0.5))  # a small step back is no wrong clock
    assert json.loads((repo / "metadata/timestamp.json").read_bytes())["signed"]["x-issued"] == issued


def lives(repo) -> dict[str, int]:
    return {one.role: (one.expires_at - NOW).days for one, _ in expiry_report(repo, NOW)}


def test_online_line_lives_seven_days(tmp_path):
    repo, _ = development(tmp_path)
    assert lives(repo) == {
        "root": 365,
        "targets": 365,
        "snapshot": 7,
        "timestamp": 7,
        "models": 90,
        "rollout": 7,
        "gallery": 7,
    }


def test_offline_line_lives_as_long_as_you_say(tmp_path):
    repo, keys = tmp_path / "repo", KeyRing.development(tmp_path / "keys")
    SignedMetadata.create(repo, LINE, "offline", keys, NOW, offline_days=120)
    assert lives(repo) == dict.fromkeys(("snapshot", "timestamp", "models", "rollout", "gallery"), 120) | {
        "root": 365,
        "targets": 365,
    }


def test_stick_of_60_days_ago_is_fresh_on_an_offline_line(tmp_path):
    repo, _ = development(tmp_path, "offline")
    assert client(tmp_path, repo).read(repo, MODEL, now=NOW + days(60)) == [b'{"first":1}']


@pytest.mark.parametrize("offline_days", [1, 89, 366, 2**63])
def test_offline_days_outside_90_to_365_are_refused(tmp_path, offline_days):
    keys = KeyRing.development(tmp_path / "keys")
    with pytest.raises(SyncError, match="90 to 365 days"):
        SignedMetadata.create(tmp_path / "repo", LINE, "offline", keys, NOW, offline_days=offline_days)


def test_expiry_is_told_at_half_of_the_life(tmp_path):
    repo, _ = development(tmp_path)
    after = {
        number: {one.role: state for one, state in expiry_report(repo, NOW + days(number))} for number in (3, 4, 8)
    }
    assert [after[number]["timestamp"] for number in (3, 4, 8)] == ["fresh", "half", "expired"]
    assert after[8]["root"] == "fresh"


def test_refresh_signs_what_is_past_half_of_its_life(tmp_path):
    repo, keys = development(tmp_path)
    assert set(SignedMetadata.open(repo, keys).refresh(NOW + days(1)).versions) == {"snapshot", "timestamp"}
    done = SignedMetadata.open(repo, keys).refresh(NOW + days(4))
    assert set(done.versions) == {"snapshot", "timestamp", "rollout", "gallery"}
    assert set(SignedMetadata.open(repo, keys).refresh(NOW + days(300)).versions) >= {"root", "targets", "models"}
    assert client(tmp_path, repo).read(repo, MODEL, now=NOW + days(301)) == [b'{"first":1}']


def test_refresh_goes_on_without_a_key_that_fails(tmp_path):
    repo, keys = development(tmp_path)
    (keys.folder / "gallery.pem").unlink()
    done = SignedMetadata.open(repo, keys).refresh(NOW + days(4))
    assert set(done.versions) == {"snapshot", "timestamp"}
    assert "gallery.pem" in done.warnings[0]
    (keys.folder / "timestamp.pem").unlink()
    with pytest.raises(SyncError, match=r"timestamp.pem"):
        SignedMetadata.open(repo, keys).refresh(NOW + days(4))


def test_lost_target_file_is_written_again(tmp_path):
    repo, keys = development(tmp_path)
    path = next((repo / "targets/models/demo").iterdir())
    whole = path.read_bytes()
    path.unlink()
    assert publish(repo, keys, b'{"first":1}').versions == {}
    assert path.read_bytes() == whole


def test_second_create_is_refused(tmp_path):
    repo, keys = development(tmp_path)
    with pytest.raises(SyncError, match="is a repository already"):
        SignedMetadata.create(repo, LINE, "online", keys, NOW)


@pytest.mark.parametrize(
    ("role", "path"),
    [
        ("models", "models/other/one.json"),
        ("models", "models/demo/a/b.json"),
        ("models", "models/demo/.one.json"),
        ("models", RELEASE),
        ("rollout", "rollout/other.json"),
        ("rollout", MODEL),
        ("gallery", "gallery/demo/../x.json"),
        ("gallery", MODEL),
        ("targets", MODEL),
        ("root", MODEL),
    ],
)
def test_role_lists_only_its_own_targets(tmp_path, role, path):
    repo, keys = development(tmp_path)
    with pytest.raises(SyncError, match="found the target"):
        SignedMetadata.open(repo, keys).put(role, path, b"{}")


def test_target_that_is_not_text_is_refused(tmp_path):
    repo, keys = development(tmp_path)
    with pytest.raises(SyncError, match="not UTF-8"):
        SignedMetadata.open(repo, keys).put("models", MODEL, b"\xff")


def test_too_large_target_is_refused(tmp_path):
    repo, keys = development(tmp_path)
    with pytest.raises(SyncError, match="expected at most"):
        SignedMetadata.open(repo, keys).put("models", MODEL, b" " * (4 << 20) + b"x")


@pytest.mark.parametrize("year", [1970, 2024, 2026, 2040, 9999])
def test_wrong_clock_signs_nothing(tmp_path, year):
    repo, keys = development(tmp_path)
    before = (repo / "metadata/timestamp.json").read_bytes()
    with pytest.raises(SyncError, match=f"clock of this machine says {year}.*set the clock"):
        publish(repo, keys, b"{}", datetime(year, 1, 1, tzinfo=timezone.utc))
    assert (repo / "metadata/timestamp.json").read_bytes() == before


def test_expired_root_is_said_with_the_way_out(tmp_path):
    repo, keys = development(tmp_path)
    with pytest.raises(SyncError, match=r"root expired at 2027-11-28.*rotate .* --renew root"):
        publish(repo, keys, b"{}", NOW + days(400))


def test_commit_after_another_one_is_refused(tmp_path):
    repo, keys = development(tmp_path)
    first, second = (SignedMetadata.open(repo, keys) for _ in range(2))
    first.put("gallery", GALLERY, b"{}")
    second.put("gallery", GALLERY, b"[]")
    first.commit(NOW)
    with pytest.raises(SyncError, match="changed since it was read"):
        second.commit(NOW)


def test_reading_needs_no_keys_and_signing_does(tmp_path):
    repo, _ = development(tmp_path)
    metadata = SignedMetadata.open(repo)
    assert metadata.read_target(MODEL) == b'{"first":1}'
    assert metadata.read_target("models/demo/no.json") is None
    metadata.put("models", MODEL, b"{}")
    with pytest.raises(SyncError, match="opened without keys"):
        metadata.commit(NOW)


NAMES = ["1.root.json", "timestamp.json", "2.snapshot.json", "1.targets.json", "2.models.json", "2.gallery.json"]


@pytest.mark.parametrize("name", NAMES)
def test_damaged_metadata_is_one_clear_error(tmp_path, name):
    repo, keys = development(tmp_path)
    path = repo / "metadata" / name
    whole = path.read_bytes()
    other = (repo / "metadata/2.rollout.json").read_bytes()
    changed = whole[:-10] + bytes([whole[-10] ^ 1]) + whole[-9:]
    for damage in (None, b"", bytes(len(whole)), changed, other, whole + b" " * 6_000_000, b"[" * 100_000):
        path.unlink()
        if damage is not None:
            path.write_bytes(damage)
        with pytest.raises(SyncError) as caught:
            SignedMetadata.open(repo, keys)
        assert name in str(caught.value) or "root" in str(caught.value)
        assert "\n" not in str(caught.value)
        path.write_bytes(whole)
    SignedMetadata.open(repo, keys)


def test_changed_content_on_the_server_is_never_signed(tmp_path):
    repo, keys = development(tmp_path)
    path = repo / "metadata/2.gallery.json"
    path.write_bytes(path.read_bytes().replace(b"tyre", b"tire"))
    with pytest.raises(SyncError, match="gallery"):
        SignedMetadata.open(repo, keys).refresh(NOW)


def test_damaged_target_file_is_said(tmp_path):
    repo, _ = development(tmp_path)
    next((repo / "targets/models/demo").iterdir()).write_bytes(b"x")
    with pytest.raises(SyncError, match="differs from what the role models signed"):
        SignedMetadata.open(repo).read_target(MODEL)


def test_old_copy_of_the_repository_is_noticed(tmp_path):
    repo, keys = development(tmp_path)
    old = {path: path.read_bytes() for path in (repo / "metadata").iterdir()}
    publish(repo, keys, b"{}")
    for path, data in old.items():
        path.write_bytes(data)
    with pytest.raises(SyncError, match="restored from an old copy"):
        SignedMetadata.open(repo, keys)


def test_version_without_room_is_refused(tmp_path):
    repo, keys = development(tmp_path)
    metadata = SignedMetadata.open(repo, keys)
    metadata.number_above({"gallery": 2**31 - 1})
    with pytest.raises(SyncError, match="leaves no room"):
        metadata.commit(NOW)


class FailedError(Exception):
    pass


def failing_at(monkeypatch, number: int, real=files.write_file) -> list[str]:
    written = []

    def write(path, data):
        if len(written) == number:
            raise FailedError
        written.append(path.name)
        real(path, data)

    for writer in (module, commit):
        monkeypatch.setattr(writer, "write_file", write)
    return written


def test_failure_at_every_write_leaves_a_whole_state(tmp_path, monkeypatch):
    repo, keys = development(tmp_path)
    device, old = client(tmp_path, repo), b'{"first":1}'
    for number in range(20):
        new = b'{"n":%d}' % number
        written = failing_at(monkeypatch, number)
        try:
            publish(repo, keys, new)
        except FailedError:
            assert device.read(repo, MODEL, GALLERY, RELEASE) == [old] * 3
            assert client(tmp_path, repo, f"new{number}").read(repo, MODEL, GALLERY, RELEASE) == [old] * 3
            monkeypatch.undo()
            publish(repo, keys, new)
            assert device.read(repo, MODEL, GALLERY, RELEASE) == [new] * 3
            old = new
        else:
            assert written[-1] == "timestamp.json"
            return
    pytest.fail("no write was the last")


def test_failure_while_a_repository_is_made_is_repaired(tmp_path, monkeypatch):
    keys = KeyRing.development(tmp_path / "keys")
    for number in range(20):
        repo = tmp_path / f"repo{number}"
        failing_at(monkeypatch, number)
        try:
            SignedMetadata.create(repo, LINE, "online", keys, NOW)
        except FailedError:
            monkeypatch.undo()
            SignedMetadata.create(repo, LINE, "online", keys, NOW)
            for path in ("root.json", "published.json"):
                (keys.folder / path).unlink()
            assert client(tmp_path, repo, f"device{number}").read(repo, MODEL) == [None]
        else:
            return
    pytest.fail("no write was the last")
