"""The report of the update agent, as the running device reads it."""

from __future__ import annotations

import json

import pytest

from edge.telemetry.agent_report import NAME, UNREADABLE, AgentReports, read_agent_report
from edge.telemetry.counters import Counters
from edge.telemetry.health_report import DeletionReceipt, ServedRelease

REPORT = {
    "schema": "finesight.agent/1",
    "state": "trial",
    "reason": "on trial: served for 20 of 600 s",
    "release": {"line": "shop", "sequence": 3, "gallery_sequence": 9, "bundle_id": "shop-3"},
    "written_at": 5.0,
    "expires_at": 700.0,
    "warn_at": 350.0,
    "receipts": [{"category": "tyre", "sequence": 9, "items": 2}],
}


def test_report_is_read_when_its_file_changes(tmp_path):
    reports = AgentReports(tmp_path, Counters())
    assert reports.newest() is None
    (tmp_path / NAME).write_text(json.dumps(REPORT))
    first = reports.newest()
    assert (first.state, first.release, first.warn_at) == ("trial", ServedRelease("shop", 3, 9), 350.0)
    assert first.receipts == (DeletionReceipt("tyre", 9, 2),)
    assert reports.newest() is first
    (tmp_path / "new").write_text(json.dumps(REPORT | {"state": "idle", "release": None}))
    (tmp_path / "new").replace(tmp_path / NAME)
    assert (reports.newest().state, reports.newest().release) == ("idle", None)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"state": 1}', b'{"state": "x", "expires_at": NaN}', b" " * 300_000]
)
def test_damaged_report_says_so(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    counters = Counters()
    reports = AgentReports(tmp_path, counters)
    report = reports.newest()
    assert reports.newest() is report
    assert (report.state, counters.total("agent_reports_unread")) == (UNREADABLE, 1)
    assert NAME in report.reason


def test_only_the_newest_receipts_are_kept(tmp_path):
    receipts = [{"category": "tyre", "sequence": n} for n in range(100)]
    (tmp_path / NAME).write_text(json.dumps(REPORT | {"receipts": receipts}))
    assert [one.sequence for one in read_agent_report(tmp_path / NAME).receipts] == list(range(36, 100))
