"""Label Studio: what a person answered is read, what nobody answered is not, and everything else is named."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_formats.label_studio.reader import (
    looks_like_label_studio,
    parse_label_studio,
    read_label_studio,
    write_label_studio,
)
from dataset_formats.records import Annotation, Annotations, NamedBox
from edge.errors import DataError
from tests.dataset_formats import samples
from tests.trainer.damaged import damaged_json, few_examples

SIZE = {"original_width": 200, "original_height": 100}


def value(x=10, y=20, width=30, height=40, **others) -> dict[str, Any]:
    return {"x": x, "y": y, "width": width, "height": height, "rotation": 0} | others


def result(label: str = "can", identity: str = "r1", **changed) -> dict[str, Any]:
    """One rectangle of 20, 20 to 80, 60 pixels."""
    about = {"id": identity, "type": "rectanglelabels", "value": value(rectanglelabels=[label])}
    return SIZE | {"image_rotation": 0} | about | changed


def answer(*results, **changed) -> dict[str, Any]:
    return {"id": 1, "result": list(results), "was_cancelled": False, "updated_at": "2024-02-01T10:00:00Z"} | changed


def task(*annotations, image="/data/local-files/?d=can/a.jpg", identity=1, **changed) -> dict[str, Any]:
    return {"id": identity, "annotations": list(annotations), "data": {"image": image}} | changed


def parse(tmp_path, *tasks, size_of=lambda _: None) -> Annotations:
    (tmp_path / "export.json").write_text(json.dumps(list(tasks)))
    return parse_label_studio(tmp_path / "export.json", size_of)


def boxes(annotations: Annotations) -> list[tuple]:
    return [(box.item, *box.box_px) for one in annotations.pictures for box in one.boxes]


def test_rectangle_is_read_in_pixels(tmp_path):
    read = parse(tmp_path, task(answer(result())))
    assert boxes(read) == [("can", 20, 20, 80, 60)]
    assert (read.pictures[0].name, read.pictures[0].declared_size_px) == ("can/a.jpg", (200, 100))
    assert (read.names, read.left_out, read.noticed) == (["can"], [], [])


@pytest.mark.parametrize(
    "written",
    [
        "/data/local-files/?d=can/a.jpg",
        "http://localhost:8080/data/local-files/?d=can%2Fa.jpg",
        "s3://bucket/can/a.jpg",
        "gs://bucket/can/a.jpg",
        "azure-blob://container/can/a.jpg",
        "https://host/can/a.jpg?X-Amz-Signature=1%2F2#top",
    ],
)
def test_address_of_a_picture_is_read_as_its_path(tmp_path, written):
    assert parse(tmp_path, task(answer(result()), image=written)).pictures[0].name == "can/a.jpg"


@pytest.mark.parametrize("key", ["image", "ocr", "photo_url"])
def test_picture_may_lie_under_any_key(tmp_path, key):
    read = parse(tmp_path, task(answer(result()), data={key: "can/a.jpg", "note": "café"}))
    assert [one.name for one in read.pictures] == ["can/a.jpg"]


def test_picture_that_is_named_twice_is_one_picture(tmp_path):
    read = parse(tmp_path, task(answer(result()), data={"image": "/data/local-files/?d=can/a.jpg", "file": "a.jpg"}))
    assert [one.name for one in read.pictures] == ["can/a.jpg"]


@pytest.mark.parametrize("data", [{"image": "a.jpg", "other": "b.jpg"}, {"images": ["a.jpg", "b.jpg"]}])
def test_task_of_several_pictures_is_left_out(tmp_path, data):
    read = parse(tmp_path, task(answer(result()), data=data, identity=7))
    assert read.pictures == []
    assert "task 7: has several pictures" in read.left_out[0]


@pytest.mark.parametrize("data", [{"text": "a", "n": "b"}, {}, {"image": "data:image/png;base64,iVBORw0KGgo="}])
def test_task_without_a_picture_is_left_out(tmp_path, data):
    read = parse(tmp_path, task(answer(result()), data=data), task(answer(result()), image="b.jpg"))
    assert [one.name for one in read.pictures] == ["b.jpg"]
    assert "picture" in read.left_out[0]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (task(answer(result(), was_cancelled=True)), "skipped"),
        (task(), "never annotated"),
        ({"id": 1, "data": {"image": "can/a.jpg"}}, "never annotated"),
        (task(predictions=[{"result": [result()]}]), "only predictions or drafts"),
        (task(drafts=[{"result": [result()]}]), "only predictions or drafts"),
        (task(answer(result(type="brushlabels", value={"rle": [1]}))), "results of brushlabels 1"),
        (task(answer(result(type="keypointlabels", value={"x": 1, "y": 2}))), "results of keypointlabels 1"),
        (task(answer(result(type="videorectangle", value={}))), "results of videorectangle 1"),
        (task(answer(result(type="choices", value={"choices": ["good"]}))), "results of choices 1"),
    ],
)
def test_no_answer_is_not_the_answer_none(tmp_path, broken, reason):
    read = parse(tmp_path, broken, task(answer(), image="b.jpg"))
    assert [(one.name, one.boxes) for one in read.pictures] == [("b.jpg", ())]
    assert len(read.left_out) == 1
    assert reason in read.left_out[0]
    assert "pictures without an answer" in read.noticed[0]


def test_unread_types_beside_boxes_are_counted(tmp_path):
    others = [result(identity=f"c{n}", type="choices", value={"choices": ["good"]}) for n in range(3)]
    read = parse(tmp_path, task(answer(result(), *others)))
    assert boxes(read) == [("can", 20, 20, 80, 60)]
    assert read.noticed == [f"{tmp_path}/export.json: results of types that are not read: choices 3"]


def test_newest_annotation_is_read_whatever_its_position(tmp_path):
    new = answer(result("new"), updated_at="2024-03-01T10:00:00.5Z")
    old = answer(result("old"), updated_at="2024-02-01T10:00:00Z", created_at="2024-09-01T10:00:00Z")
    for order in ((new, old), (old, new)):
        read = parse(tmp_path, task(*order))
        assert read.names == ["new"]
        assert "several annotations" in read.noticed[0]
        assert "can/a.jpg (2)" in read.noticed[0]


def test_ground_truth_comes_before_newer_annotations(tmp_path):
    truth = answer(result("truth"), ground_truth=True, updated_at="2020-01-01T00:00:00Z")
    assert parse(tmp_path, task(truth, answer(result("newer")))).names == ["truth"]


def test_annotation_of_unread_types_does_not_hide_a_box(tmp_path):
    newer = answer(result(type="choices", value={"choices": ["ok"]}), updated_at="2025-01-01T00:00:00Z")
    assert parse(tmp_path, task(answer(result()), newer)).names == ["can"]


def test_tasks_of_one_picture_are_named(tmp_path):
    newer = task(answer(result("new"), updated_at="2025-01-01T00:00:00Z"), identity=1)
    read = parse(tmp_path, newer, task(answer(result("old")), identity=2))
    assert read.names == ["new"]
    assert "can/a.jpg (2)" in read.noticed[0]


@pytest.mark.parametrize(
    ("angle", "box"),
    [(90, (60, 20, 100, 80)), (180, (40, -20, 100, 20)), (360, (100, 20, 160, 60)), (-90, (100, -40, 140, 20))],
)
def test_turned_rectangle_is_read_as_the_box_around_it(tmp_path, angle, box):
    """The rectangle of 60 x 40 pixels turns around its upper left corner at 100, 20."""
    turned = result(value=value(x=50, rotation=angle, rectanglelabels=["can"]))
    read = parse(tmp_path, task(answer(turned)))
    assert read.pictures[0].boxes[0].box_px == pytest.approx(box)
    assert ("rotated rectangle 1" in "".join(read.noticed)) == (angle != 360)


def test_polygon_and_ellipse_are_read_as_the_box_around_them(tmp_path):
    polygon = result("leaf", "p", type="polygonlabels", value={"points": [[10, 10], [50, 20], [30, 90]]})
    polygon["value"]["polygonlabels"] = ["leaf"]
    ellipse = result("egg", "e", type="ellipselabels", value={"x": 50, "y": 50, "radiusX": 10, "radiusY": 10})
    ellipse["value"] |= {"rotation": 90, "ellipselabels": ["egg"]}
    read = parse(tmp_path, task(answer(polygon, ellipse)))
    assert read.pictures[0].boxes[0].box_px == pytest.approx((20, 10, 100, 90))
    assert read.pictures[0].boxes[1].box_px == pytest.approx((90, 30, 110, 70))
    assert "ellipse 1, polygon 1" in read.noticed[0]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (result(value=value(rectanglelabels=[])), "has no label"),
        (result(value=value(rectanglelabels=["a", "b"])), "has 2 labels"),
        (result(value=value(rectanglelabels=["\ud800"])), "not valid text"),
        ({"id": "r1", "type": "rectanglelabels"} | SIZE, "has no value"),
        (result(value=value(x=float("nan"), rectanglelabels=["a"])), "not a number"),
        (result(value=value(x="10", rectanglelabels=["a"])), "not a number"),
        (result(value=value(width=0, rectanglelabels=["a"])), "has no area"),
        (result(value=value(height=-5, rectanglelabels=["a"])), "has no area"),
        (result(value={"format": "rle", "rle": [1, 2], "rectanglelabels": ["a"]}), "a brush mask"),
        (result(image_rotation=90), "turned picture"),
        (result(type="polygonlabels", value={"points": [[1, 1], [2, 2]], "polygonlabels": ["a"]}), "2 points"),
        (7, "not a region"),
    ],
)
def test_broken_result_is_left_out_alone(tmp_path, broken, why):
    read = parse(tmp_path, task(answer(broken, result("good", "r2"))), task(answer(broken), image="b.jpg", identity=2))
    assert [(one.name, [box.item for box in one.boxes]) for one in read.pictures] == [("can/a.jpg", ["good"])]
    assert "task 1: result" in read.left_out[0]
    assert why in read.left_out[0]
    assert "b.jpg: none of its results can be used" in read.left_out[-1]


@pytest.mark.parametrize("labeller", ["labels", "choices"])
def test_rectangle_is_joined_with_its_label_by_id(tmp_path, labeller):
    shapes = [result(identity=name, type="rectangle", value=value(x=x)) for name, x in (("one", 10), ("two", 50))]
    named = [result(identity=name, type=labeller, value=value() | {labeller: [name]}) for name in ("two", "one")]
    read = parse(tmp_path, task(answer(*shapes, *named)))
    assert boxes(read) == [("one", 20, 20, 80, 60), ("two", 100, 20, 160, 60)]
    assert read.noticed == []


def test_rectangle_without_any_label_is_left_out(tmp_path):
    read = parse(tmp_path, task(answer(result(type="rectangle", value=value()), result(identity="other"))))
    assert boxes(read) == [("can", 20, 20, 80, 60)]
    assert "result r1: has no label" in read.left_out[0]


def test_size_of_the_picture_is_asked_for_if_no_result_states_it(tmp_path):
    bare = {"id": "r1", "type": "rectanglelabels", "value": value(rectanglelabels=["can"])}
    assert "no original_width" in parse(tmp_path, task(answer(bare))).left_out[0]
    asked = []
    read = parse(tmp_path, task(answer(bare)), size_of=lambda name: asked.append(name) or (200, 100))
    assert (boxes(read), asked) == ([("can", 20, 20, 80, 60)], ["can/a.jpg"])


def test_json_min_is_read(tmp_path):
    entry = {"image": "/data/upload/3/1a2b3c4d-a.jpg", "id": 1, "annotator": 1, "annotation_id": 1}
    read = parse(tmp_path, entry | {"label": [value(rectanglelabels=["can"]) | SIZE]})
    assert boxes(read) == [("can", 20, 20, 80, 60)]


def test_json_min_joins_a_rectangle_with_its_label_by_place(tmp_path):
    shapes = [value(x=x) | SIZE for x in (10, 50)]
    named = [value(x=x, labels=[name]) | SIZE for x, name in ((50, "two"), (10, "one"))]
    entry = {"ocr": "a.jpg", "id": 1, "annotation_id": 4, "bbox": shapes, "label": named, "text": ["x", "y"]}
    assert boxes(parse(tmp_path, entry)) == [("one", 20, 20, 80, 60), ("two", 100, 20, 160, 60)]


def test_json_min_of_two_annotators_is_told(tmp_path):
    entry = {"image": "a.jpg", "id": 1, "annotation_id": 1}
    new = entry | {"updated_at": "2024-03-01T10:00:00Z", "label": [value(rectanglelabels=["new"]) | SIZE]}
    old = entry | {"updated_at": "2024-02-01T10:00:00Z", "label": [value(rectanglelabels=["old"]) | SIZE]}
    read = parse(tmp_path, new, old)
    assert read.names == ["new"]
    assert "a.jpg (2)" in read.noticed[0]


def test_json_min_without_boxes_answers_only_if_it_has_no_other_value(tmp_path):
    entry = {"id": 1, "annotation_id": 1, "annotator": 2, "lead_time": 3.5}
    read = parse(tmp_path, entry | {"image": "a.jpg"}, entry | {"image": "b.jpg", "id": 2, "choice": "good"})
    assert [(one.name, one.boxes) for one in read.pictures] == [("a.jpg", ())]
    assert "results of choice 1" in read.left_out[0]


@pytest.mark.parametrize(
    "tree",
    [
        task(answer(result())),
        answer(result()) | {"task": {"id": 1, "data": {"image": "can/a.jpg"}}},
        [task(completions=[answer(result())]) | {"annotations": None}],
    ],
    ids=["one task", "an annotation in a storage", "the key of 2020"],
)
def test_other_forms_of_tasks_are_read(tmp_path, tree):
    if isinstance(tree, list):
        del tree[0]["annotations"]
    (tmp_path / "export.json").write_text(json.dumps(tree))
    assert looks_like_label_studio(tmp_path / "export.json")
    assert boxes(parse_label_studio(tmp_path / "export.json")) == [("can", 20, 20, 80, 60)]


@pytest.mark.parametrize("text", ["7", "[]", "[1]", '{"images": [], "annotations": []}', "{", '[{"a": "b.jpg"}]', ""])
def test_other_files_are_rejected(tmp_path, text):
    (tmp_path / "export.json").write_text(text)
    assert not looks_like_label_studio(tmp_path / "export.json")
    with pytest.raises(DataError, match=r"export\.json"):
        parse_label_studio(tmp_path / "export.json")


def test_entry_that_is_no_task_is_left_out_alone(tmp_path):
    read = parse(tmp_path, 3, {"id": 9, "annotations": []}, task(answer(result())))
    assert boxes(read) == [("can", 20, 20, 80, 60)]
    assert ["task 1: is a int" in read.left_out[0], "task 9: has no data" in read.left_out[1]] == [True, True]


def test_pictures_of_a_listing_are_found(tmp_path):
    picture = samples.picture(tmp_path / "pictures/can/a.jpg")
    export = [task(answer(result()), image="/data/upload/3/1a2b3c4d-a.jpg"), task(answer(), image="b.jpg")]
    (tmp_path / "export.json").write_text(json.dumps(export))
    listing = read_label_studio(tmp_path / "export.json", tmp_path / "pictures")
    assert [(scene.path, len(scene.boxes), scene.split) for scene in listing.scenes] == [(picture, 1, "train")]
    assert "b.jpg: not found" in listing.left_out[0]


def test_two_names_of_one_picture_are_left_out_of_a_listing(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        samples.picture(tmp_path / name)
    names = ["/data/upload/3/1a2b3c4d-a.jpg", "/data/upload/3/5e6f7a8b-a.jpg", "b.jpg"]
    (tmp_path / "export.json").write_text(json.dumps([task(answer(result()), image=name) for name in names]))
    listing = read_label_studio(tmp_path / "export.json", None)
    assert [scene.path.name for scene in listing.scenes] == ["b.jpg"]
    assert "2 names mean" in listing.left_out[0]


def test_listing_without_any_picture_is_rejected(tmp_path):
    (tmp_path / "export.json").write_text(json.dumps([task(answer(result()))]))
    with pytest.raises(DataError, match=r"can/a\.jpg: not found"):
        read_label_studio(tmp_path / "export.json", None)


def test_proposals_are_written_as_predictions_and_answers_as_annotations(tmp_path):
    proposed = Annotation("p/a é.jpg", (NamedBox((20, 20, 80, 60), "can", score=0.5),), declared_size_px=(200, 100))
    checked = Annotation("p/b.jpg", (NamedBox((20, 20, 80, 60), "can"),), declared_size_px=(200, 100))
    write_label_studio([proposed, checked], tmp_path / "tasks.json", {"p/b.jpg"})
    first, second = json.loads((tmp_path / "tasks.json").read_text())
    assert first["data"]["image"] == "/data/local-files/?d=p/a%20%C3%A9.jpg"
    assert (first["predictions"][0]["score"], "annotations" in first) == (0.5, False)
    assert first["predictions"][0]["model_version"]
    assert first["predictions"][0]["result"][0]["value"] == value(rectanglelabels=["can"])
    assert [one.name for one in parse_label_studio(tmp_path / "tasks.json").pictures] == ["p/b.jpg"]
    assert second["annotations"][0]["was_cancelled"] is False


SIDES = st.tuples(st.floats(0, 900), st.floats(0, 700), st.floats(1, 100), st.floats(1, 100))
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=9)


@few_examples
@given(name=NAMES, drawn=st.lists(st.tuples(NAMES, SIDES), max_size=4, unique_by=lambda one: one[1]))
def test_written_boxes_are_read_again(tmp_path, name, drawn):
    listed = [NamedBox((x, y, x + width, y + height), item) for item, (x, y, width, height) in drawn]
    name = f"p/{name.replace('/', '-')}.jpg"
    write_label_studio([Annotation(name, tuple(listed), declared_size_px=(1000, 800))], tmp_path / "t.json", {name})
    (read,) = parse_label_studio(tmp_path / "t.json").pictures
    assert (read.name, [box.item for box in read.boxes]) == (name, [box.item for box in listed])
    for one, other in zip(read.boxes, listed, strict=True):
        assert one.box_px == pytest.approx(other.box_px, abs=1e-9)


EXPORT = [task(answer(result(), result("b", "r2", type="polygonlabels")), answer(), predictions=[{"result": []}])]
MIN = [{"image": "a.jpg", "id": 1, "annotation_id": 1, "label": [value(rectanglelabels=["can"]) | SIZE]}]


@few_examples
@given(text=st.one_of(damaged_json(EXPORT), damaged_json(MIN)))
def test_any_json_is_read_or_rejected(tmp_path, text):
    (tmp_path / "export.json").write_text(text)
    with contextlib.suppress(DataError):
        read = parse_label_studio(tmp_path / "export.json")
        json.dumps([read.left_out, read.noticed], ensure_ascii=False).encode()
        assert all(box.box_px[2] > box.box_px[0] for one in read.pictures for box in one.boxes)


def test_label_that_is_a_number_is_a_name(tmp_path):
    file = tmp_path / "tasks.json"
    numbers = [
        result(identity="r1", value=value(rectanglelabels=[7])),
        result(identity="r2", value=value(x=1, rectanglelabels=[True])),
    ]
    file.write_text(json.dumps([{"id": 1, "data": {"image": "a.jpg"}, "annotations": [answer(*numbers)]}]))
    read = parse_label_studio(file)
    assert [box.item for box in read.pictures[0].boxes] == ["7"]
    assert "result r2: has no label" in read.left_out[0]


def test_list_of_createml_is_not_label_studio(tmp_path):
    file = tmp_path / "_annotations.createml.json"
    place = {"x": 30, "y": 30, "width": 20, "height": 20}
    file.write_text(json.dumps([{"image": "a.jpg", "annotations": [{"label": "can", "coordinates": place}]}]))
    assert not looks_like_label_studio(file)
