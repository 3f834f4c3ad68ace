"""CVAT XML: shapes become boxes or are named, and a picture that nobody answered for is not an empty one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_formats.cvat.reader import looks_like_cvat, parse_cvat, read_cvat, write_cvat
from dataset_formats.records import Annotation, NamedBox
from edge.errors import DataError, FinesightError
from tests.dataset_formats.samples import picture
from tests.dataset_formats.voc.test_reader import drawn, names, plain, sizes
from tests.trainer.damaged import damaged_text, few_examples, write

CAN = '<box label="can" source="manual" occluded="0" xtl="4" ytl="2" xbr="24" ybr="12" z_order="0"></box>'
META = """<version>1.1</version><meta><task><name>shelf</name><size>2</size><labels>
<label><name>jar</name><type>any</type><attributes><attribute><name>sku</name></attribute></attributes></label>
<label><name> can </name></label><label><name>lid</name><parent>jar</parent></label></labels>
<original_size><width>48</width><height>32</height></original_size></task></meta>"""
FRAME = '<box frame="{}" outside="{}" occluded="0" keyframe="{}" xtl="4" ytl="2" xbr="24" ybr="12"></box>'


def image(name: str, *shapes: str, more: str = "") -> str:
    return f'<image id="0" name="{name}" width="48" height="32" {more}>{"".join(shapes)}</image>'


def track(*frames: tuple[int, int, int], label: str = "can", more: str = "") -> str:
    shapes = "".join(FRAME.format(*frame) for frame in frames)
    return f'<track id="0" label="{label}" source="manual" {more}>{shapes}</track>'


def export(folder, *parts: str):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(("<annotations>", META, *parts, "</annotations>"))
    (folder / "annotations.xml").write_text(text, "utf-8")
    return folder / "annotations.xml"


def noticed(found) -> list[str]:
    """Return what was noticed, without the file."""
    return [line.partition("annotations.xml: ")[2] for line in found.noticed]


def test_boxes_sizes_and_classes_in_order_are_read(tmp_path):
    found = parse_cvat(export(tmp_path, image("can/a.jpg", CAN), image("b.jpg", CAN.replace("can", "box"))))
    assert found.pictures[0] == Annotation("can/a.jpg", (NamedBox((4, 2, 24, 12), "can"),), declared_size_px=(48, 32))
    assert found.names == ["jar", "can", "box"]
    assert (found.left_out, found.noticed) == ([], [])


def turned(rotation: float) -> str:
    return CAN.replace("z_order", f'rotation="{rotation}" z_order')


@pytest.mark.parametrize(
    ("shape", "box", "told"),
    [
        (turned(90), (9, -3, 19, 17), "rotated boxes"),
        (turned(0), (4, 2, 24, 12), None),
        ('<polygon label="can" points="4.5,2;24,3;9,12"/>', (4.5, 2, 24, 12), "polygons"),
        ('<ellipse label="can" cx="20" cy="10" rx="6" ry="2"/>', (14, 8, 26, 12), "ellipses"),
        ('<ellipse label="can" cx="20" cy="10" rx="6" ry="2" rotation="90"/>', (18, 4, 22, 16), "ellipses"),
        ('<mask label="can" rle="1, 2" left="4" top="2" width="20" height="10"/>', (4, 2, 24, 12), "masks"),
    ],
)
def test_shapes_become_the_box_around_them(tmp_path, shape, box, told):
    found = parse_cvat(export(tmp_path, image("a.jpg", shape)))
    assert found.pictures[0].boxes[0].box_px == pytest.approx(box)
    assert [line.partition(",")[0] for line in noticed(found)] == ([told] if told else [])


def test_a_box_turned_by_45_degrees_is_as_wide_as_its_diagonals(tmp_path):
    found = parse_cvat(export(tmp_path, image("a.jpg", turned(45))))
    half = 15 / math.sqrt(2)
    assert found.pictures[0].boxes[0].box_px == pytest.approx((14 - half, 7 - half, 14 + half, 7 + half))


@pytest.mark.parametrize("kind", ["polyline", "points", "skeleton", "cuboid", "tag"])
def test_a_picture_of_unread_shapes_only_is_left_out(tmp_path, kind):
    shape = f'<{kind} label="can" points="1,1;9,9"/>'
    found = parse_cvat(export(tmp_path, image("a.jpg", shape), image("b.jpg", shape, CAN)))
    assert [(one.name, len(one.boxes)) for one in found.pictures] == [("b.jpg", 1)]
    assert found.left_out == [f"{tmp_path}/annotations.xml: a.jpg: has only {kind}, which are not read; draw boxes"]
    assert noticed(found) == [f"{kind} shapes, not read: 2 (a.jpg: {kind} 1, b.jpg: {kind} 1)"]


def test_pictures_without_a_shape_are_empty_and_counted(tmp_path):
    found = parse_cvat(export(tmp_path, image("a.jpg"), image("b.jpg"), image("c.jpg", CAN)))
    assert [(one.name, len(one.boxes)) for one in found.pictures] == [("a.jpg", 0), ("b.jpg", 0), ("c.jpg", 1)]
    assert noticed(found) == ["images without a shape, read as pictures without an object: 2 (a.jpg, b.jpg)"]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (CAN.replace('"4"', '"four"'), "box 2: xtl is 'four', not a number"),
        (CAN.replace('xtl="4"', ""), "box 2: has no xtl"),
        (CAN.replace('"4"', '"24"'), "box 2: box 24 2 24 12 has no area"),
        (CAN.replace('"4"', '"44"'), "box 2: sides are swapped in 44 2 24 12"),
        (CAN.replace("can", " "), "box 2: has no label"),
        (turned(math.nan), "box 2: rotation is 'nan'"),
        ('<polygon label="can" points="1,2;3"/>', "polygon 2: points are '1,2;3', not x,y;x,y"),
        ('<polygon label="can"/>', "polygon 2: points are ''"),
        ('<ellipse label="can" cx="1" cy="1" rx="0" ry="2"/>', "ellipse 2: radii are 0 and 2"),
        ('<mask label="can" left="1" top="1" width="0" height="2"/>', "mask 2: box 1 1 1 3 has no area"),
    ],
)
def test_one_broken_shape_is_left_out_and_named(tmp_path, broken, why):
    found = parse_cvat(export(tmp_path, image("a.jpg", CAN, broken), image("b.jpg", broken)))
    assert [(one.name, len(one.boxes)) for one in found.pictures] == [("a.jpg", 1)]
    assert f"annotations.xml: a.jpg: {why}" in found.left_out[0]
    assert "b.jpg: none of its shapes can be used" in found.left_out[2]


def test_fields_that_are_not_read_are_told(tmp_path):
    shape = CAN.replace('occluded="0"', 'occluded="1"').replace("manual", "auto")
    shape = shape.replace("></box>", '><attribute name="sku">1</attribute></box>')
    found = parse_cvat(export(tmp_path, image("a.jpg", shape), image("b.jpg", shape)))
    assert noticed(found) == [
        "occluded objects, read like the others: 2 (a.jpg: box 1, b.jpg: box 1)",
        "objects that a model drew or helped to draw: 2 (a.jpg: box 1, b.jpg: box 1)",
        "attributes of objects, not read: 1 (sku)",
    ]


def test_subsets_are_splits(tmp_path):
    subsets = {"a": "Train", "b": "validation", "c": "holdout"}
    found = parse_cvat(export(tmp_path, *(image(n, CAN, more=f'subset="{s}"') for n, s in subsets.items())))
    assert [one.split for one in found.pictures] == ["train", "val", ""]
    assert noticed(found) == ["subset holdout is no split: 1 (c)"]


def test_an_image_listed_twice_is_read_once_or_named(tmp_path):
    again = image("a.jpg", CAN)
    found = parse_cvat(export(tmp_path, again, again, image("b.jpg", CAN), image("b.jpg"), image("")))
    assert [one.name for one in found.pictures] == ["a.jpg"]
    assert "images that are listed again with the same shapes: 1 (a.jpg)" in noticed(found)
    assert [line.partition(": ")[2] for line in found.left_out] == [
        "image 5: has no name; add it",
        "b.jpg: is listed 2 times with different shapes; keep one",
    ]


def test_frames_of_a_video_have_the_boxes_of_their_keyframes(tmp_path):
    tracks = track((0, 0, 1), (1, 0, 0), (2, 0, 1), (3, 1, 1)), track((2, 0, 1), (3, 0, 1), label="jar")
    found = parse_cvat(export(tmp_path, *tracks))
    assert [(one.name, [box.item for box in one.boxes]) for one in found.pictures] == [
        ("frame_000000", ["can"]),
        ("frame_000002", ["can", "jar"]),
        ("frame_000003", ["jar"]),
    ]
    assert {one.declared_size_px for one in found.pictures} == {(48, 32)}
    assert noticed(found) == ["frames without a keyframe, not read: 1 (frame_000001)"]


def test_a_frame_has_the_objects_that_move_through_it_too(tmp_path):
    moving = track((0, 0, 1), (1, 0, 0), (2, 0, 1))
    found = parse_cvat(export(tmp_path, moving, track((1, 0, 1), label="jar")))
    assert [box.item for box in found.pictures[1].boxes] == ["can", "jar"]


def test_a_frame_that_lacks_the_box_of_a_visible_object_is_left_out(tmp_path):
    found = parse_cvat(export(tmp_path, track((0, 0, 1), (4, 0, 1)), track((2, 0, 1), (4, 0, 1), (6, 0, 1))))
    assert [one.name for one in found.pictures] == ["frame_000000", "frame_000004", "frame_000006"]
    assert "frame_000002: 1 objects that are visible have no box here" in found.left_out[0]


@pytest.mark.parametrize("frame", ["-1", "1.5", "", "x"])
def test_a_shape_of_no_frame_is_named(tmp_path, frame):
    found = parse_cvat(export(tmp_path, track((frame, 0, 1), (3, 0, 1))))
    assert [one.name for one in found.pictures] == ["frame_000003"]
    assert "track 0: " in found.left_out[0]


def test_tracks_of_several_videos_are_named(tmp_path):
    videos = (track((0, 0, 1), more=f'task_id="{number}"') for number in (1, 2))
    found = parse_cvat(export(tmp_path, *videos, image("a.jpg", CAN)))
    assert [one.name for one in found.pictures] == ["a.jpg"]
    assert "tracks: belong to 2 videos, whose frames share names" in found.left_out[0]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("can/a.jpg", "images/can/a.jpg"),
        ("can/a.jpg", "can/a.jpg"),
        (r"C:\shots\can\a.jpg", "images/can/a.jpg"),
        ("can/a.jpg", "images/train/can/a.jpg"),
        ("frame_000000", "images/frame_000000.png"),
    ],
)
def test_pictures_are_found_beside_the_file_or_in_images(tmp_path, name, file):
    picture(tmp_path / file)
    export(tmp_path, image(name, CAN))
    for path in (tmp_path, tmp_path / "annotations.xml"):
        assert looks_like_cvat(path)
        assert [scene.path for scene in read_cvat(path, None).scenes] == [tmp_path / file]


def test_pictures_are_found_below_a_given_root(tmp_path):
    picture(tmp_path / "shots/can/a.jpg")
    file = export(tmp_path / "export/annotations", image("can/a.jpg", CAN))
    assert len(read_cvat(file, tmp_path / "shots").scenes) == 1
    with pytest.raises(DataError, match=r"annotations\.xml: can/a\.jpg: not found"):
        read_cvat(tmp_path / "export", None)


def test_frames_of_a_video_are_found_whatever_their_suffix(tmp_path):
    picture(tmp_path / "images/frame_000000.png")
    picture(tmp_path / "images/frame_000001.jpg")
    listing = read_cvat(export(tmp_path, track((0, 0, 1), (1, 0, 1), (2, 0, 1))).parent, None)
    assert [scene.path.name for scene in listing.scenes] == ["frame_000000.png", "frame_000001.jpg"]
    assert "frame_000002: not found" in listing.left_out[0]


def test_a_name_without_suffix_that_two_pictures_have_is_named(tmp_path):
    for name in ("frame_000000.png", "frame_000000.jpg", "b.jpg"):
        picture(tmp_path / name)
    listing = read_cvat(export(tmp_path, image("frame_000000", CAN), image("b.jpg", CAN)), None)
    assert [scene.path.name for scene in listing.scenes] == ["b.jpg"]
    assert "frame_000000: 2 pictures have this name" in listing.left_out[0]


def test_two_images_that_mean_one_picture_are_named(tmp_path):
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    listing = read_cvat(export(tmp_path, image("a.jpg", CAN), image("./a.jpg"), image("b.jpg", CAN)), None)
    assert [scene.path.name for scene in listing.scenes] == ["b.jpg"]
    assert [line.partition("xml: ")[2] for line in listing.left_out] == [
        f"{name}: 2 names mean {tmp_path / 'a.jpg'}; keep one" for name in ("a.jpg", "./a.jpg")
    ]


def test_without_subsets_every_fifth_picture_is_for_validation(tmp_path):
    for number in range(5):
        picture(tmp_path / f"{number}.jpg")
    listing = read_cvat(export(tmp_path, *(image(f"{number}.jpg", CAN) for number in range(5))), None)
    assert [scene.split for scene in listing.scenes] == ["train"] * 4 + ["val"]


def test_several_files_of_a_folder_are_read_together(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.jpg")
        export(tmp_path, image(f"{name}.jpg", CAN)).rename(tmp_path / f"task_{name}.xml")
    assert looks_like_cvat(tmp_path)
    assert [scene.path.name for scene in read_cvat(tmp_path, None).scenes] == ["a.jpg", "b.jpg"]
    with pytest.raises(DataError, match="holds 2 CVAT files"):
        parse_cvat(tmp_path)


def test_what_is_not_cvat_is_refused(tmp_path):
    for text in ("<annotation/>", "<!-- <annotations> --><project/>", "", "<annotations><image>"):
        (tmp_path / "annotations.xml").write_text(text)
        with pytest.raises(DataError, match=r"annotations\.xml: (its root|is empty|not XML)"):
            parse_cvat(tmp_path)
    assert looks_like_cvat(tmp_path)
    (tmp_path / "annotations.xml").write_text("<annotation><annotations/></annotation>")
    assert not looks_like_cvat(tmp_path)
    assert not looks_like_cvat(tmp_path / "absent")


@few_examples
@given(data=st.data(), given=names, classes=st.lists(plain, max_size=3))
def test_what_is_written_reads_back_to_the_last_digit(tmp_path, data, given, classes):
    splits = st.sampled_from(["", "train", "val", "test"])
    pictures = [
        Annotation(name, data.draw(drawn), data.draw(splits), declared_size_px=data.draw(sizes)) for name in given
    ]
    write_cvat(pictures, classes, tmp_path / "a.xml")
    found = parse_cvat(tmp_path / "a.xml")
    read = [
        (one.name, one.split, one.declared_size_px, [(box.item, box.box_px) for box in one.boxes])
        for one in found.pictures
    ]
    assert read == [
        (one.name, one.split, one.declared_size_px, [(box.item, box.box_px) for box in one.boxes]) for one in pictures
    ]
    assert found.names == list(dict.fromkeys([*classes, *(box.item for one in pictures for box in one.boxes)]))
    assert found.left_out == []


def test_scores_and_hashes_are_read_back_and_are_no_news(tmp_path):
    boxes = (NamedBox((1, 1, 9, 9), "can", score=0.125), NamedBox((2, 2, 9, 9), "can"))
    write_cvat([Annotation("a.jpg", boxes, sha256="0f" * 32)], [], tmp_path / "a.xml", {"a.jpg"})
    found = parse_cvat(tmp_path / "a.xml")
    assert [(one.sha256, [box.score for box in one.boxes]) for one in found.pictures] == [("0f" * 32, [0.125, None])]
    assert not [line for line in found.noticed if "attributes" in line]
    xml = (tmp_path / "a.xml").read_text().replace('source="auto"', 'source="auto" score="0.5"')  # beside the box
    (tmp_path / "a.xml").write_text(xml.replace("0f" * 32, "no hash"))
    (read,) = parse_cvat(tmp_path / "a.xml").pictures
    assert (read.sha256, read.boxes[0].score) == ("", 0.5)


def test_names_that_xml_cannot_hold_are_named(tmp_path):
    for one, classes in ((Annotation("a\x01.jpg", ()), []), (Annotation("a.jpg", ()), ["can\udce4"])):
        with pytest.raises(DataError, match="XML cannot hold"):
            write_cvat([one], classes, tmp_path / "a.xml")
    assert not (tmp_path / "a.xml").exists()


@few_examples
@given(text=damaged_text(f"<annotations>{META}{image('a.jpg', CAN)}{track((0, 0, 1), (1, 1, 1))}</annotations>"))
def test_any_cvat_xml_is_read_or_rejected(tmp_path, text):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "annotations.xml", text)
    looks_like_cvat(tmp_path)
    try:
        listing = read_cvat(tmp_path, None)
    except FinesightError:
        return
    assert listing.scenes
