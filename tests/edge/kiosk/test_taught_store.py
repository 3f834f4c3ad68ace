"""What was taught, on the disk."""

from __future__ import annotations

import io
import json
import zipfile

import pytest

from edge.errors import TaughtItemsError
from edge.kiosk.taught_store import MAX_LOOKS, TaughtStore
from tests.power_cut import PowerCut

AT = "2026-01-01T00:00:00Z"


@pytest.fixture
def store(tmp_path):
    return TaughtStore(tmp_path / "overlay", 3)


def again(store):
    """The store after a restart."""
    return TaughtStore(store._folder, 3)


def test_what_was_taught_is_there_after_a_restart(store):
    item = store.keep("  Oat   flakes ", "carton", [b"one", b"two"], AT)
    assert (item.label, item.category, item.looks, item.revision) == ("Oat flakes", "carton", 2, 1)
    (found,) = again(store).items()
    assert found == item
    assert again(store).look(found, 1) == b"two"


def test_a_name_that_is_taught_again_gets_more_pictures_and_its_newest_stay(store):
    first = store.keep("Oat flakes", "carton", [b"one", b"two"], AT)
    more = store.keep("OAT flakes", None, [b"three"], AT)
    assert (more.item_id, more.revision, more.looks, more.category) == (first.item_id, 2, 3, "carton")
    assert [store.look(more, n) for n in range(3)] == [b"one", b"two", b"three"]
    many = store.keep("Oat flakes", None, [b"%d" % n for n in range(MAX_LOOKS)], AT)
    assert (many.looks, store.look(many, 0)) == (MAX_LOOKS, b"0")
    assert len(store.items()) == 1


@pytest.mark.parametrize(("label", "looks"), [("", [b"x"]), ("  ", [b"x"]), ("x" * 81, [b"x"]), ("Oats", [])])
def test_without_a_name_or_a_picture_nothing_is_kept(store, label, looks):
    with pytest.raises(TaughtItemsError):
        store.keep(label, None, looks, AT)
    assert again(store).items() == []


def test_there_is_room_for_a_stated_number_of_things(store):
    for n in range(3):
        store.keep(f"thing {n}", None, [b"x"], AT)
    with pytest.raises(TaughtItemsError, match="found 3 things, expected room for one more"):
        store.keep("thing 3", None, [b"x"], AT)
    assert store.keep("thing 2", None, [b"y"], AT).looks == 2


def test_what_is_forgotten_stays_forgotten(store):
    item = store.keep("Oat flakes", None, [b"x"], AT)
    store.forget(item.item_id)
    assert store.items() == again(store).items() == []
    with pytest.raises(TaughtItemsError, match="found no"):
        store.forget(item.item_id)
    with pytest.raises(TaughtItemsError, match="found no"):
        store.forget("../../etc")


def test_a_damaged_thing_is_left_alone_and_the_others_are_read(store, caplog):
    good, bad, short = (store.keep(name, None, [b"x"], AT) for name in ("good", "bad", "short"))
    (store._folder / bad.item_id / "item.json").write_text("{")
    (store._folder / short.item_id / "look-0.jpg").unlink()
    assert [item.item_id for item in again(store).items()] == [good.item_id]
    assert (store._folder / bad.item_id).is_dir()
    assert caplog.text.count("left alone") == 2


def test_what_the_trainer_has_is_not_pending_until_it_is_taught_again(store):
    item = store.keep("Oat flakes", "carton", [b"one"], AT)
    assert store.pending() == [item]
    with zipfile.ZipFile(io.BytesIO(store.package(item))) as package:
        assert package.read("look-0.jpg") == b"one"
        assert json.loads(package.read("item.json")) == item.model_dump(by_alias=True)
    store.note_uploaded(item)
    assert again(store).pending() == []
    more = store.keep("Oat flakes", None, [b"two"], AT)
    assert again(store).pending() == [more]


@pytest.mark.parametrize("at", range(1, 30))
def test_a_power_cut_while_teaching_leaves_the_old_thing_or_the_new_one_whole(tmp_path, at):
    store = TaughtStore(tmp_path / "overlay", 3)
    item = store.keep("Oat flakes", None, [b"one" * 99], AT)
    with PowerCut(at) as cut:
        try:
            store.keep("Oat flakes", None, [b"two" * 99], AT)
        except OSError:
            assert cut.happened
        except TaughtItemsError:
            assert cut.happened
    (found,) = again(store).items()
    assert found.item_id == item.item_id
    looks = [again(store).look(found, n) for n in range(found.looks)]
    assert looks in ([b"one" * 99], [b"one" * 99, b"two" * 99])
    assert list(store._folder.glob(".*")) == []


def test_what_was_made_of_a_thing_stays_with_it_until_it_is_forgotten_and_is_not_uploaded(store):
    item = store.keep("Oat flakes", None, [b"one"], AT)
    assert store.made(item) is None
    store.keep_made(item, b"numbers")
    more = store.keep("Oat flakes", None, [b"two"], AT)
    assert again(store).made(more) == b"numbers"
    store.keep_made(more, b"more numbers")
    assert again(store).made(more) == b"more numbers"
    with zipfile.ZipFile(io.BytesIO(store.package(more))) as package:
        assert sorted(package.namelist()) == ["item.json", "look-0.jpg", "look-1.jpg"]
    store.forget(item.item_id)
    with pytest.raises(TaughtItemsError, match="the disk refused"):
        store.keep_made(more, b"late numbers")
    assert store.made(store.keep("Oat flakes", None, [b"one"], AT)) is None


def test_what_was_made_is_bounded(store):
    item = store.keep("Oat flakes", None, [b"one"], AT)
    with pytest.raises(TaughtItemsError, match="16777217 bytes to keep, expected at most 16777216"):
        store.keep_made(item, bytes((16 << 20) + 1))
    with (store._folder / item.item_id / "made").open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(TaughtItemsError, match="found 16777217 bytes, expected at most"):
        store.made(item)


@pytest.mark.parametrize("at", range(1, 7))
def test_a_power_cut_while_keeping_what_was_made_leaves_the_old_or_the_new(tmp_path, at):
    store = TaughtStore(tmp_path / "overlay", 3)
    item = store.keep("Oat flakes", None, [b"one"], AT)
    store.keep_made(item, b"old" * 99)
    with PowerCut(at) as cut:
        try:
            store.keep_made(item, b"new" * 99)
        except TaughtItemsError:
            assert cut.happened
    assert cut.happened == (at <= 5)  # unlink, open, fsync, replace, fsync of the folder
    (found,) = again(store).items()
    assert again(store).made(found) in (b"old" * 99, b"new" * 99)
    store.keep_made(item, b"newest")
    assert store.made(item) == b"newest"
    assert {path.name for path in (store._folder / item.item_id).iterdir()} == {"item.json", "look-0.jpg", "made"}
