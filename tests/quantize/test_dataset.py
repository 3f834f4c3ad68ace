"""Data sets for quantize: which pictures are read, chosen, cut and left out."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from edge.errors import DataError, QuantizeError
from edge.imaging.image import encode_image, read_image
from quantize.dataset import Data, Splits, read_data, read_samples, read_scenes
from quantize.pictures import in_turns
from tests.dataset_formats.samples import folders, picture
from tests.onnx_samples import detector_spec, embedder_spec

CLASSIFIER = detector_spec(kind="classifier", labels=["box", "can"])


def index(folder, rows, header="path,split,category,item"):
    """Write an index, and a picture for each row that has none."""
    (folder / "index.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    for number, row in enumerate(rows):
        path = folder / row.split(",")[0]
        if not path.exists():
            picture(path, number)
    return folder / "index.csv"


def coco(folder, splits, boxes=((4, 4, 20, 20),), **category):
    """Write a COCO JSON with one picture for each split, each with the same boxes."""
    images, annotations = [], []
    for number, split in enumerate(splits):
        picture(folder / f"q/{number}.png", number)
        images.append({"id": number, "file_name": f"q/{number}.png"} | ({"split": split} if split else {}))
        annotations += [{"image_id": number, "category_id": 1, "bbox": list(box)} for box in boxes]
    categories = [{"id": 1, "name": "red", "supercategory": "box"} | category]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "s.json").write_text(json.dumps(tree))
    return folder / "s.json"


def ten_crops(folder):
    return index(folder, [f"p/{c}-{i}.png,train,{c},x{i % 2}" for c in ("box", "can") for i in range(5)])


def test_choice_of_crops_is_that_of_earlier_versions(tmp_path):
    samples, _ = read_samples(ten_crops(tmp_path))
    assert [one.name for one in in_turns(samples)[:6]] == [
        "p/box-4.png", "p/can-1.png", "p/box-3.png", "p/can-2.png", "p/box-1.png", "p/can-0.png"
    ]  # fmt: skip
    assert in_turns(samples) == in_turns(samples[::-1])


def test_choice_of_scenes_is_that_of_earlier_versions(tmp_path):
    data = read_data(None, coco(tmp_path, [""] * 6), calibration_images=3)
    names = [[scene.name for scene in data.scenes_for(split)] for split in ("train", "val")]
    assert names == [["q/2.png", "q/4.png", "q/1.png"], ["q/0.png", "q/5.png", "q/3.png"]]


def test_choice_does_not_depend_on_folder_root_or_working_folder(tmp_path, monkeypatch):
    first, second = tmp_path / "a", tmp_path / "other/place"
    ten_crops(first.parent)
    shutil.copytree(tmp_path / "p", second / "p")
    shutil.copy(tmp_path / "index.csv", second / "index.csv")
    monkeypatch.chdir(second.parent)
    orders = [
        [one.name for one in in_turns(read_samples(*where)[0])]
        for where in ((tmp_path / "index.csv",), (second / "index.csv",), (tmp_path / "index.csv", second))
    ]
    relative = type(tmp_path)("place/index.csv")
    orders += [[one.name for one in in_turns(read_samples(relative)[0])]]
    assert [order == orders[0] for order in orders] == [True] * 4


def test_folders_are_categories_and_items(tmp_path):
    samples, _ = read_samples(folders(tmp_path, ["can/cola", "can/tea"]))
    assert {(s.category, s.item) for s in samples} == {("can", "cola"), ("can", "tea")}
    assert [s.split for s in samples].count("val") == 2


def test_semicolons_and_a_byte_order_mark_are_read(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "index.csv").write_bytes(
        'path;split;category;item\na.png;train;can;"Cola; 0,5 l"\n'.encode("utf-8-sig")
    )
    (sample,) = read_samples(tmp_path / "index.csv")[0]
    assert sample.item == "Cola; 0,5 l"


def test_windows_1252_is_refused_with_its_line(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "index.csv").write_bytes("path,split,category,item\na.png,train,can,Käse\n".encode("cp1252"))
    with pytest.raises(DataError, match="line 2: byte 0xe4 is not UTF-8"):
        read_samples(tmp_path / "index.csv")


def test_boxes_of_a_coco_folder_are_crops_cut_with_the_margin(tmp_path):
    coco(tmp_path, ["train"], boxes=[(10, 8, 20, 10)])
    samples, _ = read_samples(tmp_path)
    assert [(s.category, s.item, s.split) for s in samples] == [("box", "red", "train")]
    whole = read_image(tmp_path / "q/0.png")
    np.testing.assert_array_equal(samples[0].crop(0.1), whole[7:19, 8:32])


def test_two_boxes_of_a_picture_have_names_of_their_own(tmp_path):
    samples, _ = read_samples(coco(tmp_path, ["train"], boxes=[(1, 1, 9, 9), (20, 1, 9, 9)]))
    assert len({sample.name for sample in samples}) == 2


def test_crowds_are_no_objects(tmp_path):
    path = coco(tmp_path, ["train"], boxes=[(1, 1, 9, 9), (0, 0, 40, 30)])
    tree = json.loads(path.read_text())
    tree["annotations"][1]["iscrowd"] = 1
    path.write_text(json.dumps(tree))
    (scene,) = read_scenes(path)[0]
    assert scene.boxes_px.tolist() == [[1, 1, 10, 10]]


def test_catalogue_picture_is_cropped_from_its_plain_background(tmp_path):
    image = np.full((100, 100, 3), 255, np.uint8)
    image[40:60, 30:50] = 10
    (tmp_path / "a.png").write_bytes(encode_image(image, ".png"))
    (sample,) = read_samples(index(tmp_path, ["a.png,catalogue,box,x"]))[0]
    assert sample.crop(0.1).shape == (24, 24, 3)
    (kept,) = read_samples(tmp_path / "index.csv", None, [])[0]
    assert kept.crop(0.1).shape == (100, 100, 3)


def broken(path):
    path.write_bytes(path.read_bytes()[:60])


def test_unreadable_pictures_are_replaced_named_and_counted(tmp_path):
    whole = read_data(ten_crops(tmp_path), None, calibration_images=4)
    expected = [one.name for one in whole.calibration_crops(CLASSIFIER)]
    broken(tmp_path / expected[0])
    (tmp_path / expected[1]).unlink()
    data = read_data(tmp_path / "index.csv", None, calibration_images=4)
    found = [one.name for one in data.calibration_crops(CLASSIFIER)]
    assert len(found) == 4
    assert [name for name in expected if name in found] == expected[2:]
    counted = data.summary()["pictures"]["left_out"] + data.summary()["index"]["left_out"]
    assert counted == 2
    assert expected[0] in data.unreadable()[0]


def test_unreadable_scenes_are_left_out(tmp_path):
    path = coco(tmp_path, ["val", "val"])
    broken(tmp_path / "q/1.png")
    data = read_data(None, path)
    assert [scene.name for scene in data.scenes_for("val")] == ["q/0.png"]
    assert "q/1.png" in data.unreadable()[0]


def test_no_readable_picture_is_one_error(tmp_path):
    path = index(tmp_path, ["a.png,train,box,x", "b.png,train,box,x"])
    for name in ("a.png", "b.png"):
        broken(tmp_path / name)
    with pytest.raises(QuantizeError, match=r"none of the 2 pictures of split 'train' can be read; the first: .*png"):
        read_data(path, None).calibration_crops(CLASSIFIER)


def test_box_outside_its_picture_is_left_out_and_named(tmp_path):
    data = read_data(coco(tmp_path, ["train"], boxes=[(1, 1, 9, 9), (500, 1, 9, 9)]), None)
    assert len(data.calibration_crops(CLASSIFIER)) == 1
    assert "box (500.0, 1.0, 509.0, 10.0) lies outside the 48x32 picture" in data.unreadable()[0]


def test_boxes_of_a_scene_are_clipped_to_their_picture(tmp_path):
    (scene,) = read_data(None, coco(tmp_path, ["val"], boxes=[(40, 20, 30, 30)])).scenes_for("val")
    assert scene.boxes_px.tolist() == [[40, 20, 48, 32]]


def test_gallery_is_the_catalogue_where_there_is_one(tmp_path):
    path = index(tmp_path, ["a.png,train,box,x", "b.png,catalogue,box,x"])
    assert read_data(path, None).gallery_splits == ("catalogue",)


def test_gallery_is_the_training_pictures_where_there_is_no_catalogue(tmp_path, caplog):
    data = read_data(ten_crops(tmp_path), None)
    assert len(data.gallery_crops(embedder_spec(categories=["box"]))) == 5
    assert "there is no split 'catalogue'; the gallery is split 'train'" in caplog.text


@pytest.mark.parametrize(
    ("asked", "option"),
    [
        (Splits(calibration="tran"), "--calibration-split tran"),
        (Splits(held_out="tran"), "--held-out-split tran"),
        (Splits(gallery=["train", "tran"]), "--gallery-splits tran"),
    ],
)
def test_absent_split_that_was_asked_for_is_an_error_with_those_there_are(tmp_path, asked, option):
    path = index(tmp_path, ["a.png,train,box,x", "b.png,val,box,x"])
    with pytest.raises(QuantizeError, match=rf"{option}: there is no such split; there are train, val"):
        read_data(path, None, None, asked)


def test_split_may_be_asked_for_by_another_of_its_names(tmp_path):
    path = index(tmp_path, ["a.png,train,box,x", "b.png,val,box,x"])
    assert read_data(path, None, None, Splits(held_out="Validation")).held_out_split == "val"


def test_held_out_pictures_in_the_gallery_are_noticed(tmp_path, caplog):
    path = index(tmp_path, ["a.png,train,box,x", "b.png,val,box,x"])
    read_data(path, None, None, Splits(gallery=["train", "val"]))
    assert "each picture finds itself" in caplog.text


def test_objects_of_scenes_serve_models_without_an_index(tmp_path):
    data = read_data(None, coco(tmp_path, ["train", "val"]))
    assert [s.item for s in data.held_out_crops(embedder_spec(categories=["box"]))] == ["red"]
    assert data.held_out_crops(embedder_spec(categories=["car"])) == []
    assert data.categories() == ["box"]


def test_objects_of_scenes_are_not_added_to_an_index(tmp_path):
    data = read_data(ten_crops(tmp_path), coco(tmp_path, ["train", "val"]))
    assert {s.name for s in data.calibration_crops(CLASSIFIER)} == {s.name for s in data.samples}


def test_commands_print_what_was_left_out(tmp_path, caplog):
    read_data(index(tmp_path, ["a.png,train,box,x", "a.png,train,,x"]), None)
    assert "left out 1" in caplog.text


def test_counts_are_in_the_summary_with_examples(tmp_path):
    data = read_data(index(tmp_path, ["a.png,train,box,x", "a.png,train,,x"]), None)
    summary = data.summary()["index"]
    assert summary["left_out"] == 1
    assert "line 3" in summary["examples"][0]


def test_order_takes_any_name():
    data = Data([], [])
    assert data.categories() == []
    from quantize.pictures import Sample

    samples = [Sample(None, name, "train", "box", "x") for name in ("a", "\udcff", "é")]
    assert len(in_turns(samples)) == 3
    assert in_turns([replace(one, split="val") for one in samples])[0].name == in_turns(samples)[0].name
