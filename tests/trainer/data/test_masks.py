"""True masks: which ones are read, and which are rejected by name."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest

from edge.errors import DataError, TrainError
from edge.imaging.image import encode_image
from tests.trainer.toy import masked_picture, write_masks
from trainer.data.masks import fault_of, load_masked, of_splits, read_masked


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def one(folder, mask: bytes, size=(48, 40)):
    """A data set of one picture with these bytes for a mask."""
    (folder / "p.png").write_bytes(encode_image(np.full((size[1], size[0], 3), 90, np.uint8), ".png"))
    (folder / "m.png").write_bytes(mask)
    (folder / "index.csv").write_text("path,mask,split\np.png,m.png,train\n")
    return read_masked(folder / "index.csv")


def square(height=40, width=48, value=255, dtype=np.uint8) -> np.ndarray:
    mask = np.zeros((height, width), dtype)
    mask[8:32, 12:36] = value
    return mask


def test_pictures_and_masks_are_read_by_split_and_shrunk_together(tmp_path):
    listed = read_masked(write_masks(tmp_path))
    train = of_splits(listed, ["train"])
    assert (len(listed), len(train)) == (12, 8)
    pictures = load_masked(train, longest_px=20)
    assert {image.shape[:2] for image in pictures.images} == {mask.shape for mask in pictures.masks} == {(20, 16)}
    expected = masked_picture(np.random.default_rng(0))[1].mean()
    assert pictures.masks[0].mean() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    "mask",
    [
        png(square(value=1)),
        png(square(value=65535, dtype=np.uint16)),
        png(np.dstack([np.full((40, 48, 3), 7, np.uint8), square()])),  # a cut-out: its alpha
        png(np.dstack([square()] * 3)),
    ],
    ids=["0 and 1", "16 bits", "cut-out", "colour"],
)
def test_masks_of_every_pixel_format_are_equal(tmp_path, mask):
    (found,) = load_masked(one(tmp_path, mask)).masks
    assert np.array_equal(found, square())


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (square(0 + 40, 60), "found a mask of 60x40, expected 48x40, the size of p.png"),
        (np.zeros((40, 48), np.uint8), "mask is empty: it covers 0.0% of the picture"),
        (np.full((40, 48), 255, np.uint8), "mask covers 100.0% of the picture"),
        (255 - square(), "mask is inverted: it covers 100% of the border"),
    ],
    ids=["size", "empty", "full", "inverted"],
)
def test_useless_mask_is_named(tmp_path, mask, said):
    with pytest.raises(TrainError, match="none of 1 masks can be used") as caught:
        load_masked(one(tmp_path, png(mask)))
    assert said in str(caught.value)
    assert "m.png" in str(caught.value)


def test_bad_mask_among_good_ones_is_skipped_and_logged(tmp_path, caplog):
    listed = read_masked(write_masks(tmp_path))
    listed[3].mask.write_bytes(b"no picture")
    listed[5].path.unlink()
    with caplog.at_level(logging.WARNING):
        pictures = load_masked(listed)
    assert (len(pictures.samples), len(pictures.skipped)) == (10, 2)
    assert str(listed[3].mask) in caplog.text
    assert str(listed[5].path) in caplog.text


def test_large_object_at_the_border_is_not_an_inverted_mask():
    mask = np.zeros((40, 40), np.uint8)
    mask[4:, :36] = 255
    assert fault_of(mask) is None


def test_index_without_masks_names_what_it_lacks(tmp_path):
    (tmp_path / "index.csv").write_text("path,split\na.png,train\n")
    with pytest.raises(DataError, match=r"lacks the columns \['mask'\]"):
        read_masked(tmp_path / "index.csv")
    (tmp_path / "index.csv").write_text("path,mask,split\na.png,,train\n")
    with pytest.raises(DataError, match="none of its 1 rows has a mask"):
        read_masked(tmp_path / "index.csv")
    (tmp_path / "index.csv").write_text("path,mask,split\na.png,m.png,train\n")
    with pytest.raises(DataError, match=r"none of 1 rows can be used; the first: .*line 2: a\.png: not found"):
        read_masked(tmp_path / "index.csv")


@pytest.mark.parametrize("row", ["gone.png,m.png,train", "p.png,gone.png,train", "p.png,m.png,", "p.png,m.png,train,x"])
def test_row_that_cannot_be_used_is_left_out_and_logged(tmp_path, caplog, row):
    one(tmp_path, png(square()))
    (tmp_path / "index.csv").write_text(f"path,mask,split\n{row}\np.png,m.png,train\np.png,,val\n")
    with caplog.at_level(logging.WARNING):
        assert [masked.split for masked in read_masked(tmp_path / "index.csv")] == ["train"]
    assert "index.csv: left out 1: " in caplog.text
    assert "line 2: " in caplog.text


def test_index_of_masks_is_read_as_any_other_index(tmp_path):
    one(tmp_path, png(square()))
    (tmp_path / "index.csv").write_bytes("Path;Mask;Split\r\n.\\p.png; C:\\x\\m.png ;Validation\r\n".encode("utf-16"))
    (masked,) = read_masked(tmp_path / "index.csv")
    assert (masked.path, masked.mask, masked.split) == (tmp_path / "p.png", tmp_path / "m.png", "val")
