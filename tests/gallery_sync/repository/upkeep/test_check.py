"""The check of a repository."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from edge.errors import SyncError
from gallery_sync.cli import main
from gallery_sync.formats.documents import GalleryLog
from gallery_sync.formats.fields import canonical_json
from gallery_sync.repository.folder import history_path
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.upkeep.check import check_repository
from gallery_sync.repository.upkeep.reached import reader
from tests.sync_samples import keys_of, newest, published, time_now
from tests.sync_server import serving


def problems_of(repo, **options):
    return check_repository(repo, time_now(), **options).problems


def test_whole_repository_has_no_problem_and_no_warning(repo):
    report = check_repository(repo, time_now(), history=True)
    assert (report.problems, report.warnings) == ([], [])
    assert report.whole == 10


@pytest.mark.parametrize("damage", [b"", b"damaged", None])
def test_every_file_that_devices_read_is_checked(repo, damage):
    files = [path for path in repo.rglob("*") if path.is_file() and path.relative_to(repo).parts[0] == "objects"]
    targets = {path for role in ("models", "gallery", "rollout") for path in SignedMetadata.open(repo).targets(role)}
    hashes = {SignedMetadata.open(repo).targets(path.partition("/")[0])[path].sha256 for path in targets}
    files += [path for path in (repo / "targets").rglob("*.json") if path.name.partition(".")[0] in hashes]
    assert len(files) == 14
    for path in files:
        data = path.read_bytes()
        path.unlink() if damage is None else path.write_bytes(damage)
        assert any(str(path.name) in problem for problem in problems_of(repo)), path
        path.write_bytes(data)
    assert problems_of(repo) == []


def test_damaged_metadata_is_an_error(repo):
    (repo / "metadata" / "timestamp.json").write_bytes(b"<html>")
    with pytest.raises(SyncError, match=r"timestamp\.json: damaged"):
        check_repository(repo, time_now())


def test_expiry_is_a_warning_at_half_of_the_life_and_then_a_problem(repo):
    later = check_repository(repo, time_now() + timedelta(days=4))
    assert later.problems == []
    assert [text.split()[0] for text in later.warnings] == ["snapshot", "timestamp", "rollout", "gallery"]
    expired = check_repository(repo, time_now() + timedelta(days=8))
    assert any(text.startswith("timestamp 4 expired at") for text in expired.problems)


def put_log(repo, **changes):
    """Sign another gallery log, as a thief of the gallery key could."""
    metadata = SignedMetadata.open(repo, keys_of(repo), time_now())
    log = published(repo).logs["tyre"]
    sha256 = published(repo).log_hashes["gallery/demo/tyre.json"]
    fields = log.model_dump(mode="json", by_alias=True) | {"previous": sha256} | changes
    metadata.put("gallery", "gallery/demo/tyre.json", canonical_json(GalleryLog.model_validate(fields)))
    metadata.commit(time_now())


def spaces_of(repo):
    return [space.model_dump(mode="json") for space in published(repo).logs["tyre"].spaces]


def test_fork_of_a_gallery_log_is_found(repo):
    spaces = spaces_of(repo)
    spaces[0]["bases"][0]["live_root"] = "f" * 64
    put_log(repo, spaces=spaces)
    problems = problems_of(repo)
    assert any("gallery 1 has another live root than before: the log was forked" in text for text in problems)
    assert any("gallery 1 has live root" in text for text in problems)


def test_gap_of_a_gallery_log_is_found(repo):
    spaces = spaces_of(repo)
    spaces[0]["segments"][0]["after"] = 0 + 1
    spaces[0]["segments"][0]["sequence"] = 9
    put_log(repo, spaces=spaces)
    assert any("found state 9, newer than the log's 2" in text for text in problems_of(repo))


def test_wrong_root_of_a_segment_is_found(repo):
    spaces = spaces_of(repo)
    spaces[0]["segments"][0]["live_root"] = "e" * 64
    put_log(repo, spaces=spaces)
    assert any("root" in text for text in problems_of(repo))


def test_history_is_checked_on_demand(repo):
    history_path(repo, 1).write_bytes(b"damaged")
    assert problems_of(repo) == []
    assert problems_of(repo, history=True) == [f"{history_path(repo, 1)}: damaged; it cannot be rolled back to"]


def test_unnamed_files_are_warnings(repo):
    (repo / "objects" / "aa").mkdir(exist_ok=True)
    (repo / "objects" / "aa" / ("aa" * 32)).write_bytes(b"x")
    (repo / "objects" / "aa" / ("ab" * 32 + ".partial")).write_bytes(b"x")
    report = check_repository(repo, time_now())
    assert report.problems == []
    assert len(report.warnings) == 3


def test_served_files_are_compared(repo, tmp_path):
    with serving(repo) as server:
        assert problems_of(repo, reached=reader(server.url)) == []
    (tmp_path / "stale").mkdir()
    reached = reader((tmp_path / "stale").as_uri())
    assert len(problems_of(repo, reached=reached)) > 10


def test_verb_exits_with_1_on_a_problem(repo, capsys):
    assert main(["check", str(repo), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"whole": 10, "wrong": 0, "warnings": 0}
    release, _ = newest(repo)
    log = published(repo).logs["tyre"]
    (repo / "objects" / log.spaces[0].bases[0].object.sha256[:2] / log.spaces[0].bases[0].object.sha256).unlink()
    assert main(["check", str(repo)]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert release.sequence == 3
