"""Sets, their pictures and boxes: versions, counts, and pages by key."""

from __future__ import annotations

import pytest

from console.sets.browsing import count_boxes, count_items, read_page
from console.sets.crops import NewBox, crops_of, set_boxes
from console.sets.pictures import find_picture
from console.sets.sets import change_set, count_set, counted, create_set, find_set, list_sets
from console.storage.database import open_database
from console.tables import TABLES
from edge.errors import ConsoleError
from tests.console.sets.sets_samples import encoded


@pytest.fixture
def scene(room):
    set_id = room.make(shows="scenes")
    room.upload(set_id, {"a.jpg": encoded(1, width=100, height=80)})
    return room.pictures(set_id)[0]


def boxes(room, picture, version, *new, state="confirmed"):
    with room.database.write() as connection:
        return set_boxes(connection, picture.id, version, new, state, now_s=5.0)


def crops(room, picture):
    with room.database.read() as rows:
        return crops_of(rows, picture.id)


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb"])
def test_bad_name_is_refused(room, name):
    with room.database.write() as connection, pytest.raises(ConsoleError) as error:
        create_set(connection, 1.0, "mia", name, "uploads", room.folder)
    assert error.value.reason == "invalid"


def test_taken_name_is_a_conflict(room):
    room.make()
    with pytest.raises(ConsoleError) as error, room.database.write() as connection:
        create_set(connection, 1.0, "mia", "A Set of UPLOADS", "uploads", room.folder)
    assert error.value.reason == "conflict"
    with room.database.read() as rows:
        assert len(list_sets(rows)) == 1


def test_edit_of_an_older_version_is_a_conflict(room):
    set_id = room.make()
    with room.database.write() as connection:
        assert change_set(connection, 1.0, "mia", set_id, 1, "shoes", "shoe") == 2
    with pytest.raises(ConsoleError, match="meanwhile"), room.database.write() as connection:
        change_set(connection, 1.0, "ben", set_id, 1, "boots", "boot")
    with room.database.read() as rows:
        assert (find_set(rows, set_id).name, find_set(rows, set_id).category) == ("shoes", "shoe")


def test_new_category_is_expected_of_open_crops_alone(room):
    set_id = room.make()
    room.upload(set_id, {"a.jpg": encoded(1), "b.jpg": encoded(2)})
    with room.database.write() as connection:
        connection.execute("UPDATE crops SET state = 'unknown' WHERE id = 1")
        change_set(connection, 1.0, "mia", set_id, 1, "a set of uploads", "shoe")
    assert [one["category"] for one in room.crops(set_id)] == [None, "shoe"]


def test_listed_crop_keeps_its_id_and_decision(room, scene):
    boxes(room, scene, 1, NewBox(None, (1, 1, 20, 20)), NewBox(None, (30, 30, 60, 60)))
    first, second = crops(room, scene)
    with room.database.write() as connection:
        connection.execute(
            "UPDATE crops SET state = 'item', item = 'i', category = 'c', vector = x'0000803f' WHERE id = ?",
            (first.id,),
        )
        connection.execute("UPDATE crops SET fold = ? WHERE id = ?", (second.id, first.id))
    assert boxes(room, scene, 2, NewBox(first.id, (2, 2, 21, 21))) == 3
    (left,) = crops(room, scene)
    assert (left.id, left.state, left.item, left.box_px) == (first.id, "item", "i", (2, 2, 21, 21))
    assert (left.vector, left.fold) == (None, None)


def test_unmoved_crop_keeps_what_models_said(room, scene):
    boxes(room, scene, 1, NewBox(None, (1, 1, 20, 20)))
    (crop,) = crops(room, scene)
    with room.database.write() as connection:
        connection.execute("UPDATE crops SET vector = x'0000803f', proposals = '[]' WHERE id = ?", (crop.id,))
    boxes(room, scene, 2, NewBox(crop.id, (1, 1, 20, 20)))
    assert crops(room, scene)[0].vector.tolist() == [1.0]


def test_boxes_of_an_older_version_are_a_conflict(room, scene):
    boxes(room, scene, 1, NewBox(None, (1, 1, 20, 20)))
    with pytest.raises(ConsoleError) as error:
        boxes(room, scene, 1)
    assert error.value.reason == "conflict"
    assert len(crops(room, scene)) == 1


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 9), (200, 0, 300, 9), (0, 0, float("nan"), 9), (-50, -50, -1, -1), (0, 0, float("inf"), 0.5)]
)
def test_box_that_shows_nothing_is_refused(room, scene, box):
    with pytest.raises(ConsoleError) as error:
        boxes(room, scene, 1, NewBox(None, box))
    assert error.value.reason == "invalid"
    assert crops(room, scene) == []


def test_box_is_cut_to_its_picture(room, scene):
    boxes(room, scene, 1, NewBox(None, (-10, -10, 500, 500)))
    assert crops(room, scene)[0].box_px == (0, 0, 100, 80)


def test_crop_of_another_picture_is_a_conflict(room, scene):
    with pytest.raises(ConsoleError) as error:
        boxes(room, scene, 1, NewBox(99, (1, 1, 20, 20)))
    assert error.value.reason == "conflict"


def test_imported_box_is_decided(room, scene):
    boxes(room, scene, 1, NewBox(None, (1, 1, 9, 9), category="c", item="i", label="I", decided_by="import"))
    (crop,) = crops(room, scene)
    assert (crop.state, crop.decided_by, crop.decided_at, crop.doubt) == ("item", "import", 5.0, 0.0)


def test_pages_go_forth_and_back(room):
    set_id = room.make()
    room.upload(set_id, {f"{n}.jpg": encoded(n) for n in range(7)})
    with room.database.read() as rows:
        one = find_set(rows, set_id)
        first = read_page(rows, one, most=3)
        second = read_page(rows, one, most=3, after=first.after)
        third = read_page(rows, one, most=3, after=second.after)
        back = read_page(rows, one, most=3, before=third.before)
    assert [len(page.tiles) for page in (first, second, third)] == [3, 3, 1]
    assert (first.before, third.after) == (None, None)
    assert [tile.picture.id for tile in back.tiles] == [tile.picture.id for tile in second.tiles]


def test_counts_tell_what_waits(room, scene):
    boxes(room, scene, 1, NewBox(None, (1, 1, 9, 9)), NewBox(None, (9, 9, 20, 20)), state="proposed")
    with room.database.write() as connection:
        connection.execute("UPDATE crops SET state = 'item', category = 'c', item = 'i' WHERE id = 1")
    with room.database.read() as rows:
        counts = count_set(rows, find_set(rows, scene.set_id))
        assert (counts.pictures, counts.to_box, counts.crops, counts.open, counts.named) == (1, 1, 2, 1, 1)
        assert count_boxes(rows, scene.set_id)["proposed"] == 1
        (item,), total = count_items(rows, scene.set_id)
    assert (item.item, item.count, total) == ("i", 1, 1)


def test_deleted_set_takes_all_its_rows_along(room, scene):
    boxes(room, scene, 1, NewBox(None, (1, 1, 9, 9)))
    room.keeper.delete("mia", scene.set_id)
    with room.database.read() as rows:
        left = [rows.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("sets", "pictures", "crops")]
        assert left == [0, 0, 0]
        actions = [row["action"] for row in rows.execute("SELECT action FROM audit ORDER BY id")]
        with pytest.raises(ConsoleError, match="no picture"):
            find_picture(rows, scene.id)
    assert actions[-1] == "set.delete"


def test_counts_follow_every_writer(room, scene):
    boxes(room, scene, 1, NewBox(None, (1, 1, 9, 9)), NewBox(None, (9, 9, 20, 20)), NewBox(None, (9, 9, 30, 20)))
    with room.database.write() as connection:
        connection.execute("UPDATE crops SET state = 'unknown'")
        connection.execute("UPDATE crops SET state = 'item', label = 'x' WHERE id > 1")
        connection.execute("DELETE FROM crops WHERE id = 3")
        connection.execute("UPDATE pictures SET split = 'val'")
    with room.database.read() as rows:
        assert counted(rows, scene.set_id, "crops") == {"unknown": 1, "item": 1}
        assert counted(rows, scene.set_id, "split") == {"val": 1}
    with room.database.write() as connection:
        connection.execute("DELETE FROM pictures")  # its crops go by the foreign key
    with room.database.read() as rows:
        assert counted(rows, scene.set_id, "crops") == counted(rows, scene.set_id, "boxes") == {}


def test_counts_are_counted_again_at_the_start(room, scene):
    boxes(room, scene, 1, NewBox(None, (1, 1, 9, 9)))
    with room.database.write() as connection:
        connection.execute("UPDATE set_counts SET count = 77")
    again = open_database(room.settings.data, TABLES)
    with again.read() as rows:
        assert counted(rows, scene.set_id, "crops") == {"open": 1}
    again.close()
