"""One COCO JSON: every record is read as it is meant, or left out by its id; and what is written is read back."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_formats.coco.reader import parse_coco, write_coco
from dataset_formats.records import ONE_CATEGORY, Annotation, NamedBox
from edge.errors import DataError
from tests.trainer.damaged import few_examples

CATEGORIES = [{"id": 1, "name": "cola", "supercategory": "can"}, {"id": 5, "name": "milk"}]
IMAGE = {"id": 1, "file_name": "a.png", "width": 48, "height": 32}
BOX = {"id": 7, "image_id": 1, "category_id": 1, "bbox": [4, 2, 20, 10]}


def write(folder, annotations=(BOX,), images=(IMAGE,), categories=CATEGORIES, name="c.json"):
    tree = {"images": list(images), "annotations": list(annotations)}
    if categories is not None:
        tree["categories"] = list(categories)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree))
    return path


def boxes_of(read) -> dict:
    return {one.name: [(box.box_px, box.item, box.category) for box in one.boxes] for one in read.pictures}


def only_box(read) -> NamedBox:
    (box,) = read.pictures[0].boxes
    return box


def test_box_class_meta_category_and_size_are_read(tmp_path):
    read = parse_coco(write(tmp_path))
    assert boxes_of(read) == {"a.png": [((4.0, 2.0, 24.0, 12.0), "cola", "can")]}
    assert read.pictures[0].declared_size_px == (48, 32)
    assert (read.names, read.left_out, read.noticed) == (["cola", "milk"], [], [])


def test_classes_are_ids_not_positions(tmp_path):
    assert only_box(parse_coco(write(tmp_path, [BOX | {"category_id": 5}]))).item == "milk"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"bbox": []}, "an empty bbox"),
        ({"bbox": None}, "no bbox"),
        ({"bbox": {"x": 1}}, "no bbox"),
        ({"bbox": [1, 2, 3]}, "has 3 values"),
        ({"bbox": [20, 20, 9, 9, 30]}, "for a rotated box, write the box around it"),
        ({"bbox": [1, 2, "wide", 4]}, "no finite number"),
        ({"bbox": [1, 2, None, 4]}, "no finite number"),
        ({"bbox": [1, True, 3, 4]}, "no finite number"),
        ({"bbox": [math.nan, 2, 3, 4]}, "no finite number"),
        ({"bbox": [1, 2, math.inf, 4]}, "no finite number"),
        ({"bbox": [1, 2, 10**400, 4]}, "no finite number"),
        ({"bbox": [1e9, 2, 3, 4]}, "not in pixels"),
        ({"bbox": [20, 20, -9, 9]}, "a negative width or height"),
        ({"bbox": [20, 20, 9, 0]}, "no area"),
        ({"bbox": [0.25, 0.5, 0.5, 0.25]}, "as fractions of the picture do"),
        ({"bbox": [50, 2, 9, 9]}, "outside the picture of 48x32 pixels"),
        ({"bbox": [-30, 2, 9, 9]}, "outside the picture"),
        ({"category_id": 9}, "no category has its category_id 9"),
        ({"category_id": None}, "no category has its category_id null"),
        ({"category_id": True}, "no category has its category_id True"),
        ({"category_id": [1]}, "no category has its category_id list"),
        ({"image_id": 9}, "no image has its image_id 9"),
        ({"image_id": True}, "no image has its image_id True"),
    ],
)
def test_annotation_that_cannot_be_right_is_left_out_by_its_id(tmp_path, change, why):
    images = [IMAGE, {"id": 2, "file_name": "b.png"}]
    read = parse_coco(write(tmp_path, [BOX | change, BOX | {"id": 8, "image_id": 2}], images))
    assert boxes_of(read)["b.png"] == [((4.0, 2.0, 24.0, 12.0), "cola", "can")]
    assert ": annotation 7: " in read.left_out[0]
    assert why in read.left_out[0]


def test_annotation_without_an_id_is_named_by_its_number(tmp_path):
    broken = {"image_id": 1, "category_id": 1, "bbox": []}
    assert ": annotation 2: " in parse_coco(write(tmp_path, [BOX, broken, 5])).left_out[0]


def test_picture_that_loses_all_its_records_is_left_out(tmp_path):
    images = [IMAGE, {"id": 2, "file_name": "b.png"}]
    read = parse_coco(write(tmp_path, [BOX, BOX | {"id": 8, "image_id": 2, "bbox": []}], images))
    assert [one.name for one in read.pictures] == ["a.png"]
    assert "image b.png: none of its annotations can be used" in read.left_out[1]


def test_picture_that_loses_some_of_its_records_keeps_the_others(tmp_path):
    read = parse_coco(write(tmp_path, [BOX, BOX | {"id": 8, "bbox": []}]))
    assert len(read.pictures[0].boxes) == len(read.left_out) == 1


def test_picture_without_annotations_has_no_objects(tmp_path):
    read = parse_coco(write(tmp_path, images=[IMAGE, {"id": 2, "file_name": "b.png"}]))
    assert boxes_of(read)["b.png"] == []


def test_box_may_reach_outside_its_picture_and_is_noticed(tmp_path):
    read = parse_coco(write(tmp_path, [BOX | {"bbox": [40, -5, 20, 20]}]))
    assert only_box(read).box_px == (40.0, -5.0, 60.0, 15.0)
    assert "outside the size that their picture declares: 1 (annotation 7)" in read.noticed[0]


@pytest.mark.parametrize(("image_id", "category_id"), [("1", 1), (1, "1"), ("1", "1"), (1.0, 1.0)])
def test_ids_of_another_type_are_matched(tmp_path, image_id, category_id):
    read = parse_coco(write(tmp_path, [BOX | {"image_id": image_id, "category_id": category_id}]))
    assert only_box(read).item == "cola"
    assert len(read.noticed) == [image_id, category_id].count("1")


def test_id_of_its_own_type_wins(tmp_path):
    images = [IMAGE, IMAGE | {"id": "1", "file_name": "b.png"}]
    read = parse_coco(write(tmp_path, [BOX, BOX | {"image_id": "1", "bbox": [1, 1, 9, 9]}], images))
    assert [boxes[0][0][0] for boxes in boxes_of(read).values()] == [4.0, 1.0]


def test_pictures_that_share_an_id_are_left_out(tmp_path):
    images = [IMAGE, IMAGE | {"file_name": "b.png"}, {"id": 2, "file_name": "c.png"}]
    read = parse_coco(write(tmp_path, [BOX, BOX | {"id": 8, "image_id": 2}], images))
    assert list(boxes_of(read)) == ["c.png"]
    assert "image 1: 2 pictures have this id: a.png, b.png" in read.left_out[0]
    assert "annotation 7: 2 pictures have its image_id 1" in read.left_out[1]


def test_picture_that_is_listed_twice_is_read_once_with_all_boxes(tmp_path):
    images = [IMAGE, IMAGE | {"id": 2}]
    read = parse_coco(write(tmp_path, [BOX, BOX | {"image_id": 2, "bbox": [1, 1, 9, 9]}], images))
    assert [box[0][0] for box in boxes_of(read)["a.png"]] == [4.0, 1.0]
    assert "listed several times" in read.noticed[0]


@pytest.mark.parametrize("change", [{"width": 480}, {"split": "val"}])
def test_picture_that_is_listed_twice_with_contradictions_is_left_out(tmp_path, change):
    images = [IMAGE, IMAGE | {"id": 2} | change, {"id": 3, "file_name": "c.png"}]
    read = parse_coco(write(tmp_path, images=images))
    assert list(boxes_of(read)) == ["c.png"]
    assert "image a.png: it is listed 2 times" in read.left_out[0]


def test_repeated_picture_is_one_picture_with_more_weight(tmp_path):
    images = [IMAGE, IMAGE | {"id": 2, "repeated": 1}]
    read = parse_coco(write(tmp_path, [BOX, BOX | {"image_id": 2}], images))
    assert [(len(one.boxes), one.times) for one in read.pictures] == [(1, 2)]
    assert read.noticed == []


def test_repeated_annotation_is_read_once_and_noticed(tmp_path):
    read = parse_coco(write(tmp_path, [BOX, BOX | {"id": 8}, BOX | {"id": 9, "category_id": 5}]))
    assert [box[1] for box in boxes_of(read)["a.png"]] == ["cola", "milk"]
    assert "repeat another of the same picture, box and class; read once: 1 (annotation 8)" in read.noticed[0]


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ({"file_name": "b.png"}, "has no id"),
        ({"id": 2}, "has no file_name"),
        ({"id": 2, "file_name": " "}, "has no file_name"),
        ({"id": 2, "file_name": 5}, "has no file_name"),
        ({"id": 2, "file_name": "b.png", "split": ["val"]}, "its split is no text"),
        ("b.png", "it is no object"),
    ],
)
def test_image_that_cannot_be_right_is_left_out_by_number(tmp_path, image, why):
    read = parse_coco(write(tmp_path, images=[IMAGE, image]))
    assert list(boxes_of(read)) == ["a.png"]
    assert f": image 2: {why}" in read.left_out[0].replace("it has", "has")


def test_class_names_are_stripped_text_and_each_is_there_once(tmp_path):
    names = [" cola", "milk", 7, "cola"]
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    annotations = [BOX | {"id": number, "category_id": number, "bbox": [number, 1, 9, 9]} for number in range(4)]
    read = parse_coco(write(tmp_path, annotations, categories=categories))
    assert read.names == ["cola", "milk", "7"]
    assert [box[1] for box in boxes_of(read)["a.png"]] == ["cola", "milk", "7", "cola"]
    assert any("read as one class: 1 (cola)" in line for line in read.noticed)


@pytest.mark.parametrize("name", [None, "", "  ", ["cola"], True])
def test_category_without_a_name_is_left_out_with_its_boxes(tmp_path, name):
    categories = [{"id": 1, "name": name}, CATEGORIES[1]]
    read = parse_coco(write(tmp_path, [BOX, BOX | {"id": 8, "category_id": 5}], categories=categories))
    assert (read.names, [box[1] for box in boxes_of(read)["a.png"]]) == (["milk"], ["milk"])
    assert "annotation 7: category 1 has no name" in read.left_out[1]


def test_category_id_with_two_names_is_left_out_with_its_boxes(tmp_path):
    categories = [*CATEGORIES, {"id": 1, "name": "tea"}]
    read = parse_coco(write(tmp_path, [BOX, BOX | {"id": 8, "category_id": 5}], categories=categories))
    assert (read.names, [box[1] for box in boxes_of(read)["a.png"]]) == (["milk"], ["milk"])
    assert "annotation 7: category 1 has several names" in read.left_out[1]


def test_unused_category_that_groups_the_others_is_no_class(tmp_path):
    categories = [
        {"id": 0, "name": "cans", "supercategory": "none"},
        {"id": 1, "name": "cola", "supercategory": "cans"},
    ]
    read = parse_coco(write(tmp_path, categories=categories))
    assert read.names == ["cola"]
    assert "only group others" in read.noticed[0]
    used = [BOX, BOX | {"id": 8, "category_id": 0}]
    assert parse_coco(write(tmp_path, used, categories=categories)).names == ["cans", "cola"]


@pytest.mark.parametrize("meta", [None, "none", "None", "", " "])
def test_no_supercategory_is_the_one_category(tmp_path, meta):
    read = parse_coco(write(tmp_path, categories=[{"id": 1, "name": "cola", "supercategory": meta}]))
    assert only_box(read).category == ONE_CATEGORY


def test_without_categories_every_box_is_an_object(tmp_path):
    read = parse_coco(write(tmp_path, categories=None))
    assert (read.names, only_box(read).item) == ([ONE_CATEGORY], ONE_CATEGORY)
    assert "no categories" in read.noticed[0]


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ("iscrowd", "boxes of crowds: 1, which are no single objects"),
        ("ignore", "boxes to ignore: 1, which are no single objects"),
    ],
)
@pytest.mark.parametrize("value", [1, True, "1"])
def test_crowds_and_ignored_regions_are_left_out_and_counted(tmp_path, field, what, value):
    read = parse_coco(write(tmp_path, [BOX, BOX | {"id": 8, "bbox": [0, 0, 48, 32], field: value}]))
    assert only_box(read).box_px == (4.0, 2.0, 24.0, 12.0)
    assert read.left_out == [f"{tmp_path / 'c.json'}: {what}"]


@pytest.mark.parametrize("value", [0, False, None, "0", "false", ""])
def test_flag_that_is_not_set_leaves_nothing_out(tmp_path, value):
    assert only_box(parse_coco(write(tmp_path, [BOX | {"iscrowd": value, "ignore": value}])))


def test_picture_of_a_crowd_alone_is_left_out(tmp_path):
    read = parse_coco(write(tmp_path, [BOX | {"iscrowd": 1}]))
    assert read.pictures == []
    assert "image a.png: none of its annotations can be used" in read.left_out[0]


@pytest.mark.parametrize("angle", [90, -90, 270.0, "90"])
def test_rotated_box_of_cvat_becomes_the_box_around_it(tmp_path, angle):
    rotated = BOX | {"bbox": [4, 12, 20, 10], "attributes": {"occluded": False, "rotation": angle}, "segmentation": []}
    read = parse_coco(write(tmp_path, [rotated]))
    assert only_box(read).box_px == pytest.approx((9.0, 7.0, 19.0, 27.0))
    assert "rotated boxes, read as the box around them: 1 (annotation 7)" in read.noticed[0]


def test_box_around_a_square_on_its_tip(tmp_path):
    read = parse_coco(write(tmp_path, [BOX | {"bbox": [10, 10, 10, 10], "attributes": {"rotation": 45}}]))
    half = 5 * math.sqrt(2)
    assert only_box(read).box_px == pytest.approx((15 - half, 15 - half, 15 + half, 15 + half))


@pytest.mark.parametrize("attributes", [{"rotation": 0.0}, {"rotation": 360}, {}, [], None])
def test_box_without_a_rotation_stays(tmp_path, attributes):
    read = parse_coco(write(tmp_path, [BOX | {"attributes": attributes}]))
    assert (only_box(read).box_px, read.noticed) == ((4.0, 2.0, 24.0, 12.0), [])


@pytest.mark.parametrize(
    "change",
    [
        {"rotation": 30},
        {"angle": 0.5},
        {"attributes": {"rotation": "left"}},
        {"attributes": {"rotation": 30}, "segmentation": [[4, 2, 24, 2, 24, 12]]},
    ],
)
def test_other_statements_of_a_rotation_are_noticed(tmp_path, change):
    read = parse_coco(write(tmp_path, [BOX | change]))
    assert only_box(read).box_px == (4.0, 2.0, 24.0, 12.0)
    assert "annotation 7" in read.noticed[0]


@pytest.mark.parametrize(
    ("written", "visible", "noticed"), [(0.5, 0.5, 0), (None, 1.0, 0), ("high", 1.0, 1), (50, 1.0, 1)]
)
def test_visible_fraction_is_read_or_named(tmp_path, written, visible, noticed):
    read = parse_coco(write(tmp_path, [BOX | {"visible_fraction": written}]))
    assert (only_box(read).visible, len(read.noticed)) == (visible, noticed)


def test_item_id_score_and_outline_are_kept(tmp_path):
    polygon = [[4, 2, 24, 2, 24, 12]]
    box = only_box(parse_coco(write(tmp_path, [BOX | {"item_id": 330, "score": 0.25, "segmentation": polygon}])))
    assert (box.item, box.item_id, box.score, box.outline) == ("cola", "330", 0.25, polygon)


def test_labels_of_the_label_store_are_read(tmp_path):
    about = {"state": "proposed", "split": "unlabelled", "uncertainty": 0.5, "why": ""}
    box = BOX | {"score": 0.5, "source": "saliency", "reasons": {}, "iscrowd": 0, "area": 200}
    read = parse_coco(write(tmp_path, [box], [IMAGE | about]))
    assert (read.pictures[0].split, only_box(read).score, len(read.noticed)) == ("unlabelled", 0.5, 1)


@pytest.mark.parametrize(
    ("written", "split"),
    [("train", "train"), (" Valid ", "val"), ("holdout ", "holdout"), (None, ""), ("", ""), (3, "3")],
)
def test_split_of_an_image(tmp_path, written, split):
    assert parse_coco(write(tmp_path, images=[IMAGE | {"split": written}])).pictures[0].split == split


def test_federated_annotations_are_noticed(tmp_path):
    read = parse_coco(write(tmp_path, images=[IMAGE | {"not_exhaustive_category_ids": [5], "neg_category_ids": []}]))
    assert "not every object has a box: 1 (a.png)" in read.noticed[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_json_with_a_byte_order_mark_is_read(tmp_path, encoding):
    path = write(tmp_path, images=[IMAGE | {"file_name": "é.png"}])
    path.write_bytes(json.dumps(json.loads(path.read_text()), ensure_ascii=False).encode(encoding))
    assert list(boxes_of(parse_coco(path))) == ["é.png"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "not COCO: it holds a list"),
        ('{"images": []}', "no list `annotations`"),
        ('{"images": {}, "annotations": []}', "no list `images`"),
        ('{"images": [], "annotations": [], "categories": {"1": "cola"}}', "`categories` are no list"),
        ('{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}', "no annotation has a `bbox`"),
        ('{"images": [', "not JSON"),
        (json.dumps({"images": [IMAGE], "annotations": [BOX | {"image_id": "a.png"}]}), "refers to a listed image"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_other_json_is_refused(tmp_path, text, why):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(DataError, match=why):
        parse_coco(tmp_path / "c.json")


def test_names_that_are_no_unicode_are_shown_in_messages(tmp_path):
    read = parse_coco(write(tmp_path, [BOX | {"bbox": []}], [IMAGE | {"file_name": "\udce9.png"}]))
    assert "image \\udce9.png: none" in read.left_out[1]


def test_many_alike_records_are_one_notice(tmp_path):
    annotations = [BOX | {"id": number, "image_id": "1", "bbox": [number, 1, 9, 9]} for number in range(30)]
    (line,) = parse_coco(write(tmp_path, annotations)).noticed
    assert ": 30 (annotation 0, annotation 1, annotation 2, …)" in line


lengths = st.floats(2, 1000, width=32)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(lambda text: text.strip())
named_boxes = st.builds(
    lambda x, y, wide, high, *rest: NamedBox((x, y, x + wide, y + high), *rest),
    st.floats(0, 1000, width=32),
    st.floats(0, 1000, width=32),
    lengths,
    lengths,
    words.map(str.strip),
    st.one_of(st.just(ONE_CATEGORY), words.map(str.strip).filter(lambda word: word.casefold() != "none")),
    st.floats(0, 1),
    st.none() | st.floats(0, 1),
    st.none() | st.just([[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]]) | st.just({"size": [2, 2], "counts": [0, 4]}),
    st.just("") | words.map(str.strip),
)
annotations = st.builds(
    Annotation,
    st.text(max_size=9).filter(lambda text: text.strip()),
    st.lists(named_boxes, max_size=4, unique_by=lambda box: (box.box_px, box.item, box.category, box.item_id)).map(
        tuple
    ),
    st.sampled_from(["", "train", "val", "unlabelled"]),
    st.sampled_from(["", "hard"]),
    st.none() | st.tuples(st.integers(2001, 9999), st.integers(2001, 9999)),
)


@few_examples
@given(pictures=st.lists(annotations, max_size=3, unique_by=lambda one: one.name))
def test_written_pictures_are_read_back(tmp_path, pictures):
    names = list(dict.fromkeys(box.item for one in pictures for box in one.boxes))
    write_coco(pictures, names, tmp_path / "c.json")
    read = parse_coco(tmp_path / "c.json")
    assert read.left_out == []
    assert read.names == names
    assert [(one.name, one.split, one.level, one.declared_size_px) for one in read.pictures] == [
        (one.name, one.split, one.level, one.declared_size_px) for one in pictures
    ]
    for one, other in zip(read.pictures, pictures, strict=True):
        for box, given_box in zip(one.boxes, other.boxes, strict=True):
            assert box.box_px == pytest.approx(given_box.box_px, abs=1e-9)
            for name in ("item", "category", "visible", "score", "outline", "item_id"):
                assert getattr(box, name) == getattr(given_box, name)


def test_class_names_are_written_in_order_with_unused_ones(tmp_path):
    write_coco([Annotation("a.png", (NamedBox((1, 1, 9, 9), "tea"),))], ["milk", "tea", "cola"], tmp_path / "c.json")
    assert parse_coco(tmp_path / "c.json").names == ["milk", "tea", "cola"]


def test_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone.c\.json: cannot write"):
        write_coco([], [], tmp_path / "gone/c.json")


POLYGON = [[4, 2, 24, 2, 24, 12], [8, 3, 9, 3, 9, 20]]
RUNS = {"size": [8, 10], "counts": [18, 4, 4, 4, 50]}


@pytest.mark.parametrize(("outline", "box"), [(POLYGON, (4, 2, 24, 20)), (RUNS, (2, 2, 4, 6))])
@pytest.mark.parametrize("bbox", [{}, {"bbox": None}, {"bbox": []}])
def test_outline_without_bbox_becomes_the_box_around_it(tmp_path, outline, box, bbox):
    entry = {"id": 7, "image_id": 1, "category_id": 1, "segmentation": outline} | bbox
    read = parse_coco(write(tmp_path, [entry]))
    assert (only_box(read).box_px, len(read.noticed)) == (box, 1)


@pytest.mark.parametrize(
    "outline",
    [[[4, 2, 24]], [["a", 2, 9, 3, 4, 5]], [4, 2, 24, 2, 24, 12], {"size": [8, 10], "counts": "?"}, {"counts": [80]}],
)
def test_broken_outline_without_bbox_is_left_out(tmp_path, outline):
    broken = {"id": 8, "image_id": 1, "category_id": 1, "segmentation": outline}
    read = parse_coco(write(tmp_path, [BOX, broken]))
    assert len(read.pictures[0].boxes) == 1
    assert [line.partition(": ")[2] for line in read.left_out] == [
        "annotation 8: it has no bbox; draw the box again or delete the record"
    ]


def test_boxes_of_a_model_are_noticed(tmp_path):
    read = parse_coco(write(tmp_path, [BOX | {"score": 0.4}]))
    assert only_box(read).score == 0.4
    assert "boxes with a score, as a model proposes them: 1" in read.noticed[0]


def test_box_with_score_one_is_a_persons_box(tmp_path):
    assert parse_coco(write(tmp_path, [BOX | {"score": 1.0}])).noticed == []


def test_picture_without_file_name_is_called_by_its_url(tmp_path):
    image = {"id": 1, "coco_url": "http://images/val2017/1.jpg"}
    assert list(boxes_of(parse_coco(write(tmp_path, images=[image])))) == ["http://images/val2017/1.jpg"]


def test_refused_file_names_the_first_record_that_was_left_out(tmp_path):
    with pytest.raises(DataError, match=r"the first record left out: .*image 1: it has no file_name"):
        parse_coco(write(tmp_path, images=[{"id": 1}]))
