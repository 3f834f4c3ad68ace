from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.diagnostics.status import format_status
from edge.errors import PublishError
from edge.messaging.command import reply_payload
from edge.messaging.in_view import InView
from edge.messaging.payload import (
    availability_payload,
    birth_payload,
    event_payload,
    health_payload,
    mark_historical,
    priority_of,
    shrink,
    status_payload,
    topic_of,
)
from edge.telemetry.health_report import AgentReport, DeletionReceipt, ServedRelease, TaughtCounts, WaitingUnknowns
from edge.telemetry.timing import StageTimes
from edge.types import Attribute, Category, Crossing, Decision, Event, Hit, Match
from tests.fakes import health_report

DOCS = Path(__file__).parents[3] / "docs"
VALIDATORS = {
    name: jsonschema.Draft202012Validator(json.loads((DOCS / f"{name}.schema.json").read_text(encoding="utf-8")))
    for name in ("event", "status", "health", "birth", "command", "reply", "frigate_event", "in_view")
}
KNOWN = Decision(
    category=Category("bottle", 0.98),
    match=Match("sku-1", "Red 0.5 l", 0.91, 0.2, 0.97),
    reason=None,
    top=(Hit("sku-1", "Red 0.5 l", 0.91), Hit("sku-2", "Blue 0.5 l", 0.71)),
)
EVENT = Event(
    event_id="1",
    type="new",
    camera="door",
    track_id=7,
    captured_at=1700000000.1239,
    captured_ns=1,
    time_source="rtcp",
    pts_s=None,
    box_rel=(0.1, 0.2, 0.3, 1.00001),
    frame_px=(640, 480),
    started_at=1699999990.5,
    dwell_s=9.62345,
    decision=KNOWN,
    bundle="b1",
    gallery="g1",
    latency_ms={"detect": 3.14159, "total": 9.0},
)
text = st.text(max_size=40) | st.text(max_size=40).map(lambda few: few * 75)


def payload_of(event, **changes):
    arguments = {"site": "shop", "device": "till", "boot_id": "boot", "seq": 3, **changes}
    return event_payload(event, **arguments)


def check(name, payload):
    message = json.loads(payload)
    VALIDATORS[name].validate(message)
    return message


def test_event_fits_its_schema():
    message = check("event", payload_of(EVENT))
    assert message["captured_at"] == "2023-11-14T22:13:20.123Z"
    assert message["box"] == [0.1, 0.2, 0.3, 1.0]
    assert (message["started_at"], message["dwell_s"]) == ("2023-11-14T22:13:10.500Z", 9.623)
    assert message["match"] == {
        "item": "sku-1", "label": "Red 0.5 l", "score": 0.91, "margin": 0.2, "probability": 0.97,
    }  # fmt: skip
    assert message["latency_ms"] == {"detect": 3.14, "total": 9.0}
    assert (message["boot_id"], message["seq"], message["historical"]) == ("boot", 3, False)
    assert "shortened" not in message


def test_uncalibrated_match_has_no_probability():
    decision = replace(KNOWN, match=replace(KNOWN.match, probability=None))
    assert check("event", payload_of(replace(EVENT, decision=decision)))["match"]["probability"] is None


def test_attributes_are_sent_where_the_gallery_has_some():
    attributes = (Attribute("colour", "red", 0.98765),)
    message = check("event", payload_of(replace(EVENT, decision=replace(KNOWN, attributes=attributes))))
    assert message["attributes"] == [{"name": "colour", "value": "red", "confidence": 0.9877}]
    assert "attributes" not in check("event", payload_of(EVENT))


def test_unknown_object_has_a_reason_and_no_match():
    message = check(
        "event", payload_of(replace(EVENT, decision=Decision(None, None, "unknown_category"), pts_s=1.23456))
    )
    assert (message["category"], message["match"], message["reason"]) == (None, None, "unknown_category")
    assert (message["top"], message["pts_s"]) == ([], 1.235)


@given(text, text, text, text, st.lists(text, max_size=5))
def test_event_is_short_and_valid_for_any_texts(item, label, camera, bundle, stages):
    hit = Hit(item, label, 0.5)
    event = replace(
        EVENT,
        camera=camera,
        bundle=bundle,
        decision=Decision(Category(label, 1.0), Match(item, label, 1, 1, 1), None, (hit,) * 5),
        latency_ms={f"{n}{stage}": 1.0 for n, stage in enumerate(stages)},
    )
    payload = payload_of(event)
    assert len(payload) < 8192
    assert payload == payload_of(event)
    check("event", payload)


def test_longest_texts_are_truncated_and_flagged():
    worst = "\x01" * 9000
    near, attributes = (Hit(worst, worst, 1),) * 5, (Attribute(worst, worst, 1),) * 99
    decision = Decision(Category(worst, 1.0), Match(worst, worst, 1, 1, 1), None, near, attributes)
    event = replace(
        EVENT,
        event_id=worst,
        camera=worst,
        bundle=worst,
        gallery=worst,
        decision=decision,
        latency_ms={f"{n}{worst}": n for n in range(99)},
        zones=(worst,) * 16,
        crossings=(Crossing(worst, "left_to_right"),) * 8,
    )
    payload = event_payload(event, worst, worst, worst, 10**18, historical=True)
    assert len(payload) < 8192
    assert check("event", payload)["shortened"] is True


@pytest.mark.parametrize("name", sorted(VALIDATORS))
def test_schema_is_valid(name):
    VALIDATORS[name].check_schema(VALIDATORS[name].schema)


def test_surrogates_and_nan_do_not_break_json():
    decision = Decision(None, Match("a\ud800", "x", float("nan"), float("inf"), 1.0), None)
    message = check("event", payload_of(replace(EVENT, decision=decision, box_rel=(float("nan"), -1, 2, 1))))
    assert message["match"]["score"] is None
    assert message["box"] == [1.0, 0.0, 1.0, 1.0]


def test_mark_historical_changes_only_the_flag():
    assert json.loads(mark_historical(payload_of(EVENT))) == {**json.loads(payload_of(EVENT)), "historical": True}
    assert mark_historical(payload_of(EVENT)) == payload_of(EVENT, historical=True)
    assert mark_historical(payload_of(EVENT, historical=True)) == payload_of(EVENT, historical=True)
    assert mark_historical(b"online") == b"online"


def test_updates_have_the_lowest_priority_and_ends_the_highest():
    assert priority_of("update") < priority_of("new") < priority_of("end")


def test_event_holds_zones_and_crossings():
    crossing = Crossing("gate", "left_to_right")
    message = check("event", payload_of(replace(EVENT, zones=("shelf", "till"), crossings=(crossing,))))
    assert message["zones"] == ["shelf", "till"]
    assert message["crossings"] == [{"line": "gate", "direction": "left_to_right"}]


def test_historical_event_is_flagged():
    payload = payload_of(replace(EVENT, historical=True))
    assert check("event", payload)["historical"] is True
    assert mark_historical(payload) == payload


def test_topic_levels_are_site_device_camera():
    assert topic_of("finesight", "shop", "till", "door", "events") == "finesight/shop/till/door/events"
    assert topic_of("finesight", "shop", "till", None, "available") == "finesight/shop/till/available"


@pytest.mark.parametrize("bad", ["", "a/b", "+", "#", "a\x00", "a\nb", "\ud800"])
def test_characters_with_a_meaning_in_topics_are_refused(bad):
    with pytest.raises(PublishError, match="use printable text"):
        topic_of("finesight", "shop", bad, "door", "events")


def test_reserved_topics_are_refused():
    with pytest.raises(PublishError, match="brokers reserve topics"):
        topic_of("$SYS", "shop", "till", None, "health")


def test_status_and_health_fit_their_schemas():
    status = check("status", status_payload("door", "stalled", 1700000000.0, "no frame for 5 s"))
    assert status["since"] == "2023-11-14T22:13:20.000Z"
    report = health_report(
        cameras={"door": "online"},
        counters={"frames": 3},
        stages={"detect": StageTimes(3, 1.0, 2.0, 3.0)},
        clock_offsets_s={"door": -3.25},
        clocks_off=("door",),
    )
    message = check("health", health_payload(report))
    assert (message["clock_offsets_s"], message["clocks_off"]) == ({"door": -3.25}, ["door"])
    assert (message["gallery_space"], message["categories_compatible"]) == ("native", [])
    assert message["stages"]["detect"] == {"count": 3, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0}
    assert availability_payload("offline") == b"offline"


def test_health_and_status_report_a_compatible_gallery():
    report = health_report(gallery_space="compatible", categories_compatible=("bottle", "can"))
    payload = health_payload(report)
    message = check("health", payload)
    assert (message["gallery_space"], message["categories_compatible"]) == ("compatible", ["bottle", "can"])
    lines = "\n".join(format_status(payload.decode()))
    assert "gallery: in an older, compatible embedding space; re-embed these categories: bottle, can" in lines


def test_birth_fits_its_schema():
    report = health_report(
        versions={"edge": "0.1.0", "bundle": "b1", "gallery": "g1"}, safe_mode=True, config_error="device.yaml:3: bad"
    )
    message = check("birth", birth_payload(report, {"door": "detect", "till": "whole_frame"}))
    assert message["versions"] == {"edge": "0.1.0", "bundle": "b1", "gallery": "g1"}
    assert message["cameras"] == {"door": {"framing": "detect"}, "till": {"framing": "whole_frame"}}
    assert (message["boot_id"], message["safe_mode"]) == ("boot", True)
    assert message["config_error"] == "device.yaml:3: bad"


def released(**changes):
    """A report of a device with a release on trial, an update agent and a kiosk."""
    update = AgentReport("trial", "served for 20 s", ServedRelease("shop", 4, 9), 5.0, 700.0, 350.0)
    update = replace(update, receipts=(DeletionReceipt("tyre", 9, 2),))
    versions = {"edge": "0.1.0", "bundle": "b1", "gallery": "g1"}
    release, taught = ServedRelease("shop", 4, 9), TaughtCounts(3, 2, 0, 1)
    report = {"slot": "b", "release": release, "trial": "t-4", "update": update, "taught": taught}
    return health_report(versions=versions, **report | changes)


def test_birth_names_the_release_that_serves_its_galleries_and_trial():
    message = check("birth", birth_payload(released(fallback="slot b is damaged"), {}))
    assert message["release"] == {"line": "shop", "sequence": 4, "gallery_sequence": 9}
    assert (message["trial"], message["fallback"]) == ("t-4", "slot b is damaged")
    message = check("birth", birth_payload(released(release=None, trial=None), {}))
    assert (message["release"], message["trial"], message["fallback"]) == (None, None, None)


def test_health_and_status_hold_the_report_of_the_update_agent():
    payload = health_payload(released())
    message = check("health", payload)
    assert message["update"]["receipts"] == [{"category": "tyre", "sequence": 9, "items": 2}]
    assert (message["taught"]["waiting"], message["slot"], message["trial"]) == (1, "b", "t-4")
    lines = format_status(payload.decode())
    assert "release shop 4, galleries 9, on trial t-4" in lines
    assert "updates: trial, release shop 4, galleries 9: served for 20 s" in lines
    assert "taught items: 3, 2 of them searched, 1 wait to be embedded" in lines
    assert "has expired: nothing new is installed; refresh the repository" in "\n".join(lines)
    later = replace(released().update, expires_at=released().at + 86400.0, warn_at=0.0)
    expiring = "updates: the metadata of the repository expires in 1.0 days; refresh the repository"
    assert expiring in format_status(health_payload(released(update=later)).decode())
    fresh = replace(later, warn_at=released().at + 1)
    assert "metadata" not in "\n".join(format_status(health_payload(released(update=fresh)).decode()))


def test_health_and_status_count_the_unknown_objects_that_wait():
    payload = health_payload(health_report(unknowns=WaitingUnknowns(2, 90_000, "the disk is full")))
    assert check("health", payload)["unknowns"] == {"files": 2, "bytes": 90_000, "problem": "the disk is full"}
    lines = format_status(payload.decode())
    assert "unknown objects: 2 pictures wait for the server; the disk is full" in lines
    assert check("health", health_payload(health_report()))["unknowns"] is None


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(text | st.sampled_from(["#", "+", "a/b", "$SYS", ""]), min_size=5, max_size=5))
def test_any_levels_give_a_valid_topic_or_our_error(levels):
    try:
        topic = topic_of(*levels)
    except PublishError:
        return
    assert topic.split("/") == levels
    assert not set("#+") & set(topic)
    assert not topic.startswith("$")


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([b"", b',"historical":false}', b',"historical":true}']))
def test_mark_historical_accepts_any_bytes(start, end):
    marked = mark_historical(start + end)
    assert marked == mark_historical(marked)
    assert marked == (start + b',"historical":true}' if end else mark_historical(start))


def messages_of_every_kind():
    """Return a message of each schema with much in it."""
    full = replace(EVENT, zones=("z" * 300,) * 4, latency_ms={f"stage {n}": 1.0 for n in range(16)})
    in_view = InView()
    for number in range(30):
        match = replace(KNOWN.match, label=f"item {number}")
        in_view.update(replace(EVENT, track_id=number, decision=replace(KNOWN, match=match)))
    report = health_report(
        versions={"edge": "0.1.0", "bundle": "b1", "gallery": "g1"},
        counters={f"count_{number}": number for number in range(99)},
        stages={f"stage {number}": StageTimes(3, 1.0, 2.0, 3.0) for number in range(30)},
        evidence={"door": "x" * 500},
        mqtt_problems=("y" * 300,) * 9,
        config_error="z" * 900,
    )
    return {
        "event": payload_of(full),
        "health": health_payload(report),
        "birth": birth_payload(report, {f"camera-{number}": "detect" for number in range(64)}),
        "status": status_payload("door", "stalled", 1700000000.0, "x" * 900),
        "in_view": in_view.payload("door"),
        "reply": reply_payload("reload", "7", {"changed": [f"camera-{number}" for number in range(200)]}),
    }


@pytest.mark.parametrize("name", ["event", "health", "birth", "status", "in_view", "reply"])
def test_message_is_shortened_step_by_step_and_keeps_its_schema(name):
    whole = messages_of_every_kind()[name]
    assert shrink(whole, len(whole)) is whole
    shortest = shrink(whole, 0)
    assert len(shortest) < len(whole) / 2
    for limit in range(len(shortest), len(whole), 97):
        shortened = shrink(whole, limit)
        assert len(shortened) <= limit
        message = check(name, shortened)
        assert message["shortened"] is True


def test_shortened_event_keeps_what_it_is_about():
    whole = json.loads(payload_of(EVENT))
    payload = shrink(payload_of(EVENT), 0)
    event = json.loads(payload)
    kept = whole.keys() - {"latency_ms", "top", "zones", "crossings"}
    assert {key: event[key] for key in kept} == {key: whole[key] for key in kept}
    assert json.loads(mark_historical(payload))["historical"] is True


def test_health_that_barely_fits_loses_stages_before_counters():
    whole = messages_of_every_kind()["health"]
    message = json.loads(shrink(whole, len(whole) - 1))
    assert (message["stages"], len(message["counters"])) == ({}, 99)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 80), st.booleans())
def test_shrink_accepts_any_bytes(payload, limit, damaged):
    payload = b'{"schema":"finesight.event/1"' + payload if damaged else payload
    assert shrink(payload, limit) in (payload, shrink(payload, 0))
