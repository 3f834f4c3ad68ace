"""What is proposed in a picture by all proposers together, and how unsure that is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge.errors import TrainError
from edge.inference.postprocess import box_of, iou_matrix
from edge.inference.preprocess import placement_of, to_canvas
from edge.types import Image
from trainer.labelling.cosegmentation import CommonComponent, FeatureExtractor
from trainer.labelling.proposals import Priors, Proposal, propose, select_best
from trainer.models.networks import load_model
from trainer.tasks.detector import find

_SAME = 0.55  # overlap of a box of the detector and one of the cues that mean the same object
_SURE = 0.3  # score of the cues from which their outline is taken
_TRUST = 0.7  # part of the score that is the detector's
# Confirmed pictures from which a detector that learned from them speaks alone. After 40 of playing cards 95 % of its
# boxes need no edit and it finds 89 % of the true ones, joined with the cues 90 and 81 % (results/labelling.json).
DETECTOR_ALONE_FROM = 40


class TrainedDetector:
    """A trained detector run as a proposer."""

    def __init__(self, run: Path) -> None:
        """Load it.

        Raises:
            TrainError: no detector's run folder.
        """
        self._module, self._card = load_model(run)
        if self._card.kind != "detector":
            raise TrainError(f"{run}: found a {self._card.kind}, expected a detector")
        self.pictures = int(self._card.data.get("train", 0)) + int(self._card.data.get("val", 0))  # it learned from

    def propose(self, image_rgb: Image) -> list[Proposal]:
        """Find objects, best first, down to a score of 0.05."""
        spec = self._card.preprocess
        canvas, _ = to_canvas(spec, image_rgb)
        found = find(self._module, [canvas], self._card)[0]
        place = placement_of(spec, image_rgb.shape[1], image_rgb.shape[0])
        boxes = [place.to_source(box_of(row)) for row in found.boxes_px]
        return [Proposal(box, float(score), "model") for box, score in zip(boxes, found.scores, strict=True)]


@dataclass(frozen=True, slots=True)
class Prelabel:
    """What one picture is proposed to hold."""

    proposals: tuple[Proposal, ...]  # best first
    uncertainty: float  # 0..1
    why: str  # it is uncertain


@dataclass(frozen=True, slots=True)
class Proposers:
    """Whoever may propose, beside the cues."""

    priors: Priors
    extractor: FeatureExtractor | None = None
    detector: TrainedDetector | None = None
    use_cues: bool = True  # beside the detector

    def propose_from_cues(self, image_rgb: Image, common: CommonComponent | None = None) -> list[Proposal]:
        """What cues see in a picture, best first, also what is no proposal.

        Args:
            image_rgb: of any size.
            common: what its class has in common, where that was asked for.
        """
        shared = None
        if self.extractor is not None and common is not None:
            shared = common.activation(self.extractor.extract(image_rgb))
        return propose(image_rgb, self.priors, shared)

    def prelabel(self, image_rgb: Image, seen: list[Proposal]) -> Prelabel:
        """Propose boxes for a picture, by the detector where there is one, and what cues see where they are asked."""
        if self.detector is None:
            return select_proposals(seen, self.priors)
        found = self.detector.propose(image_rgb)
        if self.use_cues:
            return select_proposals(fuse(found, seen), self.priors)
        boxes = np.array([box.box_px for box in found], np.float32).reshape(-1, 4)
        allowed = self.priors.allow(boxes, image_rgb.shape[1], image_rgb.shape[0])
        return select_proposals([box for box, may in zip(found, allowed, strict=True) if may], self.priors)


def fuse(found: list[Proposal], seen: list[Proposal]) -> list[Proposal]:
    """Join what a detector found with what cues see.

    Each box is scored by the detector's word and by the cues', each lowered by how little their boxes overlap. A box of
    the detector that cues see takes their outline, which lies nearer to the edge than a network's guess.
    """
    boxes = [np.array([box.box_px for box in listed], np.float32).reshape(-1, 4) for listed in (found, seen)]
    told, shown = (np.array([box.score for box in listed], np.float32) for listed in (found, seen))
    overlap = iou_matrix(*boxes)  # found, seen
    backing = overlap * shown
    joined = []
    for i, box in enumerate(found):
        cues = float(backing[i].max(initial=0.0))
        best = int(backing[i].argmax()) if len(seen) else -1
        same = best >= 0 and overlap[i, best] >= _SAME and shown[best] >= _SURE
        outline = seen[best].box_px if same else box.box_px
        joined.append(_joined(replace(box, box_px=outline), box.score, cues))
    for i, box in enumerate(seen):
        joined.append(_joined(box, float((overlap[:, i] * told).max(initial=0.0)), box.score))
    return sorted(joined, key=lambda one: -one.score)


def _joined(box: Proposal, model: float, cues: float) -> Proposal:
    score = _TRUST * model + (1.0 - _TRUST) * cues
    return replace(box, score=score, reasons=box.reasons | {"model": round(model, 3), "cues": round(cues, 3)})


def select_proposals(listed: list[Proposal], priors: Priors) -> Prelabel:
    """Keep the best of each place above the threshold, and say how unsure the picture is.

    A picture without any proposal is as unsure as can be; else its least sure proposal and its best refused one, where
    no proposal is, tell.
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
