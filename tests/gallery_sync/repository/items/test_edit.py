"""Changes of single items: planned in words, published as one release, and followed by devices."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from edge.errors import CaptureError, SyncError
from edge.gallery.limits import parse_metadata
from edge.imaging.image import encode_image
from gallery_sync.cli import build_parser, main
from gallery_sync.formats.fields import object_path
from gallery_sync.gallery_log.records import Delete, Upsert
from gallery_sync.repository.items.edit import (
    ItemContent,
    find_items,
    list_items,
    plan_delete,
    plan_merge,
    plan_rename,
    plan_upsert,
    read_small,
    read_vectors,
)
from gallery_sync.repository.publish import publish, publish_gallery_change
from tests.sample_models import shapes_model
from tests.store_samples import SPACE, make_bundle, make_gallery, unit_rows
from tests.sync_samples import keys_of, make_repository, publish_release, published, time_now

DIM = 12


@pytest.fixture
def repo(tmp_path):
    """A repository with the items i0, i1 and i2 of `tyre`."""
    publish_release(tmp_path, "one", 1, 3)
    return tmp_path / "repo"


def publish_plan(repo, plan):
    return publish_gallery_change(repo, keys_of(repo), time_now(), plan.changes, urgent=plan.urgent)


def labels(repo):
    return {row["item"]: row["label"] for row in list_items(published(repo))}


def content(count=1, seed=9, **changed):
    return ItemContent(**{"vectors": unit_rows(count, DIM, seed), "label": "New", **changed})


def test_items_are_listed(repo):
    assert next(list_items(published(repo), "tyre")) == {
        "category": "tyre",
        "item": "i0",
        "label": "Item 0",
        "vectors": 2,
        "negative": False,
        "thumbnail": False,
    }
    with pytest.raises(SyncError, match="no category 'bolt', only: 'tyre'"):
        list(list_items(published(repo), "bolt"))


def test_new_item_is_one_release_and_one_gallery_sequence(repo):
    before = published(repo).release
    plan = plan_upsert(published(repo), "tyre", "new", SPACE, content(3))
    assert plan.says == ("add item 'new' to 'tyre': 'New' with 3 vectors",)
    done = publish_plan(repo, plan)
    assert (done.release.sequence, done.release.gallery_sequence) == (
        before.sequence + 1,
        before.gallery_sequence + 1,
    )
    (segment,) = published(repo).logs["tyre"].spaces[0].segments
    assert (segment.upserts, segment.deletes, segment.urgent) == (1, 0, False)
    assert labels(repo) == {"i0": "Item 0", "i1": "Item 1", "i2": "Item 2", "new": "New"}


def test_what_is_left_out_is_kept_from_the_old_item(repo):
    first = content(metadata={"sku": 7}, negative=True, thumbnail=b"\xff\xd8\xff picture")
    publish_plan(repo, plan_upsert(published(repo), "tyre", "new", SPACE, first))
    again = ItemContent(unit_rows(2, DIM, 4), negative=False)
    plan = plan_upsert(published(repo), "tyre", "new", SPACE, again)
    assert plan.says == ("replace item 'new' of 'tyre': 'New' with 1 vectors by 'New' with 2 vectors",)
    (record,) = plan.changes["tyre"][SPACE]
    assert isinstance(record, Upsert)
    assert parse_metadata(record.metadata) == {"sku": 7}
    assert record.thumbnail == b"\xff\xd8\xff picture"


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"label": None}, "is new; give it a --label"),
        ({"label": "x" * 2000}, "2000 characters"),
        ({"vectors": unit_rows(1, 5)}, r"vectors of shape \(1, 5\)"),
        ({"metadata": {"x": float("nan")}}, "the metadata"),
        ({"thumbnail": b"no picture"}, "neither JPEG nor PNG"),
    ],
)
def test_item_that_breaks_a_limit_is_refused(repo, changed, wrong):
    with pytest.raises(SyncError, match=wrong):
        plan_upsert(published(repo), "tyre", "new", SPACE, content(**changed))


def test_g4_vectors_of_another_space_are_refused(repo):
    with pytest.raises(SyncError, match=f"no gallery in embedding space {'b' * 64}"):
        plan_upsert(published(repo), "tyre", "new", "b" * 64, content())


def test_rename(repo):
    plan = plan_rename(published(repo), "tyre", "i1", "Winter tyre")
    assert plan.says == ("rename item 'i1' of 'tyre': 'Item 1' to 'Winter tyre'",)
    publish_plan(repo, plan)
    assert labels(repo)["i1"] == "Winter tyre"
    with pytest.raises(SyncError, match="has no item 'i9'"):
        plan_rename(published(repo), "tyre", "i9", "x")


def test_merge(repo):
    plan = plan_merge(published(repo), "tyre", "i1", "i0")
    assert plan.says == (
        "merge item 'i1' of 'tyre' into 'i0': 2 vectors of 'Item 1' go to 'Item 0'",
        "delete item 'i1' of 'tyre'",
    )
    publish_plan(repo, plan)
    rows = {row["item"]: row["vectors"] for row in list_items(published(repo))}
    assert rows == {"i0": 4, "i2": 2}
    for source, target, wrong in [("i0", "i0", "with itself"), ("i9", "i0", "'i9'"), ("i0", "i9", "'i9'")]:
        with pytest.raises(SyncError, match=wrong):
            plan_merge(published(repo), "tyre", source, target)


def test_delete(repo):
    plan = plan_delete(published(repo), "tyre", ["i1", "i2", "i1"])
    assert plan.says == ("delete item 'i1' of 'tyre': 'Item 1'", "delete item 'i2' of 'tyre': 'Item 2'")
    publish_plan(repo, plan)
    assert set(labels(repo)) == {"i0"}
    with pytest.raises(SyncError, match="has no item 'i1'"):
        plan_delete(published(repo), "tyre", ["i0", "i1"])


def test_urgent_delete_is_an_urgent_segment(repo):
    plan = plan_delete(published(repo), "tyre", ["i1", "long gone"], urgent=True)
    assert "the newest gallery has it no more" in plan.says[1]
    assert plan.says[2].startswith("urgently: every device")
    assert "keep them until edge-sync gc removes these" in plan.says[3]
    assert "365 days" in plan.says[3]
    publish_plan(repo, plan)
    (segment,) = published(repo).logs["tyre"].spaces[0].segments
    assert (segment.urgent, segment.deletes) == (True, 2)


def test_delete_changes_every_space_that_has_the_item(tmp_path, repo):
    """The gallery of an older embedding space stays for older bundles; an item that is gone is gone there, too."""
    bundle = make_bundle(tmp_path / "two", "two", 2, space_id="b" * 64)
    gallery = make_gallery(tmp_path / "g2", 2, space_id="b" * 64)
    publish(repo, keys_of(repo), time_now(), bundle_folder=bundle, gallery_folder=gallery)
    plan = plan_delete(published(repo), "tyre", ["i1", "i2"])
    assert plan.changes["tyre"] == {SPACE: [Delete("i1"), Delete("i2")], "b" * 64: [Delete("i1")]}
    urgently = plan_delete(published(repo), "tyre", ["i2"], urgent=True)
    assert urgently.changes["tyre"] == {SPACE: [Delete("i2")], "b" * 64: [Delete("i2")]}
    assert (
        "older embedding spaces are not changed"
        in plan_upsert(published(repo), "tyre", "new", "b" * 64, content()).says[1]
    )


# Vectors from a file


def test_vectors_of_a_file(tmp_path):
    path = tmp_path / "v.npy"
    for rows in (unit_rows(3), unit_rows(3)[0], unit_rows(3).astype(np.float64), unit_rows(3).astype(np.float16)):
        np.save(path, rows)
        found = read_vectors(path)
        assert found.dtype == np.float32
        assert np.allclose(found, np.atleast_2d(rows), atol=1e-3)


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        (np.zeros((2, 12), np.float32), "length 0.000"),
        (np.full((2, 12), np.nan, np.float32), "length nan"),
        (np.full((2, 12), np.inf), "length inf"),
        (np.full((2, 12), 1e300), "length inf"),
        (np.ones((2, 12), np.int64), "array of float numbers"),
        (np.ones((2, 2, 3)), "array of float numbers"),
        (np.ones((0, 12)), "array of float numbers"),
        (np.array(1.0), "array of float numbers"),
        (np.array(["a"]), "array of float numbers"),
    ],
)
def test_vectors_that_are_none_are_refused(tmp_path, rows, wrong):
    np.save(tmp_path / "v.npy", rows)
    with pytest.raises(SyncError, match=wrong):
        read_vectors(tmp_path / "v.npy")


def test_hostile_array_files_are_refused(tmp_path):
    """A pickle, a header that promises too much, an archive, and no array at all."""
    path = tmp_path / "v.npy"
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    whole = path.read_bytes()
    np.save(path, unit_rows(1))
    good = path.read_bytes()
    bomb = good.replace(b"(1, 12), ", b"(99999999999, 12), ")
    for data in (whole, bomb, good[:60], good[:-1], b"", b"\x93NUMPY\x01\x00\xff\xff{", b"PK\x03\x04", b"x" * 99):
        path.write_bytes(data)
        with pytest.raises(SyncError, match=r"v\.npy"):
            read_vectors(path)
    with pytest.raises(SyncError, match="cannot be read"):
        read_vectors(tmp_path / "none.npy")


def test_thumbnail_is_bounded(tmp_path):
    (tmp_path / "t.jpg").write_bytes(b"x" * (5 << 20))
    with pytest.raises(SyncError, match="smaller thumbnail"):
        read_small(tmp_path / "t.jpg")
    with pytest.raises(SyncError, match="cannot be read"):
        read_small(tmp_path / "none.jpg")


# The verb


def run(repo, *words):
    arguments = build_parser().parse_args(["gallery", words[0], str(repo), *words[1:]])
    return arguments.act(arguments)


def test_verb_says_what_it_does_before_it_does_it(repo, capsys):
    before = published(repo).release.sequence
    assert run(repo, "rename", "tyre", "i1", "Winter", "--dry-run", "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == "edge-sync: would rename item 'i1' of 'tyre': 'Item 1' to 'Winter'\n"
    assert json.loads(printed.out)["dry_run"] is True
    assert published(repo).release.sequence == before
    assert run(repo, "rename", "tyre", "i1", "Winter") == 0
    assert capsys.readouterr().err.startswith("edge-sync: rename item 'i1'")
    assert run(repo, "list", "--category", "tyre") == 0
    assert "'tyre' 'i1': 'Winter', 2 vectors" in capsys.readouterr().out


def test_verb_adds_and_deletes(tmp_path, repo, capsys):
    np.save(tmp_path / "v.npy", unit_rows(2, DIM, 5))
    vectors = ["--vectors", str(tmp_path / "v.npy"), "--label", "New", "--metadata", '{"sku": 3}', "--negative"]
    assert run(repo, "upsert", "tyre", "new", *vectors) == 0
    assert run(repo, "merge", "tyre", "i0", "i1") == 0
    assert run(repo, "delete", "tyre", "i2", "--urgent") == 0
    capsys.readouterr()
    assert run(repo, "list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["item"], row["vectors"], row["negative"]) for row in rows} == {("i1", 4, False), ("new", 2, True)}
    with pytest.raises(SyncError, match="--metadata"):
        run(repo, "upsert", "tyre", "new", "--vectors", str(tmp_path / "v.npy"), "--metadata", "[]")


def test_change_that_changes_nothing_is_no_release(repo, capsys):
    assert run(repo, "rename", "tyre", "i1", "Item 1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["new"] is False


# Urgent deletions, and galleries from folders


def publish_folder(repo, tmp_path, *flags):
    arguments = ["publish", str(repo), "--gallery", str(tmp_path / "g3"), *flags]
    return main(arguments)


def test_gallery_with_an_item_that_was_deleted_urgently_is_refused(tmp_path, repo, capsys):
    publish_plan(repo, plan_delete(published(repo), "tyre", ["i1", "i7"], urgent=True))
    assert publish_folder(repo, tmp_path) == 1
    assert capsys.readouterr().err == (
        "edge-sync: category 'tyre': 1 items of the gallery were deleted urgently: 'i1'; make the gallery without them "
        "or, to bring them back to every device: --allow-erased\n"
    )
    assert set(labels(repo)) == {"i0", "i2"}
    fewer = make_gallery(tmp_path / "g1", 1)
    assert publish(repo, keys_of(repo), time_now(), gallery_folder=fewer).is_new


def test_item_that_was_deleted_urgently_comes_back_if_you_say_so(tmp_path, repo, caplog):
    publish_plan(repo, plan_delete(published(repo), "tyre", ["i1"], urgent=True))
    assert publish_folder(repo, tmp_path, "--allow-erased") == 0
    assert "deleted urgently: 'i1'; they come back to every device" in caplog.text
    assert set(labels(repo)) == {"i0", "i1", "i2"}
    caplog.clear()
    assert publish_folder(repo, tmp_path) == 0  # it is back: an item as any other
    assert caplog.text == ""
    publish_plan(repo, plan_delete(published(repo), "tyre", ["i1"]))
    with pytest.raises(SyncError, match="deleted urgently: 'i1'"):
        publish(repo, keys_of(repo), time_now(), gallery_folder=tmp_path / "g3")


def test_damaged_urgent_segment_does_not_stop_a_gallery(tmp_path, repo, caplog):
    publish_plan(repo, plan_delete(published(repo), "tyre", ["i1"], urgent=True))
    (segment,) = published(repo).logs["tyre"].spaces[0].segments
    (repo / object_path(segment.object.sha256)).write_bytes(b"damaged")
    publish(repo, keys_of(repo), time_now(), gallery_folder=tmp_path / "g3")
    assert "items that it deleted urgently are not known" in caplog.text


# Pictures


@pytest.fixture
def runnable(tmp_path):
    """A repository whose bundle has an embedder that runs; every vector of it is the same."""
    folder = make_bundle(tmp_path / "b", "runs", 1)
    model = shapes_model((DIM,), size=64, factor=1.0)
    (folder / "models/tyre.onnx").write_bytes(model)
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["embedders"][0] |= {"output_names": ["output0"], "preprocess": {"width": 64, "height": 64}}
    for entry in manifest["files"]:
        if entry["path"] == "models/tyre.onnx":
            entry |= {"size": len(model), "sha256": hashlib.sha256(model).hexdigest()}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    repo = tmp_path / "repo"
    keys = make_repository(repo)
    publish(repo, keys, time_now(), bundle_folder=folder, gallery_folder=make_gallery(tmp_path / "g", 3))
    return repo


def picture(path, side=80):
    path.write_bytes(encode_image(np.full((side, side, 3), 200, np.uint8), ".png"))
    return str(path)


def test_item_from_pictures(tmp_path, runnable, capsys):
    """Two pictures are embedded with five more views each, and the first is the thumbnail."""
    shown = [picture(tmp_path / f"{n}.png") for n in range(2)]
    assert run(runnable, "upsert", "tyre", "new", "--label", "New", "--pictures", *shown, "--json") == 0
    assert "add item 'new' to 'tyre': 'New' with 12 vectors" in capsys.readouterr().err
    rows = {row["item"]: row for row in list_items(published(runnable))}
    assert rows["new"]["vectors"] == 12
    assert rows["new"]["thumbnail"] is True


def test_four_pictures_need_no_views(tmp_path, runnable, capsys):
    shown = [picture(tmp_path / f"{n}.png", 70) for n in range(4)]
    words = ["--label", "New", "--plain-background", "--dry-run", "--pictures", *shown]
    assert run(runnable, "upsert", "tyre", "new", *words) == 0
    assert "with 4 vectors" in capsys.readouterr().err


def test_picture_that_cannot_be_read_publishes_nothing(tmp_path, runnable):
    before = published(runnable).release
    (tmp_path / "bad.png").write_bytes(b"no picture")
    words = ["--label", "New", "--pictures", picture(tmp_path / "a.png"), str(tmp_path / "bad.png")]
    with pytest.raises(CaptureError):
        run(runnable, "upsert", "tyre", "new", *words)
    assert published(runnable).release == before


def index(folder, *rows):
    """Write an index.csv of rows of path, split, category, item, label and also; return its path."""
    lines = ["path,split,category,item,label,also", *(",".join(row) for row in rows)]
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder / "index.csv"


def test_pictures_of_an_index_are_one_release(tmp_path, runnable, capsys):
    for name in ("a", "b", "c", "d"):
        picture(tmp_path / f"{name}.png")
    before = published(runnable).release.sequence
    file = index(
        tmp_path,
        ("a.png", "catalogue", "tyre", "new", "New", ""),
        ("b.png", "catalogue", "tyre", "new", "New", ""),
        ("c.png", "catalogue", "tyre", "i0", "Another name", "taught-0000000000aa"),
        ("d.png", "negative", "tyre", "pen", "Pen", ""),
    )
    assert run(runnable, "add", str(file)) == 0
    says = capsys.readouterr().err
    assert "add item 'new' of 'tyre': 'New' with 12 vectors" in says
    assert "add 6 vectors to item 'i0' of 'tyre': 'Item 0' had 2" in says
    after = published(runnable)
    rows = {row["item"]: row for row in list_items(after)}
    assert {item: (row["vectors"], row["label"], row["negative"]) for item, row in rows.items()} == {
        "i0": (8, "Item 0", False),
        "i1": (2, "Item 1", False),
        "i2": (2, "Item 2", False),
        "new": (12, "New", False),
        "pen": (6, "Pen", True),
    }
    assert after.release.sequence == before + 1
    assert also_of(after, "i0") == ["taught-0000000000aa"]


def also_of(state, item_id):
    (found,) = [find_items(state, log, log.spaces[0], [item_id])[item_id] for log in [state.logs["tyre"]]]
    return parse_metadata(found.metadata).get("also")


def test_index_that_was_added_adds_nothing_again(tmp_path, runnable):
    picture(tmp_path / "a.png")
    file = index(tmp_path, ("a.png", "catalogue", "tyre", "new", "New", ""))
    assert run(runnable, "add", str(file)) == 0
    with pytest.raises(SyncError, match="has all of these pictures already"):
        run(runnable, "add", str(file))


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        (("a.png", "catalogue", "tyre", "", "", ""), "line 3: item is empty; decide on it, or leave the row out"),
        (("gone.png", "catalogue", "tyre", "x", "", ""), r"gone\.png"),
        (("a.png", "catalogue", "bolt", "x", "", ""), "there is no category 'bolt'"),
        (("a.png", "negative", "tyre", "new", "", ""), "in the split 'negative' and in another one"),
        (("a.png", "negative", "tyre", "i0", "", ""), "has an item that may be named, unlike these"),
    ],
)
def test_row_that_cannot_be_used_publishes_nothing(tmp_path, runnable, row, wrong):
    before = published(runnable).release
    picture(tmp_path / "a.png")
    file = index(tmp_path, ("a.png", "catalogue", "tyre", "new", "New", ""), row)
    with pytest.raises(SyncError, match=wrong):
        run(runnable, "add", str(file))
    assert published(runnable).release == before


def test_merged_item_is_known_by_both_ids(repo):
    publish_plan(repo, plan_merge(published(repo), "tyre", "i1", "i0"))
    publish_plan(repo, plan_merge(published(repo), "tyre", "i0", "i2"))
    assert also_of(published(repo), "i2") == ["i0", "i1"]
