"""Scripted models with a gallery, and pictures to teach."""

from __future__ import annotations

import cv2
import numpy as np

from edge.inference.stages import Classifier, Embedder, Stages
from edge.manifest.embedder import OpenSet
from edge.recognition.loaded_models import LoadedModels
from edge.types import Hit
from tests.fakes_engine import FixedIndex, ScriptedEngine, classifier_model, embedder_model

NEAR = [Hit("c1", "Oat flakes", 0.9), Hit("c2", "Corn flakes", 0.4)]
FAR = [Hit("c1", "Oat flakes", 0.2)]


def direction(batch: np.ndarray) -> list[np.ndarray]:
    """An embedder of colours: the mean red, green and blue of each crop, as a unit row."""
    means = batch.reshape(len(batch), -1, 3).astype(np.float32).mean(axis=1)
    rows = np.concatenate([means, np.ones((len(batch), 1), np.float32)], axis=1)
    return [rows / np.linalg.norm(rows, axis=1, keepdims=True)]


def scripted_models(
    bundle: str = "bundle-1",
    gallery: str = "gallery-1",
    odds=(9.0, 1.0),
    indexes=None,
    embed=None,
    fingerprint="",
    **embedder,
) -> LoadedModels:
    """Models with one category, `carton`, whose gallery answers NEAR unless `indexes` are given."""
    classifier = ScriptedEngine(lambda batch: [np.tile(np.log(odds), (len(batch), 1))])
    engine = ScriptedEngine(embed or direction)
    stages = Stages(
        None,
        Classifier(classifier_model(), classifier, fingerprint and f"classifier of {fingerprint}"),
        {"carton": Embedder(embedder_model(**embedder), engine, fingerprint and f"embedder of {fingerprint}")},
    )
    found = {"carton": FixedIndex(NEAR)} if indexes is None else indexes
    return LoadedModels(bundle, gallery, stages, found, {"carton": OpenSet(threshold=0.7)})


def jpeg(red: int, green: int, blue: int) -> bytes:
    """A picture of one colour."""
    return cv2.imencode(".jpg", np.full((64, 64, 3), (blue, green, red), np.uint8))[1].tobytes()
