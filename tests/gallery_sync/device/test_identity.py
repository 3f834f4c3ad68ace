"""Who a device is, as rollouts select it."""

from __future__ import annotations

import hashlib

import pytest

from edge.errors import ConfigError
from gallery_sync.device.identity import identity_of, read_own_labels
from gallery_sync.formats.enrolment import Enrolment

ENROLMENT = Enrolment(
    device_id="shelf-1",
    line="demo",
    group="lab",
    labels={"site": "rome", "floor": "2"},
    repository="https://example.com/repo",
    root="a root",
    root_sha256=hashlib.sha256(b"a root").hexdigest(),
)


def test_own_labels_win_over_those_of_the_enrolment():
    found = identity_of(ENROLMENT, "demo", {"site": "berlin"})
    assert found.device_id == "shelf-1"
    assert found.labels == {"site": "berlin", "floor": "2", "device": "shelf-1", "group": "lab", "line": "demo"}


def test_nobody_gives_itself_another_name():
    found = identity_of(ENROLMENT, "demo", {"device": "shelf-2", "group": "shop", "line": "other"})
    assert (found.labels["device"], found.labels["group"], found.labels["line"]) == ("shelf-1", "lab", "demo")


def test_device_that_is_not_enrolled_has_its_line_alone():
    found = identity_of(None, "demo", {"site": "berlin"})
    assert (found.device_id, found.labels) == (None, {"line": "demo"})


def test_other_labels_are_another_identity():
    assert identity_of(ENROLMENT, "demo").sha256 == identity_of(ENROLMENT, "demo", {}).sha256
    assert identity_of(ENROLMENT, "demo").sha256 != identity_of(ENROLMENT, "demo", {"site": "berlin"}).sha256


def test_labels_are_read_from_agent_yaml(tmp_path):
    path = tmp_path / "agent.yaml"
    assert read_own_labels(path) == {}
    path.write_text("poll_s: 60\nlabels: {site: berlin}\n")
    assert read_own_labels(path, must_exist=True) == {"site": "berlin"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels: {group: lab}", "the label group, which comes from the enrolment"),
        ("labels: {Site: berlin}", "labels"),
        ("labels: {site: a b}", "labels"),
        ("labels: [site]", "labels"),
    ],
)
def test_wrong_labels_are_one_clear_error(tmp_path, text, message):
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_own_labels(path)


def test_missing_file_that_is_named_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"agent\.yaml"):
        read_own_labels(tmp_path / "agent.yaml", must_exist=True)
