"""The audit log: a chain of lines that nobody changes unseen."""

from __future__ import annotations

import json

import pytest

from gallery_sync.rollouts import audit


@pytest.fixture
def log(tmp_path):
    """A log with three lines; the second one was signed."""
    audit.append(tmp_path, {"at": "1", "by": "ann", "what": "create", "state": "done"})
    anchor = audit.append(tmp_path, {"at": "2", "by": "bob", "what": "approve", "revision": 2, "state": "begun"})
    audit.append(tmp_path, {"at": "2", "of": anchor, "state": "done"})
    return tmp_path, anchor


def history(repo, anchor, revision=2):
    return audit.history(audit.read_log(repo), revision, anchor)


def test_what_was_done_is_listed_once(log):
    repo, anchor = log
    rows, problems = history(repo, anchor)
    assert ([row["what"] for row in rows], problems) == (["create", "approve"], [])
    assert [row["state"] for row in rows] == ["done", "done"]


def test_changed_line_is_found(log):
    repo, anchor = log
    path = audit.log_path(repo)
    path.write_text(path.read_text().replace('"bob"', '"eve"'))
    assert history(repo, anchor)[1] == [
        "line 3 does not follow the line before it: the log was changed",
        "the line that the signed rollouts name is not here: the log was cut or replaced",
    ]


@pytest.mark.parametrize("gone", [0, 1])
def test_removed_line_is_found(log, gone):
    repo, anchor = log
    lines = audit.log_path(repo).read_text().splitlines(keepends=True)
    audit.log_path(repo).write_text("".join(line for number, line in enumerate(lines) if number != gone))
    assert history(repo, anchor)[1] != []


def test_cut_or_lost_log_is_found(log):
    repo, anchor = log
    audit.log_path(repo).unlink()
    (problem,) = history(repo, anchor)[1]
    assert problem == "the line that the signed rollouts name is not here: the log was cut or replaced"
    assert history(repo, None, 0) == ([], [])


def test_torn_last_line_is_named_and_the_next_goes_on(log):
    repo, anchor = log
    path = audit.log_path(repo)
    whole = path.read_bytes()
    for cut in range(1, 40):
        path.write_bytes(whole + b'{"at":"3","by":"ann","what":"pause","revi'[:cut])
        audit.append(repo, {"at": "4", "by": "ann", "what": "pause", "state": "done"})
        rows, problems = history(repo, anchor)
        assert problems == ["line 4 is torn"]
        assert [row["what"] for row in rows] == ["create", "approve", "pause"]
        assert path.read_bytes().startswith(whole)  # append-only


def test_change_that_was_never_signed_is_interrupted(log):
    repo, anchor = log
    audit.append(repo, {"at": "3", "by": "ann", "what": "pause", "revision": 3, "state": "begun"})
    assert history(repo, anchor)[0][-1]["state"] == "interrupted"


def test_change_that_became_visible_before_a_crash_is_done(log):
    repo, _ = log
    anchor = audit.append(repo, {"at": "3", "by": "ann", "what": "pause", "revision": 3, "state": "begun"})
    assert history(repo, anchor, 3)[0][-1]["state"] == "done"
    audit.settle(repo, audit.read_log(repo), anchor, "4")
    audit.settle(repo, audit.read_log(repo), anchor, "5")  # once
    assert json.loads(audit.log_path(repo).read_text().splitlines()[-1])["at"] == "4"
    assert history(repo, "f" * 64, 4)[0][-1]["state"] == "done"


def test_draft_waits_is_signed_or_given_up(log):
    repo, anchor = log
    waits = audit.append(repo, {"at": "3", "by": "ann", "what": "pause", "revision": 3, "state": "begun"})
    audit.append(repo, {"at": "3", "of": waits, "state": "waits", "draft": "rollout-3.json"})
    assert history(repo, anchor, 2)[0][-1]["state"] == "waits"
    assert history(repo, waits, 3)[0][-1]["state"] == "done"
    assert history(repo, anchor, 3)[0][-1]["state"] == "given up"


@pytest.mark.parametrize(
    "line", ["[]", '{"of": []}', '{"what": "x", "revision": "2", "state": "waits"}', "[" * 100_000]
)
def test_foreign_line_is_named_and_changes_nothing(log, line):
    repo, anchor = log
    with audit.log_path(repo).open("a") as file:
        file.write(line + "\n")
    rows, problems = history(repo, anchor)
    assert (len(rows), problems) == (2, ["line 4 is torn"])
