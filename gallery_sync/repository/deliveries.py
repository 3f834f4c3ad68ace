"""Smaller objects from which devices make the files of a bundle: compressed, or the difference to an earlier one.

Rules this module keeps:
1. A delivery is published only where it saves enough bytes; the whole file is always an object, too.
2. A difference is taken to the file at the same path in one of the last few bundles, which a device probably runs.
3. Deliveries that exist and are whole are not made again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge.errors import SyncError
from edge.manifest.manifest import Manifest
from gallery_sync.formats.documents import MOST_DELIVERIES, Delivery
from gallery_sync.formats.fields import ObjectRef, object_path
from gallery_sync.repository.folder import object_problem, read_manifest, store_bytes
from gallery_sync.repository.published import Published

log = logging.getLogger(__name__)

EARLIER_BUNDLES = 3  # to which differences are made
_Known = dict[tuple[str, str, str | None], Delivery]  # by hash of the file, method and base
_LARGEST_BYTES = 1 << 30  # of a file that is compressed or compared in memory
_SMALLEST_BYTES = 1 << 10  # of a file that is worth an object of its own
_WORTH_COMPRESSING = 0.95  # of the whole file
_WORTH_COMPARING = 0.7  # of the whole or compressed file


def earlier_manifests(published: Published, manifest: Manifest) -> list[Manifest]:
    """Return the manifests of the last few bundles before one, the newest first."""
    found: list[Manifest] = []
    earlier = [head for head in published.heads.values() if head.sequence < manifest.sequence]
    for head in sorted(earlier, key=lambda one: one.sequence, reverse=True)[:EARLIER_BUNDLES]:
        try:
            found.append(read_manifest(published.repo, head))
        except SyncError as error:
            log.warning("%s; no difference to bundle %s is published", error, head.bundle_id)
    return found


def make_deliveries(
    repo: Path, manifest: Manifest, earlier: Sequence[Manifest], known: Sequence[Delivery]
) -> list[Delivery]:
    """Store the deliveries of a bundle whose files are objects already.

    Args:
        repo: the repository folder.
        manifest: of the bundle.
        earlier: manifests of the last bundles, the newest first.
        known: deliveries that may be used again if their objects are whole.

    Raises:
        OSError: the disk failed.
    """
    whole: _Known = {
        (one.file, one.method, one.base): one
        for one in known
        if one.base is None or object_problem(repo, one.object) is None
    }
    found: _Known = {}
    for file in manifest.files:
        ref = ObjectRef(sha256=file.sha256, size=file.size)
        if not _SMALLEST_BYTES <= ref.size <= _LARGEST_BYTES or (ref.sha256, "zstd", None) in found:
            continue
        compressed = _compressed(repo, ref, whole)
        smallest = ref.size
        if compressed is not None:
            found[ref.sha256, "zstd", None] = compressed
            smallest = compressed.object.size
        for base in _bases(file.path, ref, earlier[:EARLIER_BUNDLES]):
            residual = _residual(repo, base, ref, smallest, whole)
            if residual is not None:
                found[ref.sha256, "residual", base.sha256] = residual
    return list(found.values())[:MOST_DELIVERIES]


def _bases(path: str, target: ObjectRef, earlier: Sequence[Manifest]) -> Iterator[ObjectRef]:
    """Yield the other files that were at a path, the newest first, each once."""
    seen = {target.sha256}
    for manifest in earlier:
        for file in manifest.files:
            if file.path == path and file.sha256 not in seen and file.size <= _LARGEST_BYTES:
                seen.add(file.sha256)
                yield ObjectRef(sha256=file.sha256, size=file.size)


def _compressed(repo: Path, ref: ObjectRef, whole: _Known) -> Delivery | None:
    from gallery_sync.transport.compressed import make_zstd

    known = whole.get((ref.sha256, "zstd", None))
    if known is not None and object_problem(repo, known.object) is None:
        return known
    data = make_zstd((repo / object_path(ref.sha256)).read_bytes())
    if len(data) > ref.size * _WORTH_COMPRESSING:
        return None
    return Delivery(file=ref.sha256, method="zstd", object=store_bytes(repo, data))


def _residual(
    repo: Path,
    base: ObjectRef,
    ref: ObjectRef,
    smallest: int,
    whole: _Known,
) -> Delivery | None:
    from gallery_sync.transport.compressed import make_residual

    known = whole.get((ref.sha256, "residual", base.sha256))
    if known is not None:
        return known
    if object_problem(repo, base) is not None:
        log.warning("%s: object %s is not whole; no difference to it is published", repo, base.sha256)
        return None
    data = make_residual((repo / object_path(base.sha256)).read_bytes(), (repo / object_path(ref.sha256)).read_bytes())
    if len(data) > smallest * _WORTH_COMPARING:
        return None
    return Delivery(file=ref.sha256, method="residual", base=base.sha256, object=store_bytes(repo, data))
