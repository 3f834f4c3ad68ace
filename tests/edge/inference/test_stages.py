"""Detector, classifier, embedder over scripted engines."""

from pathlib import Path

import numpy as np
import pytest

from edge.bundle.bundle import read_bundle
from edge.capture.frame_source import CaptureOptions
from edge.capture.open_source import open_source
from edge.config.camera_url import parse_source
from edge.errors import EngineError
from edge.imaging.silhouette import cells
from edge.inference.stages import Classifier, Detector, Embedder, Localiser, load_stages
from edge.manifest import Head, Manifest, Preprocess
from edge.telemetry.timing import Timings
from edge.types import Category
from tests.fakes_engine import (
    SIZE,
    ScriptedEngine,
    classifier_model,
    detector_model,
    embedder_model,
    localiser_model,
    no_box_map,
    one_box_map,
)
from tests.sample_models import shapes_model

DEMO = Path(__file__).parents[3] / "demo/bundle"
GREY = np.full((128, 256, 3), 100, np.uint8)  # letterboxed by a quarter into 64x64
BOX = (0.0, 0.0, 40.0, 40.0)


def test_a_detection_is_in_the_source_frame():
    detector = Detector(detector_model(), ScriptedEngine(lambda _: one_box_map((8, 8, 24, 20))))
    timings = Timings()
    ((found,),) = detector.detect([GREY], timings)
    assert found.box_px == pytest.approx((32, 32, 96, 80))
    assert found.score == pytest.approx(0.9)
    assert found.label == "object"
    assert set(timings.stages_ms) == {"preprocess", "detect", "postprocess"}


def test_a_detector_that_sees_nothing_finds_nothing():
    assert Detector(detector_model(), ScriptedEngine(lambda _: no_box_map())).detect([GREY], Timings()) == [[]]


def test_boxes_outside_the_picture_or_of_an_unwanted_class_are_dropped():
    outside = ScriptedEngine(lambda _: one_box_map((8, 40, 24, 60)))  # in the letterbox border
    assert Detector(detector_model(), outside).detect([GREY], Timings()) == [[]]
    unwanted = detector_model(keep_labels=["car"])
    engine = ScriptedEngine(lambda _: one_box_map((8, 8, 24, 20)))
    assert Detector(unwanted, engine).detect([GREY], Timings()) == [[]]


def test_frames_of_several_cameras_are_run_together_and_each_keeps_its_own():
    sees = [no_box_map()[0], one_box_map((8, 8, 24, 20))[0], one_box_map((16, 16, 48, 48))[0]]
    rows = iter(sees)
    engine = ScriptedEngine(lambda batch: [np.concatenate([next(rows) for _ in batch])])
    detector = Detector(detector_model(max_batch=2), engine, together=2)
    found = detector.detect([GREY, GREY, np.zeros((SIZE, SIZE, 3), np.uint8)], Timings())
    assert engine.batch_sizes == [2, 1]
    assert [[d.box_px for d in objects] for objects in found] == [
        [],
        [pytest.approx((32, 32, 96, 80))],
        [pytest.approx((16, 16, 48, 48))],
    ]


def test_a_yolox_model_is_decoded_as_one():
    output = np.zeros((1, SIZE // 32 * SIZE // 32, 6), np.float32)
    output[0, 0] = [0.5, 0.25, np.log(0.5), np.log(0.25), 1.0, 0.8]  # centre (16, 8), size (16, 8)
    detector = Detector(detector_model(decoder="yolox", strides=[32]), ScriptedEngine(lambda _: [output]))
    assert detector.detect([GREY], Timings())[0][0].box_px == pytest.approx((32, 16, 96, 48))


def test_the_batch_is_what_the_manifest_says():
    shapes = []
    engine = ScriptedEngine(lambda batch: shapes.append((batch.shape, batch.dtype)) or no_box_map())
    Detector(detector_model(), engine).detect([GREY], Timings())
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


DESCRIBED = {"heads": [Head(name="class", dim=4), Head(name="classifier", dim=2)], "classifier_share": 0.25}


def describing(*rows):
    """A classifier that describes every crop alike, and its engine."""
    engine = ScriptedEngine(lambda batch: [np.zeros((len(batch), 2)), np.tile(rows, (len(batch), 1))])
    return Classifier(classifier_model(descriptor_dim=2), engine), engine


def test_a_joint_cosine_is_that_of_each_part_by_its_share():
    classifier, engine = describing(3.0, 4.0)  # of length 5: only directions count
    embedder = Embedder(embedder_model(**DESCRIBED), ScriptedEngine(lambda _: [[[2, 0, 0, 0]]]), classifier=classifier)
    vector = embedder.embed(GREY, [BOX], Timings())[0]
    np.testing.assert_allclose(vector, np.sqrt([0.75, 0, 0, 0, 0.25 * 0.36, 0.25 * 0.64]), atol=1e-6)
    other = embedder.embed(GREY, [BOX], Timings(), np.array([[0.0, 1.0]], np.float32))[0]
    assert vector @ other == pytest.approx(0.75 * 1.0 + 0.25 * 0.8)
    assert engine.batch_sizes == [1]  # what was described before is not described again


def test_an_embedder_without_the_classifier_that_has_a_part_in_it_is_refused():
    with pytest.raises(EngineError, match="found no classifier, expected the one that describes"):
        Embedder(embedder_model(**DESCRIBED), ScriptedEngine(lambda _: []))


def test_a_classifier_that_describes_nothing_gives_rows_without_numbers():
    classifier = Classifier(classifier_model(), ScriptedEngine(lambda batch: [np.zeros((len(batch), 2))]))
    assert classifier.classify_with_features(GREY, [BOX] * 3, Timings()).descriptors.shape == (3, 0)


LTRB = {"strides": [8, 16]}
YOLOX = {"strides": [16, 32], "decoder": "yolox", "labels": ["car", "bus"]}


def load(folder, onnx: bytes, **models):
    (folder / "model.onnx").write_bytes(onnx)
    entry = {"path": "model.onnx", "size": len(onnx), "sha256": "0" * 64}
    head = {"schema": 1, "bundle_id": "b", "sequence": 1, "created_at": "", "runtimes": ["fp32"], "files": [entry]}
    return load_stages(folder, Manifest.model_validate({**head, **models}))


@pytest.mark.parametrize(
    ("row_shapes", "models"),
    [
        ([(5, 8, 8), (5, 4, 4)], {"detector": detector_model(**LTRB)}),
        ([(20, 7)], {"detector": detector_model(**YOLOX)}),
        ([(2,)], {"classifier": classifier_model()}),
        ([(4,)], {"embedders": [embedder_model()]}),
    ],
)
def test_a_model_that_answers_as_the_manifest_says_is_loaded(tmp_path, row_shapes, models):
    load(tmp_path, shapes_model(*row_shapes), **models)


@pytest.mark.parametrize(
    ("row_shapes", "models", "found", "expected"),
    [
        ([(5, 8, 8)], {"detector": detector_model(**LTRB)}, "[(1, 5, 8, 8)]", "[(1, 5, 8, 8), (1, 5, 4, 4)]"),
        (
            [(5, 4, 4), (5, 8, 8)],
            {"detector": detector_model(**LTRB)},
            "[(1, 5, 4, 4), (1, 5, 8, 8)]",
            "[(1, 5, 8, 8), (1, 5, 4, 4)]",
        ),
        ([(6, 8, 8)], {"detector": detector_model()}, "[(1, 6, 8, 8)]", "[(1, 5, 8, 8)]"),
        ([(20, 85)], {"detector": detector_model(**YOLOX)}, "[(1, 20, 85)]", "[(1, 20, 7)]"),
        ([(84, 7)], {"detector": detector_model(**YOLOX)}, "[(1, 84, 7)]", "[(1, 20, 7)]"),
        ([(3,)], {"classifier": classifier_model()}, "[(1, 3)]", "[(1, 2)]"),
        ([(2,), (2,)], {"classifier": classifier_model()}, "[(1, 2), (1, 2)]", "[(1, 2)]"),
        ([(3,)], {"embedders": [embedder_model()]}, "[(1, 3)]", "[(1, 4)]"),
    ],
)
def test_a_model_that_answers_otherwise_is_refused_when_it_is_loaded(tmp_path, row_shapes, models, found, expected):
    with pytest.raises(EngineError) as caught:
        load(tmp_path, shapes_model(*row_shapes), **models)
    file = tmp_path / "model.onnx"
    assert str(caught.value) == f"{file}: found outputs of shapes {found}, expected {expected}, as the manifest says"


@pytest.mark.parametrize(
    ("dim", "models"), [(2, {"classifier": classifier_model()}), (4, {"embedders": [embedder_model()]})]
)
def test_a_model_that_does_not_take_the_manifests_largest_batch_is_refused_when_it_is_loaded(tmp_path, dim, models):
    with pytest.raises(EngineError, match=r"model\.onnx: found a uint8 batch of shape \(2, 64, 64, 3\), expected"):
        load(tmp_path, shapes_model((dim,), batch=1), **models)


@pytest.mark.parametrize(
    ("stage", "ask"),
    [
        (Detector(detector_model(), ScriptedEngine(lambda _: [])), lambda s: s.detect([GREY], Timings())),
        (
            Classifier(classifier_model(), ScriptedEngine(lambda _: [[1, 2]])),
            lambda s: s.classify(GREY, [BOX] * 2, Timings()),
        ),
        (
            Embedder(embedder_model(), ScriptedEngine(lambda _: [np.ones((1, 3))])),
            lambda s: s.embed(GREY, [BOX], Timings()),
        ),
    ],
)
def test_an_answer_of_another_shape_in_the_frame_path_is_an_engine_error(stage, ask):
    with pytest.raises(EngineError, match=r"scripted\.onnx: found outputs of shapes \[.*\], expected \["):
        ask(stage)


def test_an_input_that_is_no_multiple_of_the_stride_has_a_cell_for_the_rest():
    model = detector_model(strides=[8, 16], preprocess=Preprocess(width=60, height=36))
    assert model.output_shapes(1) == [(1, 5, 5, 8), (1, 5, 3, 4)]


def test_the_shipped_detector_finds_the_same_in_frames_alone_and_together():
    bundle = read_bundle(DEMO, verify=False)
    stages = load_stages(bundle.folder, bundle.manifest, threads=2)
    assert stages.detector.together > 1
    door = open_source(parse_source(f"file://{DEMO.parent / 'stream.mp4'}"), "opencv", CaptureOptions())
    frames = [door.read(1.0).image_rgb for _ in range(120)][20::20]
    door.close()
    together = stages.detector.detect(frames, Timings())
    alone = [stages.detector.detect([frame], Timings())[0] for frame in frames]
    assert together == alone
    assert sum(map(len, together)) > 0


def half_object(batch):
    """Logits of an object in the upper half of the canvas."""
    logits = np.full((len(batch), 1, SIZE // 2, SIZE // 2), -8.0)
    logits[:, :, : SIZE // 4] = 8.0
    return [logits]


def test_a_mask_is_of_the_crop_and_not_of_the_letterbox():
    engine = ScriptedEngine(half_object)
    localiser, timings = Localiser(localiser_model(), engine), Timings()
    masks = localiser.locate(GREY, [(0.0, 0.0, 80.0, 40.0), (0.0, 0.0, 40.0, 80.0), BOX], timings)
    assert [mask.shape for mask in masks] == [(16, 32), (32, 16), (32, 32)]
    assert engine.batch_sizes == [2, 1]
    assert [int(mask.min()) for mask in masks] == [255, 0, 0]  # the wide one lies in the canvas's upper half
    assert set(timings.stages_ms) == {"preprocess", "localise"}


def test_an_outline_is_of_the_crops_own_shape():
    localiser = Localiser(localiser_model(), ScriptedEngine(half_object))
    (wide,) = localiser.silhouettes(GREY, [(0.0, 0.0, 80.0, 40.0)], Timings())
    assert cells(wide)[16:48].all()
    assert not cells(wide)[:16].any()
    nothing = Localiser(localiser_model(), ScriptedEngine(lambda batch: [half_object(batch)[0] - 20.0]))
    assert nothing.outlines(GREY, [BOX], Timings()) == [None]


def test_an_outline_takes_the_crops_edge_where_the_manifest_asks_for_the_guided_filter():
    picture = np.full((64, 64, 3), 30, np.uint8)
    picture[:34] = 220  # two rows more than the mask says
    box = [(0.0, 0.0, 64.0, 64.0)]
    rows = {}
    for radius in (0.0, 0.2):
        localiser = Localiser(localiser_model(guided_radius=radius), ScriptedEngine(half_object))
        (outline,) = localiser.silhouettes(picture, box, Timings())
        rows[radius] = int(cells(outline)[:, 32].sum())
    assert rows == {0.0: 32, 0.2: 34}
