"""A gallery generation: a folder with one store per category and an index, `gallery.json`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.durable import file_mismatch, write_durably
from edge.errors import GalleryError, first_validation_error
from edge.gallery.limits import MAX_CATEGORIES
from edge.gallery.store import SUFFIX, CategoryEntry, describe_store, store_path
from edge.gallery.store_file import SCHEMA
from edge.manifest.fields import IsoTime, Name, at_most
from edge.strict_json import parse_json

INDEX_NAME = "gallery.json"
_MAX_INDEX_BYTES = 8 << 20


class _Index(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = Field(alias="schema")
    generation: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    created_at: IsoTime
    categories: Annotated[dict[Name, CategoryEntry], at_most(MAX_CATEGORIES)]  # any text names a category


@dataclass(frozen=True, slots=True)
class Gallery:
    """A generation: the stores of all categories that a device can search."""

    folder: Path
    generation: str  # hash of the contents
    created_at: str  # ISO 8601, UTC
    categories: dict[str, CategoryEntry]

    @property
    def items(self) -> int:
        """The number of live items in all categories."""
        return sum(entry.items for entry in self.categories.values())

    def path(self, category: str) -> Path:
        """Return the path of the store of a category."""
        return store_path(self.folder, category)


def generation_id(categories: dict[str, CategoryEntry]) -> str:
    """Return the id of a generation: a hash of its contents.

    Where every store is from a gallery log, the id depends on the items alone, in any order: the same items have the
    same id, whichever way a device came to them. The files may differ, and so may what they say of their state in the
    log. Otherwise the id depends on the bytes of the stores.
    """
    of_items = {"space_id", "heads", "live_root"}
    only = of_items if all(entry.live_root for entry in categories.values()) else None
    parts = {name: entry.model_dump(mode="json", include=only, exclude_none=True) for name, entry in categories.items()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def write_gallery_index(folder: Path, created_at: str) -> Gallery:
    """Write `gallery.json` for the stores in a folder, which makes the folder a generation.

    Args:
        folder: holds the finished stores.
        created_at: ISO 8601, UTC; not part of the generation's id.

    Raises:
        GalleryError: a store is damaged, its file name is that of another category, or the time is not ISO 8601.
    """
    described = {path: describe_store(path) for path in sorted(folder.glob(f"*{SUFFIX}"))}
    categories = {name: entry for path, (name, entry) in described.items() if path == store_path(folder, name)}
    gallery = Gallery(folder, generation_id(categories), created_at, categories)
    index = {
        "schema": SCHEMA,
        "generation": gallery.generation,
        "created_at": created_at,
        "categories": {name: entry.model_dump(mode="json", exclude_none=True) for name, entry in categories.items()},
    }
    try:
        _Index.model_validate(index)
    except ValidationError as error:
        raise GalleryError(f"{folder / INDEX_NAME}: {first_validation_error(error)}") from error
    text = json.dumps(index, indent=1, sort_keys=True)
    write_durably(folder / INDEX_NAME, text.encode() + b"\n")
    return gallery


def read_gallery(folder: Path, *, verify: bool = True) -> Gallery:
    """Read the index of a generation.

    Args:
        folder: of the generation.
        verify: also check the size and hash of every store.

    Raises:
        GalleryError: there is no index, the index was altered, or a store differs from its entry.
    """
    path = folder / INDEX_NAME
    if path.exists() and not path.is_file():
        raise GalleryError(f"{path}: is not a file; it must be a regular file")
    try:
        with path.open("rb") as file:
            index = _Index.model_validate(parse_json(file.read(_MAX_INDEX_BYTES + 1), _MAX_INDEX_BYTES))
    except OSError as error:
        raise GalleryError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise GalleryError(f"{path}: {first_validation_error(error)}") from error
    except ValueError as error:
        raise GalleryError(f"{path}: (top): {error}") from error
    if (found := generation_id(index.categories)) != index.generation:
        raise GalleryError(f"{path}: altered: found contents of generation {found}, expected {index.generation}")
    gallery = Gallery(folder, index.generation, index.created_at, index.categories)
    for category, entry in gallery.categories.items():
        if verify and (wrong := file_mismatch(gallery.path(category), entry.size, entry.sha256)):
            raise GalleryError(wrong)
    return gallery
