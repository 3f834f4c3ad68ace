"""Golden probes, which devices run again.

Crops that the packed models predict correctly with a margin, and scenes with objects that the packed detector is sure
of. The detector's labels need not be those of the scenes: it may come from elsewhere.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.errors import QuantizeError
from edge.imaging.image import decode_image, encode_image, shrink
from edge.inference.postprocess import iou_matrix, unit_rows
from edge.inference.stages import Detector, Stages
from edge.telemetry.timing import Timings
from edge.types import Box, Detection, FloatArray, Image
from quantize.pictures import Sample, Scene, map_in_threads

log = logging.getLogger(__name__)

MIN_PROBES, MAX_PROBES = 8, 32
MAX_SIDE_PX = 128
_MIN_PROBABILITY = 0.6  # probability of the category
_MIN_MARGIN = 0.02  # cosine, to the next item
MAX_SCENE_PROBES = 4
_MIN_SURE_SCORE = 0.15  # by how much the score of an object is above the detector's threshold
_MIN_SURE_OVERLAP = 0.8  # of the box by each form; more than a device demands
_MIN_SURE_SIDE_PX = 16  # in the probe: another engine's box of a smaller object may overlap too little
_SCENE_QUALITY = 90  # of JPEG: a scene in PNG is as large as a small model


@dataclass(frozen=True, slots=True)
class ProbeCandidate:
    """A crop as it would be packed, with its vector by the packed models."""

    sample: Sample
    png: bytes
    vector: FloatArray  # (dim,)
    confidence: float  # probability of the category times the margin to the next item


@dataclass(frozen=True, slots=True)
class GalleryVectors:
    """Reference vectors of one category."""

    vectors: FloatArray  # (n, dim), rows of unit length
    items: tuple[str, ...]
    columns: NDArray[np.int64] = field(init=False)  # (n,), place of each row's item among all, sorted

    def __post_init__(self) -> None:
        """Find the columns once: every query needs them."""
        object.__setattr__(self, "columns", np.unique(np.asarray(self.items, np.str_), return_inverse=True)[1])


@dataclass(frozen=True, slots=True)
class SceneProbeCandidate:
    """A scene as it would be packed, and what the packed detector surely finds in it."""

    scene: Scene
    jpeg: bytes
    sure: tuple[Detection, ...]


def probe_candidate(sample: Sample, stages: Stages, galleries: dict[str, GalleryVectors]) -> ProbeCandidate | None:
    """Run the packed models on a crop; None if a prediction is wrong or its margin is too small."""
    gallery, embedder = galleries.get(sample.category), stages.embedders.get(sample.category)
    if gallery is None or embedder is None:
        return None
    picture = shrink(sample.crop(embedder.model.preprocess.crop_margin), MAX_SIDE_PX)
    whole: list[Box] = [(0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))]
    confidence = 1.0
    if stages.classifier is not None:
        best = stages.classifier.rank_categories(stages.classifier.classify(picture, whole, Timings())[0])[0]
        if best.name != sample.category or best.score < _MIN_PROBABILITY:
            return None
        confidence = best.score
    vector = embedder.embed(picture, whole, Timings())[0]
    cosine = gallery.vectors @ vector
    items = np.asarray(gallery.items)
    others = cosine[items != sample.item]
    margin = float(cosine.max() - others.max()) if len(others) else 1.0
    if items[int(cosine.argmax())] != sample.item or margin < _MIN_MARGIN:
        return None
    return ProbeCandidate(sample, encode_image(picture, ".png"), vector, confidence * margin)


def choose_probes(
    samples: Sequence[Sample],
    stages: Stages,
    galleries: dict[str, GalleryVectors],
    kept: int = 0,
    spare: Sequence[Sample] = (),
) -> list[ProbeCandidate]:
    """Choose the crops of highest confidence, evenly over the categories and then over the items.

    Args:
        samples: held-out crops to choose from.
        stages: the packed models.
        galleries: gallery of each category.
        kept: number of probes kept from the base bundle.
        spare: crops of the gallery, used where the held-out ones are too few: they show whether an engine computes
            what it should, but not how good the models are.

    Raises:
        QuantizeError: fewer than MIN_PROBES crops are predicted correctly.
    """
    chosen = _in_turn(samples, stages, galleries)
    missing = MIN_PROBES - kept - len(chosen)
    if missing > 0 and spare:
        added = _in_turn(spare, stages, galleries)[:missing]
        log.info("probes: %d held-out crops are predicted rightly; %d gallery crops join them", len(chosen), len(added))
        chosen += added
    if len(chosen) < min(MIN_PROBES, len(samples) + len(spare)) - kept:
        raise QuantizeError(
            f"probes: {len(chosen)} of {len(samples)} held-out crops are predicted correctly with a margin, "
            f"expected at least {MIN_PROBES - kept}; give more held-out crops of items that the gallery has, or pack "
            "with --no-probes"
        )
    return chosen[: max(MIN_PROBES, MAX_PROBES - kept)]


def _in_turn(samples: Sequence[Sample], stages: Stages, galleries: dict[str, GalleryVectors]) -> list[ProbeCandidate]:
    by_category: dict[str, list[ProbeCandidate]] = defaultdict(list)
    for candidate in map_in_threads(lambda sample: probe_candidate(sample, stages, galleries), samples):
        if candidate is not None:
            by_category[candidate.sample.category].append(candidate)
    for name, group in by_category.items():
        by_category[name] = _items_in_turn(sorted(group, key=lambda c: (-c.confidence, c.sample.name)))
    longest = max((len(group) for group in by_category.values()), default=0)
    return [by_category[n][turn] for turn in range(longest) for n in sorted(by_category) if turn < len(by_category[n])]


def choose_scene_probes(scenes: Sequence[Scene], detectors: Sequence[Detector]) -> list[SceneProbeCandidate]:
    """Choose the scenes with the objects of highest score, at most MAX_SCENE_PROBES.

    Args:
        scenes: held-out scenes to choose from; their true boxes do not matter.
        detectors: every form of the detector, the one that ships first: a device may run another form.

    Raises:
        CaptureError: a scene cannot be read.
        EngineError: a form of the detector cannot run.
    """
    spec = detectors[0].model.preprocess
    found = []
    for scene in scenes:
        jpeg = encode_image(shrink(scene.crop(0.0), max(spec.width, spec.height)), ".jpg", _SCENE_QUALITY)
        picture = decode_image(jpeg, scene.name)  # as a device reads it
        first, *others = (_sure(detector, picture) for detector in detectors)
        if sure := tuple(one for one in first if all(_overlap(one, other) >= _MIN_SURE_OVERLAP for other in others)):
            found.append((sure[0].score, SceneProbeCandidate(scene, jpeg, sure)))
    found.sort(key=lambda one: (-one[0], one[1].scene.name))
    return [candidate for _, candidate in found[:MAX_SCENE_PROBES]]


def _sure(detector: Detector, picture: Image) -> list[Detection]:
    """Return the objects of a picture that the detector is sure of, best first."""
    least = detector.model.score_threshold + _MIN_SURE_SCORE
    found = detector.detect([picture], Timings())[0]
    return [one for one in found if one.score >= least and _shorter_side_px(one) >= _MIN_SURE_SIDE_PX]


def _shorter_side_px(found: Detection) -> float:
    x0, y0, x1, y1 = found.box_px
    return min(x1 - x0, y1 - y0)


def _overlap(one: Detection, others: Sequence[Detection]) -> float:
    """Return the overlap of an object with the nearest of its label."""
    boxes = [other.box_px for other in others if other.label == one.label]
    overlap = iou_matrix(np.asarray([one.box_px], np.float32), np.asarray(boxes, np.float32).reshape(-1, 4))
    return float(overlap.max(initial=0.0))


def _items_in_turn(ordered: list[ProbeCandidate]) -> list[ProbeCandidate]:
    """Reorder so that every item comes once before any item comes twice."""
    turn: dict[str, int] = defaultdict(int)
    keyed = []
    for candidate in ordered:
        keyed.append((turn[candidate.sample.item], candidate))
        turn[candidate.sample.item] += 1
    return [candidate for _, candidate in sorted(keyed, key=lambda pair: pair[0])]


def embedding_i8(vector: FloatArray) -> list[int]:
    """Return a vector as INT8: scaled so that its largest component is 127, rounded."""
    row = unit_rows(vector[None, :])[0]
    return [int(v) for v in np.rint(row * (127.0 / max(float(np.abs(row).max()), 1e-12)))]
