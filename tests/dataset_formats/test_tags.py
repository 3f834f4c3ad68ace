"""Tagged regions: what is read, and what is left out by name."""

from __future__ import annotations

import json

import pytest

from dataset_formats.tags import read_tags
from edge.errors import DataError
from tests.dataset_formats.samples import picture

REGION = {"tag": "ace", "left": 0.25, "top": 0.25, "width": 0.5, "height": 0.5}


@pytest.fixture
def build(tmp_path):
    """Write boxes.json beside pictures of 48 x 32 pixels."""

    def write(*files: object, pictures: str = "a.jpg b.jpg"):
        for number, name in enumerate(pictures.split()):
            picture(tmp_path / name, number)
        (tmp_path / "boxes.json").write_text(json.dumps({"files": files}))
        return tmp_path

    return write


def file(name: object, *regions: object) -> dict:
    return {"filename": name, "tags": list(regions)}


def items(listing) -> dict[str, list[str]]:
    return {scene.path.name: [box.item for box in scene.boxes] for scene in listing.scenes}


def test_regions_are_fractions_of_the_picture(build):
    listing = read_tags(build(file("a.jpg", REGION), file("b.jpg")))
    assert [box.box_px for box in listing.scenes[0].boxes] == [(12, 8, 36, 24)]
    assert (items(listing), listing.names) == ({"a.jpg": ["ace"], "b.jpg": []}, ["ace"])
    assert listing.left_out == listing.noticed == []


def test_numeric_tag_is_text_and_noticed(build):
    listing = read_tags(build(file("a.jpg", REGION | {"tag": 7}, REGION | {"tag": " 12 ", "left": 0})))
    assert items(listing) == {"a.jpg": ["7", "12"]}
    assert [line.endswith("tags that are numbers; they were read as text: 1 (7)") for line in listing.noticed] == [True]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"tag": None}, "None is not a name"),
        ({"tag": True}, "True is not a name"),
        ({"tag": " "}, "' ' is not a name"),
        ({"tag": ["ace"]}, "['ace'] is not a name"),
        ({"left": "left"}, "left, 0.25, 0.5, 0.5, which are no fractions"),
        ({"left": None}, "None, 0.25, 0.5, 0.5, which are no fractions"),
        ({"left": 12, "width": 24}, "12, 0.25, 24, 0.5, which are no fractions"),
        ({"left": float("nan")}, "which are no fractions"),
        ({"width": 0}, "empty or outside the picture"),
        ({"height": -0.1}, "empty or outside the picture"),
        ({"left": 1.1}, "empty or outside the picture"),
        ({"rotation": 30}, "it is rotated"),
    ],
)
def test_broken_region_is_left_out_alone(build, change, why):
    listing = read_tags(build(file("a.jpg", REGION, REGION | change)))
    assert items(listing) == {"a.jpg": ["ace"]}
    assert len(listing.left_out) == 1
    assert "boxes.json: file 1: a.jpg: tag 2: " in listing.left_out[0]
    assert why in listing.left_out[0]


def test_missing_side_of_a_region_is_named(build):
    region = {key: value for key, value in REGION.items() if key != "width"}
    assert "a.jpg: tag 1: has no 'width'" in read_tags(build(file("a.jpg", region, REGION))).left_out[0]


def test_picture_that_lost_all_its_regions_is_left_out(build):
    listing = read_tags(build(file("a.jpg", REGION | {"width": 0}), file("b.jpg", REGION)))
    assert items(listing) == {"b.jpg": ["ace"]}
    assert "file 1: a.jpg: none of its tags can be used" in listing.left_out[1]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (file("c.jpg", REGION), "file 1: c.jpg: not found"),
        (file(7, REGION), "file 1: expected a filename and tags: TypeError 7 is not text"),
        ({"filename": "a.jpg"}, "file 1: expected a filename and tags: KeyError 'tags'"),
        ({"filename": "a.jpg", "tags": None}, "file 1: expected a filename and tags: TypeError tags is None"),
        ("a.jpg", "file 1: expected a filename and tags"),
    ],
)
def test_broken_file_is_left_out_alone(build, entry, why):
    listing = read_tags(build(entry, file("b.jpg", REGION)))
    assert items(listing) == {"b.jpg": ["ace"]}
    assert len(listing.left_out) == 1
    assert why in listing.left_out[0]


def test_picture_that_cannot_be_decoded_is_left_out(build):
    root = build(file("a.jpg", REGION), file("b.jpg", REGION))
    (root / "a.jpg").write_bytes(b"")
    assert items(read_tags(root)) == {"b.jpg": ["ace"]}
    assert "a.jpg: the 0 bytes are no picture" in read_tags(root).left_out[0]


def test_path_of_another_machine_is_found(build):
    assert items(read_tags(build(file(r"C:\export\x\a.jpg", REGION), pictures="x/a.jpg y/a.jpg"))) == {"a.jpg": ["ace"]}


def test_repeated_region_is_one_box(build):
    listing = read_tags(build(file("a.jpg", REGION, REGION)))
    assert items(listing) == {"a.jpg": ["ace"]}
    assert "list one box twice" in listing.noticed[0]


def test_picture_listed_twice_needs_the_same_regions(build):
    listing = read_tags(build(file("a.jpg", REGION), file("a.jpg", REGION), file("b.jpg"), file("b.jpg", REGION)))
    assert items(listing) == {"a.jpg": ["ace"]}
    assert "boxes.json: b.jpg: is listed 2 times with other tags; keep one" in listing.left_out[0]
    assert "pictures listed several times with the same tags: 1 (a.jpg)" in listing.noticed[0]


@pytest.mark.parametrize("text", ["[]", '{"files": {}}', '{"files": []}', "{", '{"files": [{"filename": "c.jpg"}]}'])
def test_file_without_any_picture_is_refused(tmp_path, text):
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(DataError, match=r"boxes\.json: "):
        read_tags(tmp_path)
