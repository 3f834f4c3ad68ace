"""A bundle and a gallery generation, loaded together: models, indexes, thresholds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from edge.finder.finder import Finder
from edge.finder.taught_search import TaughtQuery
from edge.gallery.attributes import Attributes, vote
from edge.gallery.loaded_gallery import LoadedGallery
from edge.inference.stages import Stages
from edge.manifest.embedder import OpenSet
from edge.recognition.decision import SEARCH_DEPTH, decide
from edge.silhouettes.rerank import RERANKED, GallerySilhouettes
from edge.telemetry.health_report import TaughtCounts
from edge.types import Category, Decision, FloatArray, Hit, Silhouette


class Search(Protocol):
    """The search index of one category."""

    def search(self, queries: FloatArray, k: int) -> list[list[Hit]]:
        """Return the k nearest items of each (n, dim) unit row, best first."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedModels:
    """A bundle and a gallery generation, loaded together."""

    bundle_id: str
    gallery_id: str
    stages: Stages
    indexes: dict[str, Search]  # by category
    open_sets: dict[str, OpenSet]  # by category
    # categories whose gallery is of an older embedding space that the bundle can search
    compatible_categories: frozenset[str] = frozenset()
    gallery_created_at: str | None = None  # ISO 8601, UTC
    silhouettes: dict[str, GallerySilhouettes] = field(default_factory=dict)  # by category, where they count
    finder: Finder | None = None  # None: the bundle has none
    taught_queries: tuple[TaughtQuery, ...] = ()  # of taught items, which the detector may not know
    # Without a classifier: by embedding space, the items of all its categories; a hit's label is its category.
    spaces: dict[str, Search] = field(default_factory=dict)
    gallery: LoadedGallery = field(default_factory=LoadedGallery)  # as it was loaded, without taught items
    taught: TaughtCounts | None = None  # items that were added; None: no kiosk
    taught_retired: Mapping[str, str] = field(default_factory=dict)  # why other taught items are not, by item id
    attributes: Mapping[str, Attributes] = field(default_factory=dict)  # of the items that have any, by item id

    @property
    def category_threshold(self) -> float:
        """The probability below which a category is unknown."""
        return self.stages.classifier.model.threshold if self.stages.classifier else 0.0

    @property
    def space_ids(self) -> dict[str, str]:
        """The embedding space of each category's queries."""
        return {category: embedder.model.space_id for category, embedder in self.stages.embedders.items()}

    def wants_silhouette(self, categories: Collection[str]) -> bool:
        """Return whether the silhouette of an object of one of these categories counts."""
        return self.stages.localiser is not None and not self.silhouettes.keys().isdisjoint(categories)

    def search(self, vectors: Mapping[str, FloatArray], silhouette: Silhouette | None = None) -> dict[str, list[Hit]]:
        """Return the nearest items of one object, by category; a category without a gallery is left out.

        Args:
            vectors: of the object, by category, each (dim,) of unit length.
            silhouette: of the object; None: the vectors decide alone.
        """
        hits = {}
        for name, vector in vectors.items():
            if name in self.indexes:
                silhouettes = self.silhouettes.get(name) if silhouette is not None else None
                depth = max(RERANKED, SEARCH_DEPTH) if silhouettes else SEARCH_DEPTH
                found = self.indexes[name].search(vector[None], depth)[0]
                if silhouettes and silhouette is not None:
                    found = silhouettes.rerank(found, silhouette)[:SEARCH_DEPTH]
                hits[name] = found
        return hits

    def decide(self, categories: Sequence[Category], hits: dict[str, list[Hit]]) -> Decision:
        """Decide what one object is, by the bundle's thresholds, and what near items say about its attributes."""
        together = self.stages.classifier is None
        decision = decide(list(categories), hits, self.open_sets, self.category_threshold, together=together)
        if not self.attributes:
            return decision
        named = decision.match.item_id if decision.match else None
        return replace(decision, attributes=vote(decision.top, self.attributes, named))

    def identify(
        self, categories: Sequence[Category] | None, vectors: Mapping[str, FloatArray], silhouette: Silhouette | None
    ) -> Decision:
        """Search for one object and decide what it is.

        Args:
            categories: likely ones, best first; None: any.
            vectors: of the object, by embedding space, each (dim,) of unit length.
            silhouette: of the object; None: the vectors decide alone.
        """
        searched = self.nearest_categories(vectors) if categories is None else categories
        embedders = self.stages.embedders
        spaces = {c.name: embedders[c.name].model.space_id for c in searched if c.name in embedders}
        of_category = {name: vectors[space_id] for name, space_id in spaces.items() if space_id in vectors}
        return self.decide(searched, self.search(of_category, silhouette))

    def nearest_categories(self, vectors: Mapping[str, FloatArray]) -> list[Category]:
        """Return the categories of the items nearest to an object of unknown category; all if there is no item.

        Args:
            vectors: of the object, by embedding space, each (dim,) of unit length.
        """
        names = {
            hit.label: None
            for space_id, vector in vectors.items()
            if space_id in self.spaces
            for hit in self.spaces[space_id].search(vector[None], SEARCH_DEPTH)[0]
        }
        return [Category(name, 1.0) for name in names or self.stages.embedders]
