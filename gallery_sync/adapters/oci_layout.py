"""An OCI image layout: the folder in which registries' tools keep artifacts (OCI image specification 1.1).

    oci-layout                      its version
    index.json                      the manifests, by their reference such as shop-3
    blobs/sha256/<hash>             manifests, and the files that they list as layers

A layer's annotation `org.opencontainers.image.title` is the path of its file, as ORAS writes and reads it.

Rules this module keeps:
1. Equal content gives equal bytes: no time, no order of a folder.
2. A blob has the hash and the size of its descriptor, when it is written and when it is read.
3. Blobs come first, `index.json` last. What others put into a layout stays.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from edge.durable import file_mismatch, make_folder, replace_file, write_durably
from edge.errors import SyncError, one_line
from edge.strict_json import parse_json
from gallery_sync.formats.fields import LARGEST_RELEASE_BYTES, Document, ObjectRef, parse

INDEX_NAME, LAYOUT_NAME = "index.json", "oci-layout"
INDEX_TYPE, MANIFEST_TYPE = "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"
EMPTY_TYPE, EMPTY = "application/vnd.oci.empty.v1+json", b"{}"
TITLE, CREATED = "org.opencontainers.image.title", "org.opencontainers.image.created"
VERSION, REFERENCE = "org.opencontainers.image.version", "org.opencontainers.image.ref.name"
LARGEST_MANIFEST_BYTES = 4 << 20  # what registries accept
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_MOST_LAYERS = 50_000

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Descriptor(Document):
    """Names one blob."""

    media_type: Annotated[str, Field(alias="mediaType", max_length=200)]
    digest: Digest
    size: Annotated[int, Field(strict=True, ge=0, le=LARGEST_RELEASE_BYTES)]
    annotations: Annotated[dict[str, str], Field(default_factory=dict, max_length=100)]

    @property
    def ref(self) -> ObjectRef:
        """Hash and size."""
        return ObjectRef(sha256=self.digest.partition(":")[2], size=self.size)

    @property
    def title(self) -> str:
        """The path of its file; empty: it has none."""
        return self.annotations.get(TITLE, "")


class Manifest(Document):
    """One artifact: its type, and its files."""

    kind: ClassVar[str] = "image manifest"

    schema_version: Literal[2] = Field(alias="schemaVersion")
    media_type: Literal["application/vnd.oci.image.manifest.v1+json"] = Field(alias="mediaType")
    artifact_type: Annotated[str, Field(alias="artifactType", max_length=200)] = ""
    layers: Annotated[list[Descriptor], Field(max_length=_MOST_LAYERS)]
    annotations: Annotated[dict[str, str], Field(default_factory=dict, max_length=100)]


def descriptor(media_type: str, ref: ObjectRef, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the JSON of a descriptor."""
    found: dict[str, Any] = {"mediaType": media_type, "digest": f"sha256:{ref.sha256}", "size": ref.size}
    return found | ({"annotations": annotations} if annotations else {})


def manifest_json(artifact_type: str, layers: list[dict[str, Any]], annotations: dict[str, str]) -> bytes:
    """Return the manifest of an artifact without a configuration.

    Raises:
        SyncError: it is larger than registries accept.
    """
    tree = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": artifact_type,
        "config": descriptor(EMPTY_TYPE, ref_of(EMPTY)),
        "layers": layers,
        "annotations": annotations,
    }
    data = _json(tree)
    if len(data) > LARGEST_MANIFEST_BYTES:
        raise SyncError(
            f"the manifest has {len(data)} bytes, and registries accept {LARGEST_MANIFEST_BYTES}; compact the "
            "galleries, or copy the repository folder itself"
        )
    return data


def ref_of(data: bytes) -> ObjectRef:
    """Return hash and size of some bytes."""
    return ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def blob_path(folder: Path, ref: ObjectRef) -> Path:
    """Return the path of a blob."""
    return folder / "blobs" / "sha256" / ref.sha256


def copy_verified(source: Path, target: Path, ref: ObjectRef, what: str) -> bool:
    """Make sure that a file is there with this hash; return whether it had to be copied.

    Raises:
        SyncError: the source is missing, or is another file.
        OSError: the disk failed.
    """
    if file_mismatch(target, ref.size, ref.sha256) is None:
        return False
    if not source.is_file() or source.stat().st_size != ref.size:
        raise SyncError(f"{source}: is missing, or has not the {ref.size} bytes of {what}; copy or export it again")
    make_folder(target.parent)
    partial = target.with_name(f"{target.name}.partial")
    try:
        shutil.copyfile(source, partial)
        if wrong := file_mismatch(partial, ref.size, ref.sha256):
            raise SyncError(f"{source}: is damaged: {wrong.removeprefix(f'{partial}: ')}; it is {what}")
        replace_file(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return True


def write_blob(folder: Path, data: bytes) -> ObjectRef:
    """Write some bytes as a blob, and return its reference.

    Raises:
        OSError: the disk failed.
    """
    ref = ref_of(data)
    path = blob_path(folder, ref)
    if file_mismatch(path, ref.size, ref.sha256) is not None:
        make_folder(path.parent)
        write_durably(path, data)
    return ref


def add_to_index(folder: Path, reference: str, manifest: ObjectRef, artifact_type: str) -> None:
    """Show a manifest in the index, in place of the one that had its reference.

    Raises:
        SyncError: the folder holds something else than a layout.
        OSError: the disk failed.
    """
    others = [one for one in read_index(folder) if _reference(one) != reference] if _is_layout(folder) else []
    shown = descriptor(MANIFEST_TYPE, manifest, {REFERENCE: reference}) | {"artifactType": artifact_type}
    write_durably(folder / LAYOUT_NAME, _LAYOUT)
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*others, shown]}
    write_durably(folder / INDEX_NAME, _json(index))


def check_target(folder: Path) -> None:
    """Check that a layout can be written into a folder: it is new, empty, or a layout.

    Raises:
        SyncError: it holds something else.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not _is_begun(folder))):
        raise SyncError(f"{folder}: exists and is no OCI image layout; choose a new folder")


def _is_begun(folder: Path) -> bool:
    """Return whether an interrupted export, or a whole one, is all that a folder holds."""
    return _is_layout(folder) or {path.name for path in folder.iterdir()} == {"blobs"}


def _is_layout(folder: Path) -> bool:
    return (folder / LAYOUT_NAME).is_file() and (folder / INDEX_NAME).is_file()


def read_index(folder: Path) -> list[dict[str, Any]]:
    """Return the descriptors of the index of a layout; those of unknown kinds, too.

    Raises:
        SyncError: the folder is no layout, or its index is damaged.
    """
    if not _is_layout(folder):
        raise SyncError(f"{folder}: is no OCI image layout: it has no {LAYOUT_NAME} or no {INDEX_NAME}")
    path = folder / INDEX_NAME
    try:
        version = parse_json(_read(folder / LAYOUT_NAME), LARGEST_MANIFEST_BYTES)["imageLayoutVersion"]
        manifests = parse_json(_read(path), LARGEST_MANIFEST_BYTES)["manifests"]
    except (ValueError, KeyError, TypeError) as error:
        raise SyncError(f"{path}: is damaged: {one_line(str(error))}") from error
    if not str(version).startswith("1.") or not isinstance(manifests, list):
        raise SyncError(f"{folder}: found image layout {one_line(str(version))}, expected 1.0.0 with manifests")
    return [one for one in manifests if isinstance(one, dict)]


def read_manifest(folder: Path, reference: str | None) -> Manifest:
    """Read the manifest with a reference; None: the only one.

    Raises:
        SyncError: there is no such manifest, there are several, or it is damaged.
    """
    found = [one for one in read_index(folder) if one.get("mediaType") == MANIFEST_TYPE]
    names = ", ".join(sorted(filter(None, map(_reference, found)))) or "none"
    chosen = [one for one in found if reference is None or _reference(one) == reference]
    if len(chosen) != 1:
        what = f"{reference!r} is not here" if reference else f"found {len(found)} artifacts, expected one"
        raise SyncError(f"{folder}: {what}; name one with --ref; the references here: {one_line(names)}")
    shown = parse(Descriptor, _json(chosen[0]), f"{folder / INDEX_NAME}: descriptor")
    path = blob_path(folder, shown.ref)
    if shown.size > LARGEST_MANIFEST_BYTES:
        raise SyncError(f"{path}: found a manifest of {shown.size} bytes, expected at most {LARGEST_MANIFEST_BYTES}")
    if wrong := file_mismatch(path, shown.ref.size, shown.ref.sha256):
        raise SyncError(f"{wrong}; copy the layout again")
    return parse(Manifest, _read(path), str(path))


def _reference(tree: dict[str, Any]) -> str:
    annotations = tree.get("annotations")
    return str(annotations.get(REFERENCE, "")) if isinstance(annotations, dict) else ""


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_MANIFEST_BYTES + 1)
    except OSError as error:
        raise SyncError(f"{path}: cannot read: {error.strerror}") from error


def _json(tree: Any) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()
