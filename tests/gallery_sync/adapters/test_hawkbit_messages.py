"""Whatever hawkBit sends is a value or one error, and permits nothing that it does not name."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.bundle.active_pointer import ActivePointer, ReleaseName, write_active_pointer
from edge.errors import SyncError
from gallery_sync.adapters.device_view import Named
from gallery_sync.adapters.hawkbit import Adapter
from gallery_sync.adapters.hawkbit_doors import World
from gallery_sync.adapters.hawkbit_messages import (
    ReleaseFile,
    feedback,
    labels_json,
    read_cancel,
    read_deployment,
    read_named,
    read_poll,
    read_sleep,
)
from gallery_sync.device.permit import read_permit
from tests.gallery_sync.adapters.ddi_server import ServerAction

NAMES = (
    "id deployment download update chunks artifacts filename release.json hashes sha256 size _links href metadata key "
    "value finesight.release finesight.line skip attempt forced available unavailable maintenanceWindow config polling "
    "sleep deploymentBase cancelAction stopId line sequence demo 7 2"
)
WORDS = st.sampled_from(NAMES.split())
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), WORDS, st.text(max_size=8))
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4))
GOOD = ServerAction(7, b'{"line":"demo","sequence":2}', {"note": "x"}).deployment("https://hawkbit.example.com")


def deployment(tree):
    return read_deployment(json.dumps(tree).encode(), "7", "demo")


@st.composite
def damaged(draw):
    """The answer of a healthy server, with some values replaced."""
    tree = json.loads(json.dumps(GOOD))
    for _ in range(draw(st.integers(1, 3))):
        at = tree
        while isinstance(at, dict | list) and at:
            keys = list(at) if isinstance(at, dict) else range(len(at))
            key = draw(st.sampled_from(list(keys)))
            if draw(st.booleans()) or not isinstance(at[key], dict | list):
                at[key] = draw(TREES)
                break
            at = at[key]
    return tree


@settings(max_examples=150, deadline=None)
@given(st.one_of(TREES.map(lambda tree: json.dumps(tree).encode()), st.binary(max_size=40)))
def test_any_answer_is_a_value_or_one_error(data):
    for read in (read_poll, read_cancel, read_named, lambda data: read_deployment(data, "7", "demo")):
        with suppress(SyncError):
            read(data)


@settings(max_examples=150, deadline=None)
@given(damaged())
def test_damaged_action_names_its_release_or_none(tree):
    try:
        names = deployment(tree).names
    except SyncError:
        return
    if isinstance(names, Named):
        values = [one for chunk in tree["deployment"]["chunks"] for one in chunk.get("metadata") or []]
        assert str(names.sequence) in [one["value"].lstrip("0") for one in values if one["key"] == "finesight.release"]
    else:
        assert isinstance(names, ReleaseFile | str)


def test_answers_of_1_1_0_are_read():
    poll = read_poll(
        b'{"config":{"polling":{"sleep":"12:00:00"}},"_links":{"deploymentBase":{"href":"https://hawkbit.example.com/T'
        b'/controller/v1/C/deploymentBase/5?c=-2127183556"},"configData":{"href":"https://hawkbit.example.com/x"}}}'
    )
    assert (poll.sleep_s, poll.deployment, poll.tag, poll.wants_labels) == (43200.0, "5", "-2127183556", True)
    found = deployment(GOOD)
    assert (found.may_install, found.names.module) == (True, "23")
    assert read_cancel(b'{"id":"11","cancelAction":{"stopId":"11"}}') == "11"


@pytest.mark.parametrize(
    ("update", "window", "install", "download_only"),
    [
        ("forced", None, True, False),
        ("attempt", None, True, False),
        ("forced", "available", True, False),
        ("skip", "unavailable", False, False),
        ("forced", "unavailable", False, False),
        ("skip", None, False, True),
        ("sometime", None, False, False),
    ],
)
def test_maintenance_window_and_handling_decide_what_is_allowed(update, window, install, download_only):
    found = deployment({"id": "7", "deployment": {**GOOD["deployment"], "update": update, "maintenanceWindow": window}})
    assert (found.may_download, found.may_install, found.download_only) == (True, install, download_only)


def test_release_that_is_named_twice_is_not_taken():
    chunk = {**GOOD["deployment"]["chunks"][0], "metadata": [{"key": "finesight.release", "value": "3"}]}
    found = deployment({"id": "7", "deployment": {**GOOD["deployment"], "chunks": [chunk]}})
    assert found.names.startswith("found 2 names of a release")


@pytest.mark.parametrize(
    "href", ["https://cdn.example.com/release.json", "softwaremodules/9/artifacts/release.json.MD5SUM"]
)
def test_file_that_hawkbit_does_not_serve_itself_is_not_taken(href):
    tree = json.loads(json.dumps(GOOD))
    tree["deployment"]["chunks"][0]["artifacts"][0]["_links"] = {"download": {"href": href}}
    assert "does not serve" in deployment(tree).names


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:05:00", 300), ("00:00:01", 10), ("240:00:00", 86400), (None, 300), ("soon", 300), ("1:2:3", 300)],
)
def test_sleep_is_kept_within_limits(text, seconds):
    assert read_sleep(text) == seconds


def test_action_cannot_be_closed_without_a_result():
    with pytest.raises(ValueError, match="success or failure"):
        feedback("closed", "none", "")


def test_details_are_one_line_that_hawkbit_stores_in_one_piece():
    (detail,) = feedback("closed", "failure", "a\nb" + "x" * 1000)["status"]["details"]
    assert len(detail) == 500
    assert detail.startswith("a\\nb")


def test_attributes_that_hawkbit_refuses_are_left_out():
    assert labels_json({"site": "berlin", "name": "Tür", "long": "x" * 129})["data"] == {"site": "berlin"}


class Answers:
    """A hawkBit whose answers to a poll, an action and a file are any bytes."""

    def __init__(self, *answers):
        self.answers, self.told = answers, []

    def poll(self):
        return read_poll(self.answers[0])

    def deployment(self, action, tag, line):
        return read_deployment(self.answers[1], action, line)

    def release_file(self, file):
        return read_named(self.answers[2])

    def cancelled(self, action):
        return read_cancel(self.answers[1])

    def tell(self, *told):
        self.told.append(told)
        return True

    answer_cancel = tell

    def put_labels(self, labels):
        assert labels


POLL = b'{"_links":{"deploymentBase":{"href":"https://hawkbit.example.com/T/controller/v1/C/deploymentBase/7"}}}'
BYTES = st.one_of(TREES.map(lambda tree: json.dumps(tree).encode()), st.binary(max_size=20))
FILES = st.one_of(BYTES, st.just(b'{"line":"demo","sequence":2}'), st.just(b'{"line":"other","sequence":2}'))


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.just(POLL), BYTES), damaged().map(lambda tree: json.dumps(tree).encode()), FILES)
def test_any_answers_permit_nothing_that_they_do_not_name(poll, action, file):
    with tempfile.TemporaryDirectory() as name:
        state_dir, client = Path(name), Answers(poll, action, file)
        release = ReleaseName(line="demo", sequence=1)
        write_active_pointer(state_dir, ActivePointer(slot="a", bundle_id="b", gallery="0" * 16, release=release))
        adapter = Adapter(client, state_dir, 60.0, World(lambda: 0.0))
        for _ in range(2):
            with suppress(SyncError):
                adapter.turn()
        permit = read_permit(state_dir)
        if permit is not None:
            assert permit.line == "demo"
            assert str(permit.sequence).encode() in action + file
        assert all(told[1:3] != ("closed", "success") for told in client.told)
