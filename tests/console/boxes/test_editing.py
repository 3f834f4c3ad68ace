"""Boxes of one picture: what saving keeps, changes and refuses."""

from __future__ import annotations

import pytest

from console.boxes.box_queue import count_boxes, next_waiting
from console.boxes.editing import EditedBox, boxes_of, categories_of, save_boxes
from console.boxes.proposing import ProposedBox, ProposedPicture, begin_round, last_rounds, take_all
from console.sets.crops import NewBox, find_crop
from edge.errors import ConsoleError
from tests.console_box_samples import boxes_in, confirm, made_set, propose, set_of

NAMES = ("a.png", "b.png", "c.png")


def save(services, picture_id, version, *boxes):
    with services.database.write() as connection:
        return save_boxes(connection, 2.0, "ann", picture_id, version, boxes)


def shown(services, picture_id):
    with services.database.read() as rows:
        return boxes_of(rows, picture_id)


def test_a_kept_box_keeps_its_id_and_decision(services, tmp_path):
    picture = made_set(services, tmp_path, NAMES)[0]
    propose(services, picture, (10, 10, 50, 50), (60, 10, 90, 50))
    first, second = shown(services, picture)
    with services.database.write() as connection:
        connection.execute("UPDATE crops SET state = 'item', item = 'ace', category = 'card' WHERE id = ?", (first.id,))
    save(services, picture, 2, EditedBox(first.id, (11, 10, 51, 50), "other"), EditedBox(None, (100, 5, 120, 30), None))
    with services.database.read() as rows:
        kept = find_crop(rows, first.id)
    assert (kept.state, kept.item, kept.category, kept.box_px) == ("item", "ace", "card", (11, 10, 51, 50))
    assert [one.source for one in shown(services, picture)] == ["human", "human"]
    assert second.box_px not in boxes_in(services, picture)


def test_no_object_is_an_answer(services, tmp_path):
    picture = made_set(services, tmp_path, NAMES)[0]
    save(services, picture, 1)
    with services.database.read() as rows:
        counts = count_boxes(rows, set_of(services, picture))
    assert (counts.waiting, counts.confirmed) == (2, 1)


def test_the_other_edit_is_not_overwritten(services, tmp_path):
    picture = made_set(services, tmp_path, NAMES)[0]
    save(services, picture, 1, EditedBox(None, (1, 1, 20, 20), None))
    with pytest.raises(ConsoleError) as caught:
        save(services, picture, 1)
    assert caught.value.reason == "conflict"
    assert boxes_in(services, picture) == [(1, 1, 20, 20)]


def test_boxes_of_other_pictures_are_not_taken(services, tmp_path):
    first, second, _ = made_set(services, tmp_path, NAMES)
    propose(services, second, (10, 10, 50, 50))
    with pytest.raises(ConsoleError, match="not there any more"):
        save(services, first, 1, EditedBox(shown(services, second)[0].id, (10, 10, 50, 50), None))


@pytest.mark.parametrize("box", [(300, 5, 320, 9), (5, 5, 5, 9), (9, 9, 5, 5), (float("nan"), 1, 5, 5)])
def test_a_box_that_is_none_is_refused(services, tmp_path, box):
    picture = made_set(services, tmp_path, NAMES)[0]
    with pytest.raises(ConsoleError, match="draw it again"):
        save(services, picture, 1, EditedBox(None, box, None))


def test_a_box_is_cut_at_the_edge(services, tmp_path):
    picture = made_set(services, tmp_path, NAMES)[0]
    save(services, picture, 1, EditedBox(None, (-20, 100, 40, 500), None))
    assert boxes_in(services, picture) == [(0, 100, 40, 120)]


def test_the_most_uncertain_picture_comes_first(services, tmp_path):
    first, second, third = made_set(services, tmp_path, NAMES)
    for picture, uncertainty in ((first, 0.2), (second, 0.9), (third, 0.9)):
        propose(services, picture, (10, 10, 50, 50), uncertainty=uncertainty)
    cards = set_of(services, first)
    with services.database.read() as rows:
        assert [next_waiting(rows, cards, one) for one in (None, second, third)] == [second, third, first]
        assert next_waiting(rows, cards, first) == second  # the front again
    save(services, second, 2)
    save(services, third, 2)
    with services.database.read() as rows:
        assert next_waiting(rows, cards, first) is None


def test_proposals_replace_nothing_of_people(services, tmp_path):
    first, second, third = made_set(services, tmp_path, NAMES)
    confirm(services, first, NewBox(None, (1, 1, 9, 9)))
    propose(services, second, (10, 10, 50, 50))
    with services.database.write() as connection:
        connection.execute("UPDATE crops SET state = 'unknown' WHERE picture_id = ?", (second,))
    found = [
        ProposedPicture(one, (ProposedBox((2, 2, 30, 30), 0.7),), 0.4, "weak box") for one in (first, second, third)
    ]
    cards = set_of(services, first)
    taken = take_all(services.database, cards, "cues", found, begin_round(services.database, 1.0, cards, "cues"))
    assert (taken.pictures, taken.boxes, taken.kept) == (1, 1, 2)
    assert [boxes_in(services, one) for one in (first, second, third)] == [
        [(1, 1, 9, 9)], [(10, 10, 50, 50)], [(2, 2, 30, 30)]
    ]  # fmt: skip
    assert shown(services, third)[0].category == "card"


def test_a_round_tells_how_many_boxes_needed_no_edit(services, tmp_path):
    first, second, _ = made_set(services, tmp_path, NAMES)
    boxes = (ProposedBox((10, 10, 50, 50), 0.7), ProposedBox((60, 10, 100, 50), 0.7))
    found = [ProposedPicture(one, boxes, 0.4, "weak box") for one in (first, second)]
    cards = set_of(services, first)
    take_all(services.database, cards, "cues", found, begin_round(services.database, 1.0, cards, "cues"))
    left, _ = shown(services, first)
    save(services, first, 2, EditedBox(left.id, (11, 10, 51, 50), "card"), EditedBox(None, (150, 90, 190, 110), None))
    with services.database.read() as rows:
        (last,) = last_rounds(rows, cards)
    assert (last.pictures, last.checked, last.untouched, last.proposed) == (2, 1, 1, 2)
    save(services, first, 3)  # a later edit changes no proposal
    with services.database.read() as rows:
        assert last_rounds(rows, cards) == [last]


def test_a_job_that_is_followed_twice_is_one_round(services, tmp_path):
    cards = set_of(services, made_set(services, tmp_path, NAMES)[0])
    rounds = {begin_round(services.database, 1.0, cards, "cues", job=7).round for _ in range(2)}
    assert len(rounds) == 1


def test_classes_are_listed_by_how_often_they_are(services, tmp_path):
    first = made_set(services, tmp_path, NAMES)[0]
    boxes = [NewBox(None, (x, 1, x + 9, 9), category=name) for x, name in ((1, "can"), (20, "box"), (40, "can"))]
    confirm(services, first, *boxes)
    with services.database.read() as rows:
        assert categories_of(rows, set_of(services, first)) == ["card", "can", "box"]
