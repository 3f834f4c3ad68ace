"""Compare devices that recognised the same frames in turn: ratios by block, and whether they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edge.diagnostics.bench_device import BenchDevice
from edge.diagnostics.bench_report import BenchReport, series_of
from edge.inference.postprocess import iou_matrix
from edge.telemetry.timing import percentile
from edge.types import Box, Event

_MIN_IOU = 0.5  # of the boxes of one object on two devices
_LEAST_RATIOS = 5  # blocks in which both devices spent time

Boxes = Sequence[tuple[int, Box]]  # by track id, of one frame


@dataclass(frozen=True, slots=True)
class RatioRow:
    """How long another device takes for a stage, relative to the first one."""

    stage: str
    blocks: int  # in which both spent time on it
    ratio: float | None  # median of the blocks; below 1, the other one is faster; None: too few blocks
    p25: float | None
    p75: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two devices say about the objects of the stream, by each track's last decision."""

    same: int  # objects with the same item, or unknown to both
    different: int
    only_first: int  # tracks without a partner
    only_other: int
    differences: list[tuple[str, str]]  # labels by the first and by the other device


@dataclass(frozen=True, slots=True)
class Compared:
    """Another device, compared with the first one."""

    change: str  # as `--compare` names it
    report: BenchReport
    ratios: list[RatioRow]
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class CompareReport:
    """The result of a comparison."""

    blocks: int
    block_frames: int
    first: BenchReport  # of the device as configured
    others: list[Compared]


def ratios_of(first: BenchDevice, other: BenchDevice, ends: Sequence[int]) -> list[RatioRow]:
    """Return the ratios of the stages that both devices have.

    Args:
        first: the device to compare with.
        other: that recognised the same frames.
        ends: the frames before each block, and those up to the last one.
    """
    a, b = series_of(first.samples), series_of(other.samples)
    shared = {"decode", "view", "unaccounted"}  # frames are read once for all devices
    return [ratio_of(stage, a[stage], b[stage], ends) for stage in a if stage in b and stage not in shared]


def ratio_of(stage: str, a_ms: Sequence[float], b_ms: Sequence[float], ends: Sequence[int]) -> RatioRow:
    """Return the ratio of a stage from the time of each frame on two devices."""
    sums = [(sum(a_ms[first:end]), sum(b_ms[first:end])) for first, end in pairwise(ends)]
    ratios = sorted(of_b / of_a for of_a, of_b in sums if of_a > 0 and of_b > 0)
    if len(ratios) < _LEAST_RATIOS:
        return RatioRow(stage, len(ratios), None, None, None)
    p25, p50, p75 = (round(percentile(ratios, percent), 3) for percent in (25, 50, 75))
    return RatioRow(stage, len(ratios), p50, p25, p75)


def count_pairs(pairs: Counter[tuple[int, int]], a: Sequence[Boxes], b: Sequence[Boxes]) -> None:
    """Count, for the same frames on two devices, which tracks lie on each other."""
    for of_a, of_b in zip(a, b, strict=True):
        if of_a and of_b:
            boxes = [np.asarray([box for _, box in side], np.float32) for side in (of_a, of_b)]
            overlaps = iou_matrix(boxes[0], boxes[1])
            for i, j in enumerate(overlaps.argmax(axis=1)):
                if overlaps[i, j] >= _MIN_IOU and i == overlaps[:, j].argmax():
                    pairs[of_a[i][0], of_b[j][0]] += 1


def agree(a: Sequence[Event], b: Sequence[Event], pairs: Counter[tuple[int, int]]) -> Agreement:
    """Compare the last decisions of tracks; those with the most frames in common are partners."""
    last_a, last_b = _last_decisions(a), _last_decisions(b)
    partners: dict[int, int] = {}
    for (of_a, of_b), _ in pairs.most_common():
        if of_a in last_a and of_b in last_b and of_a not in partners and of_b not in partners.values():
            partners[of_a] = of_b
    both = [(last_a[of_a], last_b[of_b]) for of_a, of_b in sorted(partners.items())]
    differences = [(label_a, label_b) for (id_a, label_a), (id_b, label_b) in both if id_a != id_b]
    same = len(both) - len(differences)
    return Agreement(same, len(differences), len(last_a) - len(both), len(last_b) - len(both), differences)


def _last_decisions(events: Sequence[Event]) -> dict[int, tuple[str | None, str]]:
    """Return the item of each track's last decision, None if unknown, and its label or the reason."""
    last: dict[int, tuple[str | None, str]] = {}
    for event in events:
        match = event.decision.match
        last[event.track_id] = (
            (None, event.decision.reason or "unknown") if match is None else (match.item_id, match.label)
        )
    return last
