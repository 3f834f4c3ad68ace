"""The signed documents of a repository. Each is a target of The Update Framework, signed by one role.

    rollout/<line>.json               Release      role rollout: which pair devices should run
    models/<line>/<bundle id>.json    BundleHead   role models: one bundle, how it is delivered, and what it demands
    gallery/<line>/<category>.json    GalleryLog   role gallery: every state of one category, by embedding space

Everything else (bundle manifests, models, stores, segments) is an immutable object that one of these names by its hash.
A *gallery sequence* counts the changes of all galleries of a line. A pair is a bundle and a gallery sequence: of each
category, it has the changes up to this sequence, and every urgent deletion after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from edge.file_names import file_name
from edge.manifest.embedder import Head
from edge.manifest.fields import Sha256
from gallery_sync.formats.fields import BundleId, Category, Count, Document, Name, ObjectRef, Sequence, Time

MOST_SPACES, MOST_BASES, MOST_SEGMENTS = 8, 16, 4096  # of one category
MOST_DELIVERIES = 4096  # of one bundle
ROLES = ("models", "gallery", "rollout")

Root = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # live root, see gallery_sync.gallery_log.live_root


class Delivery(Document):
    """A smaller object from which a device makes one file of a bundle."""

    file: Sha256  # of the result
    method: Literal["zstd", "residual"]  # residual: the difference to a file that the device may have, in zstd
    base: Sha256 | None = None  # of that file; None: the object is the whole file, compressed
    object: ObjectRef


class BundleHead(Document):
    """One bundle of a line, as the role `models` signs it."""

    kind: ClassVar[str] = "bundle head"

    schema_version: Literal[2] = Field(default=2, alias="schema")
    line: Name
    bundle_id: BundleId
    sequence: Count  # sequence number of the bundle
    manifest: ObjectRef  # its bundle.json, which names all its files
    security_floor: Count = 0  # once confirmed, a device never runs a bundle with a smaller sequence number again
    gallery_from: Count = 0  # the smallest gallery sequence that this bundle may be paired with
    big_change_to: Count = 0  # up to this gallery sequence, a gallery may change by more than a device's limit
    needs: Annotated[str, Field(max_length=40)] = "0"  # the oldest version of finesight that runs it, such as 0.9
    deliveries: Annotated[list[Delivery], Field(default_factory=list, max_length=MOST_DELIVERIES)]


class Base(Document):
    """A whole store of one category."""

    sequence: Sequence  # the gallery sequence that it holds
    object: ObjectRef  # an SQLite store, see edge.gallery.store
    live_root: Root
    items: Count
    vectors: Count


class Segment(Document):
    """The changes from one state of a category to its next one, see gallery_sync.gallery_log.segment_file."""

    after: Sequence  # the state that it changes: that of a base or of a segment
    sequence: Sequence  # the state that results
    object: ObjectRef
    live_root: Root  # of the result
    upserts: Count
    deletes: Count
    urgent: bool = False  # its deletions are applied at once and everywhere, whatever a release says

    @model_validator(mode="after")
    def _goes_forward(self) -> Segment:
        if self.sequence <= self.after:
            raise ValueError(f"found a segment from {self.after} to {self.sequence}, expected one that goes forward")
        return self


class SpaceLog(Document):
    """The states of a category in one embedding space."""

    space_id: Sha256
    heads: Annotated[list[Head], Field(min_length=1, max_length=16)]
    bases: Annotated[list[Base], Field(min_length=1, max_length=MOST_BASES)]  # the oldest first
    segments: Annotated[list[Segment], Field(default_factory=list, max_length=MOST_SEGMENTS)]  # the oldest first


class GalleryLog(Document):
    """The gallery of one category, as the role `gallery` signs it."""

    kind: ClassVar[str] = "gallery log"

    schema_version: Literal[2] = Field(default=2, alias="schema")
    line: Name
    category: Category
    sequence: Sequence  # of the newest change
    previous: Sha256 | None = None  # of the log before this one, so that an auditor sees a fork
    spaces: Annotated[list[SpaceLog], Field(max_length=MOST_SPACES)]

    def space(self, space_id: str) -> SpaceLog | None:
        """Return the states in one embedding space; None if there are none."""
        return next((space for space in self.spaces if space.space_id == space_id), None)


class Release(Document):
    """The pair that devices of a line should run, as the role `rollout` signs it."""

    kind: ClassVar[str] = "release"

    schema_version: Literal[2] = Field(default=2, alias="schema")
    line: Name
    sequence: Sequence  # increases with every release, also with one that goes back
    created_at: Time
    bundle_id: BundleId
    bundle_head: Sha256  # of the signed BundleHead
    gallery_sequence: Count  # 0: no gallery
    gallery_created_at: Time | None = None
    rollback_to: Sequence | None = None  # the earlier release whose pair this is; None: the pair is new


def release_target(line: str) -> str:
    """Return the target path of the newest release of a line."""
    return f"rollout/{line}.json"


def bundle_target(line: str, bundle_id: str) -> str:
    """Return the target path of the head of a bundle."""
    return f"models/{line}/{bundle_id}.json"


def gallery_targets(line: str, categories: Iterable[str]) -> dict[str, str]:
    """Return the target path of the log of each category; it depends on the name of the category alone."""
    return {category: f"gallery/{line}/{file_name(category)}.json" for category in categories}
