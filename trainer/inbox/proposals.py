"""Proposes which items the pictures of a group may show: the nearest ones of a gallery, by the models of a device."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dataset_formats.decode import read_image
from edge.build import load_models
from edge.config.schema import EngineConfig
from edge.errors import CaptureError, EngineError, FinesightError
from edge.gallery.store import read_thumbnail, store_path
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.recognise_image import extract_features
from edge.telemetry.timing import Timings
from trainer.inbox.state import Proposal, Taken

log = logging.getLogger(__name__)

COUNT = 3
_MOST_PICTURES = 4  # of a group that are compared


@dataclass(frozen=True, slots=True)
class Proposer:
    """A bundle and a gallery that proposals come from."""

    models: LoadedModels
    gallery: Path

    def propose(self, folder: Path, group: Iterable[Taken]) -> tuple[str, tuple[Proposal, ...]]:
        """Return the likeliest category of a group, empty if none is, and the nearest items, best first."""
        best: dict[tuple[str, str], Proposal] = {}
        categories: list[str] = []
        for one in group:
            for name in one.pictures[:_MOST_PICTURES]:
                try:
                    features = extract_features(self.models, read_image(folder / name), Timings(), one.category or None)
                except (CaptureError, EngineError) as error:
                    log.warning("%s: no proposal: %s", name, error)
                    continue
                categories += [category.name for category in features.categories[:1]]
                for category, hits in self.models.search(features.vectors, features.silhouette).items():
                    for hit in hits:
                        key, score = (category, hit.item_id), round(float(hit.score), 4)
                        if not hit.negative and (key not in best or best[key].score < score):
                            best[key] = Proposal(category=category, item=hit.item_id, label=hit.label, score=score)
        ranked = sorted(best.values(), key=lambda one: (-one.score, one.category, one.item))
        likeliest = max(sorted(set(categories)), key=categories.count, default="")
        return likeliest, tuple(ranked[:COUNT])

    def thumbnail(self, proposal: Proposal) -> bytes | None:
        """Return the picture of an item, JPEG or PNG; None if the gallery has none."""
        try:
            return read_thumbnail(store_path(self.gallery, proposal.category), proposal.item)
        except FinesightError:
            return None


def open_proposer(bundle: Path, gallery: Path) -> Proposer:
    """Load a bundle and a gallery.

    Raises:
        FinesightError: one of them is damaged, or they do not fit together.
    """
    return Proposer(load_models(bundle, gallery, EngineConfig(backend="onnxruntime")), gallery)
