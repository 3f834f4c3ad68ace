"""The largest logit below which a crop is unfamiliar: like nothing that the classifier was trained on.

A softmax must share all probability among the categories it knows, so an empty counter gets a sure category, and then
the nearest item of it. The largest logit stays low there (MaxLogit, Hendrycks et al. 2022). Views of the demo's own
items, groceries of shops that its bundle knows nothing of, and empty rendered places (2026-11-29, INT8, one crop each):
98.1 / 22.3 / 37.9 % are named without the limit, 98.1 / 3.4 / 3.8 % with it.

Rules this module keeps:
1. The limit lies below all but a stated share of the held-out crops whose category the classifier names rightly.
2. Few crops say nothing about such a share: then there is no limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge.inference.stages import Classifier
from edge.telemetry.timing import Timings
from edge.types import UNFAMILIAR, FloatArray
from quantize.pictures import Sample, map_in_threads
from quantize.run_forms import whole

MIN_CROPS = 100
SHARE = 0.01  # of the held-out crops that may count as unfamiliar


@dataclass(frozen=True, slots=True)
class Familiarity:
    """A limit, and what it was fitted on."""

    least_logit: float
    largest: Mapping[Sample, float]  # largest logit of each held-out crop

    def scaled(self, probabilities: Mapping[Sample, FloatArray]) -> dict[Sample, FloatArray]:
        """Return probabilities of held-out crops as a classifier with this limit gives them."""
        return {
            crop: row * np.float32(UNFAMILIAR) if self.largest.get(crop, np.inf) < self.least_logit else row
            for crop, row in probabilities.items()
        }


def fit_familiarity(stage: Classifier, crops: Sequence[Sample], share: float = SHARE) -> Familiarity | None:
    """Fit the limit with the form that ships; None where too few crops are classified rightly.

    Args:
        stage: the classifier, without a limit.
        crops: held-out crops.
        share: of the rightly classified crops that may lie below.

    Raises:
        CaptureError: a crop cannot be read.
        EngineError: the model cannot run.
    """
    if not share or len(crops) < MIN_CROPS:
        return None

    def ask(crop: Sample) -> tuple[float, bool]:
        picture = crop.crop(stage.model.preprocess.crop_margin)
        logits = stage.logits(picture, whole(picture), Timings())[0]
        return float(logits.max()), stage.model.labels[int(logits.argmax())] == crop.category

    answers = map_in_threads(ask, crops)
    right = [largest for largest, is_right in answers if is_right]
    if len(right) < MIN_CROPS:
        return None
    least = float(np.quantile(right, share, method="lower"))
    # rounded down: a limit just above a crop would take it for unfamiliar
    least = float(np.floor(least * 1e4) / 1e4)
    return Familiarity(least, {crop: largest for crop, (largest, _) in zip(crops, answers, strict=True)})
