"""Boxes from one picture alone: by colour, by texture, and with the priors that a person gives."""

from __future__ import annotations

import numpy as np
import pytest

from edge.inference.postprocess import iou_matrix
from trainer.labelling.proposals import Priors, propose, select_best, suppress_overlapping
from trainer.labelling.saliency_cues import compute_cues

GROUND = (96, 110, 84)
USUAL = Priors()


def ground(height: int = 240, width: int = 320, noise: float = 4.0) -> np.ndarray:
    rng = np.random.default_rng(3)
    return (
        (np.full((height, width, 3), GROUND) + rng.normal(0, noise, (height, width, 1))).clip(0, 255).astype(np.uint8)
    )


def overlaps(found, truth) -> np.ndarray:
    boxes = np.array([one.box_px for one in found], np.float32).reshape(-1, 4)
    return iou_matrix(boxes, np.array(truth, np.float32)).max(axis=0, initial=0.0)


def sure(image, priors=USUAL, **more):
    return select_best(propose(image, priors, **more), priors)


@pytest.fixture(scope="module")
def two_objects():
    image = ground()
    image[40:140, 50:120] = (200, 60, 50)
    image[110:200, 200:270] = (60, 70, 190)
    return image, [(50, 40, 120, 140), (200, 110, 270, 200)]


def test_two_objects_give_two_boxes_that_need_no_edit(two_objects):
    image, truth = two_objects
    found = sure(image)
    assert len(found) == 2
    assert overlaps(found, truth).min() > 0.85
    assert {one.source for one in found} == {"proposer"}
    assert all(value >= 0 for one in found for value in one.reasons.values())


def test_boxes_are_in_pixels_of_a_picture_of_any_size(two_objects):
    image, truth = two_objects
    large = image.repeat(4, axis=0).repeat(4, axis=1)
    assert overlaps(sure(large), 4 * np.array(truth)).min() > 0.85


def test_texture_difference_appears_only_in_the_texture_cue():
    image = ground(noise=0.0)
    rng = np.random.default_rng(0)
    image[80:160, 100:200] = (np.array(GROUND) + rng.normal(0, 14, (80, 100, 1))).clip(0, 255).astype(np.uint8)
    cues = compute_cues(image)
    inside = np.zeros(image.shape[:2], bool)
    inside[90:150, 110:190] = True
    outside = np.ones_like(inside)
    outside[60:180, 80:220] = False
    assert cues.texture[inside].mean() > 0.7
    assert cues.texture[outside].mean() < 0.2
    assert overlaps(propose(image, Priors()), [(100, 80, 200, 160)])[0] > 0.7


def test_plain_picture_gives_no_proposal():
    assert sure(np.full((200, 300, 3), 120, np.uint8)) == []
    assert sure(ground()) == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (400, 3)])
def test_pictures_of_extreme_aspect_are_handled(shape):
    assert sure(np.full((*shape, 3), 90, np.uint8)) == []


def test_priors_exclude_boxes(two_objects):
    image, truth = two_objects
    tall = sure(image, Priors(aspect=(0.5, 0.74)))
    assert overlaps(tall, truth).round(1).tolist() == [1.0, 0.0]
    assert sure(image, Priors(least=0.2)) == []
    assert len(sure(image, Priors(count=1))) == 1


def test_common_map_decides_between_two_boxes(two_objects):
    image, truth = two_objects
    common = np.zeros((24, 32), np.float32)
    common[11:20, 20:27] = 1.0
    other, named = overlaps(sure(image, common=common), truth)
    assert (other, named > 0.85) == (0.0, True)


def test_best_of_overlapping_boxes_is_kept():
    boxes = np.array([[0, 0, 10, 10], [1, 1, 9, 9], [20, 0, 30, 10], [4, 4, 6, 6]], np.float32)
    assert suppress_overlapping(boxes, np.array([0.5, 0.9, 0.3, 0.2], np.float32)) == [1, 2]
