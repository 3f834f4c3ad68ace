"""YOLO data sets: what names classes and pictures, which text file belongs to a picture, and what is written."""

from __future__ import annotations

import os
import shutil
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_formats.layouts import find_layout
from dataset_formats.records import Annotation, NamedBox
from dataset_formats.yolo.reader import looks_like_yolo, read_yolo, write_yolo
from edge.errors import DataError
from tests.dataset_formats.samples import picture
from tests.trainer.damaged import few_examples

BOX = "0 .5 .5 .5 .5\n"
SIDES = (12, 8, 36, 24)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    return picture(tmp_path_factory.mktemp("picture") / "a.jpg").read_bytes()


@pytest.fixture
def build(tmp_path, encoded):
    """Write files of a data set in `set`: pictures by their suffix, and texts."""

    def write(files: dict[str, str | bytes] | None = None, pictures: str = ""):
        root = tmp_path / "set"
        for name in pictures.split():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(encoded)
        for name, text in (files or {}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return root

    return write


def one_picture(build, table: str, label: str = BOX, **others):
    """Build a data set of one picture in `images`."""
    return build({"data.yaml": table, "labels/a.txt": label} | others, "images/a.jpg")


def scenes(root) -> dict[str, str]:
    """Return the splits of each picture, by its path in the data set."""
    found: dict[str, str] = {}
    for scene in read_yolo(root).scenes:
        name = os.path.relpath(scene.path, root)
        found[name] = f"{found[name]}+{scene.split}" if name in found else scene.split
    return found


def items(listing) -> list[list[str]]:
    return [[box.item for box in scene.boxes] for scene in listing.scenes]


def said(lines, text: str) -> bool:
    return sum(text in line for line in lines) == 1


# --- class names


@pytest.mark.parametrize(
    ("names", "number", "item"),
    [
        ("[cola, milk]", 1, "milk"),
        ("[no, 1.0, 12:30]", 1, "1.0"),
        ("[no, 1.0, 12:30]", 0, "no"),
        ("{0: cola, 1: milk}", 1, "milk"),
        ("{3: cola, 7: milk}", 7, "milk"),
        ("{1: cola, 2: milk}", 1, "cola"),
        ("{'0': cola, '1': milk, '10': tea, '2': jam}", 2, "jam"),
        ("[' cola ', milk]", 0, "cola"),
        ("[{0: cola}, {1: milk}]", 1, "milk"),
        ("obj.names", 2, "milk"),
        ("data/obj.names", 0, "cola"),
    ],
)
def test_id_of_a_class_is_its_key_or_position(build, names, number, item):
    table = f"train: images\nnames: {names}\n"
    root = one_picture(build, table, f"{number} .5 .5 .5 .5", **{"obj.names": " cola \r\n\r\nmilk\r\n\r\n"})
    assert items(read_yolo(root)) == [[item]]


def test_names_come_in_the_order_of_ids(build):
    assert read_yolo(one_picture(build, "train: images\nnames: {10: tea, 9: jam, 0: cola}\n")).names == [
        "cola",
        "jam",
        "tea",
    ]


def test_keys_of_fields_may_have_any_case(build):
    assert items(read_yolo(one_picture(build, "TRAIN: images\nNames: [cola]\nNC: 1\n"))) == [["cola"]]


def test_class_in_a_gap_of_names_is_left_out(build):
    listing = read_yolo(one_picture(build, "train: images\nnames: [cola, '', milk]\n", f"{BOX}1 .5 .5 .2 .2\n"))
    assert items(listing) == [["cola"]]
    assert said(listing.left_out, "labels/a.txt: line 2: class 1 has no name")
    assert said(listing.left_out, "names: class 1 is called ''; write a name")


def test_key_that_is_no_whole_number_is_named(build):
    listing = read_yolo(one_picture(build, "train: images\nnames: {0: cola, 1.5: milk, -1: ignore}\n"))
    assert listing.names == ["cola"]
    assert said(listing.left_out, "names: '1.5' is not a whole number; write `id: name`")
    assert said(listing.left_out, "names: '-1' is not a whole number")


@pytest.mark.parametrize("names", ["{cola: 0}", "[]", "", "absent.names", "{0: [a]}"])
def test_set_that_names_no_class_is_refused(build, names):
    with pytest.raises(DataError, match=r"data\.yaml: names"):
        read_yolo(one_picture(build, f"train: images\nnames: {names}\n"))


def test_id_with_two_names_is_refused(build):
    with pytest.raises(DataError, match="line 2: a mapping has the key 1 2 times; keep one"):
        read_yolo(one_picture(build, "train: images\nnames: {1: cola, 1: milk}\n"))
    with pytest.raises(DataError, match="class 1 is called cola and milk; keep one"):
        read_yolo(one_picture(build, "train: images\nnames: {1: cola, '01': milk}\n"))


def test_count_of_classes_that_differs_is_noticed(build):
    assert said(read_yolo(one_picture(build, "train: images\nnames: [a]\nnc: 3\n")).noticed, "declares '3' classes")
    assert read_yolo(one_picture(build, "train: images\nnames: {0: a, 6: b}\nnc: 7\n")).noticed == []


def test_repeated_name_is_one_class(build):
    table = "train: images\nnames: [cola, milk, cola]\n"
    listing = read_yolo(one_picture(build, table, "0 .5 .5 .2 .2\n2 .5 .5 .4 .4\n1 .5 .5 .3 .3\n"))
    assert (listing.names, items(listing)) == (["cola", "milk"], [["cola", "cola", "milk"]])
    assert said(listing.noticed, "classes 0, 2 are all called cola")


def test_ids_that_seem_to_count_from_one_are_noticed(build):
    listing = read_yolo(one_picture(build, "train: images\nnames: [a, b]\n", "1 .5 .5 .2 .2\n2 .5 .5 .2 .2\n"))
    assert said(listing.noticed, "class 0 is never used, and class 2 has no name")


def test_blank_line_of_classes_is_an_id(build):
    root = build({"classes.txt": "cola\n\nmilk\n\n", "a.txt": "2 .5 .5 .5 .5"}, "a.jpg")
    assert (read_yolo(root).names, items(read_yolo(root))) == (["cola", "milk"], [["milk"]])


def test_names_that_differ_between_files_are_refused(build):
    root = build({"classes.txt": "cola\nmilk\n", "labels/classes.txt": "cola\n", "labels/a.txt": BOX}, "images/a.jpg")
    assert read_yolo(root).names == ["cola", "milk"]
    (root / "labels/classes.txt").write_text("milk\ncola\n")
    with pytest.raises(DataError, match=r"labels/classes\.txt: names other classes than .*; keep one of them"):
        read_yolo(root)


def test_data_yaml_wins_over_other_tables(build):
    root = one_picture(build, "train: images\nnames: [cola]\n", **{"another.yaml": "train: images\nnames: [milk]\n"})
    listing = read_yolo(root)
    assert items(listing) == [["cola"]]
    assert said(listing.noticed, "another.yaml: has names, too; data.yaml was read")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_texts_of_windows_are_read(build, encoding):
    table = "names: [Käse]\r\ntrain: images\r\n".encode(encoding)
    root = one_picture(build, table, BOX.replace("\n", "\r\n").encode(encoding))
    assert find_layout(root) == "yolo"
    assert items(read_yolo(root)) == [["Käse"]]


# --- where the pictures are


@pytest.mark.parametrize(
    ("fields", "split"),
    [
        ("train: images/all", "train"),
        ("training: images/all/", "train"),
        ("Val: [images/all]", "val"),
        ("valid: ./images/all", "val"),
        ("validation: ../images/all", "val"),
        ("test: images", "test"),
        ("path: ../set\ntrain: images/all", "train"),
        ("path: ../dataset\ntrain: images/all", "train"),
        ("path: /content/dataset\ntrain: images/all", "train"),
        ("path: images\ntrain: all", "train"),
        (r"train: images\all", "train"),
        (r"train: C:\data\set\images\all", "train"),
        ("train: /elsewhere/me/set/images/all", "train"),
        ("train: data/images/all", "train"),
        ("train: images/all/shop1/a.jpg", "train"),
        ("train: list.txt", "train"),
        ("train: data/list.txt", "train"),
        ("train:", "train"),
        ("", "train"),
    ],
)
def test_folder_of_pictures_is_found(build, fields, split):
    files = {"labels/all/shop1/a.txt": BOX, "list.txt": "./images/all/shop1/a.jpg\n"}
    root = build(files | {"data.yaml": f"names: [cola]\n{fields}\n"}, "images/all/shop1/a.jpg")
    assert scenes(root) == {"images/all/shop1/a.jpg": split}
    assert items(read_yolo(root)) == [["cola"]]


@pytest.mark.parametrize(
    "line",
    [
        "./images/train/a.jpg",
        "images/train/a.jpg",
        "\n  images/train/a.jpg  \r\n\r\n",
        "{root}/images/train/a.jpg",
        "/elsewhere/me/set/images/train/a.jpg",
        r"C:\sets\images\train\a.jpg",
        r".\images\train\a.jpg",
        "../images/train/a.jpg",
        "data/images/train/a.jpg",
        "images/TRAIN/A.JPG",
    ],
)
def test_list_may_write_a_path_in_any_way(build, line):
    root = build({"labels/train/a.txt": BOX, "data.yaml": "names: [a]\ntrain: train.txt\n"}, "images/train/a.jpg")
    (root / "train.txt").write_text(line.format(root=root))
    assert scenes(root) == {"images/train/a.jpg": "train"}


def test_list_is_relative_to_itself_or_to_path(build):
    files = {"lists/x.txt": "a.jpg\n", "lists/a.txt": BOX, "lists/y.txt": "b.jpg\n", "in/b.txt": BOX}
    root = build(
        files | {"data.yaml": "names: [a]\npath: in\ntrain: ../lists/x.txt\nval: ../lists/y.txt"},
        "lists/a.jpg in/b.jpg",
    )
    assert scenes(root) == {"lists/a.jpg": "train", "in/b.jpg": "val"}


def test_place_that_was_found_elsewhere_is_noticed(build):
    listing = read_yolo(one_picture(build, "names: [a]\ntrain: data/images\nval: ../images\n"))
    assert said(listing.noticed, "train: data/images is not there;")
    assert not any("../images" in line for line in listing.noticed)


def test_missing_split_is_named_and_the_others_are_read(build):
    listing = read_yolo(one_picture(build, "names: [a]\ntrain: images\nval: val/images\ntest: [{a: b}]\n"))
    assert [scene.split for scene in listing.scenes] == ["train"]
    assert said(listing.left_out, "data.yaml: val: val/images is not there; add it or correct the path")
    assert said(listing.left_out, "data.yaml: test: {'a': 'b'} is not a path")


def test_set_without_any_picture_is_refused(build):
    with pytest.raises(DataError, match=r"no picture is where train, val or images point .*val/images is not there"):
        read_yolo(one_picture(build, "names: [a]\nval: val/images\n"))


def test_picture_of_a_list_that_is_not_there_is_left_out(build):
    files = {
        "labels/val/a.txt": BOX,
        "data.yaml": "names: [a]\ntrain: train.txt\nval: val.txt\n",
        "val.txt": "images/val/a.jpg\n",
    }
    root = build(files | {"train.txt": "images/train/a.jpg\nimages/val/b.jpg\n"}, "images/val/a.jpg images/val/b.jpg")
    assert scenes(root) == {"images/val/b.jpg": "train", "images/val/a.jpg": "val"}
    assert said(read_yolo(root).left_out, "train.txt: images/train/a.jpg: is not there; add the picture")


def test_picture_of_another_split_is_no_match(build):
    files = {"labels/val/b.txt": BOX, "data.yaml": "names: [a]\ntrain: train.txt\nval: other\n"}
    root = build(files | {"train.txt": "images/train/a.jpg\nimages/val/b.jpg\n"}, "images/val/a.jpg images/val/b.jpg")
    assert scenes(root) == {"images/val/b.jpg": "train"}


def test_name_that_several_pictures_have_is_left_out(build):
    files = {"data.yaml": "names: [a]\ntrain: [t.txt, c]\n", "t.txt": "/x/a.jpg\n", "c/b.txt": BOX}
    listing = read_yolo(build(files, "shop1/a.jpg shop2/a.jpg c/b.jpg"))
    assert len(listing.scenes) == 1
    assert said(listing.left_out, "t.txt: /x/a.jpg: 2 pictures have this name")


def test_direct_and_nested_pictures_are_read(build):
    files = {"data.yaml": "names: [a]\ntrain: images\n", "labels/a.txt": BOX, "labels/x/y/a.txt": BOX}
    root = build(files, "images/a.jpg images/x/y/a.jpg")
    assert scenes(root) == {"images/a.jpg": "train", "images/x/y/a.jpg": "train"}
    assert items(read_yolo(root)) == [["a"], ["a"]]


def test_picture_in_two_splits_is_noticed(build):
    listing = read_yolo(one_picture(build, "names: [a]\ntrain: images\nval: images\n"))
    assert [scene.split for scene in listing.scenes] == ["train", "val"]
    assert items(listing) == [["a"], ["a"]]
    assert said(listing.noticed, "pictures in several splits; results on them look too good: 1")


def test_picture_given_twice_is_read_once(build):
    listing = read_yolo(one_picture(build, "names: [a]\ntrain: [images, ../set/images]\n"))
    assert len(listing.scenes) == 1
    assert said(listing.noticed, "pictures given twice for one split; each was read once: 1")


def test_folder_linked_into_itself_is_read_once(build):
    root = one_picture(build, "names: [a]\ntrain: images\n")
    (root / "images/again").symlink_to(root / "images")
    assert scenes(root) == {"images/a.jpg": "train"}


@pytest.mark.parametrize("given", ["..", "/", "../..", "/dev/null"])
def test_place_that_is_more_than_the_set_is_not_searched(build, given):
    listing = read_yolo(one_picture(build, f"names: [a]\ntrain: images\nval: {given}\n"))
    assert [scene.split for scene in listing.scenes] == ["train"]
    assert said(listing.left_out, "data.yaml: val: ")


def test_pipe_among_the_labels_is_not_read(build):
    root = one_picture(build, "names: [a]\ntrain: images\n", **{"images/b.jpg": b""})
    os.mkfifo(root / "labels/b.txt")
    assert len(read_yolo(root).scenes) == 2


# --- obj.data and plain folders


@pytest.mark.parametrize(
    ("folder", "table", "split"),
    [
        ("obj_train_data", "train = data/train.txt", "train"),
        ("obj_Train_data", "Train = data/train.txt", "train"),
        ("obj_Validation_data", "Validation = data/train.txt", "val"),
        ("obj_valid_data", "# train = no\nvalid=train.txt", "val"),
        ("obj_default_data", "default = data/train.txt", "train"),
    ],
)
def test_darknet_export_of_cvat_is_read(build, folder, table, split):
    files = {"obj.data": f"classes = 1\n{table}\nnames = data/obj.names\nbackup = backup/\n", "obj.names": "cola\n"}
    root = build(files | {"train.txt": f"data/{folder}/a.jpg\n", f"{folder}/a.txt": BOX}, f"{folder}/a.jpg")
    assert find_layout(root) == "yolo"
    assert scenes(root) == scenes_of_file(root) == {f"{folder}/a.jpg": split}
    assert items(read_yolo(root)) == [["cola"]]


def scenes_of_file(root) -> dict[str, str]:
    return {os.path.relpath(scene.path, root): scene.split for scene in read_yolo(root / "obj.data").scenes}


def test_pictures_in_no_list_are_noticed(build):
    files = {"obj.names": "cola\n", "train.txt": "data/obj_train_data/a.jpg\n", "obj_train_data/a.txt": BOX}
    listing = read_yolo(build(files, "obj_train_data/a.jpg obj_valid_data/b.jpg"))
    assert [(scene.path.name, scene.split) for scene in listing.scenes] == [("a.jpg", "train")]
    assert said(listing.noticed, "pictures in no list, or outside images; they were not read: 1")


def test_folders_of_cvat_without_lists_are_splits(build):
    files = {"obj.names": "cola\n", "obj_train_data/a.txt": BOX}
    root = build(files, "obj_train_data/a.jpg obj_Validation_data/b.jpg")
    assert scenes(root) == {"obj_Validation_data/b.jpg": "val", "obj_train_data/a.jpg": "train"}


def test_names_beside_the_pictures_of_splits_are_found(build):
    files = {
        f"{split}/{name}": text
        for split in ("train", "valid")
        for name, text in (("_darknet.labels", "cola\n"), ("a.txt", BOX))
    }
    root = build(files, "train/a.jpg valid/a.jpg")
    assert find_layout(root) == "yolo"
    assert scenes(root) == {"train/a.jpg": "train", "valid/a.jpg": "val"}


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [
        ("images/train/x/a.jpg images/val/a.jpg", "labels/train/x/a.txt"),
        ("train/images/a.jpg valid/images/a.jpg", "train/labels/a.txt"),
        ("Images/train/a.jpg Images/val/a.jpg", "Labels/train/a.txt"),
        ("JPEGImages/train/a.jpg JPEGImages/val/a.jpg", "labels/train/a.txt"),
        ("train/a.jpg val/a.jpg", "labels/train/a.txt"),
        ("train/a.jpg val/a.jpg", "train/labels/a.txt"),
        ("train/a.jpg val/a.jpg", "train/a.jpg.txt"),
        ("train/a.jpg val/a.jpg", "train/a.TXT"),
        ("train/A.JPG val/a.jpg", "train/a.txt"),
    ],
)
def test_text_file_lies_in_labels_or_beside_the_picture(build, pictures, labels):
    root = build({"classes.txt": "cola\n", labels: BOX}, pictures)
    found = {scene.split: [box.item for box in scene.boxes] for scene in read_yolo(root).scenes}
    assert found == {"train": ["cola"], "val": []}


def test_set_without_splits_holds_out_every_fifth_picture(build):
    root = build({"classes.txt": "cola\n", "0.txt": BOX}, " ".join(f"{number}.jpg" for number in range(10)))
    assert [scene.split for scene in read_yolo(root).scenes] == (["train"] * 4 + ["val"]) * 2


def test_picture_beside_the_folders_of_splits_is_named(build):
    root = build({"classes.txt": "a\n", "labels/train/a.txt": BOX}, "images/train/a.jpg images/b.jpg")
    assert scenes(root) == {"images/train/a.jpg": "train"}
    assert said(read_yolo(root).left_out, "images/b.jpg: is in no split, but others are")


def test_pictures_beside_a_test_folder_are_for_training(build):
    root = build({"classes.txt": "a\n", "labels/test/a.txt": BOX}, "images/test/a.jpg images/b.jpg")
    assert scenes(root) == {"images/test/a.jpg": "test", "images/b.jpg": "train"}


def test_folders_of_classes_are_not_yolo(build):
    assert not looks_like_yolo(
        build({"cola/classes.txt": "x", "docs/data.yaml": "names: [a]"}, "cola/a.jpg milk/a.jpg")
    )


# --- text files and their pictures


def test_picture_without_a_text_file_shows_no_object(build):
    listing = read_yolo(build({"classes.txt": "a\n", "a.txt": BOX, "b.txt": " \n"}, "a.jpg b.jpg c.jpg"))
    assert items(listing) == [["a"], [], []]
    assert said(listing.noticed, "pictures without a text file, which show no object by YOLO's convention: 1")


def test_set_without_any_text_file_is_refused(build):
    root = build({"classes.txt": "a\n", "labels/classes.txt": "a\n"}, "images/a.jpg images/classes.jpg")
    with pytest.raises(
        DataError, match=r"none of the 2 pictures has a text file, .*; put labels/a\.txt beside images/a"
    ):
        read_yolo(root)


def test_text_files_without_a_picture_are_counted(build):
    files = {"classes.txt": "a\n", "labels/classes.txt": "a\n"} | {
        f"labels/{name}.txt": BOX for name in ("a", "b", "x/c")
    }
    assert said(
        read_yolo(build(files, "images/a.jpg")).noticed, "text files that belong to no picture that was read: 2"
    )


def test_two_pictures_with_one_text_file_are_left_out(build):
    listing = read_yolo(build({"classes.txt": "a\n", "a.txt": BOX, "b.txt": BOX}, "a.jpg a.png b.jpg"))
    assert [scene.path.name for scene in listing.scenes] == ["b.jpg"]
    assert said(listing.left_out, "a.png: ")
    assert all("a.txt may belong to 2 pictures; rename them" in line for line in listing.left_out)


def test_picture_keeps_its_text_file_from_others_in_other_case(build):
    listing = read_yolo(build({"classes.txt": "a\n", "a.txt": BOX}, "A.jpg a.jpg"))
    assert {scene.path.name: len(scene.boxes) for scene in listing.scenes} == {"A.jpg": 0, "a.jpg": 1}


def test_name_in_another_unicode_form_is_the_same(build):
    root = build(
        {"classes.txt": "a\n", unicodedata.normalize("NFD", "Käse.txt"): BOX}, unicodedata.normalize("NFC", "Käse.jpg")
    )
    assert items(read_yolo(root)) == [["a"]]


def test_picture_that_lost_all_its_lines_is_left_out(build):
    listing = read_yolo(
        build(
            {"classes.txt": "a\n", "a.txt": "0 ,5\n3 .5 .5 .2 .2", "b.txt": f"{BOX}x", "c.txt": "0 2 .5 .1 .1"},
            "a.jpg b.jpg c.jpg",
        )
    )
    assert [scene.path.name for scene in listing.scenes] == ["b.jpg"]
    assert len(listing.left_out) == 6
    assert said(listing.left_out, "a.jpg: none of its lines in a.txt can be used")
    assert said(listing.left_out, "c.jpg: none of its lines in c.txt can be used")


def test_picture_with_an_undecodable_text_file_is_left_out(build):
    listing = read_yolo(build({"classes.txt": "a\n", "a.txt": b"\xff0 .5", "b.txt": BOX}, "a.jpg b.jpg"))
    assert [scene.path.name for scene in listing.scenes] == ["b.jpg"]
    assert said(listing.left_out, "a.txt: line 1: byte 0xff is not UTF-8")


def test_broken_picture_is_left_out_only_if_its_size_matters(build):
    listing = read_yolo(
        build({"classes.txt": "a\n", "a.txt": BOX, "b.txt": "", "c.txt": BOX, "a.jpg": b"", "b.jpg": b""}, "c.jpg")
    )
    assert [scene.path.name for scene in listing.scenes] == ["b.jpg", "c.jpg"]
    assert said(listing.left_out, "set/a.jpg: the 0 bytes are no picture")


def test_repeated_line_is_one_box(build):
    listing = read_yolo(one_picture(build, "train: images\nnames: [a]\n", BOX * 2))
    assert items(listing) == [["a"]]
    assert said(listing.noticed, "list one box twice; each was read once: 1")


def test_boxes_are_pixels_and_predictions_have_scores(build):
    box = read_yolo(one_picture(build, "train: images\nnames: [a]\n", "0 .5 .5 .5 .5 .75")).scenes[0].boxes[0]
    assert (box.box_px, box.score) == (pytest.approx(SIDES), 0.75)


def test_declared_keypoints_are_not_an_outline(build):
    root = one_picture(build, "train: images\nnames: [a]\nkpt_shape: [2, 2]\n", "0 .5 .5 .5 .5 .1 .1 .9 .9")
    assert read_yolo(root).scenes[0].boxes[0].box_px == pytest.approx(SIDES)
    (root / "data.yaml").write_text("train: images\nnames: [a]\nkpt_shape: 2\n")
    assert said(read_yolo(root).noticed, "kpt_shape: '2' is not [points, numbers of each]")


def test_file_names_that_are_not_utf8_can_be_printed(build, encoded):
    root = build({"classes.txt": "a\n"})
    for name, data in ((b"\xff.jpg", encoded), (b"a.jpg", encoded), (b"a.txt", BOX.encode()), (b"\xff.txt", b"x")):
        (root / os.fsdecode(name)).write_bytes(data)
    listing = read_yolo(root)
    assert items(listing) == [["a"]]
    assert said(listing.left_out, r"set/\udcff.jpg: its name is not UTF-8; rename it")
    assert said(listing.noticed, r"text files that belong to no picture that was read: 1")


# --- writing


@st.composite
def annotations(draw: st.DrawFn) -> list[Annotation]:
    names = draw(
        st.lists(st.text("ab é-", min_size=1).filter(str.strip), min_size=1, max_size=4, unique_by=str.casefold)
    )
    found = []
    for number, name in enumerate(names):
        size = draw(st.tuples(st.integers(1, 8000), st.integers(1, 8000)))
        sides = st.tuples(*[st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.001, 0.5), st.floats(0.001, 0.5)])
        boxes = [
            NamedBox(
                (x * size[0], y * size[1], (x + w) * size[0], (y + h) * size[1]),
                draw(st.sampled_from(["no", "1.0", "a: b"])),
            )
            for x, y, w, h in draw(st.lists(sides, max_size=3, unique=True))
        ]
        split = draw(st.sampled_from(["train", "val", "test"]))
        found.append(Annotation(f"{number}/{name.strip()}.jpg", tuple(boxes), split, declared_size_px=size))
    return found


@few_examples
@given(pictures=annotations())
def test_written_boxes_are_read_again(tmp_path, monkeypatch, encoded, pictures):
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    write_yolo(pictures, ["no", "1.0", "a: b"], tmp_path / "out")
    for one in pictures:
        file = tmp_path / "out/images" / one.name
        file.parent.mkdir(parents=True)
        file.write_bytes(encoded)
    sizes = {(tmp_path / "out/images" / one.name): one.declared_size_px for one in pictures}
    monkeypatch.setattr("dataset_formats.yolo.reader.upright_size", sizes.__getitem__)
    listing = read_yolo(tmp_path / "out")
    assert (listing.names, listing.left_out) == (["no", "1.0", "a: b"], [])
    read = {scene.path: scene for scene in listing.scenes}
    for one in pictures:
        scene = read[tmp_path / "out/images" / one.name]
        assert scene.split == one.split
        assert [box.item for box in scene.boxes] == [box.item for box in one.boxes]
        for ours, theirs in zip(scene.boxes, one.boxes, strict=True):
            assert ours.box_px == pytest.approx(theirs.box_px, abs=1e-8 * max(one.declared_size_px))


def test_what_cannot_be_written_is_refused(tmp_path):
    box = NamedBox((0, 0, 1, 1), "tea")
    for pictures, why in (
        ([Annotation("a.jpg", ())], "has no name or no size"),
        ([Annotation("../", (), declared_size_px=(4, 4))], "has no name or no size"),
        (
            [Annotation(f"a{end}", (), declared_size_px=(4, 4)) for end in (".jpg", ".png")],
            "is the text file of several",
        ),
        ([Annotation("a.jpg", (box,), declared_size_px=(4, 4))], "tea is not a class; names are cola"),
        ([Annotation("\udcff.jpg", (), declared_size_px=(4, 4))], "cannot write"),
    ):
        with pytest.raises(DataError, match=why):
            write_yolo(pictures, ["cola"], tmp_path)


def test_pictures_without_splits_are_written_with_default_ones(tmp_path, encoded):
    write_yolo([Annotation(f"../{n}.jpg", (), declared_size_px=(9, 9)) for n in range(5)], ["cola"], tmp_path)
    (tmp_path / "images").mkdir()
    for number in range(5):
        (tmp_path / f"images/{number}.jpg").write_bytes(encoded)
    assert list(scenes(tmp_path).values()) == ["train"] * 4 + ["val"]
