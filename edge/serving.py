"""One bundle and one gallery generation, loaded together: what answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge.decide import TOP, decide
from edge.finder import Finder
from edge.manifest import OpenSet
from edge.seek import Sought
from edge.stages import Stages
from edge.types import Category, Decision, FloatArray, Hit


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
    finder: Finder | None = None  # None: nothing is sought
    sought: tuple[Sought, ...] = ()  # taught things, which the detector may not know

    @property
    def category_threshold(self) -> float:
        """Probability below which a category is unknown."""
        return self.stages.classifier.model.threshold if self.stages.classifier else 0.0

    @property
    def spaces(self) -> dict[str, str]:
        """The embedding space of each category."""
        return {category: embedder.model.space_id for category, embedder in self.stages.embedders.items()}

    def search(self, vectors: Mapping[str, FloatArray]) -> dict[str, list[Hit]]:
        """The nearest items of one object, by category; a category without a gallery is left out.

        Args:
            vectors: of the object, by category, each (dim,) of unit length.
        """
        return {
            name: self.indexes[name].search(vector[None], TOP)[0]
            for name, vector in vectors.items()
            if name in self.indexes
        }

    def decide(self, categories: Sequence[Category], hits: dict[str, list[Hit]]) -> Decision:
        """What one object is, by the bundle's thresholds."""
        return decide(list(categories), hits, self.open_sets, self.category_threshold)
