"""One picture in, one match or one reason out."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge.errors import PictureError
from edge.inference.stages import Classifier, Embedder, Localiser
from edge.manifest.embedder import Head, SilhouetteRule
from edge.recognition.recognise_image import (
    MAX_PIXELS,
    decode_upload,
    extract_features,
    recognise_image,
    recognise_picture,
    reduction_for,
)
from edge.silhouettes.rerank import silhouettes_for
from edge.silhouettes.silhouette import silhouette_of
from edge.telemetry.timing import Timings
from tests.edge.kiosk.kiosk_samples import NEAR, scripted_models
from tests.fakes_engine import SIZE, SPEC, ScriptedEngine, classifier_model, embedder_model, localiser_model

RED = (200, 60, 30)


def plain(width: int = 96, height: int = 64) -> np.ndarray:
    """Red, with a blue left edge."""
    pixels = np.full((height, width, 3), RED, np.uint8)
    pixels[:, : width // 8] = (20, 40, 220)
    return pixels


def encoded(image_rgb: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, image_rgb[..., ::-1])[1].tobytes()


@pytest.fixture
def pillow():
    """Pillow writes what OpenCV cannot: EXIF tags, CMYK, animations. A device install does not have it."""
    return pytest.importorskip("PIL.Image")


def save(picture, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(data: bytes) -> str:
    with pytest.raises(PictureError) as caught:
        decode_upload(data)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def test_classifier_with_a_share_in_the_vector_runs_once():
    models = scripted_models()
    engine = ScriptedEngine(lambda batch: [np.tile(np.log([9.0, 1.0]), (len(batch), 1)), np.ones((len(batch), 2))])
    classifier = Classifier(classifier_model(descriptor_dim=2), engine)
    heads = [Head(name="class", dim=4), Head(name="classifier", dim=2)]
    own = ScriptedEngine(lambda batch: [np.tile([1, 0, 0, 0], (len(batch), 1))])
    joint = Embedder(embedder_model(heads=heads, classifier_share=0.5), own, classifier=classifier)
    stages = replace(models.stages, classifier=classifier, embedders={"carton": joint})
    features = extract_features(replace(models, stages=stages), np.zeros((SIZE, SIZE, 3), np.uint8), Timings())
    np.testing.assert_allclose(features.vectors["carton"], [np.sqrt(0.5), 0, 0, 0, 0.5, 0.5], atol=1e-6)
    assert engine.batch_sizes == [1]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_rotation_is_applied(kind, pillow):
    exif = pillow.Exif()
    exif[0x0112] = 6  # rotated a quarter clockwise
    upright = decode_upload(save(pillow.fromarray(plain()), kind, exif=exif)).image_rgb
    assert upright.shape == (96, 64, 3)
    assert upright[2, 32, 2] > 150  # the blue edge is on top
    np.testing.assert_allclose(upright[50, 32], RED, atol=6)


def test_cmyk_jpeg_keeps_its_colours(pillow):
    data = save(pillow.fromarray(plain()).convert("CMYK"), "JPEG", quality=95)
    np.testing.assert_allclose(decode_upload(data).image_rgb[30, 60], RED, atol=6)


def test_sixteen_bits_become_eight():
    deep = np.full((64, 96, 3), (30 * 257, 60 * 257, 200 * 257), np.uint16)  # BGR
    found = decode_upload(cv2.imencode(".png", deep)[1].tobytes()).image_rgb
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found[30, 60], RED, atol=1)


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_first_frame_of_an_animation_is_used(kind, pillow):
    second = pillow.new("RGB", (96, 64), (0, 255, 0))
    data = save(pillow.fromarray(plain()), kind, save_all=True, append_images=[second], duration=100)
    np.testing.assert_allclose(decode_upload(data).image_rgb[30, 60], RED, atol=8)


def test_gif_is_not_accepted():
    assert refused(b"GIF89a" + struct.pack("<HHBBB", 96, 64, 0, 0, 0) + b";") == "not_a_picture"


@pytest.mark.parametrize("data", [b"<html>hello</html>", b"\x00" * 1000, b"%PDF-1.7 and so on"])
def test_other_data_is_not_a_picture(data):
    assert refused(data) == "not_a_picture"


def test_no_bytes_are_empty():
    assert refused(b"") == "empty"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_picture_is_rejected(suffix, share):
    data = encoded(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8), suffix)
    assert refused(data[: int(len(data) * share)]) in {"truncated", "broken"}


def test_fifty_megapixels_are_rejected_by_the_header_alone():
    """The file is not even whole, so nothing of it was decoded."""
    body = struct.pack(">IIBBBBB", 8660, 5774, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + body
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    assert MAX_PIXELS < 8660 * 5774
    assert refused(data) == "too_large"


def test_one_pixel_is_too_small():
    pixel = decode_upload(encoded(plain(1, 1), ".png"))
    assert pixel.image_rgb.shape == (1, 1, 3)
    decision = recognise_picture(scripted_models(), pixel, 24, Timings())
    assert (decision.match, decision.reason) == (None, "too_small")


def averaging_models(**preprocess):
    """Models whose inputs are averages, the classifier's (width, height) and the embedder's, unless changed."""
    spec = SPEC.model_copy(update={"interpolation": "area"})
    models = scripted_models(preprocess=spec.model_copy(update=preprocess))
    classifier = Classifier(classifier_model(preprocess=spec), models.stages.classifier._engine)
    return replace(models, stages=replace(models.stages, classifier=classifier))


@pytest.mark.parametrize(
    ("preprocess", "size", "times_smaller"),
    [
        ({}, (1280, 640), 10.0),  # letterbox: 64 x 32 of the input
        ({"resize": "stretch"}, (1280, 640), 5.0),
        ({"resize": "stretch", "width": 320}, (1280, 640), 2.0),
        ({}, (30, 640), 5.0),
        ({"interpolation": "linear"}, (1280, 640), 1.0),
    ],
)
def test_reduced_picture_keeps_twice_the_pixels_of_the_inputs(preprocess, size, times_smaller):
    assert reduction_for(averaging_models(**preprocess))(*size) == pytest.approx(times_smaller)


def test_large_photo_is_decoded_smaller_and_recognised_the_same():
    data, models = encoded(plain(1441, 1083), ".jpg"), averaging_models()
    picture, full = decode_upload(data, reduction_for(models)), decode_upload(data)
    assert (picture.image_rgb.shape, picture.width, picture.height) == ((136, 181, 3), 1441, 1083)
    found, expected = (recognise_picture(models, one, 24, Timings()) for one in (picture, full))
    assert (found.match, found.reason) == (expected.match, expected.reason)
    assert found.match.item_id == "c1"


def test_too_small_is_decided_by_the_full_size():
    data, models = encoded(plain(1440, 1080), ".jpg"), averaging_models()
    picture = decode_upload(data, reduction_for(models))
    assert recognise_picture(models, picture, 1080, Timings()).reason is None
    assert recognise_picture(models, picture, 1081, Timings()).reason == "too_small"


def test_known_object_is_a_match_with_timings():
    timings = Timings()
    decision = recognise_image(scripted_models(), plain(), 24, timings)
    assert (decision.match.item_id, decision.category.name) == ("c1", "carton")
    assert decision.top == tuple(NEAR)
    assert {"classify", "embed", "search", "decide"} <= set(timings.stages_ms)


def test_category_without_a_gallery_is_gallery_empty():
    decision = recognise_image(scripted_models(indexes={}), plain(), 24, Timings())
    assert (decision.match, decision.reason) == (None, "gallery_empty")


def test_requested_category_is_embedded_even_if_unlikely():
    models = scripted_models(odds=(1.0, 99.0))
    picture = plain()
    assert extract_features(models, picture, Timings()).vectors.keys() == set()
    assert extract_features(models, picture, Timings(), also="carton").vectors.keys() == {"carton"}


def test_silhouette_decides_where_it_counts():
    models = scripted_models()
    engine = ScriptedEngine(lambda batch: [np.full((len(batch), 1, SIZE // 2, SIZE // 2), 8.0)])
    stages = replace(models.stages, localiser=Localiser(localiser_model(), engine))
    rows = {"c1": np.zeros((1, 512), np.uint8), "c2": silhouette_of(np.full((64, 96), 255, np.uint8), 96, 64)[None]}
    silhouettes = {"carton": silhouettes_for(SilhouetteRule(weight=0.9), rows)}
    decision = recognise_image(replace(models, stages=stages, silhouettes=silhouettes), plain(), 24, Timings())
    assert decision.match.item_id == "c2"
    assert engine.batch_sizes == [1]
