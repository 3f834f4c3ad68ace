"""Pre-label a picture: fuse the boxes of the cues and of a trained detector, and estimate how uncertain they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge.errors import TrainError
from edge.inference.postprocess import box_of, iou_matrix
from edge.inference.preprocess import placement_of, to_canvas
from edge.types import Image
from trainer.labelling.cosegmentation import CommonComponent, Descriptors, FeatureExtractor
from trainer.labelling.proposals import Priors, Proposal, propose, select_best
from trainer.models.networks import load_model
from trainer.tasks.detector import detect

_SAME = 0.55  # overlap from which a box of the detector and one of the cues mean the same object
_SURE = 0.3  # score from which a box of the cues replaces the detector's
_TRUST = 0.7  # the detector's share of the fused score
# Number of confirmed training pictures from which a detector proposes alone. After 40 pictures of playing cards, 95 %
# of its boxes need no edit and it finds 89 % of the true ones; fused with the cues 90 and 81 %
# (results/labelling.json).
DETECTOR_ALONE_FROM = 40
NOT_COMMON = "does not show what its class has in common"  # as DDT (Wei et al. 2017) detects noise


class TrainedDetector:
    """A trained detector that proposes boxes."""

    def __init__(self, run: Path) -> None:
        """Load a detector.

        Raises:
            TrainError: the folder is not the run of a detector.
        """
        self._module, self._card = load_model(run)
        if self._card.kind != "detector":
            raise TrainError(f"{run}: this is a {self._card.kind}; give the run folder of a detector")
        self.pictures = int(self._card.data.get("train", 0)) + int(self._card.data.get("val", 0))  # it trained on

    def propose(self, image_rgb: Image) -> list[Proposal]:
        """Find objects, best first, down to a score of 0.05."""
        spec = self._card.preprocess
        canvas, _ = to_canvas(spec, image_rgb)
        found = detect(self._module, [canvas], self._card)[0]
        place = placement_of(spec, image_rgb.shape[1], image_rgb.shape[0])
        boxes = [place.to_source(box_of(row)) for row in found.boxes_px]
        return [Proposal(box, float(score), "model") for box, score in zip(boxes, found.scores, strict=True)]


@dataclass(frozen=True, slots=True)
class Prelabel:
    """The proposed boxes of one picture, and their uncertainty."""

    proposals: tuple[Proposal, ...]  # best first
    uncertainty: float  # 0..1
    why: str  # reason of the uncertainty


@dataclass(frozen=True, slots=True)
class Proposers:
    """The proposers of boxes: the cues, and optionally a feature extractor and a detector."""

    priors: Priors
    extractor: FeatureExtractor | None = None
    detector: TrainedDetector | None = None
    use_cues: bool = True  # in addition to the detector
    descriptors: Descriptors = "unit"  # of which the common component is computed

    def propose_from_cues(self, image_rgb: Image, common: CommonComponent | None = None) -> list[Proposal]:
        """Return all boxes of the cues, best first, including those below the threshold.

        Args:
            image_rgb: picture of any size.
            common: common component of the pictures of its class; None: none is used.
        """
        shared = None
        if self.extractor is not None and common is not None:
            shared = common.activation(self.extractor.extract(image_rgb))
        return propose(image_rgb, self.priors, shared)

    def prelabel(self, image_rgb: Image, from_cues: list[Proposal]) -> Prelabel:
        """Propose boxes for a picture, from the detector if there is one and from the cues if they are used."""
        if self.detector is None:
            label = select_proposals(from_cues, self.priors)
            return replace(label, why=NOT_COMMON) if _lacks_common(from_cues) else label
        found = self.detector.propose(image_rgb)
        if self.use_cues:
            return select_proposals(fuse(found, from_cues), self.priors)
        boxes = np.array([box.box_px for box in found], np.float32).reshape(-1, 4)
        allowed = self.priors.allow(boxes, image_rgb.shape[1], image_rgb.shape[0])
        return select_proposals([box for box, may in zip(found, allowed, strict=True) if may], self.priors)


def _lacks_common(from_cues: list[Proposal]) -> bool:
    """Return whether no box of the cues holds any of the common object, so that the picture may show another thing."""
    common = [box.reasons["common"] for box in from_cues if "common" in box.reasons]
    return bool(common) and max(common) == 0.0


def fuse(found: list[Proposal], from_cues: list[Proposal]) -> list[Proposal]:
    """Fuse the boxes of a detector with those of the cues.

    The score of a box combines the detector's and the cues' scores, each scaled by the overlap of their boxes. A box of
    the detector that the cues confirm takes the cues' outline, which lies closer to the edge than a network's guess.
    """
    boxes = [np.array([box.box_px for box in listed], np.float32).reshape(-1, 4) for listed in (found, from_cues)]
    model_scores, cue_scores = (np.array([box.score for box in listed], np.float32) for listed in (found, from_cues))
    overlap = iou_matrix(*boxes)  # detector, cues
    backing = overlap * cue_scores
    joined = []
    for i, box in enumerate(found):
        cues = float(backing[i].max(initial=0.0))
        best = int(backing[i].argmax()) if len(from_cues) else -1
        same = best >= 0 and overlap[i, best] >= _SAME and cue_scores[best] >= _SURE
        outline = from_cues[best].box_px if same else box.box_px
        joined.append(_with_fused_score(replace(box, box_px=outline), box.score, cues))
    for i, box in enumerate(from_cues):
        joined.append(_with_fused_score(box, float((overlap[:, i] * model_scores).max(initial=0.0)), box.score))
    return sorted(joined, key=lambda one: -one.score)


def _with_fused_score(box: Proposal, model: float, cues: float) -> Proposal:
    score = _TRUST * model + (1.0 - _TRUST) * cues
    return replace(box, score=score, reasons=box.reasons | {"model": round(model, 3), "cues": round(cues, 3)})


def select_proposals(listed: list[Proposal], priors: Priors) -> Prelabel:
    """Keep the best box of each place above the threshold, and estimate the uncertainty of the picture.

    A picture without a proposal has uncertainty 1. Otherwise its weakest proposal, and its best rejected box in a place
    without a proposal, decide.
    """
    kept = select_best(listed, priors)
    if not kept:
        return Prelabel((), 1.0, "nothing found")
    weakest = (1.0 - kept[-1].score) / max(1e-6, 1.0 - priors.threshold)
    every = select_best(listed, replace(priors, threshold=0.0, count=None))
    nearest = max((one.score for one in every if one.score < priors.threshold), default=0.0) / max(
        1e-6, priors.threshold
    )
    why = "weak box" if weakest >= nearest else "box nearly proposed"
    return Prelabel(tuple(kept), round(0.99 * min(1.0, max(weakest, nearest)), 4), why)
