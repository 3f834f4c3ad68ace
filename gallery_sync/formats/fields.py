"""What all documents of a repository share: their fields, their limits, their JSON, and the paths of objects.

Rules this module keeps:
1. Readers ignore unknown fields, so that an older device can read a newer repository.
2. A document is JSON that every parser reads alike (edge/strict_json.py), with no number beyond 2^53 where one counts.
3. No text of a document reaches a message unescaped: an error is one line.
"""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.errors import BundleError, SyncError, first_validation_error, one_line
from edge.manifest.fields import Sha256
from edge.manifest.manifest import Manifest, parse_manifest
from edge.strict_json import parse_json

LARGEST_DOCUMENT_BYTES = 4 << 20  # a release, a bundle manifest or a gallery log
LARGEST_RELEASE_BYTES = 8 << 30  # all objects of a release
LARGEST_SEQUENCE = 2**53 - 1  # every JSON parser reads it exactly
MOST_CATEGORIES = 5000

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}$")]  # of a product line, safe as a file name
BundleId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}$")]
Sequence = Annotated[int, Field(strict=True, ge=1, le=LARGEST_SEQUENCE)]
Count = Annotated[int, Field(strict=True, ge=0, le=LARGEST_SEQUENCE)]
Category = Annotated[str, Field(max_length=1000)]  # any text
Time = Annotated[str, Field(max_length=64)]  # ISO 8601, UTC


class Document(BaseModel):
    """A part of a document."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: ClassVar[str] = "document"  # its name in messages


class ObjectRef(Document):
    """Reference to one immutable object."""

    sha256: Sha256
    size: Annotated[int, Field(strict=True, ge=0, le=LARGEST_RELEASE_BYTES)]  # bytes


_Parsed = TypeVar("_Parsed", bound=Document)


def parse(kind: type[_Parsed], data: bytes, where: str) -> _Parsed:
    """Parse a document.

    Raises:
        SyncError: the bytes are not JSON, or not a document of this kind.
    """
    where = one_line(where)
    try:
        return kind.model_validate(parse_json(data, LARGEST_DOCUMENT_BYTES))
    except ValidationError as error:
        raise SyncError(f"{where}: not a valid {kind.kind}: {first_validation_error(error)}") from error
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
