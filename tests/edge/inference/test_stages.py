"""Detector, classifier, localiser and embedder with scripted engines."""

from pathlib import Path

import numpy as np
import pytest

from edge.bundle.bundle import read_bundle
from edge.capture.frame_source import CaptureOptions
from edge.capture.open_source import open_source
from edge.config.camera_url import parse_source
from edge.errors import EngineError
from edge.inference.open_models import OpenOptions
from edge.inference.stages import Classifier, Detector, Embedder, Localiser, load_stages
from edge.manifest.embedder import Head
from edge.manifest.manifest import Manifest
from edge.manifest.model import Preprocess
from edge.silhouettes.silhouette import cells
from edge.telemetry.timing import Timings
from edge.types import UNFAMILIAR, Category
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
from tests.sample_models import external_model, shapes_model

DEMO = Path(__file__).parents[3] / "demo/bundle"
GREY = np.full((128, 256, 3), 100, np.uint8)  # letterboxed by a quarter into 64x64
BOX = (0.0, 0.0, 40.0, 40.0)


def test_detections_are_in_source_frame_pixels():
    detector = Detector(detector_model(), ScriptedEngine(lambda _: one_box_map((8, 8, 24, 20))))
    timings = Timings()
    ((found,),) = detector.detect([GREY], timings)
    assert found.box_px == pytest.approx((32, 32, 96, 80))
    assert found.score == pytest.approx(0.9)
    assert found.label == "object"
    assert set(timings.stages_ms) == {"preprocess", "detect", "postprocess"}


def test_empty_map_gives_no_detections():
    assert Detector(detector_model(), ScriptedEngine(lambda _: no_box_map())).detect([GREY], Timings()) == [[]]


def test_boxes_outside_the_picture_or_of_other_classes_are_dropped():
    outside = ScriptedEngine(lambda _: one_box_map((8, 40, 24, 60)))  # in the letterbox border
    assert Detector(detector_model(), outside).detect([GREY], Timings()) == [[]]
    unwanted = detector_model(keep_labels=["car"])
    engine = ScriptedEngine(lambda _: one_box_map((8, 8, 24, 20)))
    assert Detector(unwanted, engine).detect([GREY], Timings()) == [[]]


def ltrb_engine(labels: int, *found) -> ScriptedEngine:
    """The output of an `ltrb` detector of stride 8: a box in input pixels, a label number and a score for each cell."""
    level = np.zeros((1, 4 + labels, SIZE // 8, SIZE // 8), np.float32)
    level[0, 4:] = -20.0
    for (x, y), (x0, y0, x1, y1), label, score in found:
        level[0, :4, y, x] = np.array([(x + 0.5) * 8 - x0, (y + 0.5) * 8 - y0, x1 - (x + 0.5) * 8, y1 - (y + 0.5) * 8])
        level[0, :4, y, x] /= 8
        level[0, 4 + label, y, x] = np.log(score / (1 - score))
    return ScriptedEngine(lambda _: [level])


def yolox_engine(labels: int, stride: int, *found) -> ScriptedEngine:
    """The output of a `yolox` detector of one stride: as ltrb_engine."""
    side = SIZE // stride
    rows = np.zeros((1, side * side, 5 + labels), np.float32)
    for (x, y), (x0, y0, x1, y1), label, score in found:
        centre = [(x0 + x1) / 2 / stride - x, (y0 + y1) / 2 / stride - y]
        rows[0, y * side + x, :5] = [*centre, np.log((x1 - x0) / stride), np.log((y1 - y0) / stride), 1.0]
        rows[0, y * side + x, 5 + label] = score
    return ScriptedEngine(lambda _: [rows])


SQUARE = np.zeros((SIZE, SIZE, 3), np.uint8)
TWO = {"labels": ["person", "car"], "strides": [8]}
SAME_PLACE = (((1, 1), (4, 4, 36, 36), 0, 0.9), ((2, 2), (4, 4, 36, 37), 1, 0.6))  # a person, then a car


@pytest.mark.parametrize(
    ("decoder", "engine"), [("ltrb", ltrb_engine(2, *SAME_PLACE)), ("yolox", yolox_engine(2, 8, *SAME_PLACE))]
)
@pytest.mark.parametrize(("keep", "labels"), [(["car"], ["car"]), (["person"], ["person"]), (None, ["person"])])
def test_unwanted_label_suppresses_no_wanted_box(decoder, engine, keep, labels):
    detector = Detector(detector_model(**TWO, decoder=decoder, keep_labels=keep), engine)
    assert [found.label for found in detector.detect([SQUARE], Timings())[0]] == labels


def test_unwanted_boxes_do_not_count_towards_the_limit():
    crowd = [((x, y), (4 * x, 4 * y, 4 * x + 3, 4 * y + 3), 0, 0.9) for y in range(15) for x in range(16)]
    engine = yolox_engine(2, 4, *crowd, ((8, 15), (20, 60, 40, 64), 1, 0.5))
    model = {"labels": ["person", "car"], "strides": [4], "decoder": "yolox"}
    everyone = Detector(detector_model(**model), engine).detect([SQUARE], Timings())[0]
    assert [found.label for found in everyone] == ["person"] * 100
    wanted = Detector(detector_model(**model, keep_labels=["car"]), engine).detect([SQUARE], Timings())[0]
    assert [found.label for found in wanted] == ["car"]


def test_box_in_the_letterbox_border_does_not_count_towards_the_limit():
    border = [((x, y), (4 * x, 4 * y, 4 * x + 3, 4 * y + 3), 0, 0.9) for y in range(8, 16) for x in range(16)]
    engine = yolox_engine(1, 4, *border, ((4, 4), (8, 8, 24, 24), 0, 0.5))
    detector = Detector(detector_model(strides=[4], decoder="yolox"), engine)
    assert [found.score for found in detector.detect([GREY], Timings())[0]] == [0.5]


@pytest.mark.parametrize("iou_threshold", [0.6, 1.0])
@pytest.mark.parametrize("second", [0, 1])
def test_object_told_twice_is_one_detection(second, iou_threshold):
    box = (4, 4, 36, 36)
    engine = ltrb_engine(2, ((1, 1), box, 0, 0.9), ((2, 2), box, second, 0.8))
    detector = Detector(detector_model(**TWO, iou_threshold=iou_threshold), engine)
    assert [found.label for found in detector.detect([SQUARE], Timings())[0]] == ["person"]


def test_box_that_is_no_number_is_dropped_and_suppresses_nothing():
    engine = ltrb_engine(1, ((1, 1), (np.nan, 4, 36, 36), 0, 0.9), ((2, 2), (4, 4, 36, 36), 0, 0.5))
    (found,) = Detector(detector_model(), engine).detect([SQUARE], Timings())[0]
    assert found.box_px == pytest.approx((4, 4, 36, 36))


def test_frames_of_several_cameras_share_a_batch():
    maps = [no_box_map()[0], one_box_map((8, 8, 24, 20))[0], one_box_map((16, 16, 48, 48))[0]]
    rows = iter(maps)
    engine = ScriptedEngine(lambda batch: [np.concatenate([next(rows) for _ in batch])])
    detector = Detector(detector_model(max_batch=2), engine, batch_size=2)
    found = detector.detect([GREY, GREY, np.zeros((SIZE, SIZE, 3), np.uint8)], Timings())
    assert engine.batch_sizes == [2, 1]
    assert [[d.box_px for d in objects] for objects in found] == [
        [],
        [pytest.approx((32, 32, 96, 80))],
        [pytest.approx((16, 16, 48, 48))],
    ]


def test_yolox_output_is_decoded():
    output = np.zeros((1, SIZE // 32 * SIZE // 32, 6), np.float32)
    output[0, 0] = [0.5, 0.25, np.log(0.5), np.log(0.25), 1.0, 0.8]  # centre (16, 8), size (16, 8)
    detector = Detector(detector_model(decoder="yolox", strides=[32]), ScriptedEngine(lambda _: [output]))
    assert detector.detect([GREY], Timings())[0][0].box_px == pytest.approx((32, 16, 96, 48))


def test_batch_shape_and_dtype_follow_the_manifest():
    shapes = []
    engine = ScriptedEngine(lambda batch: shapes.append((batch.shape, batch.dtype)) or no_box_map())
    Detector(detector_model(), engine).detect([GREY], Timings())
    assert shapes == [((1, SIZE, SIZE, 3), np.uint8)]


def test_crops_are_split_into_batches_of_max_batch():
    engine = ScriptedEngine(lambda batch: [np.tile(np.log([1, 3]), (len(batch), 1))])
    rows = Classifier(classifier_model(max_batch=2), engine).classify(GREY, [BOX] * 5, Timings())
    assert engine.batch_sizes == [2, 2, 1]
    assert rows == pytest.approx(np.tile([0.25, 0.75], (5, 1)))


def test_temperature_comes_from_the_manifest():
    engine = ScriptedEngine(lambda batch: [np.tile(np.log([1, 9]), (len(batch), 1))])
    row = Classifier(classifier_model(temperature=2.0), engine).classify(GREY, [BOX], Timings())[0]
    assert row == pytest.approx([0.25, 0.75])


def test_crop_with_low_logits_is_unfamiliar():
    logits = iter([[2.0, -8.0], [1.9, -8.0]])  # the softmax of both is sure of the first category
    engine = ScriptedEngine(lambda batch: [np.array([next(logits) for _ in batch], np.float32)])
    classifier = Classifier(classifier_model(least_logit=2.0), engine)
    rows = classifier.classify(GREY, [BOX, BOX], Timings())
    assert rows.sum(axis=1) == pytest.approx([1.0, UNFAMILIAR])
    assert (rows.argmax(axis=1) == 0).all()


def test_categories_are_ranked_best_first():
    classifier = Classifier(classifier_model(), ScriptedEngine(lambda _: []))
    assert classifier.rank_categories(np.array([0.25, 0.75], np.float32)) == [
        Category("tyre", 0.75),
        Category("carton", 0.25),
    ]


def test_embeddings_keep_their_order_and_have_unit_length():
    def answer(batch):  # the brightness of each crop, not of unit length
        return [[[crop[:SIZE, :SIZE].max(), 1.0, 0.0, 0.0] for crop in batch]]

    steps = np.zeros((64, 192, 3), np.uint8)
    boxes = []
    for n in range(3):
        steps[:, n * 64 : (n + 1) * 64] = 150 + 40 * n
        boxes.append((n * 64.0, 0.0, (n + 1) * 64.0, 64.0))
    vectors = Embedder(embedder_model(), ScriptedEngine(answer)).embed(steps, boxes, Timings())
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1])
    assert vectors[:, 0] / vectors[:, 1] == pytest.approx([150, 190, 230])


JOINT = {"heads": [Head(name="class", dim=4), Head(name="classifier", dim=2)], "classifier_share": 0.25}


def classifier_with_descriptor(*rows):
    """A classifier that gives every crop the same descriptor, and its engine."""
    engine = ScriptedEngine(lambda batch: [np.zeros((len(batch), 2)), np.tile(rows, (len(batch), 1))])
    return Classifier(classifier_model(descriptor_dim=2), engine), engine


def test_joint_cosine_weights_the_parts_by_their_shares():
    classifier, engine = classifier_with_descriptor(3.0, 4.0)  # of length 5: only the direction counts
    embedder = Embedder(embedder_model(**JOINT), ScriptedEngine(lambda _: [[[2, 0, 0, 0]]]), classifier=classifier)
    vector = embedder.embed(GREY, [BOX], Timings())[0]
    np.testing.assert_allclose(vector, np.sqrt([0.75, 0, 0, 0, 0.25 * 0.36, 0.25 * 0.64]), atol=1e-6)
    other = embedder.embed(GREY, [BOX], Timings(), np.array([[0.0, 1.0]], np.float32))[0]
    assert vector @ other == pytest.approx(0.75 * 1.0 + 0.25 * 0.8)
    assert engine.batch_sizes == [1]  # the classifier does not run again for known descriptors


def test_embedder_with_classifier_share_needs_a_classifier():
    with pytest.raises(EngineError, match="needs a classifier"):
        Embedder(embedder_model(**JOINT), ScriptedEngine(lambda _: []))


def test_classifier_without_descriptor_gives_empty_rows():
    classifier = Classifier(classifier_model(), ScriptedEngine(lambda batch: [np.zeros((len(batch), 2))]))
    assert classifier.classify_with_features(GREY, [BOX] * 3, Timings()).descriptors.shape == (3, 0)


NOW = "2026-01-01T00:00:00Z"
LTRB = {"strides": [8, 16]}
YOLOX = {"strides": [16, 32], "decoder": "yolox", "labels": ["car", "bus"]}


def load(folder, onnx: bytes, **models):
    (folder / "model.onnx").write_bytes(onnx)
    return load_stages(folder, manifest_of(folder, **{key: _named(value) for key, value in models.items()}))


def manifest_of(folder, **models):
    entry = {"path": "model.onnx", "size": (folder / "model.onnx").stat().st_size, "sha256": "0" * 64}
    head = {"schema": 1, "bundle_id": "b", "sequence": 1, "created_at": NOW, "runtimes": ["fp32"], "files": [entry]}
    return Manifest.model_validate({**head, **models})


def _named(model):
    """Name the outputs as `shapes_model` does."""
    if isinstance(model, list):
        return [_named(one) for one in model]
    return model.model_copy(update={"output_names": [f"output{i}" for i in range(len(model.output_names))]})


@pytest.mark.parametrize(
    ("row_shapes", "models"),
    [
        ([(5, 8, 8), (5, 4, 4)], {"detector": detector_model(**LTRB)}),
        ([(20, 7)], {"detector": detector_model(**YOLOX)}),
        ([(2,)], {"classifier": classifier_model()}),
        ([(4,)], {"embedders": [embedder_model()]}),
    ],
)
def test_model_that_matches_the_manifest_is_loaded(tmp_path, row_shapes, models):
    load(tmp_path, shapes_model(*row_shapes, factor=-1.0), **models)


@pytest.mark.parametrize(
    ("row_shapes", "models", "found", "expected"),
    [
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
        ([(3,)], {"embedders": [embedder_model()]}, "[(1, 3)]", "[(1, 4)]"),
    ],
)
def test_model_with_other_output_shapes_is_rejected_at_load(tmp_path, row_shapes, models, found, expected):
    with pytest.raises(EngineError) as caught:
        load(tmp_path, shapes_model(*row_shapes), **models)
    file = tmp_path / "model.onnx"
    assert str(caught.value) == f"{file}: found outputs of shapes {found}, expected {expected}, as the manifest says"


@pytest.mark.parametrize(
    ("row_shapes", "models", "changes"),
    [
        ([(5, 8, 8)], {"detector": detector_model(**LTRB)}, {}),
        ([(2,), (2,)], {"classifier": classifier_model()}, {}),
        ([(2,)], {"classifier": classifier_model()}, {"output_names": ["logits"]}),
        ([(2,)], {"classifier": classifier_model()}, {"input_name": "pixels"}),
    ],
)
def test_model_with_other_names_is_rejected_at_load(tmp_path, row_shapes, models, changes):
    models = {key: _named(model).model_copy(update=changes) for key, model in models.items()}
    (tmp_path / "model.onnx").write_bytes(shapes_model(*row_shapes))
    with pytest.raises(
        EngineError, match=r"model\.onnx: found the inputs image and outputs output0.* but the manifest"
    ):
        load_stages(tmp_path, manifest_of(tmp_path, **models))


def test_weights_in_another_file_are_rejected_at_load(tmp_path):
    (tmp_path / "model.onnx").write_bytes(external_model("w.data"))
    np.ones((3, 4), np.float32).tofile(tmp_path / "w.data")
    with pytest.raises(EngineError, match=r"model\.onnx: keeps its weights in another file"):
        load_stages(tmp_path, manifest_of(tmp_path, classifier=classifier_model()))


@pytest.mark.parametrize("data", [b"", b"\0", b"not a model", b"\xff" * 4000, b"\x3a\xff\xff\xff\xff\x0f"])
def test_file_that_is_no_model_is_rejected_at_load(tmp_path, data):
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(EngineError, match=r"model\.onnx: "):
        load_stages(tmp_path, manifest_of(tmp_path, classifier=classifier_model()))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_model_without_finite_outputs_is_rejected_at_load(tmp_path, value):
    for models, shape in ({"classifier": classifier_model()}, (2,)), ({"embedders": [embedder_model()]}, (4,)):
        with pytest.raises(EngineError, match=r"model\.onnx: .*(NaN|infinite)"):
            load(tmp_path, shapes_model(shape, factor=value), **models)


def test_embedding_of_zeros_is_an_engine_error(tmp_path):
    with pytest.raises(EngineError, match=r"model\.onnx: found an embedding of zeros"):
        load(tmp_path, shapes_model((4,)), embedders=[embedder_model()])


def test_detector_of_nan_alone_is_an_engine_error():
    engine = ScriptedEngine(lambda _: [np.full_like(no_box_map()[0], np.nan)])
    with pytest.raises(EngineError, match="320 of 320 outputs are not numbers"):
        Detector(detector_model(), engine).detect([SQUARE], Timings())


@pytest.mark.parametrize("output", [np.array([["a", "b"]]), [{"a": 1.0}], np.array([[None, {}]])])
def test_output_that_is_not_of_numbers_is_an_engine_error(output):
    engine = ScriptedEngine(None)
    engine.run = lambda _: [output]
    with pytest.raises(EngineError, match=r"scripted\.onnx: found "):
        Classifier(classifier_model(), engine).classify(GREY, [BOX], Timings())


@pytest.mark.parametrize(
    ("dim", "models"), [(2, {"classifier": classifier_model()}), (4, {"embedders": [embedder_model()]})]
)
def test_model_that_rejects_the_largest_batch_is_rejected_at_load(tmp_path, dim, models):
    with pytest.raises(EngineError, match=r"model\.onnx: found a uint8 batch of shape \(2, 64, 64, 3\), expected"):
        load(tmp_path, shapes_model((dim,), batch=1, factor=1.0), **models)


@pytest.mark.parametrize(
    ("stage", "run"),
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
def test_wrong_output_shape_at_run_time_is_an_engine_error(stage, run):
    with pytest.raises(EngineError, match=r"scripted\.onnx: found outputs of shapes \[.*\], expected \["):
        run(stage)


def test_input_size_is_rounded_up_to_whole_cells():
    model = detector_model(strides=[8, 16], preprocess=Preprocess(width=60, height=36))
    assert model.output_shapes(1) == [(1, 5, 5, 8), (1, 5, 3, 4)]


def test_shipped_detector_finds_the_same_alone_and_in_a_batch():
    bundle = read_bundle(DEMO, verify=False)
    stages = load_stages(bundle.folder, bundle.manifest, options=OpenOptions(threads=2))
    assert stages.detector.batch_size > 1
    source = open_source(parse_source(f"file://{DEMO.parent / 'stream.mp4'}"), "opencv", CaptureOptions())
    frames = [source.read(1.0).image_rgb for _ in range(120)][20::20]
    source.close()
    batched = stages.detector.detect(frames, Timings())
    alone = [stages.detector.detect([frame], Timings())[0] for frame in frames]
    assert batched == alone
    assert sum(map(len, batched)) > 0


def half_object(batch):
    """Logits of an object in the upper half of the canvas."""
    logits = np.full((len(batch), 1, SIZE // 2, SIZE // 2), -8.0)
    logits[:, :, : SIZE // 4] = 8.0
    return [logits]


def test_mask_covers_the_crop_without_the_letterbox():
    engine = ScriptedEngine(half_object)
    localiser, timings = Localiser(localiser_model(), engine), Timings()
    masks = localiser.locate(GREY, [(0.0, 0.0, 80.0, 40.0), (0.0, 0.0, 40.0, 80.0), BOX], timings)
    assert [mask.shape for mask in masks] == [(16, 32), (32, 16), (32, 32)]
    assert engine.batch_sizes == [2, 1]
    assert [int(mask.min()) for mask in masks] == [255, 0, 0]  # the wide one lies in the canvas's upper half
    assert set(timings.stages_ms) == {"preprocess", "localise"}


def test_silhouette_has_the_aspect_of_the_crop():
    localiser = Localiser(localiser_model(), ScriptedEngine(half_object))
    (wide,) = localiser.silhouettes(GREY, [(0.0, 0.0, 80.0, 40.0)], Timings())
    assert cells(wide)[16:48].all()
    assert not cells(wide)[:16].any()
    nothing = Localiser(localiser_model(), ScriptedEngine(lambda batch: [half_object(batch)[0] - 20.0]))
    assert nothing.silhouettes(GREY, [BOX], Timings()) == [None]


def test_guided_filter_moves_the_silhouette_to_the_crops_edge():
    picture = np.full((64, 64, 3), 30, np.uint8)
    picture[:34] = 220  # two rows more than the mask says
    box = [(0.0, 0.0, 64.0, 64.0)]
    rows = {}
    for radius in (0.0, 0.2):
        localiser = Localiser(localiser_model(guided_radius=radius), ScriptedEngine(half_object))
        (silhouette,) = localiser.silhouettes(picture, box, Timings())
        rows[radius] = int(cells(silhouette)[:, 32].sum())
    assert rows == {0.0: 32, 0.2: 34}
