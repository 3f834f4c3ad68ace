"""Detector, classifier, embedder over scripted engines."""

import numpy as np
import pytest

from edge.errors import EngineError
from edge.stages import Classifier, Detector, Embedder
from edge.timing import Timings
from edge.types import Category
from tests.fakes_engine import (
    SIZE,
    ScriptedEngine,
    classifier_model,
    detector_model,
    embedder_model,
    no_box_map,
    one_box_map,
)

GREY = np.full((128, 256, 3), 100, np.uint8)  # letterboxed by a quarter into 64x64
BOX = (0.0, 0.0, 40.0, 40.0)


def test_a_detection_is_in_the_source_frame():
    detector = Detector(detector_model(), ScriptedEngine(lambda _: one_box_map((8, 8, 24, 20))))
    timings = Timings()
    (found,) = detector.detect(GREY, timings)
    assert found.box_px == pytest.approx((32, 32, 96, 80))
    assert found.score == pytest.approx(0.9)
    assert found.label == "object"
    assert set(timings.stages_ms) == {"preprocess", "detect", "postprocess"}


def test_a_detector_that_sees_nothing_finds_nothing():
    assert Detector(detector_model(), ScriptedEngine(lambda _: no_box_map())).detect(GREY, Timings()) == []


def test_boxes_outside_the_picture_or_of_an_unwanted_class_are_dropped():
    outside = ScriptedEngine(lambda _: one_box_map((8, 40, 24, 60)))  # in the letterbox border
    assert Detector(detector_model(), outside).detect(GREY, Timings()) == []
    unwanted = detector_model(keep_labels=["car"])
    engine = ScriptedEngine(lambda _: one_box_map((8, 8, 24, 20)))
    assert Detector(unwanted, engine).detect(GREY, Timings()) == []


def test_a_yolox_model_is_decoded_as_one():
    output = np.zeros((1, SIZE // 32 * SIZE // 32, 6), np.float32)
    output[0, 0] = [0.5, 0.25, np.log(0.5), np.log(0.25), 1.0, 0.8]  # centre (16, 8), size (16, 8)
    detector = Detector(detector_model(decoder="yolox", strides=[32]), ScriptedEngine(lambda _: [output]))
    assert detector.detect(GREY, Timings())[0].box_px == pytest.approx((32, 16, 96, 48))


def test_the_batch_is_what_the_manifest_says():
    shapes = []
    engine = ScriptedEngine(lambda batch: shapes.append((batch.shape, batch.dtype)) or no_box_map())
    Detector(detector_model(), engine).detect(GREY, Timings())
    assert shapes == [((1, SIZE, SIZE, 3), np.uint8)]


def test_batches_respect_the_models_largest():
    engine = ScriptedEngine(lambda batch: [np.tile(np.log([1, 3]), (len(batch), 1))])
    rows = Classifier(classifier_model(max_batch=2), engine).classify(GREY, [BOX] * 5, Timings())
    assert engine.batch_sizes == [2, 2, 1]
    assert rows == pytest.approx(np.tile([0.25, 0.75], (5, 1)))


def test_the_temperature_is_the_manifests():
    engine = ScriptedEngine(lambda batch: [np.tile(np.log([1, 9]), (len(batch), 1))])
    row = Classifier(classifier_model(temperature=2.0), engine).classify(GREY, [BOX], Timings())[0]
    assert row == pytest.approx([0.25, 0.75])


def test_categories_are_named_best_first():
    classifier = Classifier(classifier_model(), ScriptedEngine(lambda _: []))
    assert classifier.name(np.array([0.25, 0.75], np.float32)) == [Category("tyre", 0.75), Category("carton", 0.25)]


def test_embeddings_keep_their_order_and_have_unit_length():
    def answer(batch):  # the brightness of each crop, and what makes it no unit vector
        return [[[crop[:SIZE, :SIZE].max(), 1.0, 0.0, 0.0] for crop in batch]]

    steps = np.zeros((64, 192, 3), np.uint8)
    boxes = []
    for n in range(3):
        steps[:, n * 64 : (n + 1) * 64] = 150 + 40 * n
        boxes.append((n * 64.0, 0.0, (n + 1) * 64.0, 64.0))
    vectors = Embedder(embedder_model(), ScriptedEngine(answer)).embed(steps, boxes, Timings())
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1])
    assert vectors[:, 0] / vectors[:, 1] == pytest.approx([150, 190, 230])


def test_an_embedder_of_another_length_is_an_engine_error():
    embedder = Embedder(embedder_model(), ScriptedEngine(lambda batch: [np.ones((len(batch), 3))]))
    with pytest.raises(EngineError, match=r"embedder of \['carton'\]: found output \(1, 3\), expected \(1, 4\)"):
        embedder.embed(GREY, [BOX], Timings())
