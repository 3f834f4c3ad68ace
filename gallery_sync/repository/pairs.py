"""Judges pairs of a bundle and a gallery that were published: is everything still there that a device would fetch?

Rules this module keeps:
1. Every object is hashed; a size or a date proves nothing.
2. An object that several pairs share is hashed once.
3. A pair within the promised offline window, or in use, is kept whole. Another may have lost states of its galleries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import zip_longest
from pathlib import Path

from edge.errors import BundleError, SyncError
from edge.manifest.embedder import EmbedderModel
from edge.manifest.manifest import Manifest
from gallery_sync.formats.documents import BundleHead, GalleryLog, Release, SpaceLog
from gallery_sync.formats.fields import ObjectRef
from gallery_sync.repository.folder import object_problem, read_manifest
from gallery_sync.repository.published import Published


@dataclass(slots=True)
class Checked:
    """The objects that were hashed."""

    repo: Path
    problems: dict[str, str | None] = field(default_factory=dict)  # by hash; None: whole

    def check(self, ref: ObjectRef, name: str) -> bool:
        """Hash an object that was not hashed before; return whether it is whole."""
        if ref.sha256 not in self.problems:
            wrong = object_problem(self.repo, ref)
            self.problems[ref.sha256] = f"{wrong}; it is {name}" if wrong else None
        return self.problems[ref.sha256] is None

    @property
    def whole(self) -> int:
        """How many are whole."""
        return sum(problem is None for problem in self.problems.values())

    @property
    def wrong(self) -> list[str]:
        """What is wrong with the others."""
        return [problem for problem in self.problems.values() if problem]


def check_bundle(checked: Checked, head: BundleHead, *, deliveries: bool) -> Manifest | None:
    """Hash the objects of a bundle; return its manifest if that is whole."""
    if not checked.check(head.manifest, f"the manifest of bundle {head.bundle_id}"):
        return None
    try:
        manifest = read_manifest(checked.repo, head)
    except SyncError as error:
        checked.problems[head.manifest.sha256] = str(error)
        return None
    for file in manifest.files:
        checked.check(ObjectRef(sha256=file.sha256, size=file.size), f"{file.path!r} of bundle {head.bundle_id}")
    for delivery in head.deliveries if deliveries else ():
        checked.check(delivery.object, f"a {delivery.method} delivery of bundle {head.bundle_id}")
    return manifest


def check_state(checked: Checked, category: str, space: SpaceLog, gallery_sequence: int) -> None:
    """Hash the objects from which a device makes a category at a gallery sequence."""
    base = [one for one in space.bases if one.sequence <= gallery_sequence][-1]
    checked.check(base.object, f"gallery {base.sequence} of category {category!r}")
    for segment in space.segments:
        if segment.after >= base.sequence and (segment.sequence <= gallery_sequence or segment.urgent):
            checked.check(segment.object, f"the change to gallery {segment.sequence} of category {category!r}")


def check_pair(checked: Checked, published: Published, head: BundleHead, gallery_sequence: int) -> None:
    """Hash all objects of a pair; `checked` then has what is wrong."""
    manifest = check_bundle(checked, head, deliveries=False)
    for category, log in published.logs.items() if manifest else ():
        embedder = manifest.embedder_for(category) if manifest else None
        space = space_for(embedder, log, gallery_sequence) if embedder else None
        if space is not None:
            check_state(checked, category, space, gallery_sequence)


def accepts(embedder: EmbedderModel, category: str, space_id: str) -> bool:
    """Return whether a bundle searches a gallery of an embedding space."""
    return space_id == embedder.space_id or embedder.compatible_gallery(category, space_id) is not None


def space_for(embedder: EmbedderModel, log: GalleryLog, gallery_sequence: int) -> SpaceLog | None:
    """Return the states of a category that a device with a bundle takes; None if it has none at this sequence."""
    declared = [one.space_id for one in embedder.compatible if one.category == log.category]
    for space_id in (embedder.space_id, *declared):
        space = log.space(space_id)
        if space is not None and space.bases[0].sequence <= gallery_sequence:
            return space
    return None


def gallery_from(manifest: Manifest, logs: Mapping[str, GalleryLog]) -> int:
    """Return the smallest gallery sequence at which each category is in a space that the bundle searches."""
    least = 0
    for category, one in logs.items():
        embedder = manifest.embedder_for(category)
        if embedder is None:
            continue
        firsts = {space.space_id: space.bases[0].sequence for space in one.spaces}
        good = [first for space_id, first in firsts.items() if accepts(embedder, category, space_id)]
        if good and min(firsts.values()) < min(good):
            least = max(least, min(good))
    return least


def check_spaces(manifest: Manifest, logs: Mapping[str, GalleryLog], gallery_sequence: int) -> None:
    """Check that the bundle searches each category that has a gallery at a sequence.

    Raises:
        BundleError: it does not.
    """
    for category, one in logs.items():
        embedder = manifest.embedder_for(category)
        spaces = [space.space_id for space in one.spaces if space.bases[0].sequence <= gallery_sequence]
        if embedder and spaces and not any(accepts(embedder, category, space_id) for space_id in spaces):
            raise BundleError(
                f"category {category!r}: found its gallery in embedding space {spaces[-1]}, expected "
                f"{embedder.space_id} of bundle {manifest.bundle_id}; embed the gallery with this bundle's embedder, "
                "and publish both"
            )


def is_ahead(logs: Mapping[str, GalleryLog], gallery_sequence: int) -> bool:
    """Return whether there are changes after a gallery sequence, beside urgent deletions, which it has anyway."""
    for log in logs.values():
        for space in log.spaces:
            urgent = {segment.sequence for segment in space.segments if segment.urgent}
            states = {one.sequence for one in space.bases} | {one.sequence for one in space.segments}
            if any(state > gallery_sequence for state in states - urgent):
                return True
    return False


def trimmed_categories(published: Published, release: Release, now: datetime) -> list[str]:
    """Return the categories whose state at an old release may be gone; none of a release in the offline window."""
    if any(one.sequence == release.sequence for one in window_releases(published, now)):
        return []
    return [
        category
        for category, log in published.logs.items()
        if log.spaces and min(space.bases[0].sequence for space in log.spaces) > release.gallery_sequence
    ]


def window_releases(published: Published, now: datetime) -> Iterator[Release]:
    """Yield the releases in use, and those that were the newest one within the promised offline window."""
    in_use = {release.sequence for release in published.in_use}
    start = now - timedelta(days=published.offline_days)
    numbers = sorted(published.history)
    for number, following in zip_longest(numbers, numbers[1:]):
        release = published.history[number]
        later = published.history.get(following) if following is not None else None
        replaced_at = time_of(later.created_at) if later is not None else None
        if release is not None and (number in in_use or replaced_at is None or replaced_at >= start):
            yield release


def time_of(text: str) -> datetime | None:
    """Return the time that a document tells; None if it is no time."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def keep_from(published: Published, now: datetime) -> int:
    """Return the oldest gallery sequence that a release of the offline window names: logs keep it."""
    return min((release.gallery_sequence for release in window_releases(published, now)), default=0)
