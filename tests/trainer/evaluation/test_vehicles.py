"""What evaluation adds where pictures tell cameras and attributes, on vectors made up here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataset_formats.records import Sample
from trainer.cross_camera import Views, across_cameras
from trainer.evaluation.predictions import Predictions
from trainer.evaluation.reference_gallery import ReferenceGallery
from trainer.evaluation.vehicles import vehicle_tables

ITEMS, COLOURS = ("a", "b", "c"), {"a": "red", "b": "red", "c": "blue"}
# Vehicles a and b look alike; c does not.
CENTRES = {"a": 0.0, "b": 0.25, "c": 1.5}


def vector(item: str, change: float) -> list[float]:
    return [np.cos(CENTRES[item] + change), np.sin(CENTRES[item] + change)]


def samples(camera: str = "c1", *, told: bool = True) -> list[Sample]:
    path = Path("a.png")
    attributes = {item: (("colour", COLOURS[item]),) if told else () for item in ITEMS}
    return [Sample(path, "query", "car", item, camera=camera, attributes=attributes[item]) for item in ITEMS]


def gallery(cameras: tuple[str, ...]) -> ReferenceGallery:
    rows = [(item, camera) for item in ITEMS for camera in ("c1", "c2")]
    vectors = np.array([vector(item, 0.0 if camera == "c1" else 0.2) for item, camera in rows], np.float32)
    attributes = {item: {"colour": colour} for item, colour in COLOURS.items()}
    return ReferenceGallery(vectors, tuple(i for i, _ in rows), lambda _: None, cameras=cameras, attributes=attributes)


def tables(queries: list[Sample], reference: ReferenceGallery) -> dict:
    vectors = {number: np.array(vector(one.item, 0.02), np.float32) for number, one in enumerate(queries)}
    return vehicle_tables(
        Predictions(queries, np.arange(3) + 100, None, {"car": vectors}, {"car": reference}, [1.0]),
        {"car": reference},
        0,
    )


def test_cross_camera_measures_are_those_of_the_protocol():
    cameras = ("c1", "c2") * 3
    reference = gallery(cameras)
    found = tables(samples(), reference)["across_cameras"]
    queries = np.array([vector(item, 0.02) for item in ITEMS], np.float32)
    expected = across_cameras(Views(queries, ITEMS, ["c1"] * 3), Views(reference.vectors, reference.items, cameras))
    assert found["map"]["mean"] == pytest.approx(expected["mAP"])
    assert found["cmc_1"]["mean"] == pytest.approx(expected["CMC@1"])
    assert found["cmc_1"]["mean"] < 1  # vehicle b by the same camera is nearer to a than a by the other


def test_pictures_without_a_camera_have_no_such_measures():
    assert "across_cameras" not in tables(samples(""), gallery(("c1", "c2") * 3))
    assert "across_cameras" not in tables(samples(), gallery(()))


def test_colour_of_an_unseen_vehicle_is_that_of_one_that_looks_alike():
    """Without their items, a and b still look like each other, but nothing looks like c."""
    colour = tables(samples(), gallery(()))["attributes"]["colour"]
    assert colour["whole_gallery"]["mean"] == 1.0
    assert colour["item_left_out"]["mean"] == pytest.approx(2 / 3)
    assert colour["item_left_out"]["count"] == 3


def test_gallery_tells_the_attributes_of_queries_that_tell_none():
    table = tables(samples(told=False), gallery(()))["attributes"]
    assert table["colour"]["whole_gallery"]["count"] == 3
