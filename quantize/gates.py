"""Accuracy and speed gates: limits on how much an INT8 network may differ from its FP32 original.

A gate compares one number with one limit. It passes if the number and its 95 % bound reach the limit. It reports
`insufficient data` if only the number does, or if too few pictures were compared. Otherwise it fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Verdict = Literal["pass", "insufficient data", "fail"]
MIN_IMAGES = 30  # with fewer pictures, a gate decides nothing


@dataclass(frozen=True, slots=True)
class Limit:
    """The value that a gate requires."""

    at_least: bool  # False: at most
    value: float


LIMITS = MappingProxyType(
    {
        "top1": Limit(at_least=True, value=0.995),  # INT8 over FP32, as all ratios below
        "worst_class": Limit(at_least=True, value=0.97),
        "flip_rate": Limit(at_least=False, value=0.015),
        "recall_at_1": Limit(at_least=True, value=0.995),  # INT8 query, INT8 gallery
        "recall_at_1_fp32_gallery": Limit(at_least=True, value=0.995),  # INT8 query, FP32 gallery
        "worst_category": Limit(at_least=True, value=0.98),
        "cosine_mean": Limit(at_least=True, value=0.99),
        "cosine_p1": Limit(at_least=True, value=0.96),
        "ap50_95": Limit(at_least=True, value=0.99),
        "recall": Limit(at_least=True, value=0.99),  # recall at the operating threshold
        "matched_iou": Limit(at_least=True, value=0.95),  # median of boxes both find
        "agreement": Limit(at_least=True, value=0.97),  # FP32's boxes that INT8 finds; used without true boxes
        "mask_overlap": Limit(at_least=True, value=0.97),  # mean over crops, of INT8's mask with FP32's
        "located": Limit(at_least=True, value=0.97),  # searches of a finder whose best box is right
        "fusion": Limit(at_least=True, value=0.95),  # convolutions that run as INT8
        "latency": Limit(at_least=False, value=0.9),  # INT8's median time over FP32's
    }
)


@dataclass(frozen=True, slots=True)
class Gate:
    """One comparison and its outcome."""

    name: str
    value: float
    limit: Limit
    images: int  # or runs, or convolutions
    verdict: Verdict

    @property
    def holds(self) -> bool:
        """Return whether this gate lets INT8 ship: the limit is reached, on at least MIN_IMAGES pictures."""
        return self.verdict == "pass" or (
            self.verdict == "insufficient data" and self.images >= MIN_IMAGES and _reaches(self.value, self.limit)
        )

    def __str__(self) -> str:
        sense = "at least" if self.limit.at_least else "at most"
        return f"{self.name} {self.value:.4f} ({sense} {self.limit.value:g}, {self.images} samples: {self.verdict})"

    def row(self) -> dict[str, object]:
        """Return the gate as the manifest stores it."""
        return {
            "value": round(self.value, 5),
            "limit": self.limit.value,
            "at_least": self.limit.at_least,
            "samples": self.images,
            "verdict": self.verdict,
        }


def check_gate(name: str, value: float, images: int, error: float = 0.0, limit: float | None = None) -> Gate:
    """Compare one statistic over pictures with its limit.

    Args:
        name: a key of LIMITS.
        value: the measured statistic.
        images: number of pictures it was measured on.
        error: its standard error, from paired predictions.
        limit: replaces the limit in LIMITS.
    """
    expected = LIMITS[name] if limit is None else Limit(LIMITS[name].at_least, limit)
    bound = value - 1.96 * error if expected.at_least else value + 1.96 * error
    if images < MIN_IMAGES:
        verdict: Verdict = "insufficient data"
    elif not _reaches(value, expected):
        verdict = "fail"
    else:
        verdict = "pass" if _reaches(bound, expected) else "insufficient data"
    return Gate(name, value, expected, images, verdict)


def check_measurement(name: str, value: float, samples: int, limit: float | None = None) -> Gate:
    """Compare a number that is not a statistic over pictures (speed, fusion) with its limit."""
    expected = LIMITS[name] if limit is None else Limit(LIMITS[name].at_least, limit)
    return Gate(name, value, expected, samples, "pass" if _reaches(value, expected) else "fail")


def _reaches(value: float, limit: Limit) -> bool:
    return value >= limit.value if limit.at_least else value <= limit.value
