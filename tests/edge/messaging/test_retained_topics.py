from __future__ import annotations

import pytest

from edge.messaging.retained_topics import RetainedTopics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "retained_topics.json"


def test_topics_that_are_not_wanted_any_more_are_known_after_a_restart(path):
    RetainedTopics(path).add({"t/door/status", "t/door/snapshot"})
    topics = RetainedTopics(path)
    topics.add({"t/door/status"})
    assert topics.others({"t/door/status"}) == ["t/door/snapshot"]


def test_cleared_topic_is_forgotten_for_good(path):
    topics = RetainedTopics(path)
    topics.add({"t/door/snapshot"})
    topics.forget("t/door/snapshot")
    topics.forget("never known")
    assert RetainedTopics(path).others(set()) == []


def test_unchanged_topics_are_not_written_again(path):
    topics = RetainedTopics(path)
    topics.add({"t/a"})
    path.unlink()
    topics.add({"t/a"})
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[1, null]", b"\xff"])
def test_damaged_file_counts_as_empty(path, content):
    path.write_bytes(content)
    assert RetainedTopics(path).others(set()) == []


def test_full_disk_is_no_error(tmp_path, caplog):
    topics = RetainedTopics(tmp_path / "missing" / "file.json")
    topics.add({"t/a"})
    assert topics.others(set()) == ["t/a"]
    assert "cannot write" in caplog.text
