"""Stores that follow a log: exact, in one step, and nothing left of what was erased."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.durable import sha256_of
from edge.errors import GalleryError, SyncError
from edge.gallery.generation import write_gallery_index
from edge.gallery.store import describe_store, iterate_category, read_category, read_thumbnails
from edge.gallery.writer import GalleryWriter
from gallery_sync.gallery_log import live_root, new_store
from gallery_sync.gallery_log.apply import apply_steps, erase, erase_items, read_state, stamp
from gallery_sync.gallery_log.records import encode
from gallery_sync.gallery_log.replay import RootError
from gallery_sync.gallery_log.segment_file import write_segment
from gallery_sync.gallery_log.states import Steps, path_to
from gallery_sync.gallery_log.store_records import read_records
from tests.gallery_sync.gallery_log.log_samples import DIM, Device, Publisher, delete, upsert, write_store
from tests.store_samples import HEADS, SPACE

FIRST = [upsert(name) for name in ("a", "b", "c", "d")]


@pytest.fixture
def publisher(tmp_path):
    return Publisher(tmp_path / "server", FIRST)


@pytest.fixture
def device(tmp_path, publisher):
    """A device with the first state."""
    device = Device(tmp_path / "device", publisher)
    device.go_to(1)
    return device


def is_whole(device):
    """The store holds exactly what the publisher has, and every reader takes it."""
    items = device.publisher.items
    category, entry = describe_store(device.store)
    assert category == "tyre"
    assert entry.items == len(items)
    assert entry.live_root == device.publisher.root == live_root.of_store(device.store)
    assert {one.item_id: encode(one) for one in read_records(device.store)} == {
        item_id: encode(one) for item_id, one in items.items()
    }
    read_category(device.store, SPACE, DIM, entry)
    assert sum(len(some.item_ids) for some in iterate_category(device.store, SPACE, DIM, entry)) == len(items)
    return True


def test_base_is_kept_as_a_state(device):
    state = read_state(device.store)
    assert state is not None
    assert (state.sequence, state.live_root, state.log_root, state.erased_to) == (1, *[device.publisher.root] * 2, 0)
    assert is_whole(device)


def test_upserts_and_deletes(device, publisher):
    publisher.change(upsert("b", "Renamed"), upsert("new"), *delete("c"))
    applied = device.go_to(2)
    assert (applied.added, applied.replaced, applied.deleted, applied.erased) == (1, 1, 1, ())
    assert device.labels == {"a": "Item a", "d": "Item d", "b": "Renamed", "new": "Item new"}
    assert is_whole(device)


def test_many_segments_in_one_step(device, publisher):
    publisher.change(upsert("e"), *delete("a"))
    publisher.change(upsert("a", "Again"), *delete("e"))
    publisher.change(upsert("a", "Once more"))
    device.go_to(9)
    assert device.have == 4
    assert device.labels["a"] == "Once more"
    assert is_whole(device)


def test_same_way_gives_the_same_bytes(tmp_path, publisher):
    publisher.change(upsert("e"), *delete("a"))
    devices = [Device(tmp_path / name, publisher) for name in "xy"]
    for device in devices:
        device.go_to(1)
        device.go_to(2)
    assert sha256_of(devices[0].store) == sha256_of(devices[1].store)


def test_g2_tombstone_of_an_unknown_id_changes_nothing(device, publisher):
    publisher.change(*delete("never there"))
    applied = device.go_to(2)
    assert (applied.deleted, device.have) == (0, 2)
    assert is_whole(device)


def test_g2_upsert_after_a_tombstone(device, publisher):
    publisher.change(*delete("a"))
    device.go_to(2)
    publisher.change(upsert("a", "Back"))
    device.go_to(3)
    assert device.labels["a"] == "Back"
    assert is_whole(device)


def test_g2_upsert_over_a_tombstone_of_the_writer(tmp_path):
    with GalleryWriter(tmp_path / "g", "tyre", SPACE, HEADS, base=write_store(tmp_path / "w", FIRST)) as writer:
        writer.delete("a")
    stamp(tmp_path / "g/tyre.sqlite", 1, tmp_path / "tyre.sqlite")
    with sqlite3.connect(tmp_path / "tyre.sqlite") as opened:
        assert opened.execute("SELECT count(*) FROM items").fetchone() == (3,)
    opened.close()


def test_g6_empty_category(tmp_path):
    publisher = Publisher(tmp_path / "server", [])
    device = Device(tmp_path / "device", publisher)
    device.go_to(1)
    assert is_whole(device)
    publisher.change(upsert("a"))
    device.go_to(2)
    assert is_whole(device)
    publisher.change(*delete("a"))
    device.go_to(3)
    assert is_whole(device)
    assert read_state(device.store).live_root == live_root.EMPTY


def test_items_that_stay_keep_their_order(device, publisher):
    """So that readers take the store item by item, and the index of a large category changes by few rows."""
    publisher.change(upsert("b", "Renamed"), *delete("c"))
    device.go_to(2)
    assert list(read_category(device.store, SPACE, DIM).item_ids) == ["a", "d", "b"]


def forged(publisher, sequence=2, **changed):
    """The log with another value in the segment that leads to a state."""
    segments = [one.model_copy(update=changed) if one.sequence == sequence else one for one in publisher.log.segments]
    return publisher.log.model_copy(update={"segments": segments})


def nothing_is_left(device):
    return not list(device.out().parent.iterdir())


def test_g3_other_root_than_the_signed_one_leaves_nothing(device, publisher):
    publisher.change(upsert("e"))
    before = sha256_of(device.store)
    with pytest.raises(RootError, match=r"segment 2: found live root .*; nothing was changed: begin with a base"):
        device.go_to(2, forged(publisher, live_root="0" * 64))
    assert nothing_is_left(device)
    assert sha256_of(device.store) == before


def test_g3_wrong_root_in_the_middle_is_found(device, publisher):
    publisher.change(upsert("e"))
    publisher.change(upsert("f"))
    with pytest.raises(RootError, match="segment 2"):
        device.go_to(3, forged(publisher, live_root="0" * 64))


def test_g3_base_with_another_root_is_refused(tmp_path, publisher):
    bases = [publisher.log.bases[0].model_copy(update={"live_root": "0" * 64})]
    device = Device(tmp_path / "new", publisher)
    with pytest.raises(SyncError, match="the base has live root"):
        device.go_to(1, publisher.log.model_copy(update={"bases": bases}))
    assert nothing_is_left(device)


def test_g1_replayed_or_swapped_segment_is_refused(device, publisher):
    """Another segment under the signed hash, an older one, or one of other counts."""
    first = publisher.change(upsert("e"))
    publisher.change(upsert("f"))
    with pytest.raises(RootError, match="segment 3"):
        device.go_to(3, forged(publisher, 3, object=first.object))
    with pytest.raises(SyncError, match="found 1 changed and 0 deleted items, expected 2 and 0"):
        device.go_to(2, forged(publisher, upserts=2))
    publisher.objects[first.object.sha256] = b"x" * first.object.size
    with pytest.raises(SyncError, match="its bytes are not the signed ones"):
        device.go_to(2)
    assert nothing_is_left(device)


def test_g1_steps_of_another_state_are_refused(device, publisher):
    publisher.change(upsert("e"))
    steps = path_to(publisher.log, 1, 2)
    device.go_to(2)
    with pytest.raises(RootError, match="found the state at sequence 2, expected 1"):
        apply_steps(device.store, publisher.log, steps, device.out(), publisher.read, category="tyre")


def test_fork_of_the_log_is_refused(tmp_path, device, publisher):
    """Another publisher's log with the same sequence numbers."""
    other = Publisher(tmp_path / "other", [*FIRST, upsert("e")])
    other.change(upsert("f"))
    device.publisher = other
    with pytest.raises(RootError, match="the log is another one, or was forked"):
        device.go_to(2)
    assert nothing_is_left(device)


def test_g4_other_space_of_the_same_length_is_refused(device, publisher, tmp_path):
    publisher.change(upsert("e"))
    segment = publisher.log.segments[0]
    ref = publisher.put(write_segment([upsert("e")], "b" * 64, DIM))
    with pytest.raises(SyncError, match=f"segment 2: found embedding space {'b' * 64} with 12 numbers"):
        device.go_to(2, forged(publisher, object=ref))
    other = publisher.log.model_copy(update={"space_id": "b" * 64})
    with pytest.raises(SyncError, match="cannot be mixed, also where they have the same length"):
        device.go_to(2, other)
    assert segment.object != ref
    assert nothing_is_left(device)


def test_g5_other_vector_length_is_refused(device, publisher):
    publisher.change()
    ref = publisher.put(write_segment([], SPACE, DIM + 1))
    with pytest.raises(SyncError, match=r"with 13 numbers, expected .* with 12"):
        device.go_to(2, forged(publisher, object=ref))


def test_store_of_another_category_is_refused(device, publisher):
    publisher.change(upsert("e"))
    steps = path_to(publisher.log, 1, 2)
    with pytest.raises(SyncError, match="found category 'tyre', expected 'bolt'"):
        apply_steps(device.store, publisher.log, steps, device.out(), publisher.read, category="bolt")


def test_store_from_no_log_needs_a_base(tmp_path, publisher):
    publisher.change(upsert("e"))
    store = write_store(tmp_path / "embedded", FIRST)
    assert read_state(store) is None
    with pytest.raises(RootError, match="came from no gallery log"):
        apply_steps(
            store, publisher.log, path_to(publisher.log, 1, 2), tmp_path / "out", publisher.read, category="tyre"
        )


def test_full_disk_leaves_nothing(device, publisher, monkeypatch):
    publisher.change(upsert("e"))
    with monkeypatch.context() as patch:
        pragmas = *new_store._PRAGMAS, "max_page_count=3"
        patch.setattr(new_store, "_PRAGMAS", pragmas)
        with pytest.raises(SyncError, match="database or disk is full") as found:
            device.go_to(2)
    assert isinstance(found.value.__cause__, OSError)  # not the fault of what is published
    assert nothing_is_left(device)
    device.go_to(2)
    assert is_whole(device)


def test_damaged_pages_of_a_store_are_an_error_of_it(device, publisher):
    publisher.change(upsert("e"))
    data = bytearray(device.store.read_bytes())
    with sqlite3.connect(device.store) as opened:
        (page,) = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = 'vectors'").fetchone()
    opened.close()
    data[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    device.store.write_bytes(data)
    with pytest.raises((SyncError, GalleryError), match="malformed") as found:
        device.go_to(2)
    assert not isinstance(found.value.__cause__, OSError)
    assert nothing_is_left(device)


@pytest.mark.parametrize("value", ["x", "-1", "1" * 17, "٣"])
def test_damaged_state_of_a_store_is_an_error(device, value):
    with sqlite3.connect(device.store) as opened:
        opened.execute("UPDATE meta SET value = ? WHERE key = 'log_sequence'", (value,))
    opened.close()
    with pytest.raises(GalleryError, match="its state in the gallery log is not readable"):
        read_state(device.store)


def holds(path, *parts):
    data = path.read_bytes()
    return [part in data for part in parts]


def test_what_is_deleted_or_replaced_is_not_in_the_file(tmp_path):
    items = [upsert(f"person-{number:04d}", f"Name {number:04d}") for number in range(600)]
    publisher = Publisher(tmp_path / "server", items)
    device = Device(tmp_path / "device", publisher)
    device.go_to(1)
    publisher.change(*delete(*(one.item_id for one in items[100:300])))
    device.go_to(2)
    publisher.change(*delete(*(one.item_id for one in items[300:500:2])))
    publisher.change(upsert(items[0].item_id, "Other", seed=9999, thumbnail=None))
    device.go_to(4)
    assert is_whole(device)
    for one in (items[0], *items[100:300], *items[300:500:2]):
        parts = one.label.encode(), one.thumbnail, *(row.tobytes() for row in one.vectors_i8)
        assert holds(device.store, *parts) == [False] * 4
        assert one is items[0] or holds(device.store, one.item_id.encode()) == [False]
    assert holds(device.store, items[301].thumbnail, items[301].label.encode()) == [True, True]


# Urgent deletions: `x` is deleted at sequence 6, while the device is pinned at 4.


@pytest.fixture
def urgent(tmp_path):
    """States: 4 has `x`; 5 changes others; 6 deletes `x` at once; 7 enrols it again."""
    publisher = Publisher(tmp_path / "server", [*FIRST, upsert("x")], sequence=4)
    publisher.change(upsert("b", "Renamed"))
    publisher.change(*delete("x", "nobody"), urgent=True)
    publisher.change(upsert("x", "Again"), upsert("new"))
    return publisher


@pytest.fixture
def pinned(tmp_path, urgent):
    """A device that was pinned at 4 before the deletion, and then erased `x`."""
    device = Device(tmp_path / "device", urgent)
    device.go_to(4, urgent.log.model_copy(update={"segments": []}))
    assert "x" in device.ids
    applied = device.go_to(4)
    assert applied.erased == ("x",)
    return device


def test_urgent_deletion_on_top_of_a_pinned_state(pinned, urgent):
    state = read_state(pinned.store)
    assert (state.sequence, state.erased_to, state.log_root) == (4, 6, urgent.log.bases[0].live_root)
    assert state.live_root == live_root.of_store(pinned.store) != state.log_root
    assert pinned.ids == {"a", "b", "c", "d"}
    assert holds(pinned.store, b"Item x", upsert("x").thumbnail) == [False, False]
    assert pinned.go_to(4) is None


def test_erase_is_the_same_step(tmp_path, pinned, urgent):
    store = tmp_path / "base.sqlite"
    store.write_bytes(urgent.read(urgent.log.bases[0].object))
    out = tmp_path / "out" / "tyre.sqlite"
    out.parent.mkdir()
    applied = erase(store, urgent.log, out, urgent.read, category="tyre")
    assert applied.erased == ("x",)
    assert sha256_of(out) == sha256_of(pinned.store)
    assert erase(out, urgent.log, tmp_path / "again", urgent.read, category="tyre") is None


@pytest.mark.parametrize("way", [[7], [5, 7], [6, 7], [5, 6, 7]])
def test_regular_way_over_an_urgent_deletion_converges(pinned, urgent, way):
    for wanted in way:
        pinned.go_to(wanted)
        assert ("x" in pinned.ids) == (wanted == 7)
    assert pinned.labels["x"] == "Again"
    assert read_state(pinned.store).is_exact
    assert is_whole(pinned)


def test_state_before_the_deletion_has_the_item_no_more(pinned, urgent):
    pinned.go_to(5)
    state = read_state(pinned.store)
    assert (state.sequence, state.erased_to, pinned.ids) == (5, 6, {"a", "b", "c", "d"})
    assert state.log_root == urgent.log.segments[0].live_root


def test_g3_root_is_checked_while_an_erased_item_is_missing(pinned, urgent):
    with pytest.raises(RootError, match="segment 5"):
        pinned.go_to(5, forged(urgent, 5, live_root="0" * 64))


def test_fork_is_found_after_an_erasure(pinned, urgent):
    bases = [urgent.log.bases[0].model_copy(update={"live_root": "1" * 64})]
    with pytest.raises(RootError, match="forked"):
        pinned.go_to(5, urgent.log.model_copy(update={"bases": bases}))


@pytest.mark.parametrize("change", [upsert("x", "Changed"), *delete("x")])
def test_change_of_an_erased_item_before_its_deletion(tmp_path, change):
    """The device is pinned at 4, erases by 6, and only then goes on by 5, which changes or deletes the same item."""
    publisher = Publisher(tmp_path / "server", [*FIRST, upsert("x"), upsert("y")], sequence=4)
    device = Device(tmp_path / "device", publisher)
    device.go_to(4)
    publisher.change(change)
    publisher.change(*delete("x"), urgent=True)
    publisher.change(*delete("y"), urgent=True)
    device.go_to(4)
    assert device.ids == {"a", "b", "c", "d"}
    device.go_to(5)
    assert device.ids == {"a", "b", "c", "d"}
    device.go_to(6)
    assert device.ids == {"a", "b", "c", "d"}
    assert not read_state(device.store).is_exact  # 7 is still on top
    device.go_to(7)
    assert is_whole(device)
    assert read_state(device.store).is_exact


def test_later_urgent_deletion_comes_on_top_of_an_earlier_one(pinned, urgent):
    urgent.change(*delete("a", "x"), urgent=True)
    assert pinned.go_to(4).erased == ("a",)
    assert read_state(pinned.store).erased_to == 8
    pinned.go_to(8)
    assert is_whole(pinned)


def test_g9_going_back_does_not_bring_an_erased_item_back(pinned, urgent):
    pinned.go_to(7)
    pinned.go_to(4)
    assert pinned.ids == {"a", "b", "c", "d"}
    assert read_state(pinned.store).erased_to == 6


def test_urgent_segment_deletes_only(pinned, urgent):
    """What an urgent segment changes beside is of its own state alone."""
    urgent.change(upsert("a", "Not yet"), *delete("b"), urgent=True)
    pinned.go_to(4)
    assert pinned.labels["a"] == "Item a"
    assert "b" not in pinned.ids


def test_store_from_no_log_loses_urgent_deletions(tmp_path, urgent):
    store = write_store(tmp_path / "embedded", [*FIRST, upsert("x")])
    out = tmp_path / "out" / "tyre.sqlite"
    out.parent.mkdir()
    applied = erase(store, urgent.log, out, urgent.read, category="tyre")
    assert (applied.state, applied.erased) == (None, ("x",))
    assert set(read_category(out, SPACE, DIM).item_ids) == {"a", "b", "c", "d"}
    assert describe_store(out)[1].live_root is None
    assert erase(out, urgent.log, tmp_path / "again", urgent.read, category="tyre") is None


def test_erase_in_a_space_whose_log_is_gone(tmp_path, pinned, urgent):
    """A gallery for an older bundle: the ids come from the urgent segments of another space."""
    before = read_state(pinned.store)
    out = tmp_path / "out" / "tyre.sqlite"
    out.parent.mkdir()
    applied = erase_items(pinned.store, {"a", "nobody"}, 12, out)
    assert (applied.erased, applied.state.erased_to, applied.state.sequence) == (("a",), 12, before.sequence)
    assert applied.state.live_root == live_root.of_store(out)
    assert read_state(out) == applied.state
    assert holds(out, b"Item a") == [False]
    with pytest.raises(SyncError, match="has the deletions up to 4 already"):
        erase_items(pinned.store, {"b"}, 4, out)


def test_g3_urgent_deletion_checks_the_signed_root_first(tmp_path, pinned, urgent):
    steps = Steps(4, None, (), urgent.log.segments[1:2], "1" * 64)
    with pytest.raises(RootError, match="forked"):
        apply_steps(pinned.store, urgent.log, steps, tmp_path / "tyre.sqlite", urgent.read, category="tyre")


changes = st.lists(
    st.tuples(
        st.sets(st.sampled_from("abcdex"), max_size=3), st.sets(st.sampled_from("abcdex"), max_size=2), st.booleans()
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(drawn=changes, visits=st.lists(st.integers(1, 7), max_size=5))
def test_any_way_converges(tmp_path_factory, drawn, visits):
    """Whatever is changed, however urgently, and wherever a device was on the way: at the end it has the same items."""
    folder = tmp_path_factory.mktemp("any")
    publisher = Publisher(folder / "server", FIRST)
    states = {1: dict(publisher.items)}
    for number, (upserts, deletes, urgently) in enumerate(drawn):
        one = [upsert(item_id, f"{item_id} {number}") for item_id in sorted(upserts - deletes)]
        publisher.change(*one, *delete(*sorted(deletes)), urgent=urgently)
        states[publisher.sequence] = dict(publisher.items)
    device = Device(folder / "device", publisher)
    for wanted in [*visits, publisher.sequence]:
        device.go_to(wanted)
        at = min(wanted, publisher.sequence)
        gone = {
            item_id
            for number, (_, deletes, urgently) in enumerate(drawn)
            if urgently and number + 2 > at
            for item_id in deletes
        }
        expected = {item_id: encode(one) for item_id, one in states[at].items() if item_id not in gone}
        assert {one.item_id: encode(one) for one in read_records(device.store)} == expected
        assert read_state(device.store).live_root == live_root.of_store(device.store)
    assert is_whole(device)


def test_same_items_have_the_same_generation_id(tmp_path, device, publisher):
    """By segments, by a new base, or stamped on the server: the files differ, the id does not."""
    publisher.change(upsert("b", "Renamed"), *delete("a"), base=True)
    device.go_to(2)
    other = Device(tmp_path / "other", publisher)
    other.go_to(2)
    assert sha256_of(other.store) != sha256_of(device.store)
    generations = {write_gallery_index(one.store.parent, "2026-01-01T00:00:00Z").generation for one in (device, other)}
    assert len(generations) == 1


def test_hostile_base_with_a_trigger_is_refused(tmp_path, publisher):
    store = tmp_path / "tyre.sqlite"
    store.write_bytes(publisher.read(publisher.log.bases[0].object))
    with sqlite3.connect(store) as opened:
        opened.execute("CREATE TRIGGER t AFTER INSERT ON items BEGIN DELETE FROM items; END")
    opened.close()
    publisher.objects.clear()
    with pytest.raises(GalleryError, match="its tables are not those of a gallery"):
        apply_steps(
            *(store, publisher.log, path_to(publisher.log, None, 1), tmp_path / "out", publisher.read), category="tyre"
        )


def test_g10_many_deletes_are_applied_quickly(tmp_path):
    """20,000 tombstones, a thousand of them of items that are there."""
    items = [upsert(f"item-{number:06d}", thumbnail=None) for number in range(1000)]
    publisher = Publisher(tmp_path / "server", [*items, upsert("a")])
    device = Device(tmp_path / "device", publisher)
    device.go_to(1)
    publisher.change(*delete(*(f"item-{number:06d}" for number in range(20_000))))
    device.go_to(2)
    assert device.ids == {"a"}
    assert device.store.stat().st_size < 40_000


def test_thumbnails_are_kept(device, publisher):
    publisher.change(*delete("c"))
    device.go_to(2)
    assert dict(read_thumbnails(device.store)) == {name: upsert(name).thumbnail for name in "abd"}
