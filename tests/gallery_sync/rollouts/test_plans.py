"""Draft plans: which release, which waves, and the file that waits for an approval."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import SyncError
from gallery_sync.formats.rollouts import BUCKETS, Selector, bucket_of, parse_selector
from gallery_sync.rollouts import plans
from gallery_sync.rollouts.plans import Wish, make_draft, read_draft, wave_limits, write_draft
from tests.gallery_sync.rollouts.samples import APPROVED, a_row
from tests.sync_samples import published

SALT = "ab" * 8


def draft_of(repo, rows=None, **wish):
    return make_draft(Wish(by="ann", **wish), published(repo), SALT, APPROVED, rows)


def test_newest_held_release_is_the_default(repo):
    done = draft_of(repo)
    assert (done.draft.release, done.draft.id, done.known) == (2, "release-2", None)
    assert [wave.buckets for wave in done.draft.waves] == [500, 2500, BUCKETS]
    assert done.draft.deadline_s == 14 * 86400


def test_release_must_be_held(repo):
    with pytest.raises(SyncError, match=r"release 1 is not held; .* edge-sync rollback demo --to 1 --repo \S+ --hold"):
        draft_of(repo, release=1)


def test_canary_has_the_least_number_of_known_devices(repo):
    rows = [a_row(f"cam-{i}") for i in range(40)]
    done = draft_of(repo, rows, canary_percent=1.0, canary_at_least=3, wave_percents=(50.0,))
    assert done.known is not None
    assert (done.known[0], sum(done.known)) == (3, 40)
    assert done.draft.waves[0].min_confirmed == 3
    limit = done.draft.waves[0].buckets
    assert sum(bucket_of(SALT, row.device) < limit - 1 for row in rows) == 2  # the smallest limit


def test_only_selected_devices_of_the_line_are_known(repo):
    rows = [
        a_row("cam-1", labels={"group": "lab"}),
        a_row("cam-2", labels={"group": "lab"}),
        a_row("cam-3"),
        a_row("cam-4", line="other", labels={"group": "lab"}),
    ]
    selector, exclude = parse_selector("group=lab"), [parse_selector("device=cam-2")]
    done = draft_of(repo, rows, selector=selector, exclude=exclude, canary_at_least=5)
    assert sum(done.known or ()) == 1
    assert done.draft.waves[0].min_confirmed == 1
    assert any("only 1 known devices are selected" in note for note in done.notes)


def test_no_known_device_is_a_note(repo):
    assert "no known device is selected" in draft_of(repo, []).notes[0]


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=6),
    st.integers(1, 50),
    st.none() | st.lists(st.integers(0, BUCKETS - 1), max_size=60).map(sorted),
)
def test_waves_grow_and_the_last_has_all(percents, at_least, buckets):
    limits = wave_limits(percents, at_least, buckets)
    assert limits == sorted(set(limits))
    assert limits[0] >= 1
    assert limits[-1] == BUCKETS
    if buckets:
        known = sum(bucket < limits[0] for bucket in buckets)
        assert known >= min(at_least, len(buckets))
        assert known * 100 >= percents[0] * len(buckets) - 1e-6 or limits[0] == BUCKETS


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"canary_percent": 0.0}, "a wave of 0 %"),
        ({"wave_percents": (101.0,)}, "a wave of 101 %"),
        ({"windows": ["Sat 2-5"]}, "found the window 'Sat 2-5'"),
        ({"abort_to": 9}, "release 9 is not here"),
        ({"deadline_s": 0.0}, "a deadline of 0"),
        ({"windows": ["Sat-Mon 23:30-23:30"]}, "expected two different times"),
        ({"id": "../x"}, "cannot be planned: id"),
        ({"min_confirmed": -1}, "cannot be planned"),
    ],
)
def test_wrong_wishes_are_refused_with_one_line(repo, wish, told):
    with pytest.raises(SyncError, match=told) as error:
        draft_of(repo, **wish)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("window", ["02:00-05:00", "Sat,Sun 22:00-06:00", "Mon-Fri 23:30-24:00"])
def test_windows_are_kept_as_they_are_written(repo, window):
    assert draft_of(repo, windows=[window]).draft.windows == [window]


def test_draft_is_read_as_it_was_written(repo):
    draft = draft_of(repo, selector=parse_selector("group=lab"), exclude=[parse_selector("site=a|b")]).draft
    write_draft(repo, draft)
    assert read_draft(repo, draft.id) == draft
    with pytest.raises(SyncError, match="is there already; give another --id"):
        write_draft(repo, draft)
    assert draft_of(repo).draft.id == "release-2-2"
    assert [one.id for one in plans.drafts(repo)] == ["release-2"]


def test_digest_changes_with_every_letter(repo):
    draft = draft_of(repo).draft
    changed = draft.model_copy(update={"selector": Selector(terms=[]), "planned_by": "eve"})
    assert changed.digest() != draft.digest()


@pytest.mark.parametrize("name", ["../keys", "", "a/b", "."])
def test_id_of_a_draft_is_no_path(repo, name):
    with pytest.raises(SyncError, match="expected letters"):
        read_draft(repo, name)


def test_damaged_draft_is_named_and_hides_no_other(repo):
    write_draft(repo, draft_of(repo).draft)
    (repo / "rollouts/bad.json").write_text("{")
    with pytest.raises(SyncError, match=r"bad.json: not JSON"):
        read_draft(repo, "bad")
    assert [one.id for one in plans.drafts(repo)] == ["release-2"]
