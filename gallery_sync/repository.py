"""The repository folder: its files, its JSON documents, and the check that it is complete.

    release.json                        the release that devices should run; the only file a device reads by name
    bundles/<line>.json                 the newest bundle head, for people and tools
    galleries/<line>/<category>.json    the newest gallery heads, for people and tools
    objects/<aa>/<sha256>               immutable files named by their hash: heads, manifests, models, stores

Any web server, bucket or CDN can host it. A release names heads by hash, so a device never reads a mix of old and new.
Readers ignore unknown fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.durable import file_mismatch
from edge.errors import BundleError, SyncError, first_validation_error
from edge.file_names import distinct_file_names
from edge.gallery.store import CategoryEntry
from edge.manifest import Head, Manifest, Sha256, parse_manifest

SCHEMA = 1
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}$")]  # of a product line, safe as a file name
RELEASE_NAME = "release.json"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ObjectRef(_Document):
    """Reference to one immutable object."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0)]  # bytes


class BundleHead(_Document):
    """The newest bundle of a line."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    line: Name
    bundle_id: str
    sequence: Annotated[int, Field(ge=0)]  # sequence number of the bundle
    manifest: ObjectRef  # its bundle.json, which names all other objects of the bundle


class GalleryHead(_Document):
    """The newest gallery of one category."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    line: Name
    category: str  # any text
    space_id: Sha256
    heads: list[Head]
    sequence: Annotated[int, Field(ge=0)]  # increases with every change
    base: ObjectRef  # the store
    items: int
    vectors: int

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

    generation: str
    created_at: str
    heads: dict[str, ObjectRef]  # by category


class Release(_Document):
    """One bundle and one gallery generation that devices should run together."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    line: Name
    sequence: Annotated[int, Field(ge=1)]  # never decreases
    created_at: str  # ISO 8601, UTC
    bundle: ObjectRef  # a BundleHead
    gallery: GalleryRelease


class Envelope(_Document):
    """The content of release.json."""

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
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise SyncError(f"{where}: not a valid {_NAMES[kind]}: {first_validation_error(error)}") from error


def canonical_json(tree: BaseModel) -> bytes:
    """Return a document as canonical JSON, so that equal content has equal bytes."""
    return json.dumps(tree.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":")).encode()


def object_path(sha256: str) -> str:
    """Return the path of an object in the repository."""
    return f"objects/{sha256[:2]}/{sha256}"


def bundle_head_path(line: str) -> str:
    """Return the path of the newest bundle head of a line."""
    return f"bundles/{line}.json"


def gallery_head_paths(line: str, categories: Iterable[str]) -> dict[str, str]:
    """Return the path of the newest gallery head of each category."""
    return {category: f"galleries/{line}/{name}.json" for category, name in distinct_file_names(categories).items()}


def read_release(repo: Path) -> Release | None:
    """Read the release of a repository folder; None if nothing was published.

    Raises:
        SyncError: the file is damaged or cannot be read.
    """
    path = repo / RELEASE_NAME
    try:
        return parse(Envelope, path.read_bytes(), str(path)).signed
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SyncError(f"{path}: cannot read: {error.strerror}") from error


def read_object(repo: Path, ref: ObjectRef) -> bytes:
    """Read a small object and verify its hash.

    Raises:
        SyncError: the object is missing, changed or cannot be read.
    """
    path = repo / object_path(ref.sha256)
    if wrong := file_mismatch(path, ref.size, ref.sha256):
        raise SyncError(wrong)
    try:
        return path.read_bytes()
    except OSError as error:
        raise SyncError(f"{path}: cannot read: {error.strerror}") from error


def read_manifest(repo: Path, release: Release) -> Manifest:
    """Read the bundle manifest of a release.

    Raises:
        SyncError: the bundle head or the manifest is missing, changed or invalid.
    """
    head = parse(BundleHead, read_object(repo, release.bundle), "bundle head")
    try:
        return parse_manifest(read_object(repo, head.manifest).decode(), f"bundle {head.bundle_id}")
    except (BundleError, UnicodeDecodeError) as error:
        raise SyncError(str(error)) from error


def check_repository(repo: Path) -> tuple[int, list[str]]:
    """Hash every object of the release. Return how many are intact, and a message for each other one.

    Raises:
        SyncError: there is no release, or a head or manifest is damaged.
    """
    release = read_release(repo)
    if release is None:
        raise SyncError(f"{repo} has no {RELEASE_NAME}; give a repository folder")
    wanted = [ObjectRef(sha256=file.sha256, size=file.size) for file in read_manifest(repo, release).files]
    heads = [parse(GalleryHead, read_object(repo, ref), name) for name, ref in release.gallery.heads.items()]
    wanted += [head.base for head in heads]
    found = [file_mismatch(repo / object_path(ref.sha256), ref.size, ref.sha256) for ref in wanted]
    problems = [problem for problem in found if problem]
    return 2 + len(heads) + len(wanted) - len(problems), problems
