"""Make the store of a later state of a category from an earlier one and segments.

Rules this module keeps:
1. A new file is written beside the old one, once the root is the signed one. Where it is not, or the disk fails,
   nothing is left behind and the old store serves on. What is deleted never enters the new file, see
   gallery_sync.gallery_log.new_store.
2. The root changes by the items that change. The rows of all others are copied as they are.
3. Every object is checked against its signed hash before it is parsed. Another category, embedding space or vector
   length is refused.

A store knows its state from its `meta` table: `log_sequence` and `log_root`, the state and its signed root;
`live_root`, the root of what it holds; `erased_to`, up to which sequence urgent deletions were applied on top.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import GalleryError, SyncError, one_line
from edge.gallery.store_file import open_store
from edge.gallery.store_rows import read_properties
from gallery_sync.formats.documents import Segment, SpaceLog
from gallery_sync.formats.fields import ObjectRef
from gallery_sync.gallery_log import live_root
from gallery_sync.gallery_log.new_store import write_store
from gallery_sync.gallery_log.records import Delete, Record, digest
from gallery_sync.gallery_log.replay import Replay, RootError, Step, StoreState
from gallery_sync.gallery_log.segment_file import MOST_BYTES, read_segment
from gallery_sync.gallery_log.states import Steps, check_log, roots_of
from gallery_sync.gallery_log.store_records import make_record

ReadObject = Callable[[ObjectRef], bytes]  # of the repository or of a cache; raises SyncError

_LOG_KEYS = "log_sequence", "log_root", "live_root", "erased_to"
_ITEM = "SELECT item_id, label, metadata, thumbnail, outline FROM items WHERE item_id = ? AND deleted = 0"
_MOST_HELD_BYTES = 1 << 30  # of all segments of one call


@dataclass(frozen=True, slots=True)
class Applied:
    """What changed in a store."""

    state: StoreState | None  # of the new store; None: it came from no log
    added: int  # items that were not there
    replaced: int
    deleted: int  # items that were there
    erased: tuple[str, ...]  # ids of those that urgent deletions took away


def read_state(path: Path) -> StoreState | None:
    """Return which state a store holds; None if it was made outside a log.

    Raises:
        GalleryError: the store is damaged.
    """
    with open_store(path) as store:
        return _state_of(read_properties(store, path)[0], path)


def _state_of(properties: dict[str, str], path: Path) -> StoreState | None:
    if "log_sequence" not in properties:
        return None
    numbers = [properties.get(key, "0") for key in ("log_sequence", "erased_to")]
    roots = [properties.get(key, "") for key in ("log_root", "live_root")]
    if not all(number.isdecimal() and number.isascii() and len(number) <= 16 for number in numbers) or not all(
        len(root) == len(live_root.EMPTY) and set(root) <= set("0123456789abcdef") for root in roots
    ):
        raise GalleryError(f"{path}: damaged store: its state in the gallery log is not readable; fetch a base again")
    return StoreState(int(numbers[0]), roots[0], roots[1], int(numbers[1]))


def apply_steps(
    store: Path, log: SpaceLog, steps: Steps, out: Path, read_object: ReadObject, *, category: str
) -> Applied:
    """Write the store of a later state.

    Args:
        store: the device's store of the earlier state, or the base where the steps name one.
        log: of the category in the embedding space of the store.
        steps: from gallery_sync.gallery_log.states.path_to.
        out: the file to write, which may not be `store`; see edge.gallery.store.new_store_path.
        read_object: gives the bytes of a segment; they are checked here.
        category: that the store must be of.

    Raises:
        SyncError: the store is of another category, space or fork of the log; a segment is damaged; a root differs from
            the signed one; or the disk failed.
        GalleryError: the store is damaged.
    """
    check_log(log)
    properties = _checked_properties(store, log, category)
    state = _first_state(store, properties, steps)
    regular, urgent = (_read_all(some, log, read_object) for some in (steps.segments, steps.urgent))
    ids = {record.item_id for _, records in (*regular, *urgent) for record in records}
    before = _digests(store, ids, sum(head.dim for head in log.heads))
    replay = Replay(state, before, [*regular, *urgent])
    for signed, records in regular:
        replay.apply(signed, records)
    replay.erase(urgent)
    _write(store, out, properties, replay.state, before, replay)
    return _applied(before, replay, replay.state)


def erase(store: Path, log: SpaceLog, out: Path, read_object: ReadObject, *, category: str) -> Applied | None:
    """Apply the deletions of all urgent segments later than the state of a store, on top of it; None: there are none.

    The store keeps its state: only `erased_to` and the items change. A store that was made outside a log loses the
    items of all urgent segments; None, if it has none of them.

    Raises:
        SyncError, GalleryError: as `apply_steps`.
    """
    check_log(log)
    properties = _checked_properties(store, log, category)
    state = _state_of(properties, store)
    after = max(state.sequence, state.erased_to) if state else 0
    urgent = tuple(one for one in log.segments if one.urgent and one.sequence > after)
    if state is None:
        steps = _read_all(urgent, log, read_object)
        ids = {record.item_id for _, records in steps for record in records if isinstance(record, Delete)}
        return erase_items(store, ids, urgent[-1].sequence, out) if ids & _ids_of(store) else None
    if not urgent:
        return None
    steps_on_top = Steps(state.sequence, None, (), urgent, roots_of(log).get(state.sequence))
    return apply_steps(store, log, steps_on_top, out, read_object, category=category)


def erase_items(store: Path, item_ids: Collection[str], sequence: int, out: Path) -> Applied:
    """Delete items on top of the state of a store, in whatever embedding space, also where its log is gone.

    Args:
        store: to begin with.
        item_ids: to delete, from signed urgent segments; those that are not there are ignored.
        sequence: gallery sequence of the newest of these segments.
        out: the file to write.

    Raises:
        SyncError: the state of the store is not older than the deletions, or the disk failed.
        GalleryError: the store is damaged.
    """
    with open_store(store) as opened:
        properties, heads = read_properties(opened, store)
    state = _state_of(properties, store)
    if state is not None and state.sequence >= sequence:
        raise SyncError(f"{store}: is at sequence {state.sequence}, which has the deletions up to {sequence} already")
    before = _digests(store, item_ids, sum(head.dim for head in heads))
    replay = Replay(state or StoreState(0, live_root.EMPTY, live_root.EMPTY), before, [])
    replay.erase_items(item_ids, sequence)
    state = replay.state if state else None
    _write(store, out, properties, state, before, replay)
    return _applied(before, replay, state)


def stamp(store: Path, sequence: int, out: Path) -> StoreState:
    """Write a store again as the state of a log at a sequence: what a publisher makes a base of.

    Items that were deleted leave it without a trace. The same items in the same order give the same bytes.

    Raises:
        GalleryError: the store is damaged.
        SyncError: the disk failed.
    """
    with open_store(store) as opened:
        properties, _ = read_properties(opened, store)
    root = live_root.of_store(store)
    state = StoreState(sequence, root, root)
    _write(store, out, properties, state, {}, Replay(state, {}, []))
    return state


def _checked_properties(path: Path, log: SpaceLog, category: str) -> dict[str, str]:
    """Return the properties of a store once it is known to be of this category and space."""
    with open_store(path) as store:
        properties, heads = read_properties(store, path)
    if properties.get("space_id") != log.space_id:
        raise SyncError(
            f"{path}: found embedding space {one_line(repr(properties.get('space_id')))}, expected {log.space_id}; "
            "vectors of two spaces cannot be mixed, also where they have the same length"
        )
    if heads != log.heads:
        raise SyncError(f"{path}: found other parts of a vector than the gallery log; publish the gallery again")
    if properties.get("category") != category:
        raise SyncError(f"{path}: found category {one_line(repr(properties.get('category')))}, expected {category!r}")
    return properties


def _first_state(path: Path, properties: dict[str, str], steps: Steps) -> StoreState:
    """Return the state of the store that the steps begin with; its root must be the signed one."""
    if steps.base is not None:
        if (found := live_root.of_store(path)) != steps.base.live_root:
            raise SyncError(
                f"{path}: the base has live root {found}, expected {steps.base.live_root}; publish the gallery again"
            )
        return StoreState(steps.base.sequence, found, found)
    state = _state_of(properties, path)
    if state is None:
        raise RootError(f"{path}: the store came from no gallery log, so segments cannot change it; fetch a base")
    first = steps.segments[0].after if steps.segments else steps.sequence
    if state.sequence != first:
        raise RootError(f"{path}: found the state at sequence {state.sequence}, expected {first}; plan again")
    if state.is_exact and state.live_root != state.log_root:
        raise RootError(f"{path}: its live root differs from that of its state; fetch a base")
    if steps.start_root not in (None, state.log_root):
        raise RootError(
            f"{path}: at sequence {state.sequence} the store has root {state.log_root}, and the gallery log says "
            f"{steps.start_root}: the log is another one, or was forked; ask who publishes it, or fetch a base"
        )
    return state


def _read_all(segments: Sequence[Segment], log: SpaceLog, read_object: ReadObject) -> list[Step]:
    if (size := sum(one.object.size for one in segments)) > _MOST_HELD_BYTES:
        raise SyncError(f"found segments of {size} bytes, expected at most {_MOST_HELD_BYTES}; begin with a base")
    return [(one, _read(one, log, read_object)) for one in segments]


def _read(signed: Segment, log: SpaceLog, read_object: ReadObject) -> tuple[Record, ...]:
    """Return the records of a segment once its bytes are the signed ones."""
    where = f"segment {signed.sequence}"
    if signed.object.size > MOST_BYTES:
        raise SyncError(f"{where}: found {signed.object.size} bytes, expected at most {MOST_BYTES}")
    data = read_object(signed.object)
    if len(data) != signed.object.size or hashlib.sha256(data).hexdigest() != signed.object.sha256:
        raise SyncError(f"{where}: its bytes are not the signed ones; fetch it again")
    found = read_segment(data, where)
    dim = sum(head.dim for head in log.heads)
    if (found.space_id, found.dim) != (log.space_id, dim):
        raise SyncError(
            f"{where}: found embedding space {found.space_id} with {found.dim} numbers, expected {log.space_id} with "
            f"{dim}"
        )
    if (found.upserts, found.deletes) != (signed.upserts, signed.deletes):
        raise SyncError(
            f"{where}: found {found.upserts} changed and {found.deletes} deleted items, expected {signed.upserts} and "
            f"{signed.deletes}"
        )
    return found.records


def _ids_of(path: Path) -> set[str]:
    with open_store(path) as store:
        return {str(item_id) for (item_id,) in store.execute("SELECT item_id FROM items WHERE deleted = 0")}


def _digests(path: Path, ids: Collection[str], dim: int) -> dict[str, int]:
    """Return the digest of each of some items of a store that are there; reads the table of vectors once."""
    if not ids:
        return {}
    items: dict[str, tuple[Any, ...]] = {}
    vectors: dict[str, list[tuple[Any, Any]]] = {}
    with open_store(path) as store:
        for item_id in ids:
            row = store.execute(_ITEM, (item_id,)).fetchone()
            if row is not None:
                items[item_id] = row
        for item_id, vector, scale in store.execute("SELECT item_id, vector, scale FROM vectors ORDER BY row"):
            if item_id in items:
                vectors.setdefault(item_id, []).append((vector, scale))
    return {key: digest(make_record(item, vectors.get(key, []), dim, path)) for key, item in items.items()}


def _applied(before: dict[str, int], replay: Replay, state: StoreState | None) -> Applied:
    gone = [item_id for item_id in before if item_id not in replay.now]
    replaced = [item_id for item_id in replay.upserts if replay.now[item_id] != before.get(item_id)]
    added = [item_id for item_id in replaced if item_id not in before]
    return Applied(state, len(added), len(replaced) - len(added), len(gone), tuple(replay.erased))


def _write(
    store: Path,
    out: Path,
    properties: Mapping[str, str],
    state: StoreState | None,
    before: Mapping[str, int],
    replay: Replay,
) -> None:
    """Write the new store with its state; None: it is from no log."""
    said = {key: value for key, value in properties.items() if key not in _LOG_KEYS}
    if state is not None:
        said |= {"log_sequence": str(state.sequence), "log_root": state.log_root, "live_root": state.live_root}
        said |= {"erased_to": str(state.erased_to)} if state.erased_to else {}
    leave = [key for key in before if replay.now.get(key) != before[key]]
    enter = [record for key, record in replay.upserts.items() if replay.now[key] != before.get(key)]
    write_store(store, out, said, leave, enter)
