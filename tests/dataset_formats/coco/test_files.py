"""Folders of COCO files: which are read, which split they are of, and which pictures their names mean."""

from __future__ import annotations

import json
import unicodedata

import pytest

from dataset_formats.coco.reader import holds_coco, looks_like_coco, read_coco
from dataset_formats.coco.rpc import read_rpc
from edge.errors import DataError
from tests.dataset_formats.coco.test_reader import BOX, CATEGORIES, IMAGE, write
from tests.dataset_formats.samples import picture


def pictures(root, *names) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def one_picture(root, name, file="c.json", **image):
    """A JSON with one picture of this name."""
    return write(root, images=[IMAGE | {"file_name": name} | image], name=file)


def paths(listing, root) -> list[str]:
    return [str(scene.path.relative_to(root)) for scene in listing.scenes]


def official(root) -> None:
    """Two splits of official COCO: pictures have the same names in both, and each split has six files."""
    for split in ("train2017", "val2017"):
        pictures(root, f"{split}/1.jpg", f"{split}/2.jpg")
        images = [{"id": number, "file_name": f"{number}.jpg", "width": 48, "height": 32} for number in (1, 2)]
        person = {"id": 1, "name": "person", "supercategory": "person"}
        cup = {"id": 47, "name": "cup", "supercategory": "kitchen"}
        sky = {"id": 157, "name": "sky-other", "supercategory": "sky"}
        alone = BOX | {"bbox": [1, 1, 9, 9]}
        drunk = BOX | {"id": 8, "image_id": 2, "category_id": 47}
        folder = root / "annotations"
        write(folder, [alone, drunk], images, [person, cup], f"instances_{split}.json")
        keys = {"keypoints": [2, 2, 2], "num_keypoints": 1}
        write(folder, [alone | keys], images, [person], f"person_keypoints_{split}.json")
        write(folder, [BOX | {"id": 9, "category_id": 157}], images, [sky], f"stuff_{split}.json")
        write(folder, [{"image_id": 1, "id": 1, "caption": "x"}], images, None, f"captions_{split}.json")
        segment = {"id": 3, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": 0}
        write(
            folder,
            [{"image_id": 1, "file_name": "1.png", "segments_info": [segment]}],
            images,
            name=f"panoptic_{split}.json",
        )
        (folder / f"image_info_{split}.json").write_text(json.dumps({"images": images, "categories": [person, cup]}))


def test_official_coco_gives_its_instances_once_and_names_the_others(tmp_path):
    official(tmp_path)
    listing = read_coco(tmp_path, None)
    assert paths(listing, tmp_path) == ["train2017/1.jpg", "train2017/2.jpg", "val2017/1.jpg", "val2017/2.jpg"]
    assert [scene.split for scene in listing.scenes] == ["train", "train", "val", "val"]
    assert [[box.item for box in scene.boxes] for scene in listing.scenes] == [["person"], ["cup"]] * 2
    assert listing.names == ["person", "cup"]
    told = " ".join(listing.left_out)
    for task in ("person_keypoints", "stuff", "captions", "panoptic", "image_info"):
        assert all(f"{task}_{split}2017.json: " in told for split in ("train", "val"))
    assert "captions_val2017.json: it describes pictures, but has no boxes" in told
    assert "keypoints_val2017.json: its pictures and boxes are in instances_val2017.json as well" in told
    assert "stuff_val2017.json: it is another task for pictures of instances_val2017.json" in told


def test_files_with_boxes_are_found_by_their_structure(tmp_path):
    official(tmp_path)
    names = {path.name.rpartition("_")[0] for path in tmp_path.rglob("*.json") if looks_like_coco(path)}
    assert names == {"instances", "person_keypoints", "stuff"}
    (tmp_path / "words.json").write_text('{"text": "\\"images\\", \\"annotations\\" and \\"bbox\\""}')
    assert not looks_like_coco(tmp_path / "words.json")
    (tmp_path / "list.json").write_text('[{"images": 1, "annotations": 2, "bbox": 3}]')
    assert not looks_like_coco(tmp_path / "list.json")


def test_set_without_any_object_is_coco(tmp_path):
    pictures(tmp_path, "a.png")
    assert holds_coco(write(tmp_path, []).parent)
    assert [scene.boxes for scene in read_coco(tmp_path, None).scenes] == [()]


def test_damaged_file_is_recognised_and_named(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text()[:-5])
    assert holds_coco(tmp_path)
    with pytest.raises(DataError, match=r"holds no JSON with images and annotations.*c\.json: not JSON"):
        read_coco(tmp_path, None)


def test_damaged_file_beside_a_whole_one_is_left_out(tmp_path):
    pictures(tmp_path, "a.png")
    write(tmp_path)
    (tmp_path / "d.json").write_text('{"images": [')
    listing = read_coco(tmp_path, None)
    assert len(listing.scenes) == 1
    assert "d.json: not JSON" in listing.left_out[0]


def test_json_of_something_else_is_passed_over(tmp_path):
    pictures(tmp_path, "a.png")
    write(tmp_path)
    (tmp_path / "settings.json").write_text('{"images": "a", "lr": 1}')
    (tmp_path / "._c.json").write_bytes(b"\0\5\26\7")
    assert read_coco(tmp_path, None).left_out == []


def test_file_that_repeats_another_one_is_left_out(tmp_path):
    pictures(tmp_path, "a.png")
    write(tmp_path)
    write(tmp_path, name="copy of c.json")
    listing = read_coco(tmp_path, None)
    assert len(listing.scenes) == 1
    assert "copy of c.json: its pictures and boxes are in c.json as well" in listing.left_out[0]


def test_file_of_everything_gives_way_to_the_files_of_its_splits(tmp_path):
    pictures(tmp_path, "a.png", "b.png")
    other = IMAGE | {"id": 2, "file_name": "b.png"}
    second = BOX | {"id": 8, "image_id": 2}
    write(tmp_path, name="train.json")
    write(tmp_path, [second], [other], name="val.json")
    for name in ("all.json", "trainval.json"):
        write(tmp_path, [BOX, second], [IMAGE, other], name=name)
    listing = read_coco(tmp_path, None)
    assert [scene.split for scene in listing.scenes] == ["train", "val"]
    assert len(listing.left_out) == 2
    assert listing.noticed == []


def test_files_with_other_boxes_of_a_picture_are_merged_and_said(tmp_path):
    pictures(tmp_path, "a.png")
    write(tmp_path, [BOX, BOX | {"id": 8, "category_id": 5}], name="a.json")
    write(tmp_path, [BOX, BOX | {"id": 9, "bbox": [1, 1, 9, 9]}], name="b.json")
    listing = read_coco(tmp_path, None)
    assert [(box.item, box.box_px[0]) for box in listing.scenes[0].boxes] == [
        ("cola", 4.0),
        ("milk", 4.0),
        ("cola", 1.0),
    ]
    assert len(listing.scenes) == 1
    assert "several files describe; they have the boxes of all: 1" in listing.noticed[0]


def test_picture_in_two_splits_is_a_leak_and_named(tmp_path):
    pictures(tmp_path, "a.png")
    write(tmp_path, name="train.json")
    write(tmp_path, name="val.json")
    listing = read_coco(tmp_path, None)
    assert [scene.split for scene in listing.scenes] == ["train", "val"]
    assert "pictures in several splits; results on them look too good: 1" in listing.noticed[0]


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("instances_train2017.json", "train"),
        ("val_coco.json", "val"),
        ("TEST.json", "test"),
        ("my-validation.v2.json", "val"),
        ("annotations/instances_Train.json", "train"),
        ("latest_annotations.json", ""),
        ("contrast.json", ""),
        ("evaluation.json", ""),
        ("train_test.json", ""),
        ("train/_annotations.coco.json", "train"),
        ("valid/_annotations.coco.json", "val"),
        ("test/labels.json", "test"),
        ("latest/_annotations.coco.json", ""),
    ],
)
def test_split_comes_from_whole_words_of_a_file_or_folder(tmp_path, file, split):
    pictures(tmp_path, "a.png")
    one_picture(tmp_path, "a.png", file)
    assert [scene.split for scene in read_coco(tmp_path, None).scenes] == [split]


def test_split_of_an_image_wins_over_that_of_its_file(tmp_path):
    pictures(tmp_path, "a.png")
    one_picture(tmp_path, "a.png", "train.json", split=" TEST ")
    assert [scene.split for scene in read_coco(tmp_path, None).scenes] == ["test"]


def test_single_file_has_no_split_of_its_name(tmp_path):
    pictures(tmp_path, "a.png")
    assert read_coco(one_picture(tmp_path, "a.png", "train.json"), None).scenes[0].split == ""


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("a.jpg", "images/a.jpg"),
        ("shop\\a.jpg", "images/shop/a.jpg"),
        ("/elsewhere/someone/project/images/a.jpg", "images/a.jpg"),
        ("C:\\set\\images\\a.jpg", "images/a.jpg"),
        ("images/a.jpg", "a.jpg"),
        ("./images/a.jpg", "images/a.jpg"),
        ("SHOP/A.JPG", "shop/a.jpg"),
        (unicodedata.normalize("NFD", "café.jpg"), "café.jpg"),
        ("a.jpg", "deep/er/a.jpg"),
        ("a.jpg", "data/a.jpg"),
    ],
)
def test_name_that_another_tool_wrote_is_found(tmp_path, written, file):
    pictures(tmp_path, file)
    assert paths(read_coco(one_picture(tmp_path, written), None), tmp_path) == [file]


def test_name_may_lead_out_of_the_folder_of_the_json(tmp_path):
    pictures(tmp_path, "photos/a.jpg")
    listing = read_coco(one_picture(tmp_path / "labels", "../photos/a.jpg", "labels.json"), None)
    assert paths(listing, tmp_path) == ["photos/a.jpg"]


def test_absolute_name_is_found_whatever_the_root(tmp_path):
    pictures(tmp_path, "photos/a.jpg")
    (tmp_path / "other").mkdir()
    path = one_picture(tmp_path, str(tmp_path / "photos/a.jpg"))
    assert paths(read_coco(path, tmp_path / "other"), tmp_path) == ["photos/a.jpg"]


def test_name_that_stands_elsewhere_is_noticed(tmp_path):
    pictures(tmp_path, "images/a.jpg")
    (line,) = read_coco(one_picture(tmp_path, "/mnt/images/a.jpg"), None).noticed
    assert "found by the end of their path: 1 (/mnt/images/a.jpg)" in line


def test_pictures_of_the_same_file_name_stay_apart(tmp_path):
    pictures(tmp_path, "images/x/a.jpg", "images/y/a.jpg")
    images = [{"id": number, "file_name": f"{folder}/a.jpg"} for number, folder in enumerate("xy", 1)]
    listing = read_coco(write(tmp_path, [BOX, BOX | {"id": 8, "image_id": 2, "category_id": 5}], images), None)
    assert paths(listing, tmp_path) == ["images/x/a.jpg", "images/y/a.jpg"]
    assert [scene.boxes[0].item for scene in listing.scenes] == ["cola", "milk"]


def two_names(tmp_path, first, second):
    images = [{"id": number, "file_name": name} for number, name in enumerate((first, second), 1)]
    return read_coco(write(tmp_path, [BOX, BOX | {"id": 8, "image_id": 2, "category_id": 5}], images), None)


def test_name_of_several_pictures_is_left_out_and_named(tmp_path):
    pictures(tmp_path, "x/a.jpg", "y/a.jpg", "b.jpg")
    listing = two_names(tmp_path, "b.jpg", "a.jpg")
    assert paths(listing, tmp_path) == ["b.jpg"]
    assert "image a.jpg: 2 pictures" in listing.left_out[0]


def test_missing_picture_is_left_out_and_named(tmp_path):
    pictures(tmp_path, "a.jpg")
    listing = two_names(tmp_path, "a.jpg", "gone.jpg")
    assert paths(listing, tmp_path) == ["a.jpg"]
    assert "image gone.jpg: not found" in listing.left_out[0]


@pytest.mark.parametrize("lost", ["y/a.jpg", "/mnt/y/a.jpg"])
def test_missing_picture_is_not_that_of_another_folder(tmp_path, lost):
    pictures(tmp_path, "x/a.jpg")
    listing = two_names(tmp_path, "x/a.jpg", lost)
    assert [scene.boxes[0].item for scene in listing.scenes] == ["cola"]
    assert f"image {lost}: " in listing.left_out[0]


def test_names_that_stand_elsewhere_and_mean_one_picture_are_left_out(tmp_path):
    pictures(tmp_path, "a.jpg")
    with pytest.raises(DataError, match=r"image /x/a\.jpg: 2 names mean .*a\.jpg"):
        two_names(tmp_path, "/x/a.jpg", "/y/a.jpg")


def test_names_of_one_picture_are_put_together(tmp_path):
    pictures(tmp_path, "a.jpg")
    listing = two_names(tmp_path, "a.jpg", "./a.jpg")
    assert [[box.item for box in scene.boxes] for scene in listing.scenes] == [["cola", "milk"]]
    assert "the picture of another name" in listing.noticed[0]


def test_missing_folder_of_a_split_is_not_replaced_by_that_of_another(tmp_path):
    official(tmp_path)
    for number in (1, 2):
        (tmp_path / f"val2017/{number}.jpg").unlink()
    listing = read_coco(tmp_path, None)
    assert paths(listing, tmp_path) == ["train2017/1.jpg", "train2017/2.jpg"]
    assert any("instances_val2017.json: image 1.jpg: not found" in line for line in listing.left_out)
    with pytest.raises(DataError, match=r"image 1\.jpg: not found"):
        read_coco(tmp_path / "annotations/instances_val2017.json", None)


def test_missing_picture_is_not_that_of_the_folder_above(tmp_path):
    pictures(tmp_path, "a.jpg", "b.jpg", "set/images/a.jpg")
    images = [{"id": number, "file_name": name} for number, name in enumerate(("a.jpg", "b.jpg"), 1)]
    listing = read_coco(write(tmp_path / "set", [BOX, BOX | {"id": 8, "image_id": 2}], images), None)
    assert paths(listing, tmp_path) == ["set/images/a.jpg"]
    assert "image b.jpg: not found" in listing.left_out[0]


def test_file_names_are_relative_to_a_given_root(tmp_path):
    pictures(tmp_path, "a.jpg", "real/a.jpg")
    assert paths(read_coco(one_picture(tmp_path, "a.jpg"), tmp_path / "real"), tmp_path) == ["real/a.jpg"]


@pytest.mark.parametrize("name", ["\ud800.jpg", "a\0b.jpg", "x" * 5000, "..", "/"])
def test_impossible_name_is_left_out(tmp_path, name):
    pictures(tmp_path, "a.jpg")
    listing = two_names(tmp_path, "a.jpg", name)
    assert len(listing.scenes) == len(listing.left_out) == 1
    listing.left_out[0].encode()


def test_repeated_picture_is_listed_as_often_as_it_says(tmp_path):
    pictures(tmp_path, "a.png", "b.png")
    images = [IMAGE, IMAGE | {"id": 2, "repeated": 1}, {"id": 3, "file_name": "b.png"}]
    listing = read_coco(write(tmp_path, [BOX, BOX | {"id": 8, "image_id": 2}], images), None)
    assert paths(listing, tmp_path) == ["a.png", "a.png", "b.png"]


@pytest.mark.parametrize("outlines", [False, True])
def test_outlines_are_kept_on_request(tmp_path, outlines):
    pictures(tmp_path, "a.png")
    path = write(tmp_path, [BOX | {"segmentation": [[4, 2, 24, 2, 24, 12]]}])
    assert (read_coco(path, None, outlines=outlines).scenes[0].boxes[0].outline is not None) == outlines


def test_rpc_leaves_out_a_broken_box_and_a_missing_picture(tmp_path):
    picture(tmp_path / "train2019/a.png")
    images = [IMAGE, {"id": 2, "file_name": "gone.png"}]
    write(tmp_path, [BOX, BOX | {"id": 8, "bbox": []}], images, CATEGORIES, "instances_train2019.json")
    listing = read_rpc(tmp_path)
    assert [(scene.split, len(scene.boxes)) for scene in listing.scenes] == [("train", 1)]
    for text in ("annotation 8", "image gone.png", "instances_val2019.json: not found"):
        assert any(text in line for line in listing.left_out)


def test_url_means_the_picture_at_its_end(tmp_path):
    pictures(tmp_path, "images/a b.jpg")
    one_picture(tmp_path, "https://host/x/a%20b.jpg?sig=1")
    assert paths(read_coco(tmp_path, None), tmp_path) == ["images/a b.jpg"]


def test_urls_of_lvis_mean_the_pictures_of_their_folders(tmp_path):
    pictures(tmp_path, "train2017/1.jpg", "val2017/1.jpg")
    images = [
        {"id": number, "coco_url": f"http://h/{split}2017/1.jpg"} for number, split in enumerate(("train", "val"))
    ]
    write(tmp_path / "annotations", [BOX], images, name="lvis_v1_train.json")
    assert paths(read_coco(tmp_path, None), tmp_path) == ["train2017/1.jpg", "val2017/1.jpg"]


def test_file_with_outlines_only_is_read(tmp_path):
    pictures(tmp_path, "a.png")
    entry = {key: value for key, value in BOX.items() if key != "bbox"} | {"segmentation": [[1, 1, 9, 1, 9, 9]]}
    write(tmp_path, [entry])
    assert holds_coco(tmp_path)
    assert read_coco(tmp_path, None).scenes[0].boxes[0].box_px == (1, 1, 9, 9)


def test_path_above_the_data_set_is_one_of_another_machine(tmp_path):
    pictures(tmp_path, "images/a.jpg", "images/b.jpg")
    images = [IMAGE | {"file_name": "images/a.jpg"}, IMAGE | {"id": 2, "file_name": "..\\..\\upload\\1\\b.jpg"}]
    write(tmp_path, images=images)
    assert paths(read_coco(tmp_path, None), tmp_path) == ["images/a.jpg", "images/b.jpg"]
