"""Pictures in memory: shrunk, trimmed."""

from __future__ import annotations

import numpy as np

from dataset_formats.records import Sample
from edge.imaging.image import encode_image, trim
from tests.trainer.toy import write_crops
from trainer.data.dataset import read_samples
from trainer.data.detection_sample import DetectionSample
from trainer.data.pictures import load_pictures


def test_pictures_are_shrunk_and_the_factor_is_kept(tmp_path):
    pictures = load_pictures(read_samples(write_crops(tmp_path)), 20)
    assert {(20, 16, 3)} == {image.shape for image in pictures.images}
    assert {0.5} == set(pictures.scales)


def test_trim_cuts_to_the_object_on_a_plain_background():
    image = np.full((100, 100, 3), 250, np.uint8)
    image[20:60, 40:60] = 30
    assert trim(image, 0.1).shape == (48, 24, 3)
    busy = np.random.default_rng(0).integers(0, 255, (50, 50, 3)).astype(np.uint8)
    assert trim(busy, 0.1) is busy


def test_scene_is_background_only_if_it_lists_no_box(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_image(np.zeros((20, 30, 3), np.uint8), ".png"))
    inside, outside = [2, 2, 12, 12], [40, 2, 60, 12]
    scenes = [
        DetectionSample(tmp_path / "a.png", np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), np.int64))
        for boxes in ([], [inside, outside], [outside])
    ]
    pictures = load_pictures(scenes, None)
    assert [scene.boxes_px.tolist() for scene in pictures.samples] == [[], [inside]]
    assert pictures.skipped == [f"{tmp_path}/a.png: none of its boxes is inside the picture; correct them"]


def test_damaged_picture_is_skipped_and_named(tmp_path):
    folder = tmp_path / "kind" / "item"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    whole = encode_image(noise, ".jpg")
    for name, data in (("whole", whole), ("cut", whole[: len(whole) // 2] + whole[-2:])):
        (folder / f"{name}.jpg").write_bytes(data)
    samples = [Sample(folder / f"{name}.jpg", "train", "kind", "item") for name in ("whole", "cut")]
    pictures = load_pictures(samples, None)
    assert [sample.path.name for sample in pictures.samples] == ["whole.jpg"]
    (skipped,) = pictures.skipped
    assert skipped.startswith(f"{folder}/cut.jpg: the jpeg is damaged")
