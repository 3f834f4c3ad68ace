"""What the database keeps of reports, and what it ignores."""

from __future__ import annotations

import re
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gallery_sync.collector.messages import Arrived
from gallery_sync.collector.metrics import metrics_text
from gallery_sync.collector.queries import count_fleet
from gallery_sync.collector.records import MOST_ANSWERS_TO_ONE, MOST_HISTORY
from gallery_sync.fleet_client.show import device_table, device_text
from gallery_sync.formats.reports import DeviceRow
from gallery_sync.formats.rollouts import bucket_of
from gallery_sync.rollouts.gates import judge, why_not_confirmed
from tests.gallery_sync.collector.collector_samples import NOW, a_plan, a_try, answer, message, report


def test_report_becomes_a_row(desk):
    desk.take(message(report(engine="onnxruntime")))
    (row,) = desk.rows()
    assert (row["device"], row["line"], row["first_seen"], row["last_seen"]) == ("cam-1", "shop", NOW, NOW)
    assert row["labels"] == {"device": "cam-1", "group": "lab", "line": "shop", "site": "berlin"}
    assert (row["available"], row["reported"]["engine"], row["tries"]) == (None, "onnxruntime", [])


def test_old_and_repeated_reports_are_ignored(desk):
    for revision, state in ((5, "fetch"), (5, "stage"), (4, "stage"), (6, "prove"), (6, "prove")):
        desk.take(message(report(revision=revision, state=state), at=NOW + revision))
    assert [row["reported"]["state"] for row in desk.rows()] == ["prove"]
    assert desk.rows()[0]["last_seen"] == NOW + 6
    assert [desk.count("reports", result=one) for one in ("new", "accepted", "repeated")] == [1, 1, 3]


def test_another_epoch_is_accepted_and_noted(desk):
    desk.take(message(report(revision=50)), message(report(revision=1, epoch="f" * 16, state="fetch")))
    assert desk.rows()[0]["reported"]["state"] == "fetch"
    assert desk.count("reports", result="new_epoch") == 1
    assert [one["kind"] for one in desk.device()["history"]][:2] == ["epoch", "state"]


def test_tries_stay_known_when_a_later_report_lost_them(desk):
    confirmed, failed = a_try(3), a_try(4, "rolled back", NOW - 50, reason="slow")
    desk.take(
        message(report(tries=[confirmed])),
        message(report(revision=2, tries=[failed, confirmed])),
        message(report(epoch="f" * 16, tries=[])),
    )
    tries = desk.rows()[0]["tries"]
    assert [(one["release"], one["outcome"]) for one in tries] == [(4, "rolled back"), (3, "confirmed")]
    assert desk.rows()[0]["reported"]["tries"] == []
    desk.take(message(report(revision=2, epoch="f" * 16, tries=[a_try(5)])))
    assert [one["release"] for one in desk.rows()[0]["tries"]] == [5, 4, 3]


def test_retained_report_does_not_make_a_silent_device_heard(desk):
    """Nobody knows since when it lies at the broker, so the device's own time counts, within reason."""
    desk.take(message(report(at=NOW - 7200), retained=True))
    assert (desk.rows()[0]["first_seen"], desk.rows()[0]["last_seen"]) == (NOW - 7200, NOW - 7200)
    desk.take(message(report(revision=2, at=10.0), retained=True))
    assert desk.rows()[0]["last_seen"] == NOW - 7200
    desk.take(message(report(revision=3, at=NOW * 2), retained=True, at=NOW + 1))
    assert desk.rows()[0]["last_seen"] == NOW + 1


def test_availability_before_and_after_the_first_report(desk):
    desk.take(Arrived("cam-1", "available", b"online", NOW), message(report()))
    assert [row["available"] for row in desk.rows()] == [True]
    desk.take(Arrived("cam-1", "available", b"offline", NOW), message(report(revision=2)))
    assert [row["available"] for row in desk.rows()] == [False]


def test_history_holds_changes_and_is_bounded(desk):
    running = {"line": "shop", "release": 4, "bundle_id": "b4", "gallery_sequence": 2}
    desk.take(message(report()), message(report(revision=2)), message(report(revision=3, running=running)))
    kinds = [(one["kind"], one["change"]["to"]) for one in desk.device()["history"]]
    assert [kind for kind, _ in kinds] == ["running", "running", "state"]
    assert kinds[0][1]["release"] == 4
    for number in range(150):
        desk.now += 1
        desk.take(message(report(revision=4 + number, state=f"s{number}"), at=desk.now))
    assert len(desk.device()["history"]) == MOST_HISTORY
    assert desk.device()["history"][0]["change"]["to"] == "s149"


def test_labels_follow_the_newest_report(desk):
    desk.take(message(report()), message(report(revision=2, labels={"site": "paris"})))
    assert [row["device"] for row in desk.rows(labels=(("site", "paris"),))] == ["cam-1"]
    assert desk.rows(labels=(("site", "berlin"),)) == desk.rows(labels=(("group", "lab"),)) == []


def test_silent_devices_are_forgotten_with_all_that_belongs_to_them(desk):
    desk.take(message(report()), message(report("cam-2"), at=NOW + 80_000))
    desk.now = NOW + 90_000
    desk.take(Arrived("cam-2", "available", b"online", desk.now))
    assert [row["device"] for row in desk.rows()] == ["cam-2"]
    assert [row["device"] for row in desk.rows(labels=(("site", "berlin"),))] == ["cam-2"]
    assert desk.device("cam-1") is None
    assert desk.count("devices_forgotten") == 1


def test_forgotten_device_that_reports_the_same_again_is_known_again(desk):
    desk.take(message(report()), message(report("cam-2"), at=NOW + 80_000))
    desk.now = NOW + 90_000
    desk.take(Arrived("cam-2", "available", b"online", desk.now))
    assert desk.device() is None
    desk.take(message(report(), at=desk.now))
    assert desk.device()["row"]["last_seen"] == desk.now
    assert desk.writer.devices == len(desk.rows()) == 2


def test_report_that_found_no_room_is_taken_once_there_is_some(desk, monkeypatch):
    monkeypatch.setattr("gallery_sync.collector.writer.MOST_DEVICES", 1)
    desk.take(message(report()), message(report("cam-2")))
    monkeypatch.setattr("gallery_sync.collector.writer.MOST_DEVICES", 2)
    desk.take(message(report("cam-2")))
    assert [row["device"] for row in desk.rows()] == ["cam-1", "cam-2"]


def test_answers_are_kept_bounded_and_only_of_their_device(desk):
    desk.take(message(report()), message(report("cam-2")))
    for number in range(MOST_ANSWERS_TO_ONE + 5):
        desk.take(message(answer(text=str(number)), "answer"))
    assert len(desk.device()["answers"]) == MOST_ANSWERS_TO_ONE
    assert desk.count("answers", result="refused") == 5


def test_wrong_messages_are_counted_and_logged_once_a_device(desk, caplog):
    for number in range(5):
        desk.take(Arrived("cam-1", "reported", b"{%d" % number, NOW))
    assert desk.count("wrong_messages", kind="reported", reason="invalid") == 5
    assert len([one for one in caplog.records if "ignored a message" in one.message]) == 1
    assert desk.rows() == []


def test_disk_that_stays_full_is_logged_once_and_loses_no_report(desk, caplog, monkeypatch):
    def full():
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as until_somebody_frees_space:
        until_somebody_frees_space.setattr(desk.database, "writing", full)
        desk.take(*(message(report(revision=number)) for number in range(1, 6)))
        assert desk.count("store_failures", reason="disk") >= 5
    desk.writer.step(0.0)
    assert desk.device()["row"]["reported"]["revision"] == 5
    assert [one.levelname for one in caplog.records] == ["ERROR", "WARNING"]
    assert "can be written again" in caplog.text


def test_too_many_devices_are_counted(desk, monkeypatch):
    monkeypatch.setattr("gallery_sync.collector.writer.MOST_DEVICES", 2)
    desk.take(*(message(report(f"cam-{number}")) for number in range(4)))
    assert [row["device"] for row in desk.rows()] == ["cam-0", "cam-1"]
    assert desk.count("reports", result="too_many_devices") == 2


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["cam-0", "cam-1", "cam-2", "cam-3"]),
        ({"line": "shop", "limit": 2}, ["cam-0", "cam-1"]),
        ({"line": "other"}, []),
        ({"after": "cam-1"}, ["cam-2", "cam-3"]),
        ({"labels": (("site", "s1"),)}, ["cam-1", "cam-3"]),
        ({"labels": (("site", "s1"), ("group", "lab")), "after": "cam-1"}, ["cam-3"]),
        ({"labels": (("site", "s1"), ("group", "no"))}, []),
        ({"state": "fetch"}, ["cam-2"]),
        ({"release": 7}, ["cam-3"]),
        ({"silent_s": 15.0}, ["cam-0", "cam-1"]),
    ],
)
def test_query_selects_devices(desk, query, expected):
    running = {"bundle_id": "b7", "release": 7}
    more = [{}, {}, {"state": "fetch"}, {"running": running}]
    for number, fields in enumerate(more):
        labels = {"site": f"s{number % 2}", "group": "lab"}
        desk.take(message(report(f"cam-{number}", labels=labels, **fields), at=NOW - 30 + 10 * number))
    assert [row["device"] for row in desk.rows(**query)] == expected


ANY = st.text(max_size=60)


@given(state=ANY, reason=ANY, engine=ANY, site=ANY, cameras=st.dictionaries(ANY, ANY, max_size=3), text=ANY)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_of_a_device_is_stored_and_shown(desk, state, reason, engine, site, cameras, text):
    desk.now += 60.0
    texts = {"state": state, "reason": reason, "engine": engine, "site": site, "cameras": cameras}
    tries = [a_try(reason=text)]
    desk.take(message(report(revision=int(desk.now - NOW), tries=tries, **texts), at=desk.now))
    (row,) = desk.rows()
    assert {name: row["reported"][name] for name in texts} == texts
    assert row["tries"][0]["reason"] == text
    lines = [*device_table([DeviceRow.model_validate(row)], desk.now), *device_text(desk.device(), desk.now)]
    assert all(line.isprintable() for line in lines)
    with desk.database.reading() as db:
        metrics = metrics_text(count_fleet(db, desk.now), desk.counters, {})
    assert all(re.fullmatch(r"#.*|[a-z_]+(\{.*\})? [0-9.]+|", line) for line in metrics.split("\n"))


TRIES = st.builds(
    lambda release, bundle, gallery, outcome, trial: {
        "release": release,
        "bundle_id": bundle,
        "outcome": outcome,
        "at": NOW,
        **({} if gallery is None else {"gallery_sequence": gallery}),
        **({} if trial is None else {"trial": trial}),
    },
    st.integers(3, 5),
    st.sampled_from(["b3", "b4", "b40"]),
    st.sampled_from([None, 0, 1, 2, 20]),
    st.sampled_from(["confirmed", "rolled back", "taken over", "refused"]),
    st.sampled_from([None, "t1"]),
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(TRIES, max_size=3),
    now=st.lists(TRIES, max_size=4),
    running=st.sampled_from([None, {"bundle_id": "b4", "gallery_sequence": 2, "release": 4}, {"bundle_id": "b3"}]),
    target=st.sampled_from([None, 4, 5]),
    held=st.lists(st.integers(3, 5), max_size=2),
)
def test_rows_about_a_release_are_judged_as_whole_ones(desk, before, now, running, target, held):
    """Whatever devices reported: what is left out changes no gate."""
    revisions = desk.__dict__.setdefault("revisions", iter(range(1, 10_000, 2)))
    revision = next(revisions)
    common = {"running": running, "target": target, "quarantine": [{"release": one, "reason": "slow"} for one in held]}
    desk.now += 100
    for number, tries in enumerate((before, now)):
        desk.take(message(report(revision=revision + number, tries=tries, **common), at=desk.now))
    release = a_plan().release
    plan = a_plan(release=release.model_copy(update={"gallery_sequence": 2}), approved_at="2020-01-01T00:00:00Z")
    whole = [DeviceRow.model_validate(row) for row in desk.rows()]
    narrow = [DeviceRow.model_validate(row) for row in desk.rows(about=(4, "b4", 2))]
    assert [judge(plan, row, desk.now) for row in whole] == [judge(plan, row, desk.now) for row in narrow]
    assert [why_not_confirmed(plan, row) for row in whole] == [why_not_confirmed(plan, row) for row in narrow]


def test_devices_of_buckets_are_chosen_as_a_plan_chooses_them(desk):
    desk.take(*(message(report(f"cam-{number}")) for number in range(40)))
    salt, known = "0123456789abcdef", [row["device"] for row in desk.rows()]
    for limit in (0, 3000, 10_000):
        wanted = [one for one in known if bucket_of(salt, one) < limit]
        assert [row["device"] for row in desk.rows(within=(salt, limit))] == wanted
    assert 0 < len(desk.rows(within=(salt, 3000))) < 40
    first = desk.rows(within=(salt, 3000), limit=2)
    assert first + desk.rows(within=(salt, 3000), after=first[-1]["device"]) == desk.rows(within=(salt, 3000))


def test_rows_about_a_release_leave_out_the_rest(desk):
    tries = [a_try(4), a_try(3), a_try(2, "rolled back")]
    desk.take(message(report(tries=tries, cameras={"shelf": "online"}, counters={"frames": 7}, versions={"edge": "1"})))
    (row,) = desk.rows(about=(4, "b4", 0))
    assert row["reported"]["tries"] == [tries[0] | {"gallery_sequence": 0}]
    assert row["reported"].keys().isdisjoint({"cameras", "counters", "versions"})
