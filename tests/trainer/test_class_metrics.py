"""Average precision item by item, against an independent computation on random boxes."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.class_metrics import (
    LabelledBoxes,
    best_count_threshold,
    counts_of,
    decode_labelled,
    map_by_label,
    mean_over_labels,
)

NAMES = ["ale", "jam", "tea", "rye"]


def labelled(boxes, labels, scores=None):
    scores = np.ones(len(labels)) if scores is None else scores
    return LabelledBoxes(
        np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(labels, np.int64), np.asarray(scores, np.float32)
    )


def random_pictures(rng, count=15):
    """Pictures of separate true boxes, found ones nearby with some labels wrong, and false ones."""
    found, truths = [], []
    for _ in range(count):
        number = int(rng.integers(0, 6))
        left = 100.0 * np.arange(number)
        boxes = np.stack([left, np.zeros(number), left + 40, np.full(number, 40.0)], axis=1)
        labels = rng.integers(0, 3, number)
        truths.append(labelled(boxes, labels))
        named = np.where(rng.random(number) < 0.8, labels, rng.integers(0, 4, number))
        false = np.array([[900.0, 0, 940, 40]])
        found.append(
            labelled(
                np.concatenate([boxes + rng.normal(0, 4, boxes.shape), false]),
                np.append(named, rng.integers(0, 4)),
                rng.random(number + 1),
            )
        )
    return found, truths


def iou(a, b):
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    both = max(wide, 0) * max(high, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def by_definition(found, truths, label, least):
    """COCO's average precision of one label: the best precision at or beyond each of 101 recalls."""
    rows = []
    total = 0
    for one, true in zip(found, truths, strict=True):
        left = [box for box, of in zip(true.boxes_px, true.labels, strict=True) if of == label]
        total += len(left)
        mine = [(s, b) for s, b, of in zip(one.scores, one.boxes_px, one.labels, strict=True) if of == label]
        for score, box in sorted(mine, key=lambda pair: -pair[0]):
            best = max(left, key=lambda other: iou(box, other), default=None)
            hit = best is not None and iou(box, best) >= least
            if hit:
                left = [other for other in left if other is not best]
            rows.append((score, hit))
    hits = [hit for _, hit in sorted(rows, key=lambda row: -row[0])]
    points = [(sum(hits[: n + 1]) / total, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
    return np.mean([max((p for r, p in points if r >= at), default=0.0) for at in np.linspace(0, 1, 101)])


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_by_label_agrees_with_the_definition(seed):
    found, truths = random_pictures(np.random.default_rng(seed))
    table = map_by_label(found, truths, NAMES)
    assert list(table) == NAMES[:3]  # nothing is a rye
    for label, name in enumerate(table):
        expected = [by_definition(found, truths, label, least) for least in np.arange(0.5, 0.96, 0.05)]
        assert table[name]["map50"] == pytest.approx(expected[0])
        assert table[name]["map50_95"] == pytest.approx(np.mean(expected))
    means = mean_over_labels(table)
    assert means["item_map50"] == pytest.approx(np.mean([one["map50"] for one in table.values()]))


def test_box_with_the_wrong_label_is_no_hit():
    truth = [labelled([[0, 0, 10, 10]], [0])]
    assert map_by_label([labelled([[0, 0, 10, 10]], [1])], truth, NAMES)["ale"]["map50"] == 0.0
    assert map_by_label([labelled([[0, 0, 10, 10]], [-1])], truth, NAMES)["ale"]["map50"] == 0.0
    assert mean_over_labels({})["item_map50"] == 0.0


def test_threshold_is_the_one_whose_counts_are_right():
    truth = [labelled([[0, 0, 9, 9], [20, 0, 29, 9]], [0, 1])]
    found = [labelled([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]], [0, 1, 1], [0.9, 0.7, 0.4])]
    threshold = best_count_threshold(found, truth, 2)
    assert 0.4 < threshold <= 0.7
    assert counts_of([found[0].at_least(threshold)], 2).tolist() == [[1, 1]]


def test_decoding_keeps_the_label_of_the_better_of_two_boxes():
    maps = np.full((1, 6, 2, 2), -9.0, np.float32)  # four sides, two labels
    maps[0, :4] = 1.0
    maps[0, 5, 0, 0] = 3.0  # label 1 at the first cell
    maps[0, 4, 1, 1] = 2.0  # label 0 at the last one
    (found,) = decode_labelled([maps], [8], 0.3, iou_threshold=0.1)
    assert found.labels.tolist() == [1]
    (apart,) = decode_labelled([maps], [8], 0.3, iou_threshold=0.9)
    assert apart.labels.tolist() == [1, 0]
