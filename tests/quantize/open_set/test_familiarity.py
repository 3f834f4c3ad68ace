"""The largest logit below which a crop is unfamiliar."""

from pathlib import Path

import numpy as np
import pytest

from edge.imaging.image import encode_image
from edge.inference.stages import Classifier
from edge.types import UNFAMILIAR
from quantize.open_set.familiarity import MIN_CROPS, fit_familiarity
from quantize.pictures import Sample
from tests.fakes_engine import ScriptedEngine, classifier_model


def brightness(batch):
    """A classifier whose first logit is the brightest value of the picture; pictures below 20 are of the second."""
    level = np.asarray(batch, np.float32).reshape(len(batch), -1).max(axis=1)
    return [np.stack([level, np.where(level < 20, level + 1, 0)], axis=1)]


@pytest.fixture
def crops(tmp_path: Path):
    category = classifier_model().labels[0]
    found = []
    for level in range(10, 210):
        path = tmp_path / f"{level}.png"
        path.write_bytes(encode_image(np.full((8, 8, 3), level, np.uint8), ".png"))
        found.append(Sample(path, path.name, "val", category, "item"))
    return found


def test_stated_share_of_right_crops_lies_below(crops):
    found = fit_familiarity(Classifier(classifier_model(), ScriptedEngine(brightness)), crops, 0.1)
    assert found is not None
    # the ten darkest are classified wrongly; of the 190 others, 18 are darker than the limit
    assert sum(20 <= found.largest[crop] < found.least_logit for crop in crops[10:]) == 18
    assert found.least_logit == 38


def test_known_outputs_are_scaled_as_the_stage_does(crops):
    found = fit_familiarity(Classifier(classifier_model(), ScriptedEngine(brightness)), crops, 0.1)
    assert found is not None
    rows = {crop: np.array([0.75, 0.25], np.float32) for crop in crops}
    scaled = found.scaled(rows)
    assert scaled[crops[0]].sum() == pytest.approx(UNFAMILIAR)
    assert scaled[crops[-1]].sum() == pytest.approx(1.0)


def test_few_crops_or_no_share_give_no_limit(crops):
    stage = Classifier(classifier_model(), ScriptedEngine(brightness))
    assert fit_familiarity(stage, crops[: MIN_CROPS - 1]) is None
    assert fit_familiarity(stage, crops[:MIN_CROPS]) is None  # ten of them are classified wrongly
    assert fit_familiarity(stage, crops, 0.0) is None
