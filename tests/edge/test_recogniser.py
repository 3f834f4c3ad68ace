"""The Python API, with scripted models and with the shipped bundle."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import edge
from edge.bundle import slots
from edge.bundle.install import install_bundle, install_gallery
from edge.capture.frame_source import CaptureOptions
from edge.capture.open_source import open_source
from edge.config.camera_url import parse_source
from edge.config.yaml_file import load_config
from edge.errors import BundleError, CaptureError, ConfigError, FinesightError
from edge.imaging.image import encode_image
from edge.inference.stages import Detector
from edge.recogniser import Recogniser
from tests.edge.kiosk.kiosk_samples import FAR, NEAR, scripted_models
from tests.fakes_engine import FixedIndex, ScriptedEngine, detector_model, one_box_map
from tests.store_samples import make_gallery, trusted

DEMO = Path(__file__).parents[2] / "demo"
GREY = np.full((64, 64, 3), 114, np.uint8)


def with_detector(**models) -> Recogniser:
    """A recogniser whose detector always sees one object."""
    loaded = scripted_models(**models)
    detector = Detector(detector_model(), ScriptedEngine(lambda _: one_box_map((8, 16, 48, 56))))
    return Recogniser(replace(loaded, stages=replace(loaded.stages, detector=detector)))


def test_whole_picture_is_one_object():
    found = Recogniser(scripted_models()).recognise(GREY)
    assert (found.width, found.height, found.bundle, found.gallery) == (64, 64, "bundle-1", "gallery-1")
    (thing,) = found.objects
    assert thing.box_px == (0.0, 0.0, 64.0, 64.0)
    assert (thing.label, thing.category.name, thing.reason, thing.detected_as) == ("Oat flakes", "carton", None, None)
    assert thing.top == tuple(NEAR)
    assert thing.probability == thing.match.probability


def test_unknown_object_has_a_reason_and_its_nearest_items():
    (thing,) = Recogniser(scripted_models(indexes={"carton": FixedIndex(FAR)})).recognise(GREY).objects
    assert (thing.label, thing.match, thing.probability) == (None, None, None)
    assert (thing.reason, thing.top) == ("unknown_item", tuple(FAR))


def test_results_cannot_be_changed():
    found = Recogniser(scripted_models()).recognise(GREY)
    with pytest.raises(FrozenInstanceError):
        found.width = 3
    with pytest.raises(FrozenInstanceError):
        found.objects[0].reason = None


def test_detected_objects_have_boxes_and_names():
    (thing,) = with_detector().recognise(GREY, framing="detect").objects
    assert thing.box_px == pytest.approx((8, 16, 48, 56), abs=0.5)
    assert (thing.detected_as, thing.label) == ("object", "Oat flakes")


def test_detected_object_that_is_too_small_is_not_embedded():
    recogniser = with_detector()
    recogniser._min_object_px = 41
    (thing,) = recogniser.recognise(GREY, framing="detect").objects
    assert (thing.reason, thing.category, thing.top) == ("too_small", None, ())


def test_detecting_without_a_detector_is_an_error():
    recogniser = Recogniser(scripted_models())
    assert not recogniser.has_detector
    with pytest.raises(BundleError, match="bundle bundle-1 has no detector; use framing 'whole'"):
        recogniser.recognise(GREY, framing="detect")
    with pytest.raises(ConfigError, match="found framing 'whole_frame', expected 'whole' or 'detect'"):
        recogniser.recognise(GREY, framing="whole_frame")


@pytest.mark.parametrize("kind", ["array", "view", "bytes", "path", "text"])
def test_every_form_of_a_picture_gives_the_same_pixels(kind, tmp_path):
    seen: list[np.ndarray] = []

    def embed(batch):
        seen.append(batch)
        return [np.ones((len(batch), 4), np.float32)]

    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :32] = (200, 60, 30)
    path = tmp_path / "picture.png"
    path.write_bytes(encode_image(picture, ".png"))
    bgr = np.ascontiguousarray(picture[..., ::-1])
    form = {"array": picture, "view": bgr[..., ::-1], "bytes": path.read_bytes(), "path": path, "text": str(path)}[kind]
    recogniser = Recogniser(scripted_models(embed=embed))
    recogniser.recognise(picture)
    recogniser.recognise(form)
    assert np.array_equal(*seen)


@pytest.mark.parametrize(
    ("picture", "problem"),
    [
        (np.zeros((4, 4), np.uint8), r"found an array of uint8 \(4, 4\), expected uint8 \(height, width, 3\)"),
        (np.zeros((4, 4, 3), np.float32), "found an array of float32"),
        (np.zeros((0, 4, 3), np.uint8), r"found an array of uint8 \(0, 4, 3\)"),
        (b"", "picture: empty"),
        (b"no picture", "picture: the 10 bytes are no picture"),
        ("missing.jpg", "missing.jpg: cannot read: No such file"),
        (17, "found a picture of type int, expected a numpy array, bytes or a path"),
    ],
)
def test_unreadable_picture_is_one_error(picture, problem):
    with pytest.raises(CaptureError, match=problem):
        Recogniser(scripted_models()).recognise(picture)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing", "missing: no such file or folder"),
        ("", "is no shop, device or bundle: it has no device.yaml, kiosk.yaml, camera.yaml, no active bundle"),
        ("state", "no bundle is active; with your folders"),
        ("broken.yaml", "broken.yaml:1: camera: unknown key"),
    ],
)
def test_what_cannot_be_loaded_is_one_error(name, problem, tmp_path):
    (tmp_path / "state" / "slots").mkdir(parents=True)
    (tmp_path / "broken.yaml").write_text("camera: {}\n")
    with pytest.raises(FinesightError, match=problem) as caught:
        Recogniser.load(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


def test_unknown_attribute_of_the_package_is_an_error():
    with pytest.raises(AttributeError, match="module 'edge' has no attribute 'Recognizer'"):
        edge.Recognizer  # noqa: B018


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A folder with a kiosk's configuration and an active bundle."""
    folder = tmp_path_factory.mktemp("shop")
    slot = install_bundle(DEMO / "bundle", folder / "state")
    slots.activate(folder / "state", slot, install_gallery(DEMO / "gallery", folder / "state"), trusted)
    (folder / "kiosk.yaml").write_text("state_dir: state\ncameras: {till: {source: v4l2://0, framing: whole_frame}}\n")
    return folder


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """A frame of the demo with several items."""
    source = open_source(parse_source(f"file://{DEMO}/stream.mp4"), "opencv", CaptureOptions())
    for _ in range(60):
        picture = source.read(5.0)
    source.close()
    return picture.image_rgb


def test_shop_configuration_state_and_bundle_load_the_same_models(shop, scene):
    names = [("Dale milk herd", "carton"), ("Grove juice apple", "carton"), ("Pop cola sun", "can")]
    for args in [(shop,), (str(shop / "kiosk.yaml"),), (shop / "state",), (DEMO / "bundle", DEMO / "gallery")]:
        found = edge.Recogniser.load(*args).recognise(scene, framing="detect").objects
        assert sorted((thing.label, thing.category.name) for thing in found[:3]) == names, (
            args
        )  # other forms, other order


def test_configuration_says_how_sure_a_match_must_be(shop):
    """A promise that the bundle cannot keep is refused, as by the device itself."""
    config = load_config(shop / "kiosk.yaml", {})
    promise = config.gallery.model_copy(update={"false_accept": 1e-6})
    with pytest.raises(BundleError, match=r"gallery\.false_accept is 1e-06"):
        Recogniser.of_device(config.model_copy(update={"gallery": promise}))


def test_several_threads_get_the_answers_of_one(shop, scene):
    recogniser = Recogniser.load(shop)
    crops = [scene[y : y + 160, x : x + 160].copy() for y in (100, 150, 200) for x in range(0, 480, 80)]
    alone = [recogniser.recognise(crop) for crop in crops]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(recogniser.recognise, crops)) == alone
    assert len({found.objects[0].top[0].item_id for found in alone}) > 3


def test_bundle_without_a_gallery_knows_nothing(scene):
    recogniser = Recogniser.load(DEMO / "bundle")
    assert {thing.reason for thing in recogniser.recognise(scene, framing="detect").objects} == {"gallery_empty"}


def test_gallery_of_another_embedder_is_refused_of_another_category_logged(tmp_path, caplog):
    other = make_gallery(tmp_path / "other", categories=("can",))
    with pytest.raises(
        BundleError, match=r"'can': found gallery .* in embedding space .*; embed the gallery with this"
    ):
        Recogniser.load(DEMO / "bundle", other)
    found = Recogniser.load(DEMO / "bundle", make_gallery(tmp_path / "tyres", categories=("tyre",)))
    assert found.recognise(GREY).objects[0].match is None
    assert any("the bundle has no embedder for category tyre" in line for line in caplog.messages)


def test_gallery_needs_a_bundle_folder(shop):
    with pytest.raises(ConfigError, match="is no bundle folder; give a gallery together with a bundle folder only"):
        Recogniser.load(shop, DEMO / "gallery")


def test_photo_is_turned_upright(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    exif = pillow.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    pillow.fromarray(np.zeros((40, 80, 3), np.uint8)).save(tmp_path / "photo.jpg", exif=exif)
    found = Recogniser(scripted_models()).recognise(tmp_path / "photo.jpg")
    assert (found.width, found.height) == (40, 80)
    assert cv2.imread(str(tmp_path / "photo.jpg"), cv2.IMREAD_UNCHANGED).shape[:2] == (40, 80)
