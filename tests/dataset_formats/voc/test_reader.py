"""Pascal VOC: every record is read or named, and every picture is the one that its XML means."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_formats.records import Annotation, NamedBox
from dataset_formats.voc.reader import looks_like_voc, parse_voc, read_voc, write_voc
from edge.errors import DataError
from tests.dataset_formats.samples import OBJECT, picture, voc
from tests.trainer.damaged import few_examples

CAN = ("can", 4, 2, 24, 12)
JAR = ("jar", 30, 2, 40, 12)


def xml(path, *objects: str, filename: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>{filename}</filename>{''.join(objects)}</annotation>", "utf-8")


def data_set(root, *stems: str, pictures: str = "JPEGImages") -> None:
    for number, stem in enumerate(stems):
        picture(root / pictures / f"{stem}.jpg", number)
        voc(root / f"Annotations/{stem}.xml", CAN)


def lists(root, **stems: str) -> None:
    (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    for name, text in stems.items():
        (root / f"ImageSets/Main/{name}.txt").write_bytes(text.encode())


def splits(listing) -> dict[str, str]:
    return {scene.path.stem: scene.split for scene in listing.scenes}


def test_one_broken_or_empty_xml_is_left_out_and_named(tmp_path):
    data_set(tmp_path, "a", "b", "c")
    (tmp_path / "Annotations/b.xml").write_text("")
    (tmp_path / "Annotations/c.xml").write_text("<annotation><object>")
    listing = read_voc(tmp_path)
    assert [scene.path.name for scene in listing.scenes] == ["a.jpg"]
    assert [line.partition("Annotations/")[2][:5] for line in listing.left_out] == ["b.xml", "c.xml"]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (OBJECT.format("", 4, 2, 24, 12), "object 2: has no name"),
        (OBJECT.format("jar", "(88, 100)", 2, 24, 12), r"object 2 \(jar\): xmin is '\(88, 100\)', not a number"),
        (OBJECT.format("jar", "nan", 2, 24, 12), r"object 2 \(jar\): xmin is 'nan'"),
        (OBJECT.format("jar", "1_0", 2, 24, 12), r"object 2 \(jar\): xmin is '1_0'"),
        (OBJECT.format("jar", "1e999", 2, 24, 12), r"object 2 \(jar\): xmin is '1e999'"),
        (OBJECT.format("jar", "", 2, 24, 12), r"object 2 \(jar\): has no xmin"),
        (OBJECT.format("jar", 4, 2, 4, 12), r"object 2 \(jar\): box 4 2 4 12 has no area"),
        (OBJECT.format("jar", 24, 2, 4, 12), r"object 2 \(jar\): sides are swapped in 24 2 4 12"),
        ("<object><name>jar</name></object>", r"object 2 \(jar\): has no bndbox"),
        (
            "<object><name>jar</name><part><bndbox><xmin>1</xmin></bndbox></part></object>",
            r"object 2 \(jar\): has no bndbox",
        ),
        ("<object><name>jar</name><bndbox/><bndbox/></object>", r"object 2 \(jar\): has 2 bndbox; keep one"),
        ("<objects><object/></objects>", "<objects>: holds objects; make them children"),
    ],
)
def test_one_broken_object_is_left_out_and_named(tmp_path, broken, why):
    xml(tmp_path / "a.xml", OBJECT.format(*CAN), broken)
    found = parse_voc(tmp_path / "a.xml")
    assert [box.item for box in found.pictures[0].boxes] == ["can"]
    assert len(found.left_out) == 1
    assert re.search(f"a.xml: {why}", found.left_out[0])


def test_a_picture_that_lost_all_of_its_objects_is_left_out(tmp_path):
    data_set(tmp_path, "a", "b")
    voc(tmp_path / "Annotations/b.xml", ("can", 4, 2, 4, 12))
    listing = read_voc(tmp_path)
    assert list(splits(listing)) == ["a"]
    assert "b.xml: none of its objects can be used" in listing.left_out[1]


def test_a_picture_without_objects_is_read(tmp_path):
    data_set(tmp_path, "a", "b")
    xml(tmp_path / "Annotations/b.xml")
    listing = read_voc(tmp_path)
    assert [len(scene.boxes) for scene in listing.scenes] == [1, 0]
    assert listing.left_out == []


def test_a_confidence_is_the_score_of_a_box(tmp_path):
    xml(tmp_path / "a.xml", OBJECT.format(*CAN).replace("<b", "<confidence>0.25</confidence><b"))
    assert parse_voc(tmp_path / "a.xml").pictures[0].boxes == (NamedBox((4, 2, 24, 12), "can", score=0.25),)


def test_rotated_boxes_become_the_box_around_them(tmp_path):
    turned = "<robndbox><cx>20</cx><cy>10</cy><w>8</w><h>4</h><angle>{}</angle></robndbox>"
    objects = [f"<object><name>can</name>{turned.format(angle)}</object>" for angle in (0, math.pi / 2, math.pi / 4)]
    xml(tmp_path / "a.xml", *objects)
    found = parse_voc(tmp_path / "a.xml")
    half = 6 / math.sqrt(2)
    expected = [(16, 8, 24, 12), (18, 6, 22, 14), (20 - half, 10 - half, 20 + half, 10 + half)]
    assert [box.box_px for box in found.pictures[0].boxes] == [pytest.approx(box) for box in expected]
    assert found.noticed[0].startswith("rotated boxes, read as the box around them: 3 (a.xml object 1,")


@pytest.mark.parametrize(
    "polygon",
    [
        "<pt><x>4</x><y>2</y></pt><pt><x>24</x><y>3</y></pt><pt><x>9</x><y>12</y></pt>",
        "<x1>4</x1><y1>2</y1><x2>24</x2><y2>3</y2><x3>9</x3><y3>12</y3>",
    ],
)
def test_an_outline_alone_becomes_the_box_around_it(tmp_path, polygon):
    xml(tmp_path / "a.xml", f"<object><name>can</name><polygon>{polygon}</polygon></object>")
    found = parse_voc(tmp_path / "a.xml")
    assert found.pictures[0].boxes[0].box_px == (4, 2, 24, 12)
    assert found.noticed == ["outlines without a box, read as the box around them: 1 (a.xml object 1)"]


def test_flags_of_objects_are_counted_and_deleted_ones_not_read(tmp_path):
    flags = ["<difficult>1</difficult>", "<truncated>1</truncated><difficult>1</difficult>", "<deleted>1</deleted>"]
    xml(tmp_path / "a.xml", *(OBJECT.format(f"can{n}", *CAN[1:]).replace("<b", f"{f}<b") for n, f in enumerate(flags)))
    found = parse_voc(tmp_path / "a.xml")
    assert [box.item for box in found.pictures[0].boxes] == ["can0", "can1"]
    assert found.noticed == [
        "difficult objects, read like the others: 2 (a.xml object 1, a.xml object 2)",
        "truncated objects, read like the others: 1 (a.xml object 2)",
        "deleted objects, not read: 1 (a.xml object 3)",
    ]


def test_deleted_objects_count_in_the_numbers_of_objects_only(tmp_path):
    deleted = OBJECT.format(*CAN).replace("<b", "<deleted>1</deleted><b")
    xml(tmp_path / "a.xml", deleted)
    assert parse_voc(tmp_path / "a.xml").pictures == [Annotation("a", ())]
    xml(tmp_path / "a.xml", deleted, "<object><name>can</name></object>")
    assert "object 2 (can): has no bndbox" in parse_voc(tmp_path / "a.xml").left_out[0]


def test_parts_of_an_object_are_no_objects(tmp_path):
    part = OBJECT.format("lid", 5, 3, 9, 9).replace("object>", "part>")
    xml(tmp_path / "a.xml", OBJECT.format(*CAN).replace("</object>", f"{part}</object>"))
    assert [box.item for box in parse_voc(tmp_path / "a.xml").pictures[0].boxes] == ["can"]


def test_names_are_text_without_blanks_around(tmp_path):
    xml(tmp_path / "a.xml", OBJECT.format("\n 007 ", *CAN[1:]), OBJECT.format("7", *CAN[1:]))
    assert parse_voc(tmp_path / "a.xml").names == ["007", "7"]


def test_sizes_of_zero_are_not_declared(tmp_path):
    for width, expected in (("0", None), ("no", None), ("48.0", (48, 32))):
        xml(tmp_path / "a.xml", f"<size><width>{width}</width><height>32</height></size>")
        assert parse_voc(tmp_path / "a.xml").pictures[0].declared_size_px == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"train": "a\nb\n", "val": "c\n", "test": "d"}, "train train val test"),
        ({"trainval": "a\nb\nc\n", "test": "d\n"}, "train train train test"),
        ({"train": "a\nb\n", "val": "c\nd\n", "trainval": "a\nb\nc\nd\n"}, "train train val val"),
        ({"val": "c\n", "trainval": "a\nb\nc\n", "test": "d\n"}, "train train val test"),
        ({"train": "a\n", "trainval": "a\nb\nc\n", "test": "d\n"}, "train val val test"),
        ({"train": "a  1\r\nb.jpg -1\r\n\r\n", "val": " c\t0\r\nd.JPG"}, "train train val val"),
        ({"Train": "a\nb\n", "valid": "c\nd\n", "can_train": "a -1\n"}, "train train val val"),
    ],
)
def test_lists_give_the_splits(tmp_path, given, expected):
    data_set(tmp_path, "a", "b", "c", "d")
    lists(tmp_path, **given)
    listing = read_voc(tmp_path)
    assert splits(listing) == dict(zip("abcd", expected.split(), strict=True))
    assert (listing.left_out, listing.noticed) == ([], [])


def test_pictures_of_no_list_and_lines_without_xml_are_named(tmp_path):
    data_set(tmp_path, "a", "b", "c")
    lists(tmp_path, train="a\nghost\n")
    listing = read_voc(tmp_path)
    assert list(splits(listing)) == ["a"]
    folder = tmp_path / "ImageSets/Main"
    assert listing.left_out == [
        f"{folder}: lists pictures that have no XML, or several; left out: 1 (ghost)",
        f"{folder}: no list has these pictures; left out: 2 (b, c)",
    ]


def test_a_picture_of_two_lists_is_named_and_withheld_from_training(tmp_path):
    data_set(tmp_path, "a", "b", "c")
    lists(tmp_path, train="a\nb\nc\n", val="b\n", test="c\n")
    listing = read_voc(tmp_path)
    assert splits(listing) == {"a": "train", "b": "val", "c": "test"}
    assert [line.partition(": ")[2] for line in listing.noticed] == [
        "pictures of val are also in another list; they count as val: 1 (b)",
        "pictures of test are also in another list; they count as test: 1 (c)",
    ]


def test_trainval_beside_train_and_val_adds_nothing(tmp_path):
    data_set(tmp_path, "a", "b", "c")
    lists(tmp_path, train="a\n", val="b\n", trainval="a\nb\nc\n")
    listing = read_voc(tmp_path)
    assert splits(listing) == {"a": "train", "b": "val"}
    assert [line.partition(": ")[2] for line in listing.left_out] == [
        "trainval.txt has pictures that neither train.txt nor val.txt has: 1 (c)"
    ]


def test_a_stem_matches_its_exact_case_first(tmp_path):
    data_set(tmp_path, "a", "A")
    xml(tmp_path / "Annotations/a.xml", OBJECT.format(*JAR))
    listing = read_voc(tmp_path)
    assert {scene.path.name: scene.boxes[0].item for scene in listing.scenes} == {"A.jpg": "can", "a.jpg": "jar"}
    (tmp_path / "JPEGImages/a.jpg").unlink()
    listing = read_voc(tmp_path)
    assert {scene.path.name: scene.boxes[0].item for scene in listing.scenes} == {"A.jpg": "can"}
    assert f"Annotations/a.xml: another XML describes {tmp_path / 'JPEGImages/A.jpg'}, too" in listing.left_out[0]


def test_of_two_pictures_of_one_stem_the_filename_decides(tmp_path):
    data_set(tmp_path, "a", "b")
    picture(tmp_path / "JPEGImages/a.png")
    xml(tmp_path / "Annotations/a.xml", OBJECT.format(*CAN), filename="a.png")
    listing = read_voc(tmp_path)
    assert [scene.path.name for scene in listing.scenes] == ["a.png", "b.jpg"]
    assert listing.left_out == [f"{tmp_path / 'JPEGImages/a.jpg'}: has no XML"]
    xml(tmp_path / "Annotations/a.xml", OBJECT.format(*CAN))
    listing = read_voc(tmp_path)
    assert [scene.path.name for scene in listing.scenes] == ["b.jpg"]
    assert "a.xml: 2 pictures have its name" in listing.left_out[0]


def test_a_filename_finds_the_picture_of_an_xml_of_another_name(tmp_path):
    picture(tmp_path / "JPEGImages/can 1.jpg")
    xml(tmp_path / "Annotations/0001.xml", OBJECT.format(*CAN), filename=r"C:\shots\can 1.jpg")
    listing = read_voc(tmp_path)
    assert [scene.path.name for scene in listing.scenes] == ["can 1.jpg"]
    assert listing.noticed == ["pictures found by `filename`, not by the name of the XML: 1 (0001.xml)"]


def test_a_filename_of_another_picture_is_noticed(tmp_path):
    data_set(tmp_path, "a", "b")
    xml(tmp_path / "Annotations/b.xml", OBJECT.format(*JAR), filename="a.jpg")
    listing = read_voc(tmp_path)
    assert {scene.path.name: scene.boxes[0].item for scene in listing.scenes} == {"a.jpg": "can", "b.jpg": "jar"}
    assert listing.noticed[0].startswith("XML whose `filename` is another picture")
    assert listing.noticed[0].endswith(": 1 (b.xml)")


def test_stems_may_have_dots_and_names_of_xml_the_suffix_of_the_picture(tmp_path):
    data_set(tmp_path, "shelf.2024.01", "shelf.2024.02")
    (tmp_path / "Annotations/shelf.2024.02.xml").rename(tmp_path / "Annotations/shelf.2024.02.jpg.xml")
    listing = read_voc(tmp_path)
    assert [scene.path.name for scene in listing.scenes] == ["shelf.2024.01.jpg", "shelf.2024.02.jpg"]


@pytest.mark.parametrize(
    ("xml_at", "picture_at", "split"),
    [
        ("VOCdevkit/VOC2007/Annotations/a.xml", "VOCdevkit/VOC2007/JPEGImages/a.jpg", "train"),
        ("Annotations/shop/a.xml", "JPEGImages/shop/a.jpg", "train"),
        ("annotations/xmls/a.xml", "images/a.png", "train"),
        ("a.XML", "a.jpg", "train"),
        ("a.xml", "images/a.jpg", "train"),
        ("Annotations/a.xml", "a.jpg", "train"),
        ("test/a.xml", "test/a.jpg", "test"),
        ("valid/a.xml", "valid/a.jpg", "val"),
        ("test/annotations/a.xml", "test/images/a.jpg", "test"),
        ("annotations/test/a.xml", "images/test/a.jpg", "test"),
        ("annotations/a.xml", "images/test/a.jpg", "test"),
    ],
)
def test_files_are_found_where_tools_put_them(tmp_path, xml_at, picture_at, split):
    picture(tmp_path / picture_at)
    voc(tmp_path / xml_at, CAN)
    assert looks_like_voc(tmp_path)
    listing = read_voc(tmp_path)
    assert [(scene.path, scene.split) for scene in listing.scenes] == [(tmp_path / picture_at, split)]
    assert listing.left_out == []


def test_years_side_by_side_keep_pictures_of_one_name_apart(tmp_path):
    for year, item in (("VOC2007", CAN), ("VOC2012", JAR)):
        data_set(tmp_path / year, "a")
        voc(tmp_path / year / "Annotations/a.xml", item)
        lists(tmp_path / year, **{"train" if item is CAN else "val": "a\n"})
    found = {scene.path.parts[-3]: (scene.boxes[0].item, scene.split) for scene in read_voc(tmp_path).scenes}
    assert found == {"VOC2007": ("can", "train"), "VOC2012": ("jar", "val")}


def test_masks_of_the_same_stem_are_no_pictures(tmp_path):
    picture(tmp_path / "SegmentationClass/a.png")
    picture(tmp_path / "a.jpg")
    voc(tmp_path / "Annotations/a.xml", CAN)
    assert [scene.path.name for scene in read_voc(tmp_path).scenes] == ["a.jpg"]


def test_pictures_outside_the_folders_of_splits_are_left_out(tmp_path):
    for name in ("train/a", "b"):
        picture(tmp_path / f"{name}.jpg")
        voc(tmp_path / f"{name}.xml", CAN)
    listing = read_voc(tmp_path)
    assert splits(listing) == {"a": "train"}
    assert listing.left_out == ["pictures without a split, which others have; left out: 1 (b.jpg)"]


def test_annotations_of_cvat_are_not_voc(tmp_path):
    picture(tmp_path / "a.jpg")
    (tmp_path / "annotations.xml").write_text("<annotations><version>1.1</version></annotations>")
    assert not looks_like_voc(tmp_path)
    voc(tmp_path / "a.xml", CAN)
    assert looks_like_voc(tmp_path)
    assert "annotations.xml: its root is <annotations>, expected <annotation>" in read_voc(tmp_path).left_out[0]


def test_a_folder_that_links_to_itself_is_read_once(tmp_path):
    picture(tmp_path / "a.jpg")
    voc(tmp_path / "a.xml", CAN)
    (tmp_path / "again").symlink_to(tmp_path)
    assert len(read_voc(tmp_path).scenes) == 1


def test_names_that_are_not_utf8_can_be_printed(tmp_path):
    picture(tmp_path / "a.jpg")
    voc(tmp_path / "a.xml", CAN)
    (tmp_path / "b\udce4.xml").write_text("")
    "".join(read_voc(tmp_path).left_out).encode()


def test_files_that_name_one_picture_are_told_apart_or_left_out(tmp_path):
    for inner in ("a", "b", "x/c", "y/c"):
        xml(tmp_path / f"{inner}.xml", OBJECT.format(*CAN), filename="a.jpg" if inner in "ab" else "c.jpg")
    found = parse_voc(tmp_path)
    assert [one.name for one in found.pictures] == ["a.jpg", "x/c.jpg", "y/c.jpg"]
    assert found.left_out == [f"{tmp_path / 'b.xml'}: another XML names a.jpg, too; keep one"]


def test_what_is_not_voc_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no XML"):
        parse_voc(tmp_path)
    with pytest.raises(DataError, match="holds no XML"):
        read_voc(tmp_path)
    (tmp_path / "a.xml").write_text("<project/>")
    for path in (tmp_path, tmp_path / "a.xml"):
        with pytest.raises(DataError, match="its root is <project>"):
            parse_voc(path)


sides = st.floats(-1e6, 1e6, allow_subnormal=False)
xml_characters = st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufffe\uffff")
plain = st.text(xml_characters, min_size=1, max_size=12).map(str.strip).filter(bool)
boxes = st.tuples(plain, sides, sides, sides, sides).map(
    lambda one: NamedBox((min(one[1], one[3]), min(one[2], one[4]), max(one[1], one[3]), max(one[2], one[4])), one[0])
)
with_area = boxes.filter(lambda one: one.box_px[0] < one.box_px[2] and one.box_px[1] < one.box_px[3])
scored = st.builds(
    lambda box, score: NamedBox(box.box_px, box.item, score=score), with_area, st.none() | st.floats(0, 1)
)
drawn = st.lists(scored, max_size=4, unique_by=lambda box: (box.box_px, box.item)).map(tuple)
sizes = st.none() | st.tuples(st.integers(1, 9999), st.integers(1, 9999))
names = st.lists(plain, min_size=1, max_size=5, unique=True)


@few_examples
@given(data=st.data(), given=names)
def test_what_is_written_reads_back_to_the_last_digit(tmp_path_factory, data, given):
    folder = tmp_path_factory.mktemp("voc")
    pictures = [Annotation(name, data.draw(drawn), declared_size_px=data.draw(sizes)) for name in given]
    write_voc(pictures, folder)
    found = parse_voc(folder)
    assert sorted(found.pictures, key=lambda one: one.name) == sorted(pictures, key=lambda one: one.name)
    assert found.left_out == []


def test_written_files_keep_their_folders_and_stay_apart(tmp_path):
    write_voc([Annotation(name, ()) for name in ("can/a.jpg", "jar/a.jpg", "can/a.png", "../b.jpg", "c.1")], tmp_path)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.xml"))
    assert found == ["b.xml", "c.1.xml", "can/a.png.xml", "can/a.xml", "jar/a.xml"]


def test_written_files_beside_their_pictures_are_a_data_set(tmp_path):
    box = NamedBox((4, 2.25, 24, 12), "can")
    picture(tmp_path / "JPEGImages/shop/a.jpg")
    write_voc([Annotation("shop/a.jpg", (box,))], tmp_path / "Annotations")
    assert [(scene.path.name, scene.boxes) for scene in read_voc(tmp_path).scenes] == [("a.jpg", (box,))]


@pytest.mark.parametrize("name", ["a\x01.jpg", "a\udce4.jpg", "a\x00", "a\uffff"])
def test_names_that_xml_cannot_hold_are_named_and_nothing_is_written(tmp_path, name):
    with pytest.raises(DataError, match="XML cannot hold"):
        write_voc([Annotation("b.jpg", ()), Annotation(name, ())], tmp_path)
    assert list(tmp_path.iterdir()) == []


def attribute(name: str, value: str) -> str:
    return f"<attributes><attribute><name>{name}</name><value>{value}</value></attribute></attributes>"


def test_box_with_a_rotation_of_cvat_becomes_the_box_around_it(tmp_path):
    xml(tmp_path / "a.xml", OBJECT.format(*CAN).replace("</object>", attribute("rotation", "90.0") + "</object>"))
    read = parse_voc(tmp_path)
    assert read.pictures[0].boxes[0].box_px == pytest.approx((9, -3, 19, 17))
    assert "rotated boxes, read as the box around them: 1" in read.noticed[0]


@pytest.mark.parametrize(("name", "value"), [("rotation", "0.0"), ("rotation", "360"), ("rotation", ""), ("id", "9")])
def test_box_without_a_rotation_is_read_as_written(tmp_path, name, value):
    xml(tmp_path / "a.xml", OBJECT.format(*CAN).replace("</object>", attribute(name, value) + "</object>"))
    read = parse_voc(tmp_path)
    assert (read.pictures[0].boxes[0].box_px, read.noticed) == (CAN[1:], [])


def test_rotation_that_is_no_number_leaves_its_box_out(tmp_path):
    turned = OBJECT.format(*CAN).replace("</object>", attribute("rotation", "left") + "</object>")
    xml(tmp_path / "a.xml", turned, OBJECT.format(*JAR))
    read = parse_voc(tmp_path)
    assert [box.item for box in read.pictures[0].boxes] == ["jar"]
    assert "object 1 (can): rotation is 'left', not a number" in read.left_out[0]


def test_boxes_of_a_model_are_noticed(tmp_path):
    xml(tmp_path / "a.xml", OBJECT.format(*CAN).replace("</object>", "<confidence>0.4</confidence></object>"))
    assert "boxes with a score, as a model proposes them: 1" in parse_voc(tmp_path).noticed[0]
