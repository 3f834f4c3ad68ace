"""Decoding of output tensors, against values computed by hand."""

import numpy as np
import pytest

from edge.inference import postprocess as decode


def logit(p):
    return np.log(p / (1 - p))


def test_ltrb_distances_are_in_strides_from_the_cell_centre():
    level = np.zeros((1, 6, 2, 3), np.float32)
    level[0, 4:] = -9
    level[0, :4, 1, 2] = [1, 0.5, 2, 1.5]  # left top right bottom
    level[0, 4:, 1, 2] = [logit(0.2), logit(0.8)]
    boxes, scores, classes = decode.decode_ltrb([level], [16], 0.5)
    # centre (2.5, 1.5) * 16 = (40, 24)
    assert boxes.tolist() == [[40 - 16, 24 - 8, 40 + 32, 24 + 24]]
    assert scores == pytest.approx([0.8])
    assert classes.tolist() == [1]
    assert (boxes.dtype, scores.dtype, classes.dtype) == (np.float32, np.float32, np.int64)


def test_ltrb_joins_levels_and_skips_cells_below_the_threshold():
    fine, coarse = np.zeros((1, 5, 2, 2), np.float32), np.zeros((1, 5, 1, 1), np.float32)
    fine[0, 4] = logit(0.29)
    fine[0, :, 0, 1] = [1, 1, 1, 1, logit(0.31)]
    coarse[0, :, 0, 0] = [0.5, 0.5, 0.5, 0.5, logit(0.9)]
    boxes, scores, _ = decode.decode_ltrb([fine, coarse], [8, 16], 0.3)
    assert boxes.tolist() == [[4, -4, 20, 12], [0, 0, 16, 16]]
    assert scores == pytest.approx([0.31, 0.9])


def test_ltrb_without_boxes_has_empty_arrays():
    boxes, scores, classes = decode.decode_ltrb([np.full((1, 5, 2, 2), -5, np.float32)], [8], 0.5)
    assert (boxes.shape, scores.shape, classes.shape) == ((0, 4), (0,), (0,))


def test_yolox_adds_the_cell_then_scales_by_the_stride():
    output = np.zeros((1, 5, 7), np.float32)  # 16x16 input: four cells of stride 8, one of stride 16
    output[0, 2] = [0.5, 0.25, np.log(2), 0, 0.8, 0.1, 0.9]  # row 2 of stride 8: x 0, y 1
    output[0, 4] = [0.5, 0.5, 0, 0, 0.5, 1.0, 0.2]
    boxes, scores, classes = decode.decode_yolox(output, [8, 16], 16, 16, 0.3)
    # centre ((0 + 0.5) * 8, (1 + 0.25) * 8) = (4, 10), size (16, 8); centre (8, 8), size (16, 16)
    assert boxes == pytest.approx(np.array([[-4, 6, 12, 14], [0, 0, 16, 16]], np.float32))
    assert scores == pytest.approx([0.72, 0.5])
    assert classes.tolist() == [1, 0]


def test_yolox_threshold_applies_to_objectness_times_class():
    output = np.zeros((1, 1, 6), np.float32)
    output[0, 0] = [0, 0, 0, 0, 0.9, 0.2]
    assert len(decode.decode_yolox(output, [8], 8, 8, 0.3)[0]) == 0


def test_iou_of_overlapping_separate_and_empty_boxes():
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[5, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30], [10, 0, 20, 10], [3, 3, 3, 3]], np.float32)
    # 50 / (100 + 100 - 50)
    assert decode.iou_matrix(a, b)[0] == pytest.approx([1 / 3, 1, 0, 0, 0])
    assert decode.iou_matrix(a[:0], b).shape == (0, 5)


def test_suppression_keeps_the_best_of_a_cluster_and_separate_boxes():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [30, 0, 40, 10], [0, 0, 10, 10]], np.float32)
    scores = np.array([0.7, 0.9, 0.5, 0.8], np.float32)  # box 1 and the others of the cluster: IoU 90 / 110 = 0.818
    assert decode.non_maximum_suppression(boxes, scores, 0.6).tolist() == [1, 2]
    assert decode.non_maximum_suppression(boxes, scores, 0.82).tolist() == [1, 3, 2]
    assert decode.non_maximum_suppression(boxes, scores, 0.82, limit=2).tolist() == [1, 3]


def test_suppression_without_boxes():
    kept = decode.non_maximum_suppression(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.5)
    assert kept.tolist() == []


def test_softmax_with_and_without_temperature():
    logits = np.log(np.array([[1, 3]], np.float32))
    assert decode.softmax(logits)[0] == pytest.approx([0.25, 0.75])
    # temperature 2 takes the square root of the odds: 1 : 1.732
    assert decode.softmax(logits, 2.0)[0] == pytest.approx([1 / 2.7320508, 1.7320508 / 2.7320508])


def test_softmax_of_huge_logits_does_not_overflow():
    assert decode.softmax(np.array([1000.0, 0.0], np.float32)).tolist() == [1.0, 0.0]


def test_unit_rows_have_length_one_and_zero_stays_zero():
    assert decode.unit_rows(np.array([[3, 4], [0, 0]], np.float32)) == pytest.approx(np.array([[0.6, 0.8], [0, 0]]))


def suppress_plainly(boxes, scores, iou_threshold, limit):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if len(kept) < limit and all(
            decode.iou_matrix(boxes[i : i + 1], boxes[[k]])[0, 0] <= iou_threshold for k in kept
        ):
            kept.append(i)
    return kept


@pytest.mark.parametrize("count", [1, 20, 150])  # above 64 the overlaps are computed row by row first
def test_suppression_agrees_with_the_plain_method(count):
    rng = np.random.default_rng(count)
    corner = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (count, 2))], axis=1).astype(np.float32)
    scores = rng.integers(0, 10, count).astype(np.float32)  # many are equal: the first wins
    for iou_threshold, limit in ((0.0, 100), (0.3, 100), (0.6, 100), (0.6, 3)):
        found = decode.non_maximum_suppression(boxes, scores, iou_threshold, limit)
        assert found.tolist() == suppress_plainly(boxes, scores, iou_threshold, limit)


def test_iou_agrees_with_the_definition():
    rng = np.random.default_rng(1)
    a, b = (rng.normal(0, 9, (count, 4)).astype(np.float32) for count in (7, 5))
    for (x0, y0, x1, y1), row in zip(a, decode.iou_matrix(a, b), strict=True):
        for (u0, v0, u1, v1), found in zip(b, row, strict=True):
            both = max(min(x1, u1) - max(x0, u0), 0) * max(min(y1, v1) - max(y0, v0), 0)
            either = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - both
            assert found == pytest.approx(both / max(either, 1e-9), rel=1e-4)


@pytest.mark.parametrize("classes", [1, 3])
def test_ltrb_agrees_with_a_loop_over_cells(classes):
    rng = np.random.default_rng(classes)
    maps = [rng.uniform(0, 4, (1, 4 + classes, *size)).astype(np.float32) for size in ((6, 10), (3, 5))]
    for level in maps:
        level[:, 4:] = rng.normal(-1, 2, level[:, 4:].shape)
    expected = []
    for level, stride in zip(maps, (8, 16), strict=True):
        for y, x in np.ndindex(*level.shape[2:]):
            left, top, right, bottom, *logits = level[0, :, y, x].tolist()
            if max(logits) > 0:
                box = np.array([x + 0.5 - left, y + 0.5 - top, x + 0.5 + right, y + 0.5 + bottom]) * stride
                expected.append([*box, 1 / (1 + np.exp(-max(logits))), logits.index(max(logits))])
    boxes, scores, numbers = decode.decode_ltrb(maps, [8, 16], 0.5)
    assert np.column_stack([boxes, scores, numbers]) == pytest.approx(np.array(expected), rel=1e-5, abs=1e-5)


def test_box_of_returns_plain_floats():
    box = decode.box_of(np.array([1, 2, 3, 4], np.float32))
    assert box == (1.0, 2.0, 3.0, 4.0)
    assert {type(value) for value in box} == {float}
