"""Conversion of pixels to model input, and of boxes back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.inference.preprocess import placement_of, to_batch, to_canvas
from edge.manifest.model import Preprocess


def spec(**changes):
    return Preprocess.model_validate({"width": 32, "height": 16, **changes})


def test_letterbox_puts_the_picture_top_left_and_fills_the_rest():
    red = np.full((40, 40, 3), (200, 10, 20), np.uint8)
    canvas, placement = to_canvas(spec(resize="letterbox"), red)
    assert (placement.scale_x, placement.scale_y) == (0.4, 0.4)  # 16 / 40 binds, not 32 / 40
    assert (canvas[:16, :16] == (200, 10, 20)).all()
    assert (canvas[:, 16:] == 114).all()


def test_stretch_scales_each_side_separately():
    canvas, placement = to_canvas(spec(), np.zeros((40, 40, 3), np.uint8))
    assert canvas.shape == (16, 32, 3)
    assert (placement.scale_x, placement.scale_y) == (0.8, 0.4)
    assert placement.to_source((8, 4, 16, 8)) == pytest.approx((10, 10, 20, 20))


def test_box_outside_the_picture_is_clipped():
    placement = placement_of(spec(resize="letterbox"), 40, 40)
    assert placement.to_source((-3, -3, 32, 16)) == (0, 0, 40, 40)


def test_visible_sides_are_those_of_the_clipped_box_in_source_pixels():
    placement = placement_of(spec(resize="letterbox"), 80, 40)  # fills the input: 0.4 input pixels per pixel
    boxes = np.array([[-4, 4, 8, 8], [28, 12, 40, 40], [4, 20, 8, 24], [np.nan, 0, 8, 8]], np.float32)
    visible = placement.visible_sides_px(boxes)
    assert visible[:2] == pytest.approx(np.array([[20, 10], [10, 10]]))
    assert visible[2, 1] < 0
    assert np.isnan(visible[3, 0])


sides = st.integers(1, 2000)
share = st.floats(0, 1)


@settings(deadline=None)
@given(width=sides, height=sides, resize=st.sampled_from(["stretch", "letterbox"]), x=share, y=share)
def test_points_survive_a_round_trip(width, height, resize, x, y):
    placement = placement_of(spec(resize=resize), width, height)
    point = (x * width * placement.scale_x, y * height * placement.scale_y)
    assert placement.to_source((*point, *point)) == pytest.approx((x * width, y * height) * 2, rel=1e-6, abs=1e-6)


@settings(deadline=None)
@given(width=sides, height=sides)
def test_letterboxed_picture_of_any_shape_fits_the_canvas(width, height):
    placement = placement_of(spec(resize="letterbox"), width, height)
    assert max(placement.scale_x * width / 32, placement.scale_y * height / 16) == pytest.approx(1)


def test_narrow_picture_is_at_least_one_pixel_wide():
    white = np.full((2000, 1, 3), 255, np.uint8)
    canvas, _ = to_canvas(spec(resize="letterbox"), white)
    assert (canvas[:, 0] == 255).all()
    assert (canvas[:, 1:] == 114).all()


def test_box_on_the_canvas_maps_to_the_object():
    image_rgb = np.zeros((360, 640, 3), np.uint8)
    image_rgb[100:200, 300:500] = 255
    letterbox = spec(width=320, height=192, resize="letterbox", interpolation="area")
    canvas, placement = to_canvas(letterbox, image_rgb)
    y, x = np.nonzero(canvas[:180, :, 0] > 127)
    box = placement.to_source((x.min(), y.min(), x.max() + 1, y.max() + 1))
    assert box == pytest.approx((300, 100, 500, 200), abs=2)


def test_layout_colour_and_dtype_follow_the_manifest():
    red = np.full((16, 32, 3), (200, 10, 20), np.uint8)
    canvas, _ = to_canvas(spec(colour="bgr"), red)
    assert canvas[0, 0].tolist() == [20, 10, 200]
    batch = to_batch(spec(colour="bgr", layout="nchw", dtype="float32"), [canvas, canvas])
    assert (batch.shape, batch.dtype) == ((2, 3, 16, 32), np.float32)
    assert batch[1, :, 0, 0].tolist() == [20.0, 10.0, 200.0]  # 0..255: the model normalises
    assert batch.flags.c_contiguous
    plain = to_batch(spec(), [to_canvas(spec(), red)[0]])
    assert (plain.shape, plain.dtype) == ((1, 16, 32, 3), np.uint8)
    assert plain.flags.c_contiguous
