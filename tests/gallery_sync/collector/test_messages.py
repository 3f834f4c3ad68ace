"""What is taken for a message of a device, and what is not."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gallery_sync.collector.messages import (
    Arrived,
    WrongMessageError,
    arrived,
    read_answer,
    read_available,
    read_report,
)
from tests.gallery_sync.collector.collector_samples import NOW, answer, message, report

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def take(topic, payload=b"{}"):
    return arrived(topic, payload, NOW, retained=False, prefix="fleet/v1", topic_root="finesight")


@pytest.mark.parametrize(
    ("topic", "device", "kind"),
    [
        ("fleet/v1/device/cam-1/reported", "cam-1", "reported"),
        ("fleet/v1/device/cam-1/available", "cam-1", "available"),
        ("fleet/v1/device/cam-1/answer", "cam-1", "answer"),
        ("finesight/berlin/cam-1/cmd/reply", "cam-1", "reply"),
    ],
)
def test_topic_names_device_and_kind(topic, device, kind):
    found = take(topic)
    assert (found.device, found.kind) == (device, kind)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "fleet/v1/device/cam-1/desired",
        "fleet/v1/device/cam-1/reported/more",
        "fleet/v1/device/../reported",
        "fleet/v1/device/cam 1/reported",
        "fleet/v1/line/shop/reported",
        "other/v1/device/cam-1/reported",
        "finesight/berlin/cam-1/cmd/health",
        "finesight/berlin/a b/cmd/reply",
    ],
)
def test_other_topics_are_refused(topic):
    with pytest.raises(WrongMessageError) as caught:
        take(topic)
    assert caught.value.reason == "topic"


def test_empty_and_large_messages_are_refused():
    for payload, reason in ((b"", "empty"), (b" " * 40_000, "too_large")):
        with pytest.raises(WrongMessageError) as caught:
            take("fleet/v1/device/cam-1/reported", payload)
        assert caught.value.reason == reason


def reason_of(read, one):
    with pytest.raises(WrongMessageError) as caught:
        read(one)
    return caught.value.reason


def test_report_of_another_device_is_refused():
    own = message(report("cam-2"))
    assert reason_of(read_report, Arrived("cam-1", "reported", own.payload, NOW)) == "other_device"
    labels = {"device": "cam-2", "site": "berlin"}
    assert reason_of(read_report, message(report(labels=labels))) == "other_device"


def test_report_gets_the_labels_that_every_device_has():
    assert read_report(message(report())).labels == {
        "device": "cam-1",
        "line": "shop",
        "site": "berlin",
        "group": "lab",
    }


@pytest.mark.parametrize(
    "fields", [{"schema": 2}, {"revision": 0}, {"revision": 1.5}, {"at": "now"}, {"labels": {"a b": "c"}}]
)
def test_report_with_a_wrong_field_is_refused(fields):
    assert reason_of(read_report, message(report(**fields))) == "invalid"


@given(JSON)
def test_any_json_is_a_report_or_refused(tree):
    payload = json.dumps(tree).encode()
    for kind, read in (("reported", read_report), ("answer", read_answer), ("reply", read_answer)):
        with pytest.raises(WrongMessageError):
            read(Arrived("cam-1", kind, payload, NOW))


@given(st.sampled_from(sorted(report())), JSON)
def test_any_value_of_a_field_never_raises(field, value):
    with contextlib.suppress(WrongMessageError):
        read_report(message({**report(), field: value} | {"device": "cam-1"}))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    for kind, read in (("reported", read_report), ("answer", read_answer), ("available", read_available)):
        if data not in (b"online", b"offline", b"stopped"):
            assert reason_of(read, Arrived("cam-1", kind, data, NOW)) == "invalid"


def test_reply_of_edge_run_is_an_answer():
    done = {"device": "cam-1", "schema": "finesight.reply/1", "id": "c1", "verb": "restart_camera"}
    found = read_answer(message({**done, "ok": True, "result": {"camera": "desk"}}, "reply"))
    assert (found.id, found.state, found.result) == ("c1", "done", {"camera": "desk"})
    found = read_answer(message({**done, "ok": False, "error": "unknown camera"}, "reply"))
    assert (found.state, found.text) == ("failed", "unknown camera")


def test_answer_is_read():
    assert read_answer(message(answer(), "answer")).state == "done"
    assert [read_available(Arrived("cam-1", "available", word, NOW)) for word in (b"online", b"offline")] == [
        *(True, False)
    ]
