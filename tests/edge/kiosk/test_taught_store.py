"""Taught items on disk."""

from __future__ import annotations

import io
import json
import zipfile

import pytest

from edge.errors import TaughtItemsError
from edge.kiosk.taught_store import MAX_PICTURES, TaughtStore
from tests.power_cut import IMAGES, PowerCut

AT = "2026-01-01T00:00:00Z"


@pytest.fixture
def store(tmp_path):
    return TaughtStore(tmp_path / "overlay", 3)


def reopened(store):
    """The store after a restart."""
    return TaughtStore(store._folder, 3)


def test_item_survives_a_restart(store):
    item = store.save("  Oat   flakes ", "carton", [b"one", b"two"], AT)
    assert (item.label, item.category, item.looks, item.revision) == ("Oat flakes", "carton", 2, 1)
    (found,) = reopened(store).items()
    assert found == item
    assert reopened(store).picture(found, 1) == b"two"


def test_saving_a_name_again_adds_pictures_and_keeps_the_newest(store):
    first = store.save("Oat flakes", "carton", [b"one", b"two"], AT)
    more = store.save("OAT flakes", None, [b"three"], AT)
    assert (more.item_id, more.revision, more.looks, more.category) == (first.item_id, 2, 3, "carton")
    assert [store.picture(more, n) for n in range(3)] == [b"one", b"two", b"three"]
    many = store.save("Oat flakes", None, [b"%d" % n for n in range(MAX_PICTURES)], AT)
    assert (many.looks, store.picture(many, 0)) == (MAX_PICTURES, b"0")
    assert len(store.items()) == 1


@pytest.mark.parametrize(("label", "looks"), [("", [b"x"]), ("  ", [b"x"]), ("x" * 81, [b"x"]), ("Oats", [])])
def test_item_needs_a_name_and_a_picture(store, label, looks):
    with pytest.raises(TaughtItemsError):
        store.save(label, None, looks, AT)
    assert reopened(store).items() == []


def test_number_of_items_is_limited(store):
    for n in range(3):
        store.save(f"item {n}", None, [b"x"], AT)
    with pytest.raises(TaughtItemsError, match=r"limit of 3 taught items .* is reached"):
        store.save("item 3", None, [b"x"], AT)
    assert store.save("item 2", None, [b"y"], AT).looks == 2


def test_deleted_item_stays_deleted(store):
    item = store.save("Oat flakes", None, [b"x"], AT)
    store.forget(item.item_id)
    assert store.items() == reopened(store).items() == []
    with pytest.raises(TaughtItemsError, match="there is no item"):
        store.forget(item.item_id)
    with pytest.raises(TaughtItemsError, match="there is no item"):
        store.forget("../../etc")


def test_damaged_item_is_left_untouched(store, caplog):
    good, bad, short = (store.save(name, None, [b"x"], AT) for name in ("good", "bad", "short"))
    (store._folder / bad.item_id / "item.json").write_text("{")
    (store._folder / short.item_id / "look-0.jpg").unlink()
    assert [item.item_id for item in reopened(store).items()] == [good.item_id]
    assert (store._folder / bad.item_id).is_dir()
    assert caplog.text.count("left untouched") == 2


def test_uploaded_item_is_pending_again_after_new_pictures(store):
    item = store.save("Oat flakes", "carton", [b"one"], AT)
    assert store.pending_upload() == [item]
    with zipfile.ZipFile(io.BytesIO(store.zip_item(item))) as package:
        assert package.read("look-0.jpg") == b"one"
        assert json.loads(package.read("item.json")) == item.model_dump(by_alias=True)
    store.mark_uploaded(item)
    assert reopened(store).pending_upload() == []
    more = store.save("Oat flakes", None, [b"two"], AT)
    assert reopened(store).pending_upload() == [more]


def test_item_is_packed_alike_at_any_time(store, monkeypatch):
    """The inbox stores it once, however often the kiosk sends it."""
    item = store.save("Oat flakes", "carton", [b"one"], AT)
    packed = store.zip_item(item)
    monkeypatch.setattr("time.localtime", lambda *_: (2031, 5, 6, 7, 8, 10, 1, 126, 0))
    assert store.zip_item(item) == packed


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("at", range(1, 30))
def test_power_cut_while_saving_leaves_old_or_new_item(tmp_path, at, image):
    store = TaughtStore(tmp_path / "overlay", 3)
    item = store.save("Oat flakes", None, [b"one" * 99], AT)
    with PowerCut(at, image) as cut:
        try:
            store.save("Oat flakes", None, [b"two" * 99], AT)
        except OSError:
            assert cut.happened
        except TaughtItemsError:
            assert cut.happened
    (found,) = reopened(store).items()
    assert found.item_id == item.item_id
    looks = [reopened(store).picture(found, n) for n in range(found.looks)]
    assert looks in ([b"one" * 99], [b"one" * 99, b"two" * 99])
    assert list(store._folder.glob(".*")) == []


def test_cache_stays_with_its_item_and_is_not_uploaded(store):
    item = store.save("Oat flakes", None, [b"one"], AT)
    assert store.cache(item) is None
    store.save_cache(item, b"numbers")
    more = store.save("Oat flakes", None, [b"two"], AT)
    assert reopened(store).cache(more) == b"numbers"
    store.save_cache(more, b"more numbers")
    assert reopened(store).cache(more) == b"more numbers"
    with zipfile.ZipFile(io.BytesIO(store.zip_item(more))) as package:
        assert sorted(package.namelist()) == ["item.json", "look-0.jpg", "look-1.jpg"]
    store.forget(item.item_id)
    with pytest.raises(TaughtItemsError, match="disk error"):
        store.save_cache(more, b"late numbers")
    assert store.cache(store.save("Oat flakes", None, [b"one"], AT)) is None


def test_cache_size_is_limited(store):
    item = store.save("Oat flakes", None, [b"one"], AT)
    with pytest.raises(TaughtItemsError, match="cannot write 16777217 bytes, at most 16777216"):
        store.save_cache(item, bytes((16 << 20) + 1))
    with (store._folder / item.item_id / "made").open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(TaughtItemsError, match="found 16777217 bytes, expected at most"):
        store.cache(item)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("at", range(1, 7))
def test_power_cut_while_saving_the_cache_leaves_old_or_new(tmp_path, at, image):
    store = TaughtStore(tmp_path / "overlay", 3)
    item = store.save("Oat flakes", None, [b"one"], AT)
    store.save_cache(item, b"old" * 99)
    with PowerCut(at, image) as cut:
        try:
            store.save_cache(item, b"new" * 99)
        except TaughtItemsError:
            assert cut.happened
    assert cut.happened == (at <= 5)  # unlink, open, fsync, replace, fsync of the folder
    (found,) = reopened(store).items()
    assert reopened(store).cache(found) in (b"old" * 99, b"new" * 99)
    store.save_cache(item, b"newest")
    assert store.cache(item) == b"newest"
    assert {path.name for path in (store._folder / item.item_id).iterdir()} == {"item.json", "look-0.jpg", "made"}
