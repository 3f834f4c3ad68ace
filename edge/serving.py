"""One bundle and one gallery generation, loaded together: what answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edge.manifest import OpenSet
from edge.stages import Stages
from edge.types import FloatArray, Hit


class Search(Protocol):
    """The gallery of one category."""

    def search(self, queries: FloatArray, k: int) -> list[list[Hit]]:
        """The k nearest items of each (n, dim) unit row, best first."""
        ...


@dataclass(frozen=True, slots=True)
class Serving:
    """One bundle and one gallery generation, loaded together."""

    bundle_id: str
    gallery_id: str
    stages: Stages
    indexes: dict[str, Search]  # by category
    open_sets: dict[str, OpenSet]  # by category

    @property
    def category_threshold(self) -> float:
        """Probability below which a category is unknown."""
        return self.stages.classifier.model.threshold if self.stages.classifier else 0.0

    @property
    def spaces(self) -> dict[str, str]:
        """The embedding space of each category."""
        return {category: embedder.model.space_id for category, embedder in self.stages.embedders.items()}
