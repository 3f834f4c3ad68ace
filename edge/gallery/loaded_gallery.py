"""Load a gallery for the embedders of a bundle: search indexes, thresholds and silhouettes.

Serving and the proof before a switch both load through this module, so what was proved is what serves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from edge.gallery.generation import Gallery
from edge.gallery.item_vectors import shrink_items_to_centroid
from edge.gallery.search import Index, build_index, build_space_index
from edge.gallery.store import CategoryItems, read_category, read_silhouettes
from edge.manifest import EmbedderModel, Manifest, OpenSet
from edge.silhouettes.rerank import GallerySilhouettes, silhouettes_for


@dataclass(frozen=True, slots=True)
class LoadedGallery:
    """What a bundle searches in a gallery; all by category but `spaces`."""

    indexes: dict[str, Index] = field(default_factory=dict)
    open_sets: dict[str, OpenSet] = field(default_factory=dict)
    compatible_categories: set[str] = field(default_factory=set)  # of an older embedding space
    silhouettes: dict[str, GallerySilhouettes] = field(default_factory=dict)  # where they count
    # Without a classifier: by embedding space, the items of all its categories; a hit's label is its category.
    spaces: dict[str, Index] = field(default_factory=dict)


def load_gallery(manifest: Manifest, gallery: Gallery | None) -> LoadedGallery:
    """Read and index the categories of a gallery that the embedders of a bundle can search.

    Args:
        manifest: of the bundle.
        gallery: its stores; None: there are none, and only the thresholds of the bundle are returned.

    Raises:
        GalleryError: a store is damaged or in another embedding space.
        EngineError: the runtime cannot load the search.
    """
    loaded = LoadedGallery()
    for model in manifest.embedders:
        loaded.open_sets.update(model.open_set)
        galleries = dict(_load_categories(model, gallery, loaded)) if gallery is not None else {}
        if manifest.classifier is None and galleries:
            loaded.spaces[model.space_id] = build_space_index(galleries)
    return loaded


def _load_categories(
    model: EmbedderModel, gallery: Gallery, loaded: LoadedGallery
) -> Iterator[tuple[str, CategoryItems]]:
    """Add the categories of one embedder to a loaded gallery; return their items."""
    for category in model.categories:
        if category not in gallery.categories:
            continue
        path, entry, space_id = gallery.path(category), gallery.categories[category], model.space_id
        if declared := model.compatible_gallery(category, entry.space_id):
            space_id = declared.space_id
            loaded.open_sets[category] = declared.open_set
            loaded.compatible_categories.add(category)
        items = shrink_items_to_centroid(read_category(path, space_id, model.dim, entry), model.gathering)
        loaded.indexes[category] = build_index(items)
        rule = model.outline.get(category)
        # thresholds for an older space were fitted without silhouettes
        if declared is None and rule is not None and rule.counts and (by_item := read_silhouettes(path)):
            loaded.silhouettes[category] = silhouettes_for(rule, by_item)
        yield category, items
