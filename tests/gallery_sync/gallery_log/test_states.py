"""Which way leads from what a device has to what it should have."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import SyncError
from gallery_sync.formats.documents import Base, Segment, SpaceLog
from gallery_sync.formats.fields import ObjectRef
from gallery_sync.gallery_log.states import check_log, needs_base, newest_root, path_to, roots_of
from tests.store_samples import HEADS, SPACE


def root(sequence: int) -> str:
    return f"{sequence:064x}"


def base(sequence: int, size: int = 1000, items: int = 100, live_root: str | None = None) -> Base:
    ref = ObjectRef(sha256=f"{sequence:064x}", size=size)
    return Base(sequence=sequence, object=ref, live_root=live_root or root(sequence), items=items, vectors=items)


def segment(after: int, sequence: int, *, urgent: bool = False, size: int = 10, deletes: int = 0) -> Segment:
    ref = ObjectRef(sha256=f"{sequence + 1000:064x}", size=size)
    counts = {"upserts": 1, "deletes": deletes}
    return Segment(after=after, sequence=sequence, object=ref, live_root=root(sequence), urgent=urgent, **counts)


def log_of(*states: Base | Segment) -> SpaceLog:
    bases = [one for one in states if isinstance(one, Base)]
    segments = [one for one in states if isinstance(one, Segment)]
    return SpaceLog(space_id=SPACE, heads=HEADS, bases=bases, segments=segments)


LOG = log_of(base(1), segment(1, 4), segment(4, 5), segment(5, 6, urgent=True), segment(6, 8), base(8), segment(8, 9))


def way(log: SpaceLog, have: int | None, wanted: int, erased_to: int = 0):
    steps = path_to(log, have, wanted, erased_to)
    of = [one.sequence for one in steps.segments], [one.sequence for one in steps.urgent]
    return steps.base and steps.base.sequence, *of


def test_segments_lead_on_from_what_the_device_has():
    assert way(LOG, 4, 9) == (None, [5, 6, 8, 9], [])
    assert path_to(LOG, 4, 9).start_root == root(4)


def test_device_with_nothing_takes_the_newest_base():
    assert way(LOG, None, 9) == (8, [9], [])
    assert way(LOG, None, 8) == (8, [], [])
    assert way(LOG, None, 7) == (1, [4, 5, 6], [])


def test_category_that_did_not_change_keeps_its_state():
    assert way(LOG, None, 7)[1][-1] == 6
    assert not path_to(LOG, 6, 7).are_needed
    assert not path_to(LOG, 9, 1000).are_needed


def test_urgent_deletions_later_than_the_state_come_on_top():
    assert way(LOG, 1, 4) == (None, [4], [6])
    assert way(LOG, 4, 4) == (None, [], [6])
    assert way(LOG, None, 5) == (1, [4, 5], [6])
    assert way(LOG, 4, 4, erased_to=6) == (None, [], [])
    assert not path_to(LOG, 4, 4, erased_to=6).are_needed


def test_all_urgent_deletions_come_again_after_a_change():
    """A segment before them may have changed an item that they delete."""
    assert way(LOG, 4, 5, erased_to=6) == (None, [5], [6])


def test_store_with_the_items_of_the_wanted_state_needs_nothing():
    """It was pinned at 5 when 6 deleted an item urgently, which made it what 6 is."""
    assert not path_to(LOG, 5, 6, 6, live_root=root(6)).are_needed
    assert path_to(LOG, 5, 6, 6, live_root=root(5)).are_needed
    assert path_to(LOG, 1, 5, 0, live_root=root(5)).are_needed  # 6 is to be deleted on top


def test_g9_going_back_begins_with_a_base_and_keeps_deletions():
    assert way(LOG, 9, 5) == (1, [4, 5], [6])


def test_g7_device_behind_a_compaction_goes_on_by_segments():
    log = log_of(base(1, size=10_000), *(segment(n, n + 1) for n in range(1, 60)), base(50, size=10_000))
    assert way(log, 10, 60) == (None, list(range(11, 61)), [])


def test_g7_base_is_taken_where_it_has_fewer_bytes():
    log = log_of(base(1), *(segment(n, n + 1, size=100) for n in range(1, 60)), base(50, size=900))
    assert way(log, 10, 60) == (50, list(range(51, 61)), [])


def test_g7_device_behind_a_trimmed_log_takes_a_base():
    log = log_of(segment(40, 41), base(41), segment(41, 42))
    assert way(log, 39, 42) == (41, [42], [])
    assert way(log, 40, 42) == (None, [41, 42], [])
    assert path_to(log, 40, 42).start_root is None  # the log does not know any more


def test_base_without_a_segment_that_leads_to_it():
    """A gallery that was made again has no change that leads to it."""
    log = log_of(base(1), segment(1, 2), base(5), segment(5, 6))
    assert way(log, 2, 6) == (5, [6], [])
    assert way(log, 2, 4) == (None, [], [])


def test_state_that_the_log_lost_is_an_error():
    with pytest.raises(SyncError, match="begins after gallery sequence 3"):
        path_to(log_of(base(4)), None, 3)
    with pytest.raises(SyncError, match="no base from which segments lead to gallery sequence 41"):
        path_to(log_of(segment(40, 41), segment(41, 42), base(42)), 3, 41)


@pytest.mark.parametrize(
    ("states", "wrong"),
    [
        ([base(1), segment(1, 3), segment(1, 2)], "not in order"),
        ([base(1), segment(1, 3), segment(1, 3)], "not in order"),
        ([base(2), base(1)], "not in order"),
        ([base(1), segment(1, 2), segment(3, 4)], "segment 4 begins at state 3, and the state before it is 2"),
        ([base(1), segment(1, 3), segment(2, 4)], "segment 4 begins at state 2"),
        ([base(1), base(2), segment(1, 3)], "segment 3 begins at state 1, and the state before it is 2"),
        ([base(1), segment(1, 2), base(2, live_root=root(9))], "different roots of state 2"),
    ],
)
def test_g1_log_with_gap_duplicate_or_two_roots_is_refused(states, wrong):
    for have in (None, 1):
        with pytest.raises(SyncError, match=wrong):
            path_to(log_of(*states), have, 4)


@given(st.data())
def test_any_path_ends_at_the_newest_state(data):
    """Of any sane log: the segments follow each other, and begin where the store or the base is."""
    numbers = sorted(data.draw(st.sets(st.integers(1, 40), min_size=1, max_size=12)))
    sizes = st.integers(1, 100)
    states: list[Base | Segment] = [base(numbers[0], data.draw(sizes))]
    for after, number in pairwise(numbers):
        kind = data.draw(st.sampled_from(["segment", "both", "base"]))
        if kind != "base":
            states.append(segment(after, number, urgent=data.draw(st.booleans()), size=data.draw(sizes)))
        if kind != "segment" and len([one for one in states if isinstance(one, Base)]) < 16:
            states.append(base(number, data.draw(sizes)))
        elif kind == "base":
            states.append(segment(after, number))
    log = log_of(*states)
    check_log(log)
    have, wanted = data.draw(st.none() | st.sampled_from(numbers)), data.draw(st.integers(numbers[0], 50))
    steps = path_to(log, have, wanted)
    now = steps.base.sequence if steps.base else have
    for one in steps.segments:
        assert one.after == now
        now = one.sequence
    assert now == steps.sequence == max(number for number in numbers if number <= wanted)
    assert [one.sequence for one in steps.urgent] == sorted(
        one.sequence for one in log.segments if one.urgent and one.sequence > steps.sequence
    )
    assert path_to(log, None, wanted).size >= steps.size or steps.base is None


def test_newest_root():
    assert newest_root(LOG) == root(9)
    assert list(roots_of(LOG)) == [1, 4, 5, 6, 8, 9]


def test_base_is_due_after_many_segments():
    log = log_of(base(1), *(segment(n, n + 1) for n in range(1, 64)))
    assert not needs_base(log)
    assert needs_base(log_of(*log.bases, *log.segments, segment(64, 65)))
    assert not needs_base(log_of(*log.bases, *log.segments, segment(64, 65), base(65)))


def test_base_is_due_after_deletions_of_a_fifth():
    log = log_of(base(1, items=100), segment(1, 2, deletes=15))
    assert not needs_base(log, 5)
    assert needs_base(log, 6)


def test_g6_base_is_due_only_for_deletions_of_an_empty_category():
    assert not needs_base(log_of(base(1, items=0)))
