"""What another fleet system is told of a release follows from the pointer and the agent's report alone."""

from __future__ import annotations

import json

import pytest

from edge.bundle.active_pointer import ActivePointer, ReleaseName
from gallery_sync.adapters.device_view import DeviceView, Named, Report, Tried, judge, read_view

TWO = Named(line="demo", sequence=2)


def tried(outcome, sequence=2, at=1.0, reason=None):
    return Tried(line="demo", sequence=sequence, outcome=outcome, at=at, reason=reason)


def view(active, *tries, state="idle", at=2, reason=None, trial=None):
    pointer = ActivePointer(
        slot="a", bundle_id="b", gallery="0" * 16, release=ReleaseName(line="demo", sequence=active), trial=trial
    )
    return DeviceView(
        pointer, Report(state=state, reason=reason, release={"line": "demo", "sequence": at}, tries=list(tries))
    )


OLD = tried("rolled back", at=0.5)


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        (view(2, tried("confirmed")), "confirmed"),
        (view(2, tried("confirmed"), trial="t"), "waiting"),
        (view(2), "waiting"),  # by hand
        (view(2, OLD), "waiting"),  # by hand, after it was rolled back
        (view(1, tried("confirmed")), "failed"),  # and taken back
        (view(1, tried("rolled back"), OLD), "failed"),
        (view(1, OLD), "waiting"),
        (view(1, tried("refused"), OLD), "failed"),
        (view(2, tried("kept")), "failed"),
        (view(1, tried("taken over")), "failed"),
        (view(1, tried("failsafe")), "failed"),
        (view(1, tried("postponed"), OLD), "waiting"),
        (view(3, tried("confirmed", 3)), "waiting"),
        (view(1, reason="in quarantine: it failed"), "failed"),
        (view(1, reason="in quarantine: it failed", at=3), "waiting"),
        (DeviceView(), "waiting"),
        (view(1, state="trial"), "waiting"),
    ],
)
def test_release_succeeds_only_if_confirmed_and_serving(device, kind):
    assert judge(device, TWO, OLD.mark).kind == kind


@pytest.mark.parametrize(
    ("device", "switched", "downloaded"),
    [
        (view(1, state="fetch"), False, False),
        (view(1, state="prove"), False, True),
        (view(1, state="armed"), False, True),
        (view(1, state="switch"), True, True),
        (view(2, state="trial", trial="t"), True, True),
        (view(1, state="rollback"), True, True),
        (view(1, state="switch", at=3), False, False),
        (view(2), True, True),
    ],
)
def test_switch_begins_when_the_agent_has_stored_it(device, switched, downloaded):
    assert (device.has_switched(TWO), device.has_downloaded(TWO)) == (switched, downloaded)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"state":3}', b"\xff", b" " * (1 << 19)])
def test_damaged_report_is_waited_for(tmp_path, data):
    (tmp_path / "agent.json").write_bytes(data)
    found = read_view(tmp_path)
    assert found.report is None
    assert "no update agent has reported" in judge(found, TWO, None).text


def test_report_of_the_agent_is_read(tmp_path):
    last = {
        "at": 1.0,
        "line": "demo",
        "sequence": 2,
        "outcome": "confirmed",
        "reason": None,
        "trial": "t",
        "plan": None,
    }
    (tmp_path / "agent.json").write_text(json.dumps({"schema": "finesight.agent/1", "state": "idle", "last": last}))
    assert read_view(tmp_path).newest_mark == tried("confirmed").model_copy(update={"trial": "t"}).mark
