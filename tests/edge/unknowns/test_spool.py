"""The pictures that wait for the server."""

from __future__ import annotations

import pytest

from edge.errors import UploadError
from edge.unknowns import spool as module
from edge.unknowns.spool import Spool
from edge.uploads.upload import upload_pending
from tests.fakes_engine import FakeCounts
from tests.power_cut import IMAGES, PowerCut

NOW = 1_700_000_000.0


def name(number):
    return f"unknown-{number:012x}.zip"


def spool(folder, max_bytes=1000):
    return Spool(folder / "unknowns", max_bytes, FakeCounts())


def names(one):
    return [upload.name for upload in one.pending()]


def test_files_wait_over_a_restart_until_the_server_has_them(tmp_path):
    one = spool(tmp_path)
    for number in (2, 1):
        one.keep(name(number), b"x", NOW)
    again, taken = spool(tmp_path), {}
    assert upload_pending(again.pending, taken.__setitem__, lambda _: None)
    assert taken == {name(2): b"x", name(1): b"x"}
    assert (names(again), names(spool(tmp_path))) == ([], [])


def test_oldest_are_deleted_and_counted_where_there_is_no_room(tmp_path):
    one = spool(tmp_path, 25)
    for number in range(4):
        one.keep(name(number), b"0123456789", NOW)
    assert names(one) == [name(2), name(3)]
    assert (one.waiting().files, one.waiting().bytes) == (2, 20)
    assert one._counts.total["unknowns_lost"] == 2


def test_number_of_files_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_FILES", 2)
    one = spool(tmp_path)
    for number in range(3):
        one.keep(name(number), b"x", NOW)
    assert names(one) == [name(1), name(2)]


def test_file_larger_than_the_spool_is_refused(tmp_path):
    one = spool(tmp_path, 5)
    with pytest.raises(UploadError, match="found 6 bytes, expected at most 5"):
        one.keep(name(1), b"123456", NOW)
    assert names(one) == []


def test_limits_hold_over_a_restart(tmp_path):
    one = spool(tmp_path)
    one.keep(name(1), b"x", NOW)
    assert spool(tmp_path).is_full_for(NOW, per_hour=1, per_day=9)


@pytest.mark.parametrize("damage", ['{"damaged": 1}', "", "[" * 9999, f"[1{'0' * 400}]", "[NaN, true, null]", '["1"]'])
def test_damaged_times_of_earlier_runs_are_ignored(tmp_path, damage):
    (tmp_path / "unknowns").mkdir()
    (tmp_path / "unknowns/kept_at.json").write_text(damage)
    assert not spool(tmp_path).is_full_for(NOW, per_hour=1, per_day=1)


def test_disk_error_is_reported_until_it_is_over(tmp_path):
    (tmp_path / "unknowns").write_text("in the way")
    one = spool(tmp_path)
    with pytest.raises(UploadError, match="disk error"):
        one.keep(name(1), b"x", NOW)
    assert "disk error" in one.waiting().problem
    (tmp_path / "unknowns").unlink()
    one.keep(name(1), b"x", NOW)
    assert one.waiting().problem is None


def test_file_that_vanished_is_no_obstacle(tmp_path):
    one = spool(tmp_path)
    one.keep(name(1), b"x", NOW)
    (tmp_path / "unknowns" / name(1)).unlink()
    assert not upload_pending(one.pending, lambda *_: None, lambda _: None)
    assert upload_pending(one.pending, lambda *_: None, lambda _: None)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("at", range(1, 13))
def test_power_cut_leaves_a_whole_file_or_none(tmp_path, at, image):
    one = spool(tmp_path)
    one.keep(name(1), b"one" * 99, NOW)
    with PowerCut(at, image) as cut:
        try:
            one.keep(name(2), b"two" * 99, NOW)
        except UploadError:
            assert cut.happened
    assert cut.happened == (at <= 11)  # mkdir, then twice: unlink, open, fsync, replace, fsync of the folder
    again = spool(tmp_path)
    found = {upload.name: upload.read() for upload in again.pending()}
    assert found[name(1)] == b"one" * 99
    assert found.get(name(2)) in (None, b"two" * 99)
    assert list((tmp_path / "unknowns").glob("*.partial")) == []
