"""The JSON documents of a repository, with the limits that keep a hostile one small.

Rules this module keeps:
1. Readers ignore unknown fields, so that an older device can read a newer repository.
2. A document is JSON that every parser reads alike (edge/strict_json.py), with no number beyond 2^53 where one counts.
3. No text of a document reaches a message unescaped: an error is one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.errors import BundleError, SyncError, first_validation_error, one_line
from edge.file_names import distinct_file_names
from edge.gallery.store import CategoryEntry
from edge.manifest import Head, Manifest, parse_manifest
from edge.manifest_fields import Sha256
from edge.strict_json import parse_json

SCHEMA = 1
RELEASE_NAME = "release.json"
LARGEST_DOCUMENT_BYTES = 4 << 20  # a release or a manifest
LARGEST_HEAD_BYTES = 64 << 10
LARGEST_RELEASE_BYTES = 8 << 30  # all objects of a release
LARGEST_SEQUENCE = 2**53 - 1  # every JSON parser reads it exactly
MOST_CATEGORIES = 5000

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}$")]  # of a product line, safe as a file name
Sequence = Annotated[int, Field(strict=True, ge=1, le=LARGEST_SEQUENCE)]
Generation = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Category = Annotated[str, Field(max_length=1000)]  # any text
_Count = Annotated[int, Field(strict=True, ge=0, le=LARGEST_SEQUENCE)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ObjectRef(_Document):
    """Reference to one immutable object."""

    sha256: Sha256
    size: Annotated[int, Field(strict=True, ge=0, le=LARGEST_RELEASE_BYTES)]  # bytes


class BundleHead(_Document):
    """The newest bundle of a line."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    line: Name
    bundle_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,80}$")]
    sequence: _Count  # sequence number of the bundle
    manifest: ObjectRef  # its bundle.json, which names all other objects of the bundle


class GalleryHead(_Document):
    """The newest gallery of one category."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    line: Name
    category: Category
    space_id: Sha256
    heads: Annotated[list[Head], Field(max_length=16)]
    sequence: _Count  # increases with every change
    base: ObjectRef  # the store
    items: _Count
    vectors: _Count

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


class GalleryRelease(_Document):
    """A gallery generation, as the heads of its categories."""

    generation: Generation
    created_at: Annotated[str, Field(max_length=64)]
    heads: Annotated[dict[Category, ObjectRef], Field(max_length=MOST_CATEGORIES)]  # by category


class Release(_Document):
    """One bundle and one gallery generation that devices should run together."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    line: Name
    sequence: Sequence  # increases with every release
    created_at: Annotated[str, Field(max_length=64)]  # ISO 8601, UTC
    bundle: ObjectRef  # a BundleHead
    gallery: GalleryRelease
    rollback_to: Sequence | None = None  # the earlier release whose bundle and gallery this is; None: they are new


class Envelope(_Document):
    """The content of release.json and of each file of the history."""

    signed: Release


_NAMES: dict[type[BaseModel], str] = {
    BundleHead: "bundle head",
    GalleryHead: "gallery head",
    Envelope: RELEASE_NAME,
}
_Parsed = TypeVar("_Parsed", bound=BaseModel)


def parse(kind: type[_Parsed], data: bytes, where: str) -> _Parsed:
    """Parse one of the documents above.

    Raises:
        SyncError: the bytes are not JSON, or not a document of this kind.
    """
    where = one_line(where)
    try:
        return kind.model_validate(parse_json(data, LARGEST_DOCUMENT_BYTES))
    except ValidationError as error:
        told = one_line(first_validation_error(error))
        raise SyncError(f"{where}: not a valid {_NAMES[kind]}: {told}") from error
    except ValueError as error:
        raise SyncError(f"{where}: not JSON: {one_line(str(error))}") from error


def parse_bundle_manifest(data: bytes, where: str) -> Manifest:
    """Parse the manifest of a bundle.

    Raises:
        SyncError: the bytes are not one, or it lists a file that is too large for a release.
    """
    try:
        manifest = parse_manifest(data, where)
    except BundleError as error:
        raise SyncError(one_line(str(error))) from error
    if (size := max(file.size for file in manifest.files)) > LARGEST_RELEASE_BYTES:
        raise SyncError(f"{where}: found a file of {size} bytes, expected at most {LARGEST_RELEASE_BYTES}")
    return manifest


def canonical_json(tree: BaseModel) -> bytes:
    """Return a document as canonical JSON, so that equal content has equal bytes; absent values are left out."""
    fields = tree.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def object_path(sha256: str) -> str:
    """Return the path of an object in the repository."""
    return f"objects/{sha256[:2]}/{sha256}"


def history_path(sequence: int) -> str:
    """Return the path of an earlier release in the repository."""
    return f"releases/{sequence}.json"


def bundle_head_path(line: str) -> str:
    """Return the path of the newest bundle head of a line."""
    return f"bundles/{line}.json"


def gallery_head_paths(line: str, categories: Iterable[str]) -> dict[str, str]:
    """Return the path of the newest gallery head of each category."""
    return {category: f"galleries/{line}/{name}.json" for category, name in distinct_file_names(categories).items()}
