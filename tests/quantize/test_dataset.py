"""Reading data sets."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import FinesightError, QuantizeError
from edge.imaging.image import encode_image
from quantize.dataset import Sample, choose, read_index, read_scenes

ANY_INPUT = settings(derandomize=True, max_examples=100, deadline=None)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
IMAGES = st.fixed_dictionaries({}, optional={"id": VALUES, "file_name": VALUES, "split": VALUES})
CELLS = st.sampled_from(["a.png", "train", "catalogue", "", '"', "a\0"]) | st.text(max_size=4)
ROWS = st.lists(st.lists(CELLS, min_size=3, max_size=5).map(",".join), max_size=3).map("\n".join)
ANNOTATIONS = st.fixed_dictionaries({}, optional={"image_id": VALUES, "bbox": VALUES | st.lists(VALUES, min_size=4)})


def test_coarse_and_fine_columns_are_category_and_item(tmp_path):
    (tmp_path / "index.csv").write_text("path,split,fine,coarse,family\na/b.jpg,train,Royal-Gala,Apple,Fruit\n")
    (sample,) = read_index(tmp_path / "index.csv")
    assert (sample.category, sample.item, sample.path) == ("Apple", "Royal-Gala", tmp_path / "a/b.jpg")


def test_missing_column_is_named(tmp_path):
    (tmp_path / "index.csv").write_text("path,item\na.jpg,x\n")
    with pytest.raises(QuantizeError, match="has no column 'split'"):
        read_index(tmp_path / "index.csv")


def test_boxes_are_returned_as_corners(tmp_path):
    (tmp_path / "s.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}'
    )
    (scene,) = read_scenes(tmp_path / "s.json")
    assert scene.boxes_px.tolist() == [[1, 2, 4, 6]]


def test_scenes_of_another_format_are_rejected(tmp_path):
    (tmp_path / "s.json").write_text("[]")
    with pytest.raises(QuantizeError, match="COCO"):
        read_scenes(tmp_path / "s.json")


def test_choice_is_even_over_categories_whatever_the_order(tmp_path):
    samples = [Sample(tmp_path, f"{c}{i}", "train", c, "x") for c, count in (("a", 50), ("b", 5)) for i in range(count)]
    chosen = choose(samples, 10)
    assert sorted(s.category for s in chosen) == ["a"] * 5 + ["b"] * 5
    assert chosen == choose(samples[::-1], 10)


def test_catalogue_picture_is_cropped_from_its_plain_background(tmp_path):
    picture = np.full((100, 100, 3), 255, np.uint8)
    picture[40:60, 30:50] = 10
    (tmp_path / "a.png").write_bytes(encode_image(picture, ".png"))
    (tmp_path / "index.csv").write_text("path,split,category,item\na.png,catalogue,box,x\n")
    (sample,) = read_index(tmp_path / "index.csv")
    assert sample.crop(0.1).shape == (24, 24, 3)


def read_bytes(reader, data: bytes) -> None:
    """Any file gives samples or a QuantizeError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        with suppress(FinesightError):
            reader(path)


@ANY_INPUT
@given(st.binary(max_size=200))
def test_any_bytes_are_a_data_set_or_our_error(data):
    read_bytes(read_index, data)
    read_bytes(read_scenes, data)


@ANY_INPUT
@given(st.text("path,split;category\n\r\"'\0 item", max_size=80) | ROWS)
def test_any_index_text_is_samples_or_our_error(text):
    read_bytes(read_index, b"path,split,category,item\n" + text.encode())
    read_bytes(read_index, text.encode())


@ANY_INPUT
@given(st.lists(IMAGES | VALUES, max_size=3) | VALUES, st.lists(ANNOTATIONS | VALUES, max_size=3) | VALUES)
def test_any_coco_json_is_scenes_or_our_error(images, annotations):
    read_bytes(read_scenes, json.dumps({"images": images, "annotations": annotations}).encode())


def test_index_row_with_a_missing_value_is_named(tmp_path):
    (tmp_path / "index.csv").write_text("path,split,category,item\na.png,train,box,x\nb.png,train\n")
    with pytest.raises(QuantizeError, match="row 2 has no value in column 'category'"):
        read_index(tmp_path / "index.csv")
