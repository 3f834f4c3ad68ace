"""Boxes come to the picture that they were drawn in, also where uploads made two pictures of one name."""

from __future__ import annotations

import re
import secrets
import shutil

import pytest

from console.exchange.exports import FORMS, export_set
from console.exchange.imports import find_import, read_import, receive, take_import
from console.exchange.picture_names import Known, find_pictures
from console.exchange.plans import Wishes
from console.sets.crops import NewBox
from console.sets.keeping import NewSet, SetKeeper
from console.sets.sets import find_set
from console.sets.uploads import Upload, take_upload
from edge.errors import ConsoleError
from tests.console_box_samples import boxes_in, confirm, propose, write_pictures

READ_BACK = [form for form in FORMS if form != "yolo"]
BOX_OF = {"red": (5, 5, 60, 60), "blue": (80, 20, 150, 100)}


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Two pictures of different content, by their colour."""
    folder = tmp_path_factory.mktemp("colours")
    write_pictures(folder, ["red", "blue"])
    return {name: folder / name for name in ("red", "blue")}


def uploaded(services, tmp_path, colours, order, names=("shelf.png", "shelf.png")):
    """Upload pictures in an order; return the set and the ids by colour."""
    keeper = SetKeeper(services.settings, services.database, services.tasks, services.clock)
    set_id = keeper.make("ann", NewSet(secrets.token_hex(8), "uploads", "scenes", category="can"))
    ids = {}
    with services.database.read() as rows:
        upload = Upload(find_set(rows, set_id), "ann", 1.0)
    for colour, name in zip(order, names, strict=True):
        sent = tmp_path / "sent"
        shutil.copyfile(colours[colour], sent)
        (taken,) = take_upload(keeper.store, upload, name, sent)
        ids[colour] = taken.picture_id
    return set_id, ids


def exported(services, set_id, form):
    with services.database.read() as rows:
        return export_set(rows, set_id, form, "class")


def imported(services, tmp_path, set_id, data, name):
    path = tmp_path / "file"
    path.write_bytes(data)
    import_id = receive(services.settings, 5.0, path)
    read_import(services.database, services.settings, 5.0, "ann", set_id, import_id, name, Wishes())
    found = find_import(services.settings, set_id, import_id)
    take_import(services.database, services.settings, 6.0, "ann", found, lambda *_: None)
    return found.plan


@pytest.mark.parametrize("form", READ_BACK)
def test_two_of_one_name_in_another_order_keep_their_boxes(services, tmp_path, colours, form):
    first, ids = uploaded(services, tmp_path, colours, ("red", "blue"))
    for colour, box in BOX_OF.items():
        confirm(services, ids[colour], NewBox(None, box, category="can"))
    second, others = uploaded(services, tmp_path, colours, ("blue", "red"))
    made = exported(services, first, form)
    plan = imported(services, tmp_path, second, made.data, made.name)
    assert plan.not_found == []
    for colour, box in BOX_OF.items():
        assert boxes_in(services, others[colour]) == [pytest.approx(box)]


def test_a_name_that_two_pictures_have_is_refused_without_content(services, tmp_path, colours):
    first, ids = uploaded(services, tmp_path, colours, ("red", "blue"))
    for colour, box in BOX_OF.items():
        confirm(services, ids[colour], NewBox(None, box, category="can"))
    second, others = uploaded(services, tmp_path, colours, ("blue", "red"))
    xml = re.sub(rb' (sha256|state)="\w+"', b"", exported(services, first, "cvat").data)  # as CVAT writes it
    plan = imported(services, tmp_path, second, xml, "cvat.xml")
    (line,) = plan.not_found
    assert line.startswith("shelf.png: 2 pictures were uploaded under this name (shelf.png, shelf~")
    assert boxes_in(services, others["red"]) == []  # `shelf.png` was red there
    assert boxes_in(services, others["blue"]) == [BOX_OF["blue"]]  # by the hash in its name


def test_the_content_of_another_picture_is_not_taken_by_its_name(services, tmp_path, colours):
    first, ids = uploaded(services, tmp_path, colours, ("red",), ("a.png",))
    confirm(services, ids["red"], NewBox(None, (5, 5, 60, 60)))
    second, _ = uploaded(services, tmp_path, colours, ("blue",), ("a.png",))
    with pytest.raises(ConsoleError, match=r"a\.png: no picture of this set has the content"):
        imported(services, tmp_path, second, exported(services, first, "coco").data, "coco.json")


ODD = ("-rf.png", "50 % off?.png", 'say "hi".png', "zwölf 🍏 Äpfel.png", "..png", f"{'long ' * 60}.png", "con.png")


@pytest.mark.parametrize("form", READ_BACK)
@pytest.mark.parametrize("name", ODD)
def test_odd_names_labels_and_scores_come_back(services, tmp_path, colours, form, name):
    first, ids = uploaded(services, tmp_path, colours, ("red",), (name,))
    propose(services, ids["red"], BOX_OF["red"], score=0.1234)
    with services.database.write() as connection:
        connection.execute("UPDATE crops SET category = ? WHERE picture_id = ?", ("Grüße <&> 茶 🍵", ids["red"]))
    second, others = uploaded(services, tmp_path, colours, ("red",), ("other.png",))
    made = exported(services, first, form)
    imported(services, tmp_path, second, made.data, made.name)
    with services.database.read() as rows:
        query = "SELECT category, box_score, boxes FROM crops JOIN pictures p ON p.id = picture_id WHERE p.id = ?"
        assert [tuple(row) for row in rows.execute(query, (others["red"],))] == [
            ("Grüße <&> 茶 🍵", 0.1234, "proposed")
        ]


@pytest.mark.parametrize("form", READ_BACK)
def test_no_object_and_no_answer_stay_apart(services, tmp_path, colours, form):
    first, ids = uploaded(services, tmp_path, colours, ("red", "blue"))
    confirm(services, ids["red"])
    second, others = uploaded(services, tmp_path, colours, ("red", "blue"), (" 1.png", " 2.png"))
    propose(services, others["blue"], BOX_OF["blue"])
    made = exported(services, first, form)
    plan = imported(services, tmp_path, second, made.data, made.name)
    assert [one.picture_id for one in plan.changes] == [others["red"]]
    with services.database.read() as rows:
        states = dict(tuple(row) for row in rows.execute("SELECT id, boxes FROM pictures WHERE set_id = ?", (second,)))
    assert (states[others["red"]], states[others["blue"]]) == ("confirmed", "proposed")
    assert boxes_in(services, others["blue"]) == [BOX_OF["blue"]]  # a file that says nothing takes nothing away
    again = exported(services, second, form)
    assert imported(services, tmp_path, second, again.data, again.name).changes == []


def test_names_before_an_upload_made_them_safe_are_found():
    sha256 = ["a" * 64, "b" * 64, "c" * 64]
    known = [
        Known("_shelf_.png", sha256[0], '"shelf".png'),
        Known("2/3/4/5/a.png", sha256[1], "1/2/3/4/5/a.png"),
        Known(f"2/3/4/5/a~{'c' * 8}.png", sha256[2], "9/2/3/4/5/a.png"),
    ]
    names = ['"shelf".png', "1/2/3/4/5/a.png", "9/2/3/4/5/a.png"]
    assert find_pictures(names, known, {}).found == dict(zip(names, (one.name for one in known), strict=True))
    assert find_pictures(["2/3/4/5/a.png"], known, {}).found == {}


def test_a_name_that_looks_like_one_with_a_hash_is_a_name():
    known = [Known("a.png", "a" * 64), Known("a~12345678.png", "b" * 64), Known("A.PNG", "c" * 64)]
    assert find_pictures([one.name for one in known], known, {}).found == {one.name: one.name for one in known}
