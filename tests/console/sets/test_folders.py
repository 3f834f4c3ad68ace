"""Sets of folders on the server: which are permitted, what a data set in them says, and what changes."""

from __future__ import annotations

import json
import os

import pytest

from edge.errors import ConsoleError
from tests.console.sets.sets_samples import HTML, encoded


@pytest.fixture
def shop(tmp_path):
    folder = tmp_path / "open" / "shop"
    for number, name in enumerate(["shoe/left/a.jpg", "shoe/left/b.jpg", "shoe/right/a.jpg", "bottle/cola/a.jpg"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(number))
    return folder


@pytest.fixture
def room(make_room, tmp_path, shop):
    return make_room(folders=(tmp_path / "open",))


def make(room, folder="shop", **more):
    set_id = room.make("folder", folder=str(folder), **more)
    return set_id, room.looked(set_id)


@pytest.mark.parametrize("folder", ["..", "/", "/etc", "shop/../..", "link", "link/inner", "a\0b", "/proc/self/root"])
def test_folder_elsewhere_is_refused(room, tmp_path, folder):
    (tmp_path / "secret" / "inner").mkdir(parents=True)
    (tmp_path / "open" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ConsoleError) as error:
        make(room, folder)
    assert error.value.reason in ("denied", "invalid")


def test_without_open_folders_no_set_is_made(make_room, tmp_path):
    tmp_path = tmp_path / "other"
    with pytest.raises(ConsoleError, match="--folder"):
        make_room().make("folder", folder="/")


def test_folder_names_become_expected_items(room, shop):
    set_id, says = make(room)
    assert says == "4 new"
    found = {(one["state"], one["category"], one["item"]) for one in room.crops(set_id)}
    assert found == {("open", "shoe", "left"), ("open", "shoe", "right"), ("open", "bottle", "cola")}
    assert room.pictures(set_id)[0].path == shop / "bottle" / "cola" / "a.jpg"
    assert room.files() == []  # nothing is copied


def test_trusted_names_are_decided(room):
    set_id, _ = make(room, names="decide")
    assert {(one["state"], one["decided_by"]) for one in room.crops(set_id)} == {("item", "import")}


def test_ignored_names_are_not_read(room):
    set_id, _ = make(room, names="ignore", category="thing")
    assert {(one["category"], one["item"]) for one in room.crops(set_id)} == {("thing", None)}


def test_coco_brings_its_boxes(room, tmp_path):
    folder = tmp_path / "open" / "scenes"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(encoded(50, width=100, height=80))
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 20], "area": 600, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [90, 70, 30, 20], "area": 600, "iscrowd": 0},
        ],
    }
    (folder / "annotations.json").write_text(json.dumps(coco), encoding="utf-8")
    set_id, _ = make(room, "scenes", shows="scenes", category="cup of mine")
    first, second = room.crops(set_id)
    assert (first["x0"], first["y0"], first["x1"], first["y1"]) == (10, 10, 40, 30)
    assert (first["category"], first["item"]) == ("cup of mine", "cup")
    assert (second["x1"], second["y1"]) == (100, 80)
    assert room.pictures(set_id)[0].boxes == "confirmed"


def test_bad_files_are_noted_and_the_rest_is_there(room, shop):
    (shop / "shoe" / "left" / "page.jpg").write_bytes(HTML)
    (shop / "shoe" / "left" / "empty.jpg").write_bytes(b"")
    os.mkfifo(shop / "shoe" / "left" / "pipe.jpg")
    set_id, says = make(room)
    assert len(room.pictures(set_id)) == 4
    assert "3 no pictures or damaged" in says
    assert set(room.problems(set_id)) == {f"shoe/left/{name}.jpg" for name in ("page", "empty", "pipe")}


def test_links_out_of_the_open_folders_are_left_out(room, shop, tmp_path):
    (tmp_path / "private.jpg").write_bytes(encoded(60))
    (shop / "shoe" / "left" / "link.jpg").symlink_to(tmp_path / "private.jpg")
    (shop / "shoe" / "left" / "same.jpg").symlink_to(shop / "shoe" / "left" / "a.jpg")
    set_id, _ = make(room)
    names = [one.name for one in room.pictures(set_id)]
    assert "shoe/left/link.jpg" not in names
    assert "shoe/left/same.jpg" in names


def test_new_changed_and_vanished_pictures_are_noticed(room, shop):
    set_id, _ = make(room)
    assert room.look(set_id) == "4 as before"
    (shop / "shoe" / "left" / "new.jpg").write_bytes(encoded(70))
    (shop / "shoe" / "left" / "a.jpg").write_bytes(encoded(71, width=40))
    (shop / "shoe" / "left" / "b.jpg").unlink()
    assert room.look(set_id) == "1 new, 2 as before, 1 changed, 1 gone"
    assert set(room.problems(set_id)) == {"shoe/left/a.jpg", "shoe/left/b.jpg"}
    (shop / "shoe" / "left" / "a.jpg").write_bytes(encoded(0))
    (shop / "shoe" / "left" / "b.jpg").write_bytes(encoded(1))
    room.look(set_id)
    assert room.problems(set_id) == {}


def test_removed_picture_stays_removed_until_read_again(room, shop):
    set_id, _ = make(room)
    picture = room.pictures(set_id)[0]
    room.keeper.delete_picture("mia", picture.id)
    assert picture.path.exists()
    room.look(set_id)
    assert len(room.pictures(set_id)) == 3
    room.look(set_id, again=True)
    assert len(room.pictures(set_id)) == 4


def test_folder_that_vanished_is_an_error_and_no_loss(room, shop):
    set_id, _ = make(room)
    shop.rename(shop.with_name("elsewhere"))
    assert "no such folder" in room.look(set_id)
    assert room.problems(set_id) == {}
    assert len(room.pictures(set_id)) == 4


def test_deleted_set_leaves_the_folder(room, shop):
    set_id, _ = make(room)
    room.keeper.delete("mia", set_id)
    assert (shop / "shoe" / "left" / "a.jpg").exists()
