"""Cut-outs: where their masks come from, and what is skipped by name."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from edge.errors import DataError, TrainError
from edge.imaging.image import encode_image
from trainer.pasting.cutouts import cut_out, read_cutouts

HEIGHT, WIDTH = 48, 64


def disc(radius: int = 16) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.hypot(x - WIDTH / 2, y - HEIGHT / 2) < radius


def picture(ground: int | None = None) -> np.ndarray:
    """A green disc on noise, or on a plain ground."""
    noise = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    image = noise if ground is None else np.full_like(noise, ground)
    image[disc()] = (30, 180, 60)
    return image


def save(path, image, mask=None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(image, ".png"))
    if mask is not None:
        white = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
        path.with_suffix(".mask.png").write_bytes(encode_image(white, ".png"))


def coco(tmp_path, **annotation):
    save(tmp_path / "a.png", picture())
    box = {"id": 5, "image_id": 1, "category_id": 2, "bbox": [16, 8, 32, 32]}
    tree = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [box | annotation],
        "categories": [{"id": 2, "name": "disc"}],
    }
    (tmp_path / "c.json").write_text(json.dumps(tree))
    return tmp_path / "c.json"


def test_cut_out_is_tight_feathered_and_without_background():
    image = picture(255)
    cut = cut_out(image, disc(17))  # a mask that takes a pixel of white along
    assert 34 <= cut.shape[1] <= 40
    alpha = cut[..., 3]
    assert alpha[alpha.shape[0] // 2, alpha.shape[1] // 2] == 255
    assert ((alpha > 0) & (alpha < 255)).sum() > 40
    rim = (alpha > 60) & (alpha < 200)
    straight = cut[rim][:, :3] * (255.0 / alpha[rim][:, None])
    assert np.abs(straight - (30, 180, 60)).mean() < 25


def test_alpha_mask_file_and_plain_background_give_masks(tmp_path):
    rgba = np.dstack([cv2.cvtColor(picture(), cv2.COLOR_RGB2BGR), disc().astype(np.uint8) * 255])
    (tmp_path / "alpha.png").write_bytes(cv2.imencode(".png", rgba)[1].tobytes())
    save(tmp_path / "beside.png", picture(), disc())
    save(tmp_path / "plain.png", picture(255))
    taken = read_cutouts(tmp_path)
    assert [one.item for one in taken.found] == ["alpha", "beside", "plain"]
    assert not taken.skipped
    for one in taken.found:
        assert 30 <= one.picture.shape[1] <= 38


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.zeros((HEIGHT, WIDTH), np.bool_), "empty"),
        (~disc(20), "inverted"),
        (np.ones((HEIGHT + 4, WIDTH), np.bool_), "64x52, expected 64x48"),
    ],
)
def test_bad_mask_is_named_and_the_rest_is_used(tmp_path, mask, said):
    save(tmp_path / "bad.png", picture(), mask)
    save(tmp_path / "good.png", picture(), disc())
    taken = read_cutouts(tmp_path)
    assert [one.item for one in taken.found] == ["good"]
    assert len(taken.skipped) == 1
    assert "bad.png" in taken.skipped[0]
    assert said in taken.skipped[0]


def test_unreadable_picture_and_one_without_mask_are_named(tmp_path):
    save(tmp_path / "busy.png", picture())
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    save(tmp_path / "good.png", picture(), disc())
    skipped = read_cutouts(tmp_path).skipped
    assert any("busy.png: no mask" in one for one in skipped)
    assert any("torn.png" in one for one in skipped)


def test_no_cut_out_is_an_error_that_names_the_first(tmp_path):
    save(tmp_path / "busy.png", picture())
    with pytest.raises(TrainError, match=r"nothing can be cut out.*busy\.png"):
        read_cutouts(tmp_path)


def test_categories_and_items_come_from_folders(tmp_path):
    for name in ("pear", "lime"):
        save(tmp_path / "fruit" / name / "0.png", picture(255))
    assert {(one.category, one.item) for one in read_cutouts(tmp_path).found} == {("fruit", "pear"), ("fruit", "lime")}


@pytest.mark.parametrize(
    "annotation",
    [
        {},
        {"segmentation": [[16, 24, 32, 8, 48, 24, 32, 40]]},
        {"segmentation": [[]]},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [24 * HEIGHT, 16 * HEIGHT, 24 * HEIGHT]}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "PT1Ph0PT1"}},  # the same runs, compressed
    ],
)
def test_coco_polygons_run_lengths_and_boxes_are_cut_out(tmp_path, annotation):
    taken = read_cutouts(coco(tmp_path, item_id="green", **annotation))
    assert [(one.category, one.item) for one in taken.found] == [("object", "green")]


def test_mask_that_does_not_fill_its_box_is_not_used(tmp_path):
    def corner(image_rgb, box_px):
        mask = np.zeros(image_rgb.shape[:2], np.bool_)
        mask[10:16, 18:26] = True
        return mask

    with pytest.raises(TrainError, match="disc at 16,8: no mask"):
        read_cutouts(coco(tmp_path), masks=corner)


@pytest.mark.parametrize(
    "segmentation", [[[1, 2, 3]], {"counts": [4]}, {"size": [HEIGHT, WIDTH], "counts": "not coco"}]
)
def test_object_with_an_unreadable_outline_is_named(tmp_path, segmentation):
    with pytest.raises(TrainError, match="disc at 16,8: no mask"):
        read_cutouts(coco(tmp_path, segmentation=segmentation))


@pytest.mark.parametrize(
    "annotation",
    [
        {"bbox": [16, 8, "wide", 32]},
        {"bbox": [16, 8, float("nan"), 32]},
        {"bbox": [-900, -900, 32, 32]},
        {"bbox": [30, 20, -10, -10]},
    ],
)
def test_unreadable_annotation_is_named(tmp_path, annotation):
    with pytest.raises(DataError, match="annotation 5: its b"):
        read_cutouts(coco(tmp_path, **annotation))


def test_crowd_is_not_cut_out_and_is_counted(tmp_path):
    path = coco(tmp_path)
    tree = json.loads(path.read_text())
    tree["annotations"].append(tree["annotations"][0] | {"id": 6, "bbox": [15, 7, 34, 34], "iscrowd": 1})
    path.write_text(json.dumps(tree))
    taken = read_cutouts(path)
    assert len(taken.found) == 1
    assert taken.skipped == [f"{path}: boxes of crowds: 1, which are no single objects"]


def test_missing_picture_of_a_coco_json_is_skipped_and_named(tmp_path):
    path = coco(tmp_path)
    tree = json.loads(path.read_text())
    tree["images"].append({"id": 2, "file_name": "gone.png"})
    path.write_text(json.dumps(tree))
    assert "image gone.png: not found" in " ".join(read_cutouts(path).skipped)


def test_file_that_is_not_coco_is_rejected(tmp_path):
    (tmp_path / "c.json").write_text('{"images": []}')
    with pytest.raises(DataError, match="not COCO: it has no list `annotations`"):
        read_cutouts(tmp_path / "c.json")


def test_supercategory_is_category_and_category_is_item(tmp_path):
    path = coco(tmp_path)
    tree = json.loads(path.read_text())
    tree["categories"] = [{"id": 2, "name": "lime", "supercategory": "fruit"}]
    path.write_text(json.dumps(tree))
    (one,) = read_cutouts(path).found
    assert (one.category, one.item) == ("fruit", "lime")


def test_number_of_cut_outs_per_item_is_limited(tmp_path):
    for item, count in (("pear", 3), ("lime", 1)):
        for number in range(count):
            save(tmp_path / "fruit" / item / f"{number}.png", picture(255))
    assert read_cutouts(tmp_path, per_item=2).count == {("fruit", "pear"): 2, ("fruit", "lime"): 1}


def test_only_the_wanted_splits_are_cut_out(tmp_path):
    for number in range(5):
        save(tmp_path / "fruit" / "pear" / f"{number}.png", picture(255))
    assert len(read_cutouts(tmp_path, splits=["val"]).found) == 1


def test_boxes_of_other_layouts_are_cut_out(tmp_path):
    save(tmp_path / "train/a.png", picture())
    box = "<bndbox><xmin>16</xmin><ymin>8</ymin><xmax>48</xmax><ymax>40</ymax></bndbox>"
    tree = f"<annotation><filename>a.png</filename><object><name>green</name>{box}</object></annotation>"
    (tmp_path / "train/a.xml").write_text(tree)
    (one,) = read_cutouts(tmp_path).found
    assert one.item == "green"
    assert 30 <= one.picture.shape[1] <= 38
