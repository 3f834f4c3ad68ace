"""What devices sent to an inbox, and what people taught a kiosk."""

from __future__ import annotations

import pytest

from edge.errors import ConsoleError
from edge.kiosk.taught_store import TaughtStore
from tests.console.sets.sets_samples import SVG, encoded
from tests.trainer.inbox.inbox_samples import put, taught, unknown


def test_inbox_is_taken_once(make_room, tmp_path):
    inbox = tmp_path / "inbox"
    put(inbox, "kiosk-1", taught(1, label="Oat flakes", seeds=(1, 2)))
    put(inbox, "cam-1", unknown(2))
    put(inbox, "cam-1", ("unknown-000000000003.zip", SVG))
    room = make_room(inbox=inbox)
    set_id = room.make("inbox")
    assert room.looked(set_id) == "3 new, 1 no pictures or damaged"
    by_device = {(one.source["device"], one.source.get("camera")) for one in room.pictures(set_id)}
    assert by_device == {("kiosk-1", None), ("cam-1", "door")}
    crops = room.crops(set_id)
    assert {one["state"] for one in crops} == {"open"}
    assert {(one["category"], one["label"]) for one in crops} == {("carton", "Oat flakes"), ("carton", None)}
    assert set(room.problems(set_id)) == {"cam-1/unknown-000000000003.zip"}
    assert room.look(set_id) == "3 as before"
    put(inbox, "cam-2", unknown(4, seed=30))
    assert room.look(set_id).startswith("1 new")


def test_inbox_itself_is_only_read(make_room, tmp_path):
    inbox = tmp_path / "inbox"
    path = put(inbox, "cam-1", unknown(2))
    room = make_room(inbox=inbox)
    set_id = room.make("inbox")
    room.looked(set_id)
    room.keeper.delete("mia", set_id)
    assert path.exists()
    assert room.files() == []


def test_taught_items_are_read_where_they_lie(make_room, tmp_path):
    store = TaughtStore(tmp_path / "device" / "overlay", 10)
    item = store.save("Grandma's cup", "cup", [encoded(1), encoded(2)], "2026-01-01T00:00:00Z")
    room = make_room(device=tmp_path / "device")
    set_id = room.make("taught")
    assert room.looked(set_id) == "2 new"
    crop = room.crops(set_id)[0]
    assert (crop["state"], crop["category"], crop["item"], crop["label"]) == ("open", "cup", item.item_id, item.label)
    store.save("Grandma's cup", None, [encoded(3)], "2026-01-02T00:00:00Z")
    assert room.look(set_id).startswith("1 new")
    store.forget(item.item_id)
    assert room.look(set_id) == "3 gone"


def test_damaged_taught_item_is_named(make_room, tmp_path):
    TaughtStore(tmp_path / "device" / "overlay", 10).save("a", "cup", [encoded(1)], "2026-01-01T00:00:00Z")
    broken = tmp_path / "device" / "overlay" / "taught-000000000000"
    broken.mkdir()
    (broken / "item.json").write_text("{", encoding="utf-8")
    room = make_room(device=tmp_path / "device")
    set_id = room.make("taught")
    assert room.looked(set_id) == "1 new; 1 note on what was left out"


def test_without_inbox_or_device_the_error_says_what_to_do(make_room):
    room = make_room()
    with pytest.raises(ConsoleError, match="--inbox"):
        room.make("inbox")
    with pytest.raises(ConsoleError, match="--device"):
        room.make("taught")
