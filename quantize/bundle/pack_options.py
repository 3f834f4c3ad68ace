"""What a person asks of a bundle to pack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quantize.bundle.backward_compatible import TOLERANCE
from quantize.bundle.fit_silhouettes import Mode
from quantize.bundle.fit_whitening import Whiten
from quantize.open_set.familiarity import SHARE

DEFAULT_GATHERING = 0.5


@dataclass(frozen=True, slots=True)
class PackOptions:
    """Options of the bundle to pack."""

    bundle_id: str
    sequence: int
    out: Path
    keep_both: bool = False  # pack FP32 beside a shipped INT8 form, and INT8 that is accurate beside shipped FP32
    with_probes: bool = True
    base: Path | None = None  # base bundle: its models are copied, byte for byte, unless a network replaces them
    compatible_with: tuple[Path, ...] = ()  # older bundles; their galleries are declared searchable if measured so
    tolerance: float = TOLERANCE  # largest allowed loss of Recall@1
    false_accept: float | None = None  # share of unknown objects that may be accepted, see quantize.fit_thresholds
    # Share of wrong names among all names, instead of false_accept; see quantize.open_set.risk.
    risk: float | None = None
    # Weight of the classifier's descriptor in each cosine; None: as in the base bundle, or 0.
    classifier_share: float | None = None
    # How far gallery vectors shrink to their centroid, see edge.gallery.item_vectors; None: as in the base bundle, or
    # DEFAULT_GATHERING.
    gathering: float | None = None
    unfamiliar: float = SHARE  # of the held-out crops; see quantize.open_set.familiarity. 0: every crop is familiar
    whiten: Whiten = "off"  # fit a whitening to new embedders, see quantize.bundle.fit_whitening
    # How silhouettes count: a mode, whether it pays or not; off; None: where they pay, and only with a new localiser.
    outline: Mode | Literal["off"] | None = None
    waived: frozenset[str] = frozenset()  # gates that may fail, as model.gate
