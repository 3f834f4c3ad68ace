"""Taking an unsigned repository over."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from edge.errors import SyncError
from gallery_sync.cli import main
from gallery_sync.repository.releases import rollback
from gallery_sync.repository.upkeep.adopt import adopt
from gallery_sync.repository.upkeep.check import check_repository
from gallery_sync.repository.upkeep.gc import collect_garbage
from tests.power_cut import PowerCut
from tests.store_samples import make_bundle, make_gallery
from tests.sync_samples import keys_of, make_repository, newest, publish_release, published, time_now
from tests.unsigned_samples import publish_unsigned


@pytest.fixture
def unsigned(tmp_path: Path) -> Path:
    """An unsigned repository: bundle one, two, two with more items, and back to release 1."""
    repo = tmp_path / "repo"
    repo.mkdir()
    one, two = make_bundle(tmp_path / "one", "one", 1), make_bundle(tmp_path / "two", "two", 2)
    few, more = make_gallery(tmp_path / "few", 3), make_gallery(tmp_path / "more", 4)
    publish_unsigned(repo, one, few, 1)
    publish_unsigned(repo, two, few, 2)
    publish_unsigned(repo, two, more, 5)
    publish_unsigned(repo, one, few, 6, rollback_to=1)
    return repo


def take_over(repo: Path):
    return adopt(repo, make_repository(repo), time_now())


def test_every_release_is_a_signed_pair_with_its_number(unsigned):
    done = take_over(unsigned)
    assert (done.line, done.releases, dict(done.left)) == ("demo", (1, 2, 5, 6), {})
    release, head = newest(unsigned)
    assert (release.sequence, release.rollback_to, head.bundle_id, release.gallery_sequence) == (6, 1, "one", 1)
    assert [one.gallery_sequence for one in published(unsigned).history.values() if one] == [1, 1, 2, 1]
    assert check_repository(unsigned, time_now(), history=True).problems == []
    assert rollback(unsigned, keys_of(unsigned), time_now(), "demo", 5).release.sequence == 7


def test_last_unsigned_release_stays_for_old_devices(unsigned):
    before = (unsigned / "release.json").read_bytes()
    take_over(unsigned)
    collect_garbage(unsigned, time_now(), keep_days=7)
    assert (unsigned / "release.json").read_bytes() == before
    signed = json.loads(before)["signed"]
    for ref in (signed["bundle"], *signed["gallery"]["heads"].values()):
        assert (unsigned / "objects" / ref["sha256"][:2] / ref["sha256"]).is_file()


def test_publishing_goes_on_after_it(unsigned, tmp_path):
    take_over(unsigned)
    release = publish_release(tmp_path, "three", 3, 5)
    assert (release.sequence, release.gallery_sequence) == (7, 3)
    assert check_repository(unsigned, time_now(), history=True).problems == []


def test_damaged_releases_are_left_out_and_named(unsigned):
    signed = json.loads((unsigned / "releases" / "2.json").read_text())["signed"]
    (unsigned / "objects" / signed["bundle"]["sha256"][:2] / signed["bundle"]["sha256"]).unlink()
    (unsigned / "releases" / "1.json").write_bytes(b"damaged")
    done = take_over(unsigned)
    assert done.releases == (6,)
    assert sorted(done.left) == [1, 2, 5]
    assert done.left[1] == "its file is damaged"
    assert check_repository(unsigned, time_now(), history=True).problems == []


def test_newest_release_must_be_whole(unsigned):
    signed = json.loads((unsigned / "release.json").read_text())["signed"]
    (unsigned / "objects" / signed["bundle"]["sha256"][:2] / signed["bundle"]["sha256"]).unlink()
    with pytest.raises(SyncError, match="release 6, the newest, cannot be adopted: 1 objects are missing"):
        take_over(unsigned)
    assert published(unsigned).release is None


@pytest.mark.parametrize("case", ["nothing", "other line", "twice"])
def test_it_is_refused_where_it_makes_no_sense(unsigned, tmp_path, case):
    if case == "nothing":
        make_repository(tmp_path / "empty" / "repo")
        with pytest.raises(SyncError, match="there is nothing to adopt"):
            take_over(tmp_path / "empty" / "repo")
    elif case == "other line":
        make_repository(unsigned, line="shop")
        with pytest.raises(SyncError, match="of line 'demo', expected 'shop'"):
            take_over(unsigned)
    else:
        take_over(unsigned)
        with pytest.raises(SyncError, match="has signed releases already"):
            take_over(unsigned)


def test_crash_at_any_write_is_taken_over_again(unsigned, tmp_path):
    make_repository(unsigned)
    n, happened = 0, True
    while happened:
        n += 29
        folder = tmp_path / f"cut{n}"
        for suffix in ("", ".keys"):
            shutil.copytree(tmp_path / f"repo{suffix}", folder / f"repo{suffix}")
        with PowerCut(n, "torn") as power, suppress(SyncError, OSError):
            take_over(folder / "repo")
        happened = power.happened
        if published(folder / "repo").release is None:
            take_over(folder / "repo")
        assert list(published(folder / "repo").history) == [1, 2, 5, 6]
        assert check_repository(folder / "repo", time_now(), history=True).problems == []
        shutil.rmtree(folder)


def test_verb_says_loudly_that_nothing_is_proved(unsigned, capsys):
    make_repository(unsigned)
    assert main(["adopt", str(unsigned)]) == 0
    told = capsys.readouterr()
    assert "WITHOUT PROOF" in told.err
    assert told.out == "line: demo\nadopted: 1, 2, 5, 6\nleft: none\n"
