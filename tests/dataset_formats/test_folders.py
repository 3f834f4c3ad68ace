"""Folders of classes: levels, splits, strays and names that cannot be read."""

from __future__ import annotations

import os

import pytest

from dataset_formats import folders as module
from dataset_formats.decode import PICTURE_SUFFIXES
from dataset_formats.folders import contents_of, innermost_folder, read_folders
from edge.errors import DataError
from tests.dataset_formats.samples import folders, picture


def named(listing, root) -> list[str]:
    """The left-out lines, without the folder in front."""
    return [line.removeprefix(f"{root}/") for line in listing.left_out]


def of(listing) -> set[tuple[str, str, str]]:
    return {(sample.split, sample.category, sample.item) for sample in listing.samples}


def test_one_level_of_folders_is_one_category(tmp_path):
    listing = read_folders(folders(tmp_path, ["plum", "pear"]))
    assert [sample.split for sample in listing.samples] == (["train"] * 4 + ["val"]) * 2
    assert {("object", "plum"), ("object", "pear")} == {(s.category, s.item) for s in listing.samples}


def test_folders_of_splits_are_not_classes(tmp_path):
    folders(tmp_path / "set/set", ["Train/jar/plum", "valid/jar/plum", "TEST/jar/plum"], per_item=1)
    assert of(read_folders(tmp_path / "set")) == {(split, "jar", "plum") for split in ("train", "val", "test")}


def test_splits_without_train_are_splits_too(tmp_path):
    assert of(read_folders(folders(tmp_path, ["val/plum", "test/plum"], 1))) == {
        ("val", "object", "plum"),
        ("test", "object", "plum"),
    }


def test_folder_names_with_a_split_in_them_are_classes(tmp_path):
    listing = read_folders(folders(tmp_path, ["latest", "trainer", "contest"], 1))
    assert {sample.item for sample in listing.samples} == {"latest", "trainer", "contest"}


def test_class_named_train_among_others_is_a_class(tmp_path):
    listing = read_folders(folders(tmp_path, ["train", "car", "plane"], 1))
    assert {sample.item for sample in listing.samples} == {"train", "car", "plane"}


def test_class_beside_splits_is_left_out_and_counted(tmp_path):
    listing = read_folders(folders(tmp_path, ["train/plum", "val/plum", "pear"], per_item=2))
    assert of(listing) == {("train", "object", "plum"), ("val", "object", "plum")}
    assert named(listing, tmp_path) == ["pear: lies beside the folders of splits, with 2 pictures; move it into one"]


def test_two_folders_of_one_split_are_noticed(tmp_path):
    listing = read_folders(folders(tmp_path, ["train/plum", "val/plum", "validation/plum"], 1))
    assert [sample.split for sample in listing.samples] == ["train", "val", "val"]
    assert listing.noticed == [f"{tmp_path}: val, validation are all the split val"]


def test_stray_picture_beside_items_is_left_out(tmp_path):
    folders(tmp_path, ["jar/plum", "jar/pear"], 1)
    picture(tmp_path / "jar/stray.png")
    listing = read_folders(tmp_path)
    assert of(listing) == {("train", "jar", "plum"), ("train", "jar", "pear")}
    assert named(listing, tmp_path) == ["jar/stray.png: lies beside the folders of items; move it into one"]


@pytest.mark.parametrize("name", ["stray.png", "train/stray.png"])
def test_picture_beside_classes_or_splits_is_left_out(tmp_path, name):
    folders(tmp_path, ["train/plum", "val/plum"], 1)
    picture(tmp_path / name)
    listing = read_folders(tmp_path)
    assert len(listing.samples) == 2
    assert len(listing.left_out) == 1
    assert "stray.png: lies beside the folders of" in listing.left_out[0]


def test_level_with_more_pictures_decides(tmp_path):
    folders(tmp_path, ["plum", "pear"], 3)
    folders(tmp_path, ["pear/old"], 2)
    listing = read_folders(tmp_path)
    assert {(s.category, s.item) for s in listing.samples} == {("object", "plum"), ("object", "pear")}
    assert [line.partition(";")[0] for line in named(listing, tmp_path)] == [
        "pear/old: lies inside an item, with 2 pictures"
    ]
    folders(tmp_path, ["pear/new", "jar/fig"], 3)
    listing = read_folders(tmp_path)
    assert {(s.category, s.item) for s in listing.samples} == {("pear", "old"), ("pear", "new"), ("jar", "fig")}
    assert sum("lies beside the folders of items" in line for line in listing.left_out) == 6


def test_empty_item_is_left_out(tmp_path):
    folders(tmp_path, ["jar/plum"], 1)
    (tmp_path / "jar/pear").mkdir()
    (tmp_path / "can").mkdir()
    listing = read_folders(tmp_path)
    assert len(listing.samples) == 1
    assert named(listing, tmp_path) == [
        "can: holds no item; remove it or add one",
        "jar/pear: holds no picture; every item needs one",
    ]


def test_folder_without_any_usable_picture_is_refused(tmp_path):
    (tmp_path / "jar/plum").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds no picture in class/picture .*plum: holds no picture"):
        read_folders(tmp_path)
    with pytest.raises(DataError, match="absent: cannot read"):
        read_folders(tmp_path / "absent")


@pytest.mark.parametrize("name", ["drawing.SVG", "saved.jfif", "clip.mp4"])
def test_picture_of_another_format_is_left_out(tmp_path, name):
    folders(tmp_path, ["plum"], per_item=1)
    (tmp_path / "plum" / name).write_bytes(b"x")
    assert named(read_folders(tmp_path), tmp_path)[0].startswith(f"plum/{name}: is of no format that is read here")


def test_heic_is_left_out_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PICTURE_SUFFIXES", (".png",))
    folders(tmp_path, ["plum"], per_item=1)
    (tmp_path / "plum/phone.HEIC").write_bytes(b"x")
    monkeypatch.setattr(module, "install_command", lambda extra: f"pip install {extra}")
    assert named(read_folders(tmp_path), tmp_path) == [
        "plum/phone.HEIC: is of no format that is read here (.png); convert it, or run: pip install heic"
    ]


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_picture_of_every_format_that_is_read_is_listed(tmp_path, suffix):
    (tmp_path / "plum").mkdir()
    (tmp_path / f"plum/a{suffix.upper()}").write_bytes(b"x")
    assert [sample.path.name for sample in read_folders(tmp_path).samples] == [f"a{suffix.upper()}"]


def test_files_of_file_managers_are_ignored(tmp_path):
    folders(tmp_path, ["plum"], per_item=1)
    for name in (".hidden.png", "._0.png", "Thumbs.db", "notes.txt", "@eaDir/0.png/thumb.jpg", ".git/a.png"):
        (tmp_path / "plum" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plum" / name).write_bytes(b"x")
    picture(tmp_path / "__MACOSX/plum/0.png")
    listing = read_folders(tmp_path)
    assert ([sample.path.name for sample in listing.samples], listing.left_out) == (["0.png"], [])


def test_names_that_are_not_utf_8_are_left_out_printable(tmp_path):
    folders(tmp_path, ["plum"], per_item=1)
    data = (tmp_path / "plum/0.png").read_bytes()
    plum = os.fsencode(tmp_path / "plum")
    with open(plum + b"/caf\xe9.png", "wb") as file:  # noqa: PTH123 bytes
        file.write(data)
    os.mkdir(os.fsencode(tmp_path) + b"/p\xeache")  # noqa: PTH102 bytes
    with open(os.fsencode(tmp_path) + b"/p\xeache/a.png", "wb") as file:  # noqa: PTH123 bytes
        file.write(data)
    listing = read_folders(tmp_path)
    assert [sample.path.name for sample in listing.samples] == ["0.png"]
    assert named(listing, tmp_path) == [
        "p\\udceache: its name is not UTF-8; rename it",
        "plum/caf\\udce9.png: its name is not UTF-8; rename it",
    ]
    assert "\n".join(listing.left_out).encode()


def test_links_in_circles_are_left_out(tmp_path):
    root = tmp_path / "set"
    folders(root, ["jar/plum"], per_item=1)
    (root / "jar/loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    listing = read_folders(root)
    assert len(listing.samples) == 1
    assert named(listing, root) == ["jar/loop: is a link to a folder that holds it; remove it"]


def test_nested_folders_that_link_to_each_other_end(tmp_path):
    for place, other in (("a", "b"), ("b", "a")):
        (tmp_path / place / "x").mkdir(parents=True)
        (tmp_path / place / "x/x").symlink_to(tmp_path / other / "x")
    assert innermost_folder(tmp_path / "a/x") == tmp_path / "a/x/x"


def test_link_to_a_folder_of_pictures_is_followed(tmp_path):
    folders(tmp_path / "elsewhere", ["plum"], per_item=1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/plum").symlink_to(tmp_path / "elsewhere/plum")
    assert [sample.item for sample in read_folders(tmp_path / "set").samples] == ["plum"]


def test_what_is_no_file_is_not_read(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    contents = contents_of(tmp_path)
    assert contents.pictures == [tmp_path / "a.png"]
    assert [line.rpartition("/")[2].partition(":")[0] for line in contents.left_out] == ["broken.png", "pipe.png"]


def test_annotations_of_no_known_layout_are_noticed(tmp_path):
    folders(tmp_path, ["plum", "pear"], 1)
    for name in ("plum/0.json", "labels.csv", "README.txt"):
        (tmp_path / name).write_text("{}")
    (line,) = read_folders(tmp_path).noticed
    assert line.startswith("files of no known layout, not read; only folders name the classes: 2")


def test_pictures_beside_unknown_annotations_name_the_file(tmp_path):
    picture(tmp_path / "a.jpg")
    (tmp_path / "a.json").write_text('{"shapes": []}')
    with pytest.raises(DataError, match=r"a\.json is of no known layout: give COCO, VOC, CVAT, or YOLO"):
        read_folders(tmp_path)


def test_folder_of_a_split_beside_one_without_pictures_is_no_class(tmp_path):
    picture(tmp_path / "test2017/a.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/captions.json").write_text("{}")
    with pytest.raises(DataError, match=r"captions\.json is of no known layout"):
        read_folders(tmp_path)


def test_class_that_is_called_like_a_split_is_noticed(tmp_path):
    assert read_folders(folders(tmp_path, ["set/train", "set/car"], 1)).noticed == [
        "classes that are called like a split: 1 (train)"
    ]


@pytest.mark.parametrize("name", ["a.CR2", "a.nef", "a.dng", "a.pgm", "a.jfif"])
def test_picture_of_an_unread_format_is_named(tmp_path, name):
    folders(tmp_path, ["plum"], 1)
    (tmp_path / "plum" / name).write_bytes(b"x")
    (line,) = named(read_folders(tmp_path), tmp_path)
    assert line.startswith(f"plum/{name}: is of no format that is read here")


def test_splits_in_the_only_folder_are_splits(tmp_path):
    listing = read_folders(folders(tmp_path, ["archive/train/plum", "archive/test/plum"], 1))
    assert of(listing) == {("train", "object", "plum"), ("test", "object", "plum")}


def test_pictures_of_splits_in_the_only_folder_have_no_class(tmp_path):
    folders(tmp_path, ["data/train", "data/val"], 1)
    with pytest.raises(DataError, match="lies beside the folders of classes"):
        read_folders(tmp_path)
