"""Co-localisation: the object that the pictures of a class share, found without any box, and how often its box fits.

Deep descriptor transforming (DDT), Wei et al. 2017 and 2019. CorLoc is the share of pictures whose one predicted box
overlaps a true box of the class by more than half (IoU). For noise detection, pictures without the class are added to
those of each class, a quarter of their number. The paper calls a picture noise if no cell of it is above 0; the AUROC
ranks pictures by their share of cells above 0. Published with VGG-19 on whole pictures; here they are letterboxed to
448 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.tables.table import Measures, Request, Table
from trainer.tables.trained_vectors import network_input

if TYPE_CHECKING:
    from dataset_formats.records import AnnotatedPicture
    from edge.types import FloatArray
    from trainer.labelling.cosegmentation import CommonComponent, Descriptors, FeatureExtractor

_PIXELS = 448
_NOISE = 0.25  # pictures without the class, in pictures of it
_RIGHT = 0.5  # IoU
_HALF = 0.5  # share of the largest projection that a place of the box needs
_DESCRIPTORS: tuple[Descriptors, ...] = ("raw", "unit")
_METHODS = ("SCDA", "DDT", "DDT from half", "DDT unit length", "DDT unit length from half")


@dataclass(frozen=True, slots=True)
class _Picture:
    """One picture of a set."""

    feature: FloatArray  # (h, w, c)
    width: int
    height: int
    truth: FloatArray  # (n, 4) true boxes of the class, in pixels

    def overlap(self, values: FloatArray, level: float = 0.0) -> float:
        """Return the largest IoU of the box of a map (h, w) with a true box."""
        import numpy as np

        from edge.inference.postprocess import iou_matrix
        from trainer.labelling.regions import box_of_map

        box = box_of_map(values, self.width, self.height, level)
        return 0.0 if box is None else float(iou_matrix(np.array([box], np.float32), self.truth).max())


@dataclass(frozen=True, slots=True)
class _Row:
    """What a method gave for one picture."""

    overlap: float | None  # of its box with a true one; None: the picture is noise
    above: float | None = None  # share of the cells above 0; None: the method tells no noise


def _methods(_: Request) -> Sequence[str]:
    return _METHODS


def _measure(request: Request, method: str, seed: int, folder: Path) -> Measures:
    """Return the measures of one method; nothing is written to `folder`.

    Raises:
        TrainError: weights are missing, or no class has boxes in two pictures.
    """
    del folder
    return _every_method(request, seed)[method]


@lru_cache(maxsize=1)
def _every_method(request: Request, seed: int) -> dict[str, Measures]:
    """Return the measures of all methods, which share their features."""
    import numpy as np
    import torch

    from edge.errors import TrainError

    torch.manual_seed(seed)  # of weights, where the request asks for random ones
    extractor, classes = _extractor(request), _by_class(request)
    rng = np.random.default_rng(seed)
    found: dict[str, list[_Row]] = {name: [] for name in _METHODS}
    every = {one.path: one for listed in classes.values() for one in listed}
    for name, mine in classes.items():
        others = sorted(every.keys() - {one.path for one in mine})
        drawn = rng.permutation(len(others))[: max(1, round(_NOISE * len(mine)))]
        for method, rows in _of_class(extractor, name, mine, [every[others[i]] for i in drawn]).items():
            found[method] += rows
    if not any(found.values()):
        raise TrainError(f"{request.data}: no class has two readable pictures, which DDT needs")
    return {method: _summary(rows) for method, rows in found.items()}


def _extractor(request: Request) -> FeatureExtractor:
    from trainer.labelling.cosegmentation import load_feature_extractor

    asked = network_input(request, _PIXELS)
    mean = asked["mean"][0] if asked["mean"] else None
    return load_feature_extractor(str(request.weights), request.backbone, mean, asked["width"])


def _by_class(request: Request) -> dict[str, list[AnnotatedPicture]]:
    """Return the pictures of each class that two or more pictures show.

    Raises:
        DataError: the data set cannot be read.
        TrainError: there is no such class.
    """
    from dataset_formats.layouts import read_listing
    from dataset_formats.listings import annotated_pictures
    from edge.errors import TrainError

    listed = annotated_pictures(read_listing(request.data, request.root, request.layout, boxed=True))
    names = sorted({box.item for one in listed for box in one.boxes})
    classes = {name: [one for one in listed if any(box.item == name for box in one.boxes)] for name in names}
    classes = {name: pictures for name, pictures in classes.items() if len(pictures) > 1}
    if not classes:
        raise TrainError(f"{request.data}: no class has boxes in two pictures, which DDT needs")
    return classes


def _of_class(
    extractor: FeatureExtractor, name: str, mine: Sequence[AnnotatedPicture], noise: Sequence[AnnotatedPicture]
) -> dict[str, list[_Row]]:
    """Return a row of each readable picture, by method; none if fewer than two show the class."""
    from trainer.labelling.cosegmentation import colocalise
    from trainer.labelling.regions import scda_map

    shown = [one for picture in mine if (one := _read(extractor, name, picture)) is not None]
    noisy = [one for picture in noise if (one := _read(extractor, name, picture)) is not None]
    if len(shown) < 2:
        return {}
    rows = {_METHODS[0]: [_Row(one.overlap(scda_map(one.feature))) for one in shown]}
    for number, descriptors in enumerate(_DESCRIPTORS):
        alone = colocalise([one.feature for one in shown], descriptors)
        mixed = colocalise([one.feature for one in (*shown, *noisy)], descriptors)
        if alone is None or mixed is None:  # of two cells or less, which no network gives
            return {}
        for method, level in zip(_METHODS[1 + 2 * number :][:2], (0.0, _HALF), strict=True):
            rows[method] = [
                _Row(one.overlap(alone.activation(one.feature), level), above=_share_above(mixed, one.feature))
                for one in shown
            ] + [_Row(None, above=_share_above(mixed, one.feature)) for one in noisy]
    return rows


def _read(extractor: FeatureExtractor, name: str, picture: AnnotatedPicture) -> _Picture | None:
    """Return a picture's features and true boxes of a class; None if it cannot be read."""
    import numpy as np

    from dataset_formats.decode import read_image
    from edge.errors import CaptureError

    try:
        image = read_image(picture.path)
    except CaptureError:
        return None
    boxes = np.array([box.box_px for box in picture.boxes if box.item == name], np.float32).reshape(-1, 4)
    return _Picture(extractor.extract(image), image.shape[1], image.shape[0], boxes)


def _share_above(common: CommonComponent, feature: FloatArray) -> float:
    return float((common.projection(feature) > 0).mean())


def _summary(rows: Sequence[_Row]) -> Measures:
    """Return CorLoc and the mean IoU over the pictures of the class, and how well noise is separated from them."""
    import numpy as np

    overlaps = [row.overlap for row in rows if row.overlap is not None]
    measures = {"CorLoc": float(np.mean([one > _RIGHT for one in overlaps])), "mean IoU": float(np.mean(overlaps))}
    known = np.array([row.above for row in rows if row.above is not None and row.overlap is not None])
    noise = np.array([row.above for row in rows if row.above is not None and row.overlap is None])
    if not len(known) or not len(noise):
        return measures
    wins = (known[:, None] > noise).mean() + 0.5 * (known[:, None] == noise).mean()
    refused = {"noise refused": float((noise == 0).mean()), "pictures refused": float((known == 0).mean())}
    return measures | refused | {"noise AUROC": float(wins)}


DDT = Table(
    "ddt",
    "Fine-grained image analysis (ICME 2019 tutorial), DDT: co-localisation (D3)",
    "The box of the object that pictures of a class share; CorLoc is the share with an IoU above 0.5.",
    "pictures with boxes, and two or more of each class",
    ("CorLoc", "mean IoU", "noise AUROC", "noise refused", "pictures refused"),
    _methods,
    _measure,
)
