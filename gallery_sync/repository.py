"""The repository folder: what lies where, and whether it is whole.

    release.json                        what a device should run now; the only file that a device reads by name
    bundles/<line>.json                 the newest bundle head, for people and tools
    galleries/<line>/<category>.json    the newest gallery heads, likewise
    objects/<aa>/<sha256>               everything, immutable, named by its hash: heads, manifests, models, stores

Any web server, bucket or CDN serves it. A release names heads by hash, so that no mix of old and new can be read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.durable import file_mismatch
from edge.errors import BundleError, SyncError, first_validation_error
from edge.gallery.generation import Name
from edge.gallery.store import CategoryEntry
from edge.manifest import Head, Manifest, Sha256, parse_manifest

SCHEMA = 1
RELEASE_NAME = "release.json"


class _Tree(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ObjectRef(_Tree):
    """One immutable object."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0)]  # bytes


class BundleHead(_Tree):
    """The newest bundle of a line."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    line: Name
    bundle_id: str
    sequence: Annotated[int, Field(ge=0)]  # of the bundle
    manifest: ObjectRef  # its bundle.json, which names all other objects


class GalleryHead(_Tree):
    """The newest state of one category."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    line: Name
    category: Name
    space_id: Sha256
    heads: list[Head]
    sequence: Annotated[int, Field(ge=0)]  # grows with every change
    base: ObjectRef  # the store
    items: int
    vectors: int
    segments: list[dict[str, Any]] = []  # changes since the base: reserved, always empty in this version

    def entry(self) -> CategoryEntry:
        """The same, as a generation's index says it."""
        return CategoryEntry(
            size=self.base.size,
            sha256=self.base.sha256,
            space_id=self.space_id,
            heads=self.heads,
            items=self.items,
            vectors=self.vectors,
        )


class GalleryRelease(_Tree):
    """A generation, by the heads of its categories."""

    generation: str
    created_at: str
    heads: dict[Name, ObjectRef]


class Release(_Tree):
    """What a device should run now: one bundle and one gallery generation, always together."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    line: Name
    sequence: Annotated[int, Field(ge=1)]  # never goes back
    created_at: str  # ISO 8601, UTC
    bundle: ObjectRef  # a BundleHead
    gallery: GalleryRelease


class Envelope(_Tree):
    """The content of release.json."""

    signed: Release
    signatures: list[dict[str, Any]] = []  # over canonical(signed): reserved


_Parsed = TypeVar("_Parsed", bound=BaseModel)


def parse(kind: type[_Parsed], data: bytes, where: str) -> _Parsed:
    """Parse one of the documents above.

    Raises:
        SyncError: not JSON, or not such a document.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise SyncError(f"{where}: found no {kind.__name__}: {first_validation_error(error)}") from error


def canonical(tree: BaseModel) -> bytes:
    """The one way to write a document, so that equal content has equal bytes."""
    return json.dumps(tree.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":")).encode()


def object_path(sha256: str) -> str:
    """Where an object lies, relative to the repository."""
    return f"objects/{sha256[:2]}/{sha256}"


def bundle_head_path(line: str) -> str:
    """Where the newest bundle head of a line lies."""
    return f"bundles/{line}.json"


def gallery_head_path(line: str, category: str) -> str:
    """Where the newest head of a category lies."""
    return f"galleries/{line}/{category}.json"


def read_release(repo: Path) -> Release | None:
    """Read the release of a repository folder, None when nothing was published.

    Raises:
        SyncError: the file is damaged or cannot be read.
    """
    path = repo / RELEASE_NAME
    try:
        return parse(Envelope, path.read_bytes(), str(path)).signed
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SyncError(f"{path}: cannot be read: {error.strerror}") from error


def read_object(repo: Path, ref: ObjectRef) -> bytes:
    """Read a small object, verified.

    Raises:
        SyncError: missing or altered.
    """
    path = repo / object_path(ref.sha256)
    if wrong := file_mismatch(path, ref.size, ref.sha256):
        raise SyncError(wrong)
    return path.read_bytes()


def read_manifest(repo: Path, release: Release) -> Manifest:
    """Read the bundle manifest that a release leads to.

    Raises:
        SyncError: an object on the way is missing, altered or no such document.
    """
    head = parse(BundleHead, read_object(repo, release.bundle), "bundle head")
    try:
        return parse_manifest(read_object(repo, head.manifest).decode(), f"bundle {head.bundle_id}")
    except (BundleError, UnicodeDecodeError) as error:
        raise SyncError(str(error)) from error


def check(repo: Path) -> tuple[int, list[str]]:
    """Hash every object that the release leads to: how many are whole, and what is wrong with the others.

    Raises:
        SyncError: there is no release, or what leads to the objects is damaged.
    """
    release = read_release(repo)
    if release is None:
        raise SyncError(f"{repo}: found no {RELEASE_NAME}, expected a repository")
    wanted = [ObjectRef(sha256=file.sha256, size=file.size) for file in read_manifest(repo, release).files]
    heads = [parse(GalleryHead, read_object(repo, ref), name) for name, ref in release.gallery.heads.items()]
    wanted += [head.base for head in heads]
    found = [file_mismatch(repo / object_path(ref.sha256), ref.size, ref.sha256) for ref in wanted]
    problems = [problem for problem in found if problem]
    return 2 + len(heads) + len(wanted) - len(problems), problems
