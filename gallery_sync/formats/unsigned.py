"""The documents of a repository before signatures: read once, when `edge-sync adopt` takes a repository over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from edge.file_names import distinct_file_names
from edge.gallery.store import CategoryEntry
from edge.manifest.embedder import Head
from edge.manifest.fields import Sha256
from gallery_sync.formats.fields import MOST_CATEGORIES, Category, Count, Document, Name, ObjectRef, Sequence

RELEASE_NAME = "release.json"
LARGEST_HEAD_BYTES = 64 << 10
Generation = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class BundleHead(Document):
    """The newest bundle of a line."""

    kind = "bundle head"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    line: Name
    bundle_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,80}$")]
    sequence: Count  # sequence number of the bundle
    manifest: ObjectRef  # its bundle.json, which names all other objects of the bundle


class GalleryHead(Document):
    """The newest gallery of one category."""

    kind = "gallery head"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    line: Name
    category: Category
    space_id: Sha256
    heads: Annotated[list[Head], Field(max_length=16)]
    sequence: Count  # increases with every change
    base: ObjectRef  # the store
    items: Count
    vectors: Count

    def entry(self) -> CategoryEntry:
        """Return the category's entry in the index of a gallery generation."""
        return CategoryEntry(
            size=self.base.size,
            sha256=self.base.sha256,
            space_id=self.space_id,
            heads=self.heads,
            items=self.items,
            vectors=self.vectors,
        )


class GalleryRelease(Document):
    """A gallery generation, as the heads of its categories."""

    generation: Generation
    created_at: Annotated[str, Field(max_length=64)]
    heads: Annotated[dict[Category, ObjectRef], Field(max_length=MOST_CATEGORIES)]  # by category


class Release(Document):
    """One bundle and one gallery generation that devices should run together."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    line: Name
    sequence: Sequence  # increases with every release
    created_at: Annotated[str, Field(max_length=64)]  # ISO 8601, UTC
    bundle: ObjectRef  # a BundleHead
    gallery: GalleryRelease
    rollback_to: Sequence | None = None  # the earlier release whose bundle and gallery this is; None: they are new


class Envelope(Document):
    """The content of release.json and of each file of the history."""

    kind = RELEASE_NAME
    signed: Release


def history_path(sequence: int) -> str:
    """Return the path of an earlier release in the repository."""
    return f"releases/{sequence}.json"


def bundle_head_path(line: str) -> str:
    """Return the path of the newest bundle head of a line."""
    return f"bundles/{line}.json"


def gallery_head_paths(line: str, categories: Iterable[str]) -> dict[str, str]:
    """Return the path of the newest gallery head of each category."""
    return {category: f"galleries/{line}/{name}.json" for category, name in distinct_file_names(categories).items()}
