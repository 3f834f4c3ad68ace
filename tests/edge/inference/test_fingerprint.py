"""The fingerprint of a loaded model's outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.bundle.bundle import read_bundle
from edge.inference.fingerprint import fingerprint_of
from edge.inference.stages import load_stages
from edge.manifest.embedder import OpenSet, SilhouetteRule
from edge.manifest.model import Preprocess
from tests.fakes_engine import classifier_model, embedder_model, localiser_model

DEMO = Path(__file__).parents[3] / "demo/bundle"
FORM = "a" * 64


@pytest.mark.parametrize(
    ("model", "other"),
    [
        (embedder_model(), embedder_model(space_id="1" * 64)),
        (embedder_model(), embedder_model(preprocess=Preprocess(width=64, height=64, crop_margin=0.1))),
        (classifier_model(), classifier_model(temperature=2.0)),
        (localiser_model(), localiser_model(guided_radius=0.1)),
    ],
)
def test_model_changes_the_fingerprint(model, other):
    assert fingerprint_of(model, FORM, "engine 1") == fingerprint_of(model, FORM, "engine 1")
    assert fingerprint_of(model, FORM, "engine 1") != fingerprint_of(other, FORM, "engine 1")


def test_form_and_library_change_the_fingerprint():
    found = [fingerprint_of(embedder_model(), form, of) for form in (FORM, "b" * 64) for of in ("engine 1", "engine 2")]
    assert len(set(found)) == 4


def test_thresholds_and_silhouette_rules_keep_the_fingerprint():
    fitted = embedder_model(open_set={"carton": OpenSet(threshold=0.9)}, outline={"carton": SilhouetteRule(weight=0.4)})
    assert fingerprint_of(embedder_model(), FORM, "engine 1") == fingerprint_of(fitted, FORM, "engine 1")
    assert fingerprint_of(classifier_model(), FORM, "e") == fingerprint_of(classifier_model(threshold=0.9), FORM, "e")


def test_fingerprint_belongs_to_the_form_that_runs():
    bundle = read_bundle(DEMO, verify=False)
    forms = {one: load_stages(bundle.folder, bundle.manifest, precision=one) for one in ("shipped", "fp32", "int8")}
    for model_of in (lambda stages: stages.classifier, lambda stages: stages.embedders["bottle"]):
        found = {name: model_of(stages) for name, stages in forms.items()}
        ships = "fp32" if found["shipped"].model.ship == "fp32" else "int8"
        assert found["shipped"].fingerprint == found[ships].fingerprint
        assert found["fp32"].fingerprint != found["int8"].fingerprint
