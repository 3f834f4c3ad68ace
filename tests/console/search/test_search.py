"""What a search tells of the objects of a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from console.models.models import Models
from console.search.search import search, silhouette_square
from console.settings import Settings
from edge.errors import FinesightError
from edge.gallery.store_file import open_store
from edge.imaging import image
from edge.shipped.examples import shipped
from edge.telemetry.timing import Timings
from tests.console.models.small_pair import ITEMS, copy_pair, picture

BUNDLE = shipped("demo") / "bundle"


class FakeLocaliser:
    """Finds the upper left quarter of every second crop."""

    class model:  # noqa: N801  as the attribute of a localiser
        class preprocess:  # noqa: N801
            crop_margin = 0.1
            interpolation = "linear"

    def silhouettes(self, _picture, boxes, timings):
        cells = np.zeros((64, 64), np.bool_)
        cells[:32, :32] = True
        with timings.stage("localise"):
            return [np.packbits(cells) if number % 2 == 0 else None for number, _ in enumerate(boxes)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return Models(Settings(tmp_path_factory.mktemp("console"), is_demo=True))


def test_scene_gives_every_object_with_its_nearest_items(models):
    scene = image.read_image(BUNDLE / "probes" / "scene-00.jpg")
    found = search(models, scene, "", "detect", Timings())
    named = {one.answer.item for one in found.objects if one.answer}
    assert {"jar-08", "carton-02", "can-02"} <= named
    assert {"detect", "classify", "embed"} <= found.stages_ms.keys()
    for one in found.objects:
        assert (one.answer is None) == (one.reason is not None)
        assert all(hit.category == one.category.name for hit in one.top)
        if len(one.top) > 1:
            assert one.margin == pytest.approx(one.top[0].similarity - one.top[1].similarity)


def test_tiny_picture_is_unknown_and_the_reason_is_told(models):
    (one,) = search(models, np.full((100, 10, 3), 128, np.uint8), "demo", "whole", Timings()).objects
    assert (one.answer, one.reason, one.top, one.margin) == (None, "too_small", (), None)


def test_silhouettes_are_shown_where_the_bundle_has_a_localiser(models):
    pair = models.load()
    stages = replace(pair.models.stages, localiser=FakeLocaliser())
    models._loaded["demo"] = replace(pair, models=replace(pair.models, stages=stages))
    try:
        scene = image.read_image(BUNDLE / "probes" / "scene-00.jpg")
        found = search(models, scene, "", "detect", Timings())
    finally:
        models._loaded["demo"] = pair
    assert found.objects[0].silhouette.shape == (512,)
    assert found.objects[1].silhouette is None
    assert found.objects[1].silhouette_px is None
    assert found.stages_ms["localise"] >= 0


def test_square_of_a_silhouette_is_centred_on_the_crop():
    assert silhouette_square(200, 100, (50.0, 20.0, 90.0, 40.0), 0.0) == (50.0, 10.0, 90.0, 50.0)
    assert silhouette_square(200, 100, (0.0, 0.0, 40.0, 20.0), 0.5) == (0.0, -15.0, 60.0, 45.0)


def test_bundle_without_a_detector_says_so(models):
    pair = models.load()
    stages = replace(pair.models.stages, detector=None)
    models._loaded["demo"] = replace(pair, models=replace(pair.models, stages=stages))
    try:
        with pytest.raises(FinesightError, match="has no detector"):
            search(models, np.zeros((50, 50, 3), np.uint8), "", "detect", Timings())
    finally:
        models._loaded["demo"] = pair


def test_bundle_without_a_classifier_tells_the_category_of_each_item(tmp_path, monkeypatch):
    settings, opened = Settings(tmp_path), []
    copy_pair(settings.runs / "1" / "bundle", settings.runs / "1" / "gallery")
    models = Models(settings)
    models.load()
    monkeypatch.setattr("console.search.search.open_store", lambda path: opened.append(path) or open_store(path))
    (one,) = search(models, picture(2), "", "whole", Timings()).objects
    assert len(opened) == len(set(ITEMS.values()))  # not once for each item
    assert (one.top[0].item, one.top[0].category) == ("i2", "drawer")
    assert {hit.item: hit.category for hit in one.top} == ITEMS
