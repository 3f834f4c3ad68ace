"""Rollouts: plan, approval by another person, progress, and every change, on a signed repository."""

from __future__ import annotations

import pytest

from gallery_sync.rollouts.heartbeat import Seen, write_seen
from tests.console.fleet.fleet_samples import digest_of, people, took
from tests.console_samples import running_console
from tests.sync_samples import published
from tests.waiting import until

API = "/api/v1/fleet/rollouts"
PLAN = {
    "name": "cola",
    "canary": 50,
    "canary_at_least": 2,
    "soak": "0s",
    "waves": "",
    "min_confirmed": 1,
    "max_failed": 0,
}


@pytest.fixture(scope="module", autouse=True)
def _devices(fleet):
    fleet.report_all(f"cam-{number}" for number in range(4))


def approved(who, repo, **changes):
    """Plan as Ada, approve as Grace."""
    assert who["ada"].send("POST", API, PLAN | changes).status == 200
    reply = who["grace"].send("POST", f"{API}/approve", {"plan": "cola", "digest": digest_of(repo, "cola")})
    assert reply.status == 200, reply.text
    assert reply.json["is_signed"]


def change(client, verb, repo, **body):
    return client.send("POST", f"{API}/{verb}", {"revision": published(repo).rollouts.revision, **body})


def test_preview_says_the_plan_that_is_then_written(who, repo):
    salt = "ab" * 16
    query = f"canary=50&canary_at_least=2&soak=0s&waves=&salt={salt}&exclude=site%3Dmunich&select=group%3Dlab"
    words = who["ada"].get(f"/parts/fleet/plan?{query}").text
    assert "Wave 1 adds 2 known devices" in words
    assert "never to devices with site=munich" in words
    assert list((repo / "rollouts").glob("*.json")) == []  # nothing is written by a preview
    who["ada"].send("POST", API, PLAN | {"salt": salt, "exclude": ["site=munich\n"], "select": "group=lab"})
    page = who["grace"].get("/fleet/rollouts/plans/cola").text
    assert "Wave 1 adds 2 known devices" in page
    assert digest_of(repo, "cola") in page


WRONG = (
    ({"select": "site"}, "expected a selector"),
    ({"exclude": ["=x"]}, "expected a selector"),
    ({"windows": ["at night"]}, "window"),
    ({"soak": "soon"}, "soak"),
    ({"waves": "5; rm"}, "percentages"),
    ({"waves": "0"}, "expected more than 0"),
    ({"release": 7}, "is not held"),
    ({"abort_to": 9}, "is not here"),
    ({"deadline": "0s"}, "deadline"),
    ({"canary": -1}, "canary"),
    ({"name": "../../x"}, "name"),
)


def test_wrong_plan_is_refused_with_its_field(who, repo):
    for changes, text in WRONG:
        reply = who["ada"].send("POST", API, PLAN | changes)
        assert (reply.status, text in reply.json["error"]) == (422, True), reply.text
    assert list((repo / "rollouts").glob("*.json")) == []


def test_name_that_is_taken_is_a_conflict(who, repo):
    assert who["ada"].send("POST", API, PLAN).status == 200
    assert who["ada"].send("POST", API, PLAN).json["reason"] == "conflict"


def test_planner_does_not_approve(who, repo):
    who["grace"].send("POST", API, PLAN)
    body = {"plan": "cola", "digest": digest_of(repo, "cola")}
    assert who["grace"].send("POST", f"{API}/approve", body).status == 403
    assert who["grace"].send("POST", f"{API}/approve", body | {"alone": True}).status == 403  # only an admin
    assert published(repo).plan is None
    assert who["ada"].send("POST", f"{API}/approve", body | {"digest": "0" * 16}).json["reason"] == "conflict"
    assert who["ada"].send("POST", f"{API}/approve", body).status == 200
    assert (published(repo).plan.planned_by, published(repo).plan.approved_by) == ("grace", "ada")


def test_admin_approves_alone_if_he_says_so(who, repo):
    who["ada"].send("POST", API, PLAN)
    body = {"plan": "cola", "digest": digest_of(repo, "cola")}
    assert who["ada"].send("POST", f"{API}/approve", body).status == 403
    assert who["ada"].send("POST", f"{API}/approve", body | {"alone": True}).json["is_signed"]


def test_progress_counts_waves_and_gates(client, who, repo, fleet):
    approved(who, repo, select="group=seen", max_failed=60, canary=100)
    candidate, labels = published(repo).plan.release, {"group": "seen"}
    fleet.report("seen-0", ago_s=-2, labels=labels, **took(candidate))
    fleet.report("seen-1", ago_s=-2, labels=labels, **took(candidate, "rolled back"))
    until(lambda: "1 confirmed" in shown_progress(who), "the devices are counted")
    page = shown_progress(who)
    assert "1 failed" in page
    assert "knows nothing" in page  # why it failed
    assert "group=seen" in page
    assert "Waves do not open by themselves now" in page
    write_seen(repo, Seen(client.services.clock(), 30.0))
    assert "Waves do not open by themselves now" not in shown_progress(who)
    status = who["vic"].get(API).json
    assert (status["controller_runs"], status["status"]["rollout"]["id"]) == (True, "cola")


def shown_progress(who):
    return who["vic"].get("/parts/fleet/progress").text


def test_pause_resume_next_complete(who, repo):
    approved(who, repo)
    grace = who["grace"]
    assert change(grace, "pause", repo, reason="wrong <label>").json["is_signed"]
    assert "wrong &lt;label&gt;" in grace.get("/fleet/rollouts").text
    assert "paused" in change(grace, "next", repo).json["error"]
    assert change(grace, "resume", repo, max_failed=20, deadline="7d").json["is_signed"]
    assert published(repo).plan.gates.max_failed_percent == 20
    assert "next" in change(grace, "complete", repo).json["error"]
    assert change(grace, "next", repo).json["is_signed"]
    assert published(repo).plan.open_waves == 2
    assert change(grace, "complete", repo).json["is_signed"]
    assert (published(repo).plan, published(repo).release.sequence) == (None, 2)
    page = grace.get("/fleet/rollouts/history").text
    assert page.index("complete") < page.index("pause")
    assert "grace" in page


def test_abort_gives_the_earlier_pair_again(who, repo):
    approved(who, repo, select="group=lab")
    dialog = who["grace"].get("/parts/fleet/dialog?do=abort").text
    assert "0 known devices" in dialog
    assert change(who["grace"], "abort", repo, reason="bad", to=1).json["is_signed"]
    assert (published(repo).plan, published(repo).release.rollback_to) == (None, 1)
    assert change(who["grace"], "abort", repo).json["error"]


def test_change_of_an_older_state_is_refused(who, repo):
    approved(who, repo)
    seen = published(repo).rollouts.revision
    assert change(who["ada"], "pause", repo, reason="mine").status == 200
    for verb in ("abort", "resume", "next", "complete", "pause"):
        reply = who["grace"].send("POST", f"{API}/{verb}", {"revision": seen})
        assert (reply.status, reply.json["reason"]) == (409, "conflict"), verb
    assert published(repo).plan.state == "paused"


def test_pin_and_unpin(who, repo):
    approved(who, repo)
    grace = who["grace"]
    assert "matches 4 known devices" in grace.get("/parts/fleet/selected?select=group%3Dlab").text
    assert "for all would stop" in grace.get("/parts/fleet/selected").text
    assert change(grace, "pin", repo, select="device=cam-1", release=1, reason="fair").json["is_signed"]
    assert "device=cam-1" in grace.get("/fleet/rollouts").text
    assert "1 known device" in grace.get("/parts/fleet/dialog?do=unpin&select=device%3Dcam-1").text
    assert change(grace, "pin", repo, select="device=cam-1", release=1).status == 422
    assert change(grace, "unpin", repo, select="device=cam-1").json["is_signed"]
    assert published(repo).rollouts.pins == []


def test_viewer_sees_and_changes_nothing(who, repo):
    approved(who, repo)
    page = who["vic"].get("/fleet/rollouts").text
    assert "cola" in page
    assert "Abort" not in page
    assert change(who["vic"], "abort", repo).status == 403
    assert who["vic"].send("POST", API, PLAN).status == 403
    assert who["vic"].get("/parts/fleet/dialog?do=abort").status == 403


def test_every_dialog_says_what_it_does(who, repo):
    approved(who, repo)
    for do in ("pause", "next", "abort", "resume", "complete", "pin"):
        page = who["grace"].get(f"/parts/fleet/dialog?do={do}").text
        assert f'data-sends="{API}/{do}"' in page
        assert ("known device" in page) == (do != "pin")


def test_without_keys_the_command_is_shown(tmp_path, repo):
    with running_console(tmp_path / "console", repository=repo) as console:
        who = people(console)
        assert who["ada"].send("POST", API, PLAN).status == 200  # a draft needs no key
        digest = digest_of(repo, "cola")
        done = who["grace"].send("POST", f"{API}/approve", {"plan": "cola", "digest": digest}).json
        assert done["is_signed"] is False
        assert done["command"] == f"edge-sync rollout approve {repo} cola --by=grace --digest {digest}"
        assert published(repo).plan is None
        reply = who["grace"].send(
            "POST", f"{API}/pin", {"revision": 0, "select": "group=a|b", "release": 1, "reason": "x y"}
        )
        assert reply.json["command"] == (
            f"edge-sync rollout pin {repo} --by=grace '--select=group=a|b' --release=1 '--reason=x y'"
        )
        assert "no signing keys" in who["grace"].get("/fleet/rollouts").text


def test_damaged_repository_is_said(tmp_path, repo):
    (repo / "metadata/timestamp.json").write_bytes(b"{}")
    with running_console(tmp_path / "console", repository=repo) as client:
        for path in ("/fleet/rollouts", "/fleet/rollouts/new", "/fleet/fragments", "/parts/overview/fleet", "/"):
            assert client.get(path).status == 200, path
        assert 'role="alert"' in client.get("/fleet/rollouts").text
        assert client.send("POST", API, PLAN).status in (422, 503)


def test_fragments_are_listed(who, repo):
    client = who["vic"]
    from datetime import datetime, timezone

    from gallery_sync.formats.rollouts import parse_selector
    from gallery_sync.rollouts.changes import Desk
    from gallery_sync.rollouts.fragments import publish_fragment
    from tests.sync_samples import keys_of

    assert "No fragment is signed" in client.get("/fleet/fragments").text
    desk = Desk(repo, keys_of(repo), "ada", datetime.now(timezone.utc))
    publish_fragment(desk, "night-mode", {"recognition": {"min_looks": 4}}, parse_selector("group=lab"))
    page = client.get("/fleet/fragments").text
    assert "night-mode" in page
    assert "min_looks" in page
    assert "group=lab" in page
