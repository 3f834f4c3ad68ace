"""A repository folder as it was before signatures: `edge-sync init --adopt` reads it once.

    release.json                        the release that devices should run; the only file a device reads by name
    releases/<sequence>.json            every release that was published, the newest one too; never changed
    bundles/<line>.json                 the newest bundle head, for people and tools
    galleries/<line>/<category>.json    the newest gallery heads, for people and tools
    objects/<aa>/<sha256>               immutable files named by their hash: heads, manifests, models, stores

A repository of finesight 0.x before the history has no `releases` folder. Once a repository is adopted, its unsigned
history is in `releases.unsigned`, and `releases` has the signed one. Nothing else reads or writes these files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge.durable import file_mismatch
from edge.errors import SyncError
from gallery_sync.formats.fields import LARGEST_DOCUMENT_BYTES, ObjectRef, object_path, parse, parse_bundle_manifest
from gallery_sync.formats.unsigned import RELEASE_NAME, BundleHead, Envelope, GalleryHead, Release

UNSIGNED_HISTORY = "releases.unsigned"


def history_folder(repo: Path) -> Path:
    """Return the folder of the history."""
    moved = repo / UNSIGNED_HISTORY
    return moved if moved.is_dir() else repo / "releases"


def read_release(repo: Path) -> Release | None:
    """Read the release of a repository folder; None if nothing was published.

    Raises:
        SyncError: the file is damaged or cannot be read.
    """
    return _read(repo / RELEASE_NAME)


def _read(path: Path) -> Release | None:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_DOCUMENT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SyncError(f"{path}: cannot read: {error.strerror}") from error
    if len(data) > LARGEST_DOCUMENT_BYTES:
        raise SyncError(f"{path}: larger than the limit of {LARGEST_DOCUMENT_BYTES} bytes")
    return parse(Envelope, data, str(path)).signed


def history_sequences(repo: Path) -> list[int]:
    """Return the sequence numbers of the files of the history, in order; they are not read yet."""
    stems = [path.stem for path in history_folder(repo).glob("*.json")]
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdecimal() and len(stem) < len(str(2**53)))


def read_history(repo: Path) -> Iterator[Release]:
    """Yield every readable release that was published, in order, without what an interrupted publishing left."""
    sequences = history_sequences(repo)
    try:
        newest = _read(repo / RELEASE_NAME)
        if newest is None and len(sequences) == 1:  # the first publishing was interrupted
            return
    except SyncError:
        newest = None
    for sequence in sequences:
        if newest is not None and sequence >= newest.sequence:
            break
        release = read_earlier(repo, sequence)
        if release is not None:
            yield release
    if newest is not None:
        yield newest


def read_earlier(repo: Path, sequence: int) -> Release | None:
    """Read a release of the history; None if it is missing, damaged or not of this number."""
    try:
        release = _read(history_folder(repo) / f"{sequence}.json")
    except SyncError:
        return None
    return release if release is not None and release.sequence == sequence else None


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


def read_bundle_head(repo: Path, release: Release) -> BundleHead:
    """Read the bundle head of a release.

    Raises:
        SyncError: it is missing, changed or invalid.
    """
    return parse(BundleHead, read_object(repo, release.bundle), "bundle head")


def check_release(repo: Path, release: Release) -> list[str]:
    """Return what is wrong with the objects of one release."""
    found: dict[str, str | None] = {}
    _check_release(repo, release, found)
    return [problem for problem in found.values() if problem]


def _check_release(repo: Path, release: Release, found: dict[str, str | None]) -> None:
    """Check every object of a release that was not checked before, as far as the documents that name them are whole."""

    def check(ref: ObjectRef, name: str) -> None:
        wrong = file_mismatch(repo / object_path(ref.sha256), ref.size, ref.sha256)
        found[ref.sha256] = f"{wrong}; it is {name} of release {release.sequence}" if wrong else None

    def read(ref: ObjectRef, name: str) -> bytes | None:
        check(ref, name)
        return None if found[ref.sha256] else read_object(repo, ref)

    try:
        if (data := read(release.bundle, "the bundle head")) is not None:
            head = parse(BundleHead, data, "bundle head")
            if (data := read(head.manifest, f"the manifest of bundle {head.bundle_id}")) is not None:
                for file in parse_bundle_manifest(data, f"bundle {head.bundle_id}").files:
                    check(ObjectRef(sha256=file.sha256, size=file.size), f"{file.path!r}")
    except SyncError as error:
        found[release.bundle.sha256] = f"{error}; in release {release.sequence}"
    for category, ref in release.gallery.heads.items():
        try:
            if (data := read(ref, f"the gallery head of {category!r}")) is not None:
                check(parse(GalleryHead, data, "gallery head").base, f"the gallery of {category!r}")
        except SyncError as error:
            found[ref.sha256] = f"{error}; it is the gallery head of {category!r} of release {release.sequence}"


def unsigned_objects(repo: Path) -> Iterator[ObjectRef]:
    """Yield the objects of the last unsigned release: devices that are not enrolled yet may still fetch it.

    Raises:
        SyncError: a document of it is damaged.
    """
    release = read_release(repo)
    if release is None:
        return
    head = read_bundle_head(repo, release)
    yield from (release.bundle, head.manifest, *release.gallery.heads.values())
    for file in parse_bundle_manifest(read_object(repo, head.manifest), f"bundle {head.bundle_id}").files:
        yield ObjectRef(sha256=file.sha256, size=file.size)
    for ref in release.gallery.heads.values():
        yield parse(GalleryHead, read_object(repo, ref), "gallery head").base
