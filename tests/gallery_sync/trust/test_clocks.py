"""T4, C1 to C5: metadata that is expired or held back, and clocks that are wrong."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from gallery_sync.trust import clock
from gallery_sync.trust.clock import read_time, system_time
from gallery_sync.trust.errors import ExpiredError
from tests.trust_samples import START, Device, SignedFolder

PATH = "rollout/shop.json"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
LAST = datetime(9999, 12, 31, tzinfo=timezone.utc)


def test_t4_frozen_repository_is_refused_when_it_expires(device):
    device.now = START + timedelta(days=6, hours=23)
    assert not device.client().refresh().expired
    device.now = START + timedelta(days=7, seconds=1)
    with pytest.raises(ExpiredError, match="What serves goes on"):
        device.client().refresh()


def test_t4_expired_metadata_changes_no_file(device):
    before = device.hashes()
    device.now = START + timedelta(days=30)
    with pytest.raises(ExpiredError):
        device.client().refresh()
    assert device.hashes() == before


def test_t4_warning_comes_at_half_of_the_life(device):
    fresh = device.client().freshness()
    assert fresh.warn_at - fresh.issued_at == fresh.expires_at - fresh.warn_at


def test_t4_nothing_is_read_after_expiry_of_what_was_refreshed(device):
    client = device.client()
    client.refresh()
    device.now = START + timedelta(days=8)
    with pytest.raises(ExpiredError, match="since it was read"):
        client.target(PATH, 1 << 16)


def test_t4_hidden_root_is_noticed_at_expiry(device, repo):
    """A mirror that shows no newer root shows nothing wrong, until what it serves is expired."""
    repo.rotate("timestamp", "snapshot")
    frozen = (repo.folder / "metadata/timestamp.json").read_bytes()
    repo.publish("root")
    (repo.folder / "metadata/2.root.json").unlink()
    (repo.folder / "metadata/timestamp.json").write_bytes(frozen)
    assert device.client().refresh().root_version == 1
    device.now = START + timedelta(days=8)
    with pytest.raises(ExpiredError, match="may hold back newer metadata"):
        device.client().refresh()


def test_t4_root_once_seen_cannot_be_hidden(device, repo):
    repo.rotate("timestamp")
    repo.publish("root")
    device.client().refresh()
    (repo.folder / "metadata/2.root.json").unlink()
    for path in device.cached("root_history").iterdir():
        path.unlink()
    with pytest.raises(Exception, match="root: found version 1, older than version 2"):
        device.client().refresh()


def test_c1_clock_of_1970_is_judged_by_the_floor(device):
    """The floor is when the newest timestamp was signed, so an expired one before it is refused."""
    device.now = EPOCH
    assert not device.client().refresh().expired


def test_c1_clock_of_1970_does_not_revive_an_expired_repository(tmp_path, device, repo):
    repo.now = START + timedelta(days=300)
    repo.signed["timestamp"].expires = repo.now + timedelta(days=7)
    for role in ("snapshot", "models", "rollout", "gallery"):
        repo.signed[role].expires = repo.now + timedelta(days=30)
    repo.publish()
    device.now = repo.now
    device.client().refresh()
    device.now = EPOCH
    repo.signed["timestamp"].expires = START + timedelta(days=7)
    repo.publish("timestamp")
    with pytest.raises(ExpiredError):
        device.client().refresh()


def test_c1_no_time_before_the_build_is_believed(tmp_path):
    repo = SignedFolder(tmp_path / "repo", now=datetime(2025, 6, 1, tzinfo=timezone.utc))
    device = Device(tmp_path / "new", repo, now=EPOCH)
    with pytest.raises(ExpiredError):
        device.client().refresh()


@pytest.mark.parametrize("wrong", [datetime(2039, 1, 1, tzinfo=timezone.utc), LAST])
def test_c2_far_future_once_does_not_brick(device, repo, wrong):
    device.now = wrong
    with pytest.raises(ExpiredError):
        device.client().refresh()
    assert device.client().unchanged() is False
    device.now = START + timedelta(hours=1)
    repo.release(2)
    assert not device.client().refresh().expired


@pytest.mark.parametrize("seconds", [float("inf"), -1.0, 2.0**63, 253402300800.0])
def test_c2_system_clock_beyond_all_dates_is_a_date(monkeypatch, seconds):
    monkeypatch.setattr(clock.time, "time", lambda: seconds)
    assert EPOCH <= system_time() <= LAST.replace(hour=23, minute=59, second=59)


def test_c2_signed_time_after_its_own_end_raises_no_floor(device, repo):
    repo.now = LAST
    repo.publish("timestamp")
    assert device.client().refresh().issued_at is None
    assert not device.client().refresh().expired


@pytest.mark.parametrize("step", [timedelta(seconds=1), timedelta(minutes=5), timedelta(days=400)])
def test_c3_step_back_is_no_alarm(device, repo, step):
    device.now = START + timedelta(hours=2)
    client = device.client()
    client.refresh()
    device.now -= step
    repo.release(2)
    assert client.target(PATH, 1 << 16) is not None
    assert not device.client().refresh().expired


def test_c4_thirty_days_without_a_clock_are_bridged(device, repo):
    """No clock, no time server: each signed timestamp brings the time along."""
    for day in range(0, 30, 5):
        repo.now = START + timedelta(days=day)
        repo.signed["timestamp"].expires = repo.now + timedelta(days=7)
        repo.signed["snapshot"].expires = repo.now + timedelta(days=30)
        repo.publish("timestamp")
        device.now = EPOCH + timedelta(minutes=day)
        assert device.client().refresh().issued_at == repo.now


def test_c5_time_zones_are_read_and_missing_ones_refused():
    assert read_time("2026-06-01T14:00:00+02:00") == START
    assert read_time("2026-06-01T12:00:00Z") == START
    for bad in ("2026-06-01T12:00:00", "now", "", None, 5, "9999-12-31T23:59:59-14:00", "2026-06-31T00:00:00Z"):
        assert read_time(bad) is None


def test_c5_leap_second_is_no_crash():
    assert read_time("2016-12-31T23:59:60Z") is None


def test_unread_private_clock_of_the_library_is_refused(device, monkeypatch):
    """If another python-tuf takes its time elsewhere, nothing is judged by the wrong clock in silence."""
    from tuf.ngclient import Updater

    monkeypatch.delattr(Updater, "_load_timestamp")
    with pytest.raises(Exception, match="install tuf 7"):
        device.client().refresh()
