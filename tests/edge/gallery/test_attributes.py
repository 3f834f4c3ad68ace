"""Attributes of items in a gallery, and what near items say about an object."""

from __future__ import annotations

import math
import sqlite3

import numpy as np
import pytest

from edge.errors import GalleryError
from edge.gallery.attributes import MAX_ATTRIBUTES, SHARPNESS, attributes_of, joined, read_attributes, vote
from edge.gallery.writer import GalleryWriter
from edge.manifest.embedder import Head
from edge.types import Attribute, Hit

RED, BLUE = {"colour": "red", "type": "van"}, {"colour": "blue"}


def hits(*scores: float) -> list[Hit]:
    return [Hit(f"v{number}", f"v{number}", score) for number, score in enumerate(scores)]


def test_weights_fall_with_distance_from_the_nearest():
    voted = vote(hits(0.9, 0.9 - SHARPNESS, 0.1), {"v0": RED, "v1": BLUE})
    share = 1 / (1 + math.exp(-1))
    assert voted == (Attribute("colour", "red", pytest.approx(share)), Attribute("type", "van", 1.0))


def test_many_near_items_outvote_the_nearest():
    voted = vote(hits(0.90, 0.89, 0.88), {"v0": RED, "v1": BLUE, "v2": BLUE})
    assert (voted[0].value, voted[0].confidence > 0.5) == ("blue", True)


def test_named_item_says_its_own_attributes():
    """A match and its attributes never contradict each other; the confidence still says what the others vote."""
    voted = vote(hits(0.90, 0.89, 0.88), {"v0": RED, "v1": BLUE, "v2": BLUE}, named="v0")
    assert (voted[0].value, voted[0].confidence < 0.5) == ("red", True)


def test_nothing_is_said_without_attributes():
    assert vote(hits(0.9), {}) == vote([], {"v0": RED}) == ()


def test_store_keeps_attributes_and_a_deleted_item_has_none(tmp_path):
    vectors = np.eye(2, dtype=np.float32)[:1]
    with GalleryWriter(tmp_path, "car", "a" * 64, [Head(name="class", dim=2)]) as writer:
        writer.add("v0", "v0", vectors, {"attributes": RED, "sku": 3})
        writer.add("v1", "v1", vectors, {"attributes": RED})
        writer.add("v2", "v2", vectors, {"note": "no attributes here"})
        writer.add("v3", "v3", vectors, {"attributes": BLUE})
        writer.delete("v3")
    found = read_attributes(next(tmp_path.glob("*.sqlite")))
    assert found == {"v0": RED, "v1": RED}
    assert found["v0"] is found["v1"]


def test_damaged_metadata_is_refused(tmp_path):
    with GalleryWriter(tmp_path, "car", "a" * 64, [Head(name="class", dim=2)]) as writer:
        writer.add("v0", "v0", np.eye(2, dtype=np.float32)[:1], {"attributes": RED})
    path = next(tmp_path.glob("*.sqlite"))
    with sqlite3.connect(path) as store:
        store.execute("""UPDATE items SET metadata = '{"attributes": '""")
    with pytest.raises(GalleryError, match="damaged metadata"):
        read_attributes(path)


@pytest.mark.parametrize("odd", [None, [], "red", {"": "x"}, {"a": 1}, {"a": "x" * 300}, {"a": ""}, {"a\0": "x"}])
def test_what_is_no_short_text_is_no_attribute(odd):
    assert attributes_of({"attributes": odd}) == {}


def test_an_item_has_a_bounded_number_of_attributes():
    assert len(attributes_of({"attributes": {str(number): "x" for number in range(99)}})) == MAX_ATTRIBUTES


def test_items_of_two_categories_keep_what_they_agree_on():
    both = {"colour": "red", "make": "A"}, {"colour": "red", "make": "B"}
    assert joined({"A": {"450": both[0]}, "B": {"450": both[1]}}) == {"450": {"colour": "red"}}
