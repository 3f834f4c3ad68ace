"""Publishing signed pairs of a bundle and a gallery."""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from edge.errors import BundleError, SyncError
from gallery_sync.repository.ceremonies.ceremony import publish_draft, sign_draft
from gallery_sync.repository.keys import KeyRing, RoleKeys
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.private_keys import HeldKey
from gallery_sync.repository.publish import Demands, publish
from gallery_sync.repository.upkeep.check import check_repository
from tests.power_cut import IMAGES, PowerCut
from tests.store_samples import make_bundle, make_gallery
from tests.sync_samples import keys_of, make_repository, newest, publish_release, published, time_now


def problems_of(repo: Path) -> list[str]:
    return check_repository(repo, time_now(), history=True).problems


def bytes_of(repo: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in repo.rglob("*") if path.is_file()}


def test_published_release_is_signed_and_complete(tmp_path):
    release = publish_release(tmp_path, "one", 1, 3)
    found, head = newest(tmp_path / "repo")
    assert (found, release.sequence, release.line) == (release, 1, "demo")
    assert (head.bundle_id, head.sequence, release.gallery_sequence) == ("one", 1, 1)
    base = published(tmp_path / "repo").logs["tyre"].spaces[0].bases[0]
    assert (base.sequence, base.items, base.vectors) == (1, 3, 6)
    assert problems_of(tmp_path / "repo") == []


def test_publishing_again_changes_nothing(tmp_path):
    publish_release(tmp_path, "one", 1, 3)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "repo").rglob("*")}
    publish_release(tmp_path, "one", 1, 3)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "repo").rglob("*")}


def test_changed_items_are_a_segment(tmp_path):
    publish_release(tmp_path, "one", 1, 3)
    assert publish_release(tmp_path, "one", 1, 5).gallery_sequence == 2
    space = published(tmp_path / "repo").logs["tyre"].spaces[0]
    assert [(one.after, one.sequence, one.upserts, one.deletes) for one in space.segments] == [(1, 2, 2, 0)]
    assert [base.sequence for base in space.bases] == [1]
    assert problems_of(tmp_path / "repo") == []


def test_only_a_changed_category_gets_a_new_log(tmp_path):
    bundle = make_bundle(tmp_path / "b", "one")
    for number, tyres in ((1, 3), (2, 4)):
        gallery = make_gallery(tmp_path / f"gallery{number}", 3, categories=("car",))
        make_gallery(gallery, tyres)
        keys = make_repository(tmp_path / "repo")
        publish(tmp_path / "repo", keys, time_now(), bundle_folder=bundle, gallery_folder=gallery)
    logs = published(tmp_path / "repo").logs
    assert {category: one.sequence for category, one in logs.items()} == {"car": 1, "tyre": 2}


def test_items_of_a_category_that_is_gone_are_deleted(tmp_path):
    bundle = make_bundle(tmp_path / "b", "one")
    keys = make_repository(tmp_path / "repo")
    for number, categories in enumerate((("tyre", "car"), ("car",), ("car",))):
        gallery = make_gallery(tmp_path / f"gallery{number}", 3, categories=categories)
        done = publish(tmp_path / "repo", keys, time_now(), bundle_folder=bundle, gallery_folder=gallery)
    space = published(tmp_path / "repo").logs["tyre"].spaces[0]
    assert [(one.sequence, one.deletes) for one in space.segments] == [(2, 3)]
    assert (done.is_new, done.release.sequence) == (False, 2)
    assert problems_of(tmp_path / "repo") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequence": 1, "items": 4}, "release 1 is published; give a --sequence above it, not 1"),
        ({"sequence": 2**53, "items": 4}, "expected at most 9007199254740991"),
        ({"bundle_id": "two"}, "bundle two has sequence 1, the published bundle one has 1; pack it with a larger"),
        ({"bundle_id": "two", "bundle_sequence": 0}, "bundle two has sequence 0, the published bundle one has 1"),
        ({"demands": Demands(security_floor=2), "items": 4}, "sequence 1, below the security floor 2"),
    ],
)
def test_wrong_sequence_is_refused_and_the_release_stays(tmp_path, change, message):
    release = publish_release(tmp_path, "one", 1, 3)
    with pytest.raises(SyncError, match=message):
        publish_release(tmp_path, **({"bundle_id": "one", "bundle_sequence": 1, "items": 3} | change))
    assert newest(tmp_path / "repo")[0] == release
    assert problems_of(tmp_path / "repo") == []


def test_bundle_of_another_space_is_refused(tmp_path):
    keys = make_repository(tmp_path / "repo")
    bundle, gallery = make_bundle(tmp_path / "b", "one"), make_gallery(tmp_path / "g", space_id="b" * 64)
    with pytest.raises(BundleError, match="'tyre': found gallery"):
        publish(tmp_path / "repo", keys, time_now(), bundle_folder=bundle, gallery_folder=gallery)
    publish_release(tmp_path, "one", 1, 3)
    other = make_bundle(tmp_path / "other", "other", 2, space_id="b" * 64)
    with pytest.raises(BundleError, match="'tyre': found its gallery in embedding space aaaa"):
        publish(tmp_path / "repo", keys, time_now(), bundle_folder=other)
    assert newest(tmp_path / "repo")[0].bundle_id == "one"


def test_new_embedding_space_is_added_and_the_old_one_stays(tmp_path):
    publish_release(tmp_path, "one", 1, 3)
    keys = keys_of(tmp_path / "repo")
    bundle = make_bundle(tmp_path / "b", "two", 2, space_id="b" * 64)
    gallery = make_gallery(tmp_path / "g", 3, space_id="b" * 64)
    publish(tmp_path / "repo", keys, time_now(), bundle_folder=bundle, gallery_folder=gallery)
    spaces = published(tmp_path / "repo").logs["tyre"].spaces
    assert [(one.space_id[0], one.bases[0].sequence) for one in spaces] == [("a", 1), ("b", 2)]
    release, head = newest(tmp_path / "repo")
    assert (release.gallery_sequence, head.gallery_from) == (2, 2)
    assert problems_of(tmp_path / "repo") == []


def test_gallery_alone_or_bundle_alone_makes_a_release(tmp_path):
    publish_release(tmp_path, "one", 1, 3)
    keys, repo = keys_of(tmp_path / "repo"), tmp_path / "repo"
    gallery = make_gallery(tmp_path / "more", 5)
    assert publish(repo, keys, time_now(), gallery_folder=gallery).release.gallery_sequence == 2
    bundle = make_bundle(tmp_path / "b", "two", 2)
    release = publish(repo, keys, time_now(), bundle_folder=bundle).release
    assert (release.sequence, release.bundle_id, release.gallery_sequence) == (3, "two", 2)
    with pytest.raises(SyncError, match="give --bundle, --gallery or both"):
        publish(repo, keys, time_now())


def test_demands_of_a_bundle_are_kept_and_raised(tmp_path):
    publish_release(tmp_path, "one", 1, 3, demands=Demands(needs="0.9"))
    publish_release(tmp_path, "two", 2, 3, demands=Demands(security_floor=2, allow_big_change=True))
    head = newest(tmp_path / "repo")[1]
    assert (head.security_floor, head.needs, head.big_change_to) == (2, "0", 1)
    publish_release(tmp_path, "three", 3, 4)
    head = newest(tmp_path / "repo")[1]
    assert (head.security_floor, head.big_change_to) == (2, 0)
    release = publish_release(tmp_path, "three", 3, 4, demands=Demands(security_floor=3))
    assert (release.sequence, newest(tmp_path / "repo")[1].security_floor) == (4, 3)
    with pytest.raises(SyncError, match="the security floor is 3, and it never falls"):
        publish_release(tmp_path, "three", 3, 4, demands=Demands(security_floor=2))


def test_deliveries_are_smaller_than_the_files(tmp_path):
    publish_release(tmp_path, "one", 1, 3)
    head = newest(tmp_path / "repo")[1]
    assert {one.method for one in head.deliveries} == {"zstd"}
    assert sum(one.object.size for one in head.deliveries) < 1000


def test_release_waits_where_the_key_of_models_is_elsewhere(tmp_path):
    first = publish_release(tmp_path, "one", 1, 3)
    keys, repo = keys_of(tmp_path / "repo"), tmp_path / "repo"
    here = {
        role: RoleKeys(one.threshold, tuple(HeldKey(key.public) for key in one.keys)) if role == "models" else one
        for role, one in keys.roles.items()
    }
    bundle, gallery = make_bundle(tmp_path / "b", "two", 2), make_gallery(tmp_path / "g", 4)
    ring = KeyRing(keys.folder, here)
    done = publish(repo, ring, time_now(), bundle_folder=bundle, gallery_folder=gallery)
    assert done.draft is not None
    assert done.draft.is_file()
    assert newest(repo)[0] == first
    assert problems_of(repo) == []
    with_models = publish(repo, ring, time_now(), gallery_folder=gallery)  # a gallery needs no key of models
    assert with_models.draft is None
    assert newest(repo)[0].bundle_id == "one"


def test_first_bundle_is_published_though_its_draft_was_never_signed(tmp_path):
    repo, keys = tmp_path / "repo", make_repository(tmp_path / "repo")
    unsigned = {role: RoleKeys(one.threshold, ()) for role, one in keys.roles.items()}
    bundle, gallery = make_bundle(tmp_path / "b", "one"), make_gallery(tmp_path / "g", 3)
    folders = {"bundle_folder": bundle, "gallery_folder": gallery}
    assert publish(repo, KeyRing(tmp_path / "elsewhere", unsigned), time_now(), **folders).draft is not None
    assert publish(repo, keys, time_now(), **folders).is_new
    assert newest(repo)[0].bundle_id == "one"
    assert problems_of(repo) == []


def test_release_appears_once_the_head_of_its_bundle_is_signed(tmp_path):
    publish_release(tmp_path, "one", 1, 3)
    keys, repo = keys_of(tmp_path / "repo"), tmp_path / "repo"
    without = tuple(HeldKey(key.public) for key in keys.roles["models"].keys)
    ring = KeyRing(keys.folder, {**keys.roles, "models": RoleKeys(1, without)})
    bundle, gallery = make_bundle(tmp_path / "b", "two", 2), make_gallery(tmp_path / "g", 4)
    done = publish(repo, ring, time_now(), bundle_folder=bundle, gallery_folder=gallery)
    assert done.draft is not None
    sign_draft(done.draft, str(keys.folder / "models.pem"))
    assert newest(repo)[0].sequence == 1
    publish_draft(done.draft, repo, ring, time_now())
    release, head = newest(repo)
    assert (release.sequence, head.bundle_id, release.gallery_sequence) == (2, "two", 2)
    assert problems_of(repo) == []


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return make_bundle(tmp_path / "b", "two", 2), make_gallery(tmp_path / "g", 5)


def publish_pair(repo: Path, pair: tuple[Path, Path]) -> None:
    publish(repo, keys_of(repo), time_now(), bundle_folder=pair[0], gallery_folder=pair[1])


def copied(tmp_path: Path, name: str) -> Path:
    """Copy a repository and its keys, which know the newest root."""
    for suffix in ("", ".keys"):
        shutil.copytree(tmp_path / f"repo{suffix}", tmp_path / name / f"repo{suffix}")
    return tmp_path / name / "repo"


@pytest.mark.parametrize("image", IMAGES)
def test_power_cut_at_any_write_leaves_a_whole_release(tmp_path, pair, image):
    publish_release(tmp_path, "one", 1, 3)

    def publish_cut(at: int) -> tuple[int, Path]:
        repo = copied(tmp_path, f"cut{at}")
        with PowerCut(at, image) as power, suppress(SyncError, OSError):
            publish_pair(repo, pair)
            (repo / "later").mkdir()  # the last cut is after the end
        return power.calls, repo

    last, _ = publish_cut(10_000)
    assert last > 20
    for at in range(1 + IMAGES.index(image), last + 1, 4 * len(IMAGES)):
        _, repo = publish_cut(at)
        assert newest(repo)[0].sequence in (1, 2)
        assert problems_of(repo) == []
        publish_pair(repo, pair)
        assert newest(repo)[0].bundle_id == "two"
        assert problems_of(repo) == []


def test_failed_write_leaves_the_old_release(tmp_path, pair):
    """A full disk: each write fails in turn, and the process goes on."""
    publish_release(tmp_path, "one", 1, 3)
    last = 10_000
    at = 0
    while at < last:
        at += 7
        repo = copied(tmp_path, f"full{at}")
        with PowerCut(at, "kept") as power, suppress(SyncError, OSError):
            publish_pair(repo, pair)
        if not power.happened:
            last = at
        assert newest(repo)[0].sequence in (1, 2)
        assert problems_of(repo) == []
        shutil.rmtree(repo.parent)


def test_two_publishers_exclude_each_other(tmp_path, pair):
    publish_release(tmp_path, "one", 1, 3)
    repo = tmp_path / "repo"
    other = make_gallery(tmp_path / "other", 7)
    failed: list[Exception] = []

    def act(**folders: Path) -> None:
        try:
            publish(repo, keys_of(repo), time_now(), **folders)
        except SyncError as error:
            failed.append(error)

    threads = [
        threading.Thread(target=act, kwargs={"bundle_folder": pair[0], "gallery_folder": pair[1]}),
        threading.Thread(target=act, kwargs={"gallery_folder": other}),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert newest(repo)[0].sequence == 3
    assert problems_of(repo) == []


def test_publishing_again_repairs_any_missing_object(repo, tmp_path):
    for path in [path for path in (repo / "objects").rglob("*") if path.is_file()]:
        data = path.read_bytes()
        path.unlink()
        release = publish_release(tmp_path, "two", 2, 4)
        problems = check_repository(repo, time_now()).problems
        assert [text for text in problems if "of bundle one" not in text] == []  # only its own folder has those
        assert release.bundle_id == "two"
        path.write_bytes(data)


def test_publishing_again_restores_damaged_documents(repo, tmp_path):
    for path in [path for path in (repo / "targets").rglob("*.json") if "two" in path.name or "demo.json" in path.name]:
        path.write_bytes(b"damaged")
    assert any("publishing again restores it" in problem for problem in problems_of(repo))
    publish_release(tmp_path, "two", 2, 4)
    assert check_repository(repo, time_now()).problems == []
    assert newest(repo)[0].sequence == 3


def test_damaged_gallery_log_is_begun_again(repo, tmp_path):
    metadata = SignedMetadata.open(repo)
    sha256 = metadata.targets("gallery")["gallery/demo/tyre.json"].sha256
    (repo / "targets/gallery/demo" / f"{sha256}.tyre.json").write_bytes(b"{}")
    release = publish_release(tmp_path, "two", 2, 4)
    log = published(repo).logs["tyre"]
    assert (release.gallery_sequence, log.previous, len(log.spaces[0].bases)) == (3, sha256, 1)
    assert check_repository(repo, time_now()).problems == []


def test_clock_that_went_back_publishes_nothing(tmp_path):
    publish_release(tmp_path, "one", 1, 3)
    with pytest.raises(SyncError, match="the clock of this machine says"):
        publish_release(tmp_path, "two", 2, 3, now=time_now() - timedelta(days=300))
    assert newest(tmp_path / "repo")[0].bundle_id == "one"
