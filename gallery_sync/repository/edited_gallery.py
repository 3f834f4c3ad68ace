"""Which state of the gallery an edit changes, and how the log goes on from it.

A gallery log is linear: each state follows the newest one. After the releases went back to an earlier state, an edit
therefore also takes the changes in between back, in the same release.

Rules this module keeps:
1. An edit changes what devices have or are about to get: the newest gallery of the releases in use.
2. What was deleted urgently does not come back.
3. A category that searches another embedding space than it did then is not edited: only a whole gallery makes it so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge.errors import SyncError
from edge.manifest.manifest import Manifest
from gallery_sync.formats.documents import GalleryLog, Release, SpaceLog
from gallery_sync.formats.fields import LARGEST_SEQUENCE
from gallery_sync.gallery_log import changes as store_changes
from gallery_sync.gallery_log.records import Delete, Record
from gallery_sync.gallery_log.states import roots_of, state_at
from gallery_sync.gallery_log.store_records import read_records
from gallery_sync.repository.galleries import SpaceRecords, make_store
from gallery_sync.repository.pairs import is_ahead, space_for
from gallery_sync.repository.published import Published


def edited_sequence(published: Published) -> int:
    """Return the gallery sequence whose items an edit changes."""
    reached = max((one.gallery_sequence for one in leading(published)), default=0)
    return reached if is_ahead(published.logs, reached) else LARGEST_SEQUENCE


def leading(published: Published) -> list[Release]:
    """Return the releases that an edit goes on from. One at which devices are only pinned is none."""
    found, rollouts = [*filter(None, [published.release])], published.rollouts
    if rollouts is not None:
        found += [*(one.release for one in rollouts.groups), *rollouts.held]
        found += [rollouts.plan.release] if rollouts.plan else []
    return found


def on_top(published: Published, manifest: Manifest, changes: Mapping[str, SpaceRecords]) -> dict[str, SpaceRecords]:
    """Return the changes that make the newest gallery the edited one with some changes.

    Args:
        published: what the repository has now.
        manifest: of the bundle that is published with the result.
        changes: by category and embedding space.

    Raises:
        SyncError: a category is searched in another embedding space since, or an object is damaged.
        GalleryError: a store is damaged.
    """
    reached = edited_sequence(published)
    found: dict[str, dict[str, Sequence[Record]]] = {one: dict(spaces) for one, spaces in changes.items()}
    if reached == LARGEST_SEQUENCE:
        return dict(found)
    for category, log in published.logs.items():
        _check_space(manifest, log, reached)
        for space in log.spaces:
            if max(roots_of(space)) <= reached:
                continue
            back = {record.item_id: record for record in _taken_back(published, log, space, reached)}
            wanted = found.get(category, {}).get(space.space_id, ())
            back |= {record.item_id: record for record in wanted}
            if back:
                found.setdefault(category, {})[space.space_id] = list(back.values())
    return dict(found)


def _check_space(manifest: Manifest, log: GalleryLog, reached: int) -> None:
    embedder = manifest.embedder_for(log.category)
    if embedder is None:
        return
    then, now = (space_for(embedder, log, sequence) for sequence in (reached, LARGEST_SEQUENCE))
    if then is not None and now is not None and then.space_id != now.space_id:
        raise SyncError(
            f"category {log.category[:80]!r}: the newest release went back to gallery {reached}, and a newer one has "
            "this category in another embedding space; publish a whole gallery folder: edge-sync publish --gallery"
        )


def _taken_back(published: Published, log: GalleryLog, space: SpaceLog, reached: int) -> list[Record]:
    """Return the records that make the newest state of a space the one at a sequence again, or an empty one."""
    with tempfile.TemporaryDirectory(prefix="finesight-gallery-") as folder:
        newest = make_store(published.repo, log.category, space, LARGEST_SEQUENCE, Path(folder) / "newest")
        if state_at(space, reached) is None:
            return [Delete(record.item_id) for record in read_records(newest)]
        then = make_store(published.repo, log.category, space, reached, Path(folder) / "then")
        return list(store_changes.between(newest, then))
