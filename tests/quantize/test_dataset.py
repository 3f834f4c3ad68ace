"""Reading data sets."""

import numpy as np
import pytest

from edge.errors import QuantizeError
from edge.imaging.image import encode_image
from quantize.dataset import Sample, choose, read_index, read_scenes


def test_coarse_and_fine_name_category_and_item(tmp_path):
    (tmp_path / "index.csv").write_text("path,split,fine,coarse,family\na/b.jpg,train,Royal-Gala,Apple,Fruit\n")
    (sample,) = read_index(tmp_path / "index.csv")
    assert (sample.category, sample.item, sample.path) == ("Apple", "Royal-Gala", tmp_path / "a/b.jpg")


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "index.csv").write_text("path,item\na.jpg,x\n")
    with pytest.raises(QuantizeError, match="has no column 'split'"):
        read_index(tmp_path / "index.csv")


def test_boxes_come_as_corners(tmp_path):
    (tmp_path / "s.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}'
    )
    (scene,) = read_scenes(tmp_path / "s.json")
    assert scene.boxes_px.tolist() == [[1, 2, 4, 6]]


def test_scenes_of_another_form_are_our_error(tmp_path):
    (tmp_path / "s.json").write_text("[]")
    with pytest.raises(QuantizeError, match="COCO"):
        read_scenes(tmp_path / "s.json")


def test_choice_is_even_over_categories_and_independent_of_order(tmp_path):
    samples = [Sample(tmp_path, f"{c}{i}", "train", c, "x") for c, count in (("a", 50), ("b", 5)) for i in range(count)]
    chosen = choose(samples, 10)
    assert sorted(s.category for s in chosen) == ["a"] * 5 + ["b"] * 5
    assert chosen == choose(samples[::-1], 10)


def test_a_catalogue_picture_is_cut_out_of_its_plain_ground(tmp_path):
    picture = np.full((100, 100, 3), 255, np.uint8)
    picture[40:60, 30:50] = 10
    (tmp_path / "a.png").write_bytes(encode_image(picture, ".png"))
    (tmp_path / "index.csv").write_text("path,split,category,item\na.png,catalogue,box,x\n")
    (sample,) = read_index(tmp_path / "index.csv")
    assert sample.crop(0.1).shape == (24, 24, 3)
