"""Makes the next gallery logs: what changed of each category since its newest state, as a segment or as a new base.

Rules this module keeps:
1. Objects are stored before a log names them. A log that did not change is not returned.
2. The root of a new state is computed from its items, and a log names the one before it.
3. A new embedding space begins with a base of its own. The states of other spaces stay, for bundles that search them.
4. A log keeps every state that a release of the promised offline window names, and the segments that lead on from it.
5. A state that cannot be made any more, because an object is damaged, is replaced by a new base of the newest state.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from edge.errors import GalleryError, SyncError
from edge.gallery.generation import Gallery
from edge.gallery.store import describe_store, store_path
from edge.manifest.manifest import Manifest
from gallery_sync.formats.documents import (
    MOST_BASES,
    MOST_SEGMENTS,
    MOST_SPACES,
    Base,
    GalleryLog,
    Segment,
    SpaceLog,
)
from gallery_sync.formats.fields import LARGEST_SEQUENCE, ObjectRef, object_path
from gallery_sync.gallery_log import changes as store_changes
from gallery_sync.gallery_log import live_root
from gallery_sync.gallery_log.apply import apply_steps, stamp
from gallery_sync.gallery_log.records import Delete, Record, Upsert, digest
from gallery_sync.gallery_log.segment_file import write_segment
from gallery_sync.gallery_log.states import Steps, needs_base, path_to, roots_of
from gallery_sync.gallery_log.store_records import read_records
from gallery_sync.repository.folder import object_problem, read_object, store_bytes, store_file
from gallery_sync.repository.pairs import keep_from, space_for
from gallery_sync.repository.published import Published, log_path

log = logging.getLogger(__name__)

SpaceRecords = Mapping[str, Sequence[Record]]  # by embedding space


@dataclass(frozen=True, slots=True)
class _Work:
    """Makes the next state of a category."""

    repo: Path
    category: str
    sequence: int  # gallery sequence of the new state
    scratch: Path  # folder for files that are not kept
    urgent: bool = False


def logs_from_gallery(
    published: Published, gallery: Gallery, manifest: Manifest, sequence: int, now: datetime
) -> dict[str, GalleryLog]:
    """Store what a gallery changes, and return the logs that change, by category.

    Items of a category that the gallery lacks are deleted.

    Args:
        published: what the repository has now.
        gallery: all stores, verified.
        manifest: of the bundle that it is published with.
        sequence: gallery sequence of new states.
        now: the time, in UTC.

    Raises:
        GalleryError: a store is damaged.
        SyncError: a store does not fit the log of its category.
        OSError: the disk failed.
    """
    found: dict[str, GalleryLog] = {}
    with tempfile.TemporaryDirectory(prefix="finesight-publish-") as folder:
        for category, entry in gallery.categories.items():
            work = _Work(published.repo, category, sequence, Path(folder))
            _collect(found, published, work, entry.space_id, partial(_space_of_store, work, gallery), now)
        for category in published.logs.keys() - gallery.categories.keys():
            work = _Work(published.repo, category, sequence, Path(folder))
            space = _searched_space(published.logs[category], manifest)
            if space is not None and newest_root(space) != live_root.EMPTY:
                _collect(found, published, work, space.space_id, partial(_space_without_items, work), now)
    return found


def changed_logs(
    published: Published, changes: Mapping[str, SpaceRecords], sequence: int, now: datetime, *, urgent: bool
) -> dict[str, GalleryLog]:
    """Store changes of some items, and return the logs that change, by category.

    Args:
        published: what the repository has now.
        changes: by category and embedding space.
        sequence: gallery sequence of new states.
        now: the time, in UTC.
        urgent: devices apply the deletions at once.

    Raises:
        SyncError: there is no such category or space, a change breaks a limit, or an object is damaged.
        OSError: the disk failed.
    """
    found: dict[str, GalleryLog] = {}
    with tempfile.TemporaryDirectory(prefix="finesight-publish-") as folder:
        for category, spaces in changes.items():
            work = _Work(published.repo, category, sequence, Path(folder), urgent)
            one = published.logs.get(category)
            for space_id, records in spaces.items():
                if one is None or one.space(space_id) is None:
                    raise SyncError(
                        f"category {category[:80]!r} has no gallery in embedding space {space_id}; publish it first"
                    )
                _collect(found, published, work, space_id, partial(_space_of_records, work, records), now)
    return found


def make_store(repo: Path, category: str, space: SpaceLog, sequence: int, out: Path) -> Path:
    """Make the store of a state, and return where it is: at `out`, or the object of a base that is this state.

    Raises:
        SyncError: an object is missing or damaged, or the log has no such state.
        GalleryError: a store is damaged.
    """
    steps = path_to(space, None, sequence)
    assert steps.base is not None
    if wrong := object_problem(repo, steps.base.object):
        raise SyncError(wrong)
    base = repo / object_path(steps.base.object.sha256)
    if not steps.segments and not steps.urgent:
        return base
    apply_steps(base, space, steps, out, partial(read_object, repo), category=category)
    return out


def newest_sequence(space: SpaceLog) -> int:
    """Return the sequence of the newest state."""
    return max(space.bases[-1].sequence, space.segments[-1].sequence if space.segments else 0)


def newest_root(space: SpaceLog) -> str:
    """Return the signed root of the newest state."""
    return roots_of(space)[newest_sequence(space)]


def _collect(
    found: dict[str, GalleryLog],
    published: Published,
    work: _Work,
    space_id: str,
    make: Callable[[SpaceLog | None], SpaceLog | None],
    now: datetime,
) -> None:
    """Put the next log of a category among those that were found, if one of its spaces changes."""
    category = work.category
    before = found.get(category) or published.logs.get(category)
    new = make(before.space(space_id) if before else None)
    if new is None:
        return
    oldest = keep_from(published, now)
    spaces = [trim(space, oldest) for space in (before.spaces if before else []) if space.space_id != space_id]
    kept = [*sorted(spaces, key=newest_sequence), trim(new, oldest)]
    if len(kept) > MOST_SPACES:
        log.warning("category %r: its gallery in embedding space %s is given up", category, kept[0].space_id)
    found[category] = GalleryLog(
        line=published.line,
        category=category,
        sequence=max(newest_sequence(space) for space in kept),
        previous=published.log_hashes.get(log_path(published.line, category)),
        spaces=kept[-MOST_SPACES:],
    )


def trim(space: SpaceLog, oldest: int) -> SpaceLog:
    """Return the states of a space without those before the state at a gallery sequence.

    Where there are more than a document holds, more of the oldest are left out.
    """
    first = max((number for number, base in enumerate(space.bases) if base.sequence <= oldest), default=0)
    bases = list(space.bases[first:])
    while len(bases) > MOST_BASES:
        del bases[1]
    segments = [one for one in space.segments if one.sequence > bases[0].sequence]
    while len(segments) > MOST_SEGMENTS and len(bases) > 1:
        log.warning("embedding space %s: states before gallery %s are given up", space.space_id, bases[1].sequence)
        del bases[0]
        segments = [one for one in segments if one.sequence > bases[0].sequence]
    return space.model_copy(update={"bases": bases, "segments": segments})


def _searched_space(one: GalleryLog, manifest: Manifest) -> SpaceLog | None:
    """Return the states that a bundle searches; of a category that it does not know, those that changed last."""
    embedder = manifest.embedder_for(one.category)
    if embedder is not None:
        return space_for(embedder, one, LARGEST_SEQUENCE)
    return max(one.spaces, key=newest_sequence, default=None)


def _space_of_store(work: _Work, gallery: Gallery, before: SpaceLog | None) -> SpaceLog | None:
    """Return the states of a space with that of a store as the newest one; None if it is that already, and whole."""
    path, entry = gallery.path(work.category), gallery.categories[work.category]
    root = live_root.of_store(path)
    if before is not None and newest_root(before) == root:
        return _repaired(work, path, before)
    base = partial(_base, work, path, work.sequence)
    if before is None or before.heads != entry.heads:
        return SpaceLog(space_id=entry.space_id, heads=entry.heads, bases=[base()], segments=[])
    try:
        old = make_store(work.repo, work.category, before, LARGEST_SEQUENCE, work.scratch / "old")
        records = list(store_changes.between(old, path))
    except (SyncError, GalleryError) as error:
        log.warning("category %r: %s; its gallery begins again with a whole base", work.category, error)
        return before.model_copy(update={"bases": [base()], "segments": []})
    return _appended(work, before, records, root, base)


def _space_without_items(work: _Work, before: SpaceLog | None) -> SpaceLog | None:
    """Return the states of a space with an empty one as the newest."""
    if before is None:
        return None
    old = make_store(work.repo, work.category, before, LARGEST_SEQUENCE, work.scratch / "old")
    records = [Delete(record.item_id) for record in read_records(old)]
    return _with_records(work, before, old, records, live_root.EMPTY)


def _space_of_records(work: _Work, records: Sequence[Record], before: SpaceLog | None) -> SpaceLog | None:
    """Return the states of a space after changes of some items; None if they change nothing."""
    if before is None:
        return None
    old = make_store(work.repo, work.category, before, LARGEST_SEQUENCE, work.scratch / "old")
    needed, root = _effect(old, records, newest_root(before), urgent=work.urgent)
    return _with_records(work, before, old, needed, root) if needed else None


def _effect(store: Path, records: Sequence[Record], root: str, *, urgent: bool) -> tuple[list[Record], str]:
    """Return the records that change a store, and its live root after them.

    An urgent deletion is kept also where the item is gone: an earlier state on a device may have it.
    """
    wanted = {record.item_id for record in records}
    held = {one.item_id: digest(one) for one in read_records(store) if one.item_id in wanted}
    number = live_root.root_number(root)
    needed: list[Record] = []
    for record in records:
        before = held.get(record.item_id)
        after = digest(record) if isinstance(record, Upsert) else None
        if before != after or (urgent and isinstance(record, Delete)):
            needed.append(record)
            number += (after or 0) - (before or 0)
    return needed, live_root.root_text(number)


def _with_records(work: _Work, before: SpaceLog, old: Path, records: Sequence[Record], root: str) -> SpaceLog:
    """Return the states of a space after records; where a base is due, it is made as a device makes the store."""

    def base() -> Base:
        segment = _segment(work, before, records, root)
        whole = before.model_copy(update={"segments": [*before.segments, segment]})
        steps = Steps(work.sequence, None, (segment,), (), newest_root(before))
        new = work.scratch / "new"
        apply_steps(old, whole, steps, new, partial(read_object, work.repo), category=work.category)
        return _base(work, new, work.sequence)

    return _appended(work, before, records, root, base)


def _appended(
    work: _Work, before: SpaceLog, records: Sequence[Record], root: str, base: Callable[[], Base]
) -> SpaceLog:
    """Return the states of a space with a new one: a segment, a base, or both where a base is due."""
    try:
        segment = _segment(work, before, records, root)
    except SyncError as error:
        if work.urgent:
            raise
        log.warning("category %r: %s", work.category, error)
        return before.model_copy(update={"bases": [*before.bases, base()]})
    update: dict[str, object] = {"segments": [*before.segments, segment]}
    if needs_base(before, segment.deletes):
        update["bases"] = [*before.bases, base()]
    return before.model_copy(update=update)


def _segment(work: _Work, before: SpaceLog, records: Sequence[Record], root: str) -> Segment:
    data = write_segment(records, before.space_id, sum(head.dim for head in before.heads))
    deletes = sum(isinstance(record, Delete) for record in records)
    return Segment(
        after=newest_sequence(before),
        sequence=work.sequence,
        object=store_bytes(work.repo, data),
        live_root=root,
        upserts=len(records) - deletes,
        deletes=deletes,
        urgent=work.urgent,
    )


def _base(work: _Work, store: Path, sequence: int) -> Base:
    """Store a whole store as the base of a state."""
    folder = work.scratch / "base"
    folder.mkdir(exist_ok=True)
    out = store_path(folder, work.category)
    try:
        state = stamp(store, sequence, out)
        entry = describe_store(out)[1]
        ref = ObjectRef(sha256=entry.sha256, size=entry.size)
        store_file(work.repo, out, ref)
    finally:
        out.unlink(missing_ok=True)
    return Base(sequence=sequence, object=ref, live_root=state.live_root, items=entry.items, vectors=entry.vectors)


def _repaired(work: _Work, store: Path, before: SpaceLog) -> SpaceLog | None:
    """Return the states of a space with a whole base of the newest one, if an object was damaged; else None."""
    refs = [*(one.object for one in before.bases), *(one.object for one in before.segments)]
    if not any(object_problem(work.repo, ref) for ref in refs):
        return None
    newest = newest_sequence(before)
    base = _base(work, store, newest)
    if not any(object_problem(work.repo, ref) for ref in refs):
        return None
    log.warning("category %r: its gallery is repaired with a whole base of gallery %s", work.category, newest)
    return before.model_copy(update={"bases": [base], "segments": []})
