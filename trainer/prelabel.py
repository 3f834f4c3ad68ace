"""What is proposed in a picture by all proposers together, and how unsure that is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge.decode import box_of, iou_matrix
from edge.errors import TrainError
from edge.preprocess import placement_of, to_canvas
from edge.types import Image
from trainer.colocate import Common, Describer
from trainer.detector import find
from trainer.models import load_model
from trainer.propose import Priors, Proposal, propose

_SAME = 0.6  # overlap of a box of the detector and one of the cues that mean the same object
_DOUBT = 0.5  # of the score of what only cues see, once there is a detector that does not see it


class OwnDetector:
    """A trained detector run as a proposer."""

    def __init__(self, run: Path) -> None:
        """Load it.

        Raises:
            TrainError: no detector's run folder.
        """
        self._module, self._card = load_model(run)
        if self._card.kind != "detector":
            raise TrainError(f"{run}: found a {self._card.kind}, expected a detector")
        self.threshold = self._card.score_threshold

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
    describer: Describer | None = None
    detector: OwnDetector | None = None

    def see(self, image_rgb: Image, common: Common | None = None) -> list[Proposal]:
        """What cues see in a picture, best first, also what is no proposal.

        Args:
            image_rgb: of any size.
            common: what its class has in common, where that was asked for.
        """
        shared = None
        if self.describer is not None and common is not None:
            shared = common.show(self.describer.describe(image_rgb))
        return propose(image_rgb, self.priors, shared)

    def prelabel(self, image_rgb: Image, seen: list[Proposal]) -> Prelabel:
        """Propose boxes for a picture, by the detector where there is one, and what cues see."""
        if self.detector is not None:
            seen = fuse(self.detector.propose(image_rgb), seen, self.detector.threshold, self.priors)
        return judge(seen, self.priors)


def fuse(found: list[Proposal], seen: list[Proposal], threshold: float, priors: Priors) -> list[Proposal]:
    """Join what a detector found with what cues see.

    The detector's word counts; its score is stretched so that its own threshold meets the priors'. A box that cues see
    as well is drawn half way to theirs, by score, for an outline lies nearer to the edge than a network's guess. What
    only cues see keeps half its score: it is no proposal, but makes the picture uncertain.
    """
    boxes = np.array([box.box_px for box in seen], np.float32).reshape(-1, 4)
    joined = []
    claimed: set[int] = set()
    for box in found:
        score = _stretch(box.score, threshold, priors.threshold)
        overlap = iou_matrix(np.array([box.box_px], np.float32), boxes)[0] if len(boxes) else np.zeros(0, np.float32)
        best = int(overlap.argmax()) if len(overlap) else -1
        if best >= 0 and overlap[best] >= _SAME and seen[best].score >= priors.threshold:
            claimed.add(best)
            part = seen[best].score / (seen[best].score + score)
            mixed = (1 - part) * np.array(box.box_px) + part * boxes[best]
            reasons = {"model": round(box.score, 3), "cues": round(seen[best].score, 3)}
            joined.append(replace(box, box_px=box_of(mixed), score=score, reasons=reasons))
        else:
            joined.append(replace(box, score=score, reasons={"model": round(box.score, 3)}))
    joined += [replace(one, score=_DOUBT * one.score) for i, one in enumerate(seen) if i not in claimed]
    return sorted(joined, key=lambda one: -one.score)


def judge(listed: list[Proposal], priors: Priors) -> Prelabel:
    """Keep what is above the threshold, and say how unsure the picture is.

    A picture without any proposal is as unsure as can be; else its least sure proposal and its best refused one tell.
    """
    kept = [one for one in listed if one.score >= priors.threshold]
    if not kept:
        return Prelabel((), 1.0, "nothing found")
    weakest = (1.0 - min(one.score for one in kept)) / (1.0 - priors.threshold)
    refused = [one for one in listed if one.score < priors.threshold]
    nearest = max((one.score for one in refused), default=0.0) / priors.threshold
    why = "weak box" if weakest >= nearest else "box nearly proposed"
    return Prelabel(tuple(kept), round(0.99 * min(1.0, max(weakest, nearest)), 4), why)


def _stretch(score: float, threshold: float, onto: float) -> float:
    """A piecewise linear map of 0, threshold, 1 to 0, onto, 1."""
    if score < threshold:
        return onto * score / threshold
    return onto + (1.0 - onto) * (score - threshold) / max(1e-6, 1.0 - threshold)
