"""Decides how long each network is trained on scenes: a pure function of counts, measured speed and minutes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from learn.plan import Speed

# Of the minutes: detector, classifier, embedders. The rest is for cutting, packing and judging.
_SHARES = {"detector": 0.45, "classifier": 0.12, "embedders": 0.33}
_SIDES_PX = (416, 352, 320, 256, 192)  # of the detector's input, about; the longest that leaves time to converge
_LEAST, _MOST = 8, 150  # epochs of the detector: at the smallest size, at most
# Steps in which a detector converges and seven evaluations then find nothing better: on rendered scenes, mAP50 is .95
# after 400 steps and .98 after 700. A size at which fewer steps fit is too large.
_TO_CONVERGE, _LEAST_WANTED = 800, 40  # steps; epochs, where an epoch has many steps
_CLASSIFIER_PX, _CLASSIFIER_EPOCHS = (160, 128, 96), (8, 60)
_STRIDE = 32
_NECK = 1.35  # time of a detector with neck, head and loss, in times of its trunk


@dataclass(frozen=True, slots=True)
class SceneCounts:
    """What there is to learn from."""

    pictures: int
    boxes: int
    categories: int
    items: int
    aspect: float  # width of the middle picture divided by its height


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """What to do. Epochs are the most: each network stops when it has converged."""

    detector_width: int
    detector_height: int
    detector_epochs: int
    classifier_px: int
    classifier_epochs: int  # 0: no classifier, there is one category
    embedder_minutes: float  # for all embedders
    detector_can_converge: bool = True  # False: its time is up before


def make_scene_plan(counts: SceneCounts, speed: Speed, minutes: float) -> ScenePlan:
    """Choose input sizes and the most epochs that fit the time.

    Args:
        counts: of the pictures.
        speed: of the network on this machine.
        minutes: allowed for everything.
    """
    seconds = {name: 60 * minutes * share for name, share in _SHARES.items()}
    width, height, epochs, wanted = 0, 0, 0, epochs_to_converge(counts.pictures)
    for side in _SIDES_PX:
        width, height = detector_size(side, counts.aspect)
        epoch_s = counts.pictures * speed.at(round(math.sqrt(width * height))).train_s * _NECK
        epochs = int(seconds["detector"] / max(1e-6, epoch_s))
        if epochs >= wanted:
            break
    px, classifier_epochs = _CLASSIFIER_PX[-1], 0
    if counts.categories > 1:
        for px in _CLASSIFIER_PX:
            classifier_epochs = int(seconds["classifier"] / max(1e-6, counts.boxes * speed.at(px).train_s))
            if classifier_epochs >= 2 * _CLASSIFIER_EPOCHS[0]:
                break
        classifier_epochs = min(max(classifier_epochs, _CLASSIFIER_EPOCHS[0]), _CLASSIFIER_EPOCHS[1])
    detector_epochs = min(max(epochs, _LEAST), max(_MOST, 2 * wanted))
    embedder_minutes, can_converge = seconds["embedders"] / 60, detector_epochs >= wanted
    return ScenePlan(width, height, detector_epochs, px, classifier_epochs, embedder_minutes, can_converge)


def detector_batch(pictures: int) -> int:
    """Return the pictures of a step of the detector's training."""
    return min(16, max(4, pictures // 8))


def epochs_to_converge(pictures: int) -> int:
    """Return the epochs that a detector takes until it has converged, and until that is seen.

    Args:
        pictures: to learn from.
    """
    return max(_LEAST_WANTED, math.ceil(_TO_CONVERGE / max(1, pictures // detector_batch(pictures))))


def detector_size(side_px: int, aspect: float) -> tuple[int, int]:
    """Return width and height with the area of a square and the shape of the pictures, in multiples of the stride."""
    aspect = min(max(aspect, 0.5), 2.0)
    width, height = side_px * math.sqrt(aspect), side_px / math.sqrt(aspect)
    return max(2, round(width / _STRIDE)) * _STRIDE, max(2, round(height / _STRIDE)) * _STRIDE


def embedder_groups(items: dict[str, int]) -> list[list[str]]:
    """Return the categories of each embedder: a category of several items has its own.

    One item alone teaches nothing: categories of one item share an embedder. If there is one such category only, it
    joins the category with the fewest items.

    Args:
        items: number of items by category.
    """
    several = sorted((name for name, count in items.items() if count > 1), key=lambda name: (items[name], name))
    alone = sorted(name for name, count in items.items() if count == 1)
    groups = [[name] for name in several]
    if len(alone) == 1 and groups:
        groups[0] += alone
    elif alone:
        groups.append(alone)
    return sorted(groups)
