"""The re-identification protocol against a plain re-implementation, query by query."""

from __future__ import annotations

import numpy as np
import pytest

from trainer import cross_camera
from trainer.cross_camera import Views, across_cameras


def plain(queries: Views, gallery: Views) -> dict[str, float]:
    """Market-1501's evaluation as published: remove junk from the ranking, then precision over recall, hit by hit."""
    found: dict[str, list[float]] = {name: [] for name in cross_camera.NAMES}
    for vector, item, camera in zip(queries.vectors, queries.items, queries.cameras, strict=True):
        distances = [1 - v @ vector / np.linalg.norm(v) / np.linalg.norm(vector) for v in gallery.vectors]
        order = [
            place
            for place in np.argsort(distances, kind="stable")
            if not (gallery.items[place] == item and gallery.cameras[place] == camera)
        ]
        good = [bool(gallery.items[place] == item) for place in order]
        if not any(good):
            continue
        old_recall, old_precision, seen, area, precisions = 0.0, 1.0, 0, 0.0, []
        for rank, hit in enumerate(good, 1):
            seen += hit
            recall, precision = seen / sum(good), seen / rank
            area += (recall - old_recall) * (old_precision + precision) / 2
            precisions += [precision] * hit
            old_recall, old_precision = recall, precision
        first = good.index(True)
        values = [np.mean(precisions), area, *(float(first < k) for k in (1, 5, 10))]
        for name, value in zip(found, values, strict=True):
            found[name].append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def views(rng: np.random.Generator, count: int, items: int, cameras: int) -> Views:
    centres = np.random.default_rng(0).normal(size=(items, 6))
    chosen = rng.integers(items, size=count)
    vectors = (centres[chosen] + rng.normal(size=(count, 6))).astype(np.float32)
    return Views(vectors, chosen, [f"c{camera}" for camera in rng.integers(cameras, size=count)])


@pytest.mark.parametrize("cells", [2**24, 200])
def test_measures_agree_with_the_published_evaluation(monkeypatch, cells):
    monkeypatch.setattr(cross_camera, "_CELLS", cells)
    rng = np.random.default_rng(1)
    queries, gallery = views(rng, 30, 8, 3), views(rng, 70, 6, 3)
    assert across_cameras(queries, gallery) == pytest.approx(plain(queries, gallery), abs=1e-6)


def test_pictures_by_the_same_camera_are_not_searched():
    """The nearest picture is of the query's own camera: with it, everything would be found at once."""
    gallery = Views(np.array([[1, 0], [0.9, 0.1], [0.5, 0.5]], np.float32), ["a", "b", "a"], ["c1", "c1", "c2"])
    query = Views(np.array([[1, 0]], np.float32), ["a"], ["c1"])
    assert across_cameras(query, gallery) == {
        "mAP": 0.5, "mAP trapezoid": 0.25, "CMC@1": 0.0, "CMC@5": 1.0, "CMC@10": 1.0
    }  # fmt: skip


def test_vehicle_that_no_other_camera_saw_is_no_query():
    gallery = Views(np.eye(2, dtype=np.float32), ["a", "b"], ["c1", "c2"])
    assert across_cameras(Views(np.eye(2, dtype=np.float32)[:1], ["a"], ["c1"]), gallery) == {}
