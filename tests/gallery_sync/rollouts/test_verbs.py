"""The verb `edge-sync rollout`, from its plan to its end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gallery_sync.cli import main
from gallery_sync.rollouts.fleet import dump_rows
from tests.gallery_sync.rollouts.samples import a_row
from tests.sync_samples import published


@pytest.fixture
def run(repo, capsys):
    """Run a verb of `edge-sync rollout`; return its status, and what it printed on stdout and stderr."""

    def act(verb, *arguments):
        status = main(["rollout", verb, str(repo), *arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return act


@pytest.fixture
def devices(repo):
    """A file of devices, as the fleet's server answers."""
    path = repo.parent / "devices.json"
    path.write_bytes(dump_rows([a_row(f"cam-{i}") for i in range(10)]))
    return path


def test_from_plan_to_complete(run, repo):
    status, out, err = run("create", "--canary", "10%", "--wave", "50%", "--soak", "0s", "--by", "ann", "--json")
    plan = json.loads(out)
    assert (status, plan["rollout"], plan["waves"]) == (0, "release-2", ["10 %", "50 %", "100 %"])
    assert f"approve {repo} release-2 --digest {plan['digest']}" in err
    assert run("status")[1].endswith("no rollout is under way; drafts: release-2\n")
    assert run("approve", "release-2", "--by", "ann")[0] == 1
    assert "release-2.json: found another plan" in run("approve", "release-2", "--by", "bob", "--digest", "0")[2]
    status, out, err = run("approve", "release-2", "--by", "bob", "--digest", plan["digest"])
    assert (status, out.splitlines()[0]) == (0, "did: approve")
    assert err.splitlines()[:2] == ["edge-sync: you approved this plan:", "  rollout: release-2"]
    assert "  waves: 10 %, 50 %, 100 %" in err.splitlines()
    assert json.loads(run("status", "--json")[1])["rollout"]["open_waves"] == 1
    assert run("pause", "--by", "carol", "--reason", "lunch")[0] == 0
    assert "paused: lunch" in run("status")[1]
    assert run("resume", "--by", "carol")[0] == 0
    assert run("next", "--by", "carol")[0] == 0
    assert ": open: " in run("run", "--blind", "--once")[1]
    assert "opened blind" in run("status")[1]
    for did in ("complete", "idle"):
        assert f": {did}: " in run("run", "--blind", "--once")[1]
    assert published(repo).release.sequence == 2
    status, out, err = run("history")
    assert (status, err) == (0, "")
    assert [line.split()[2].rstrip(",") for line in out.splitlines()] == [
        *("create", "approve", "pause", "resume", "open", "open", "complete"),
    ]


def test_known_devices_are_counted_by_wave(run, devices):
    out = run("create", "--fleet", str(devices), "--canary-at-least", "3", "--by", "ann", "--json")[1]
    found = json.loads(out)
    assert (found["devices"][0], sum(found["devices"]), [*found["min_confirmed"][:1], found["min_confirmed"][-1]]) == (
        3,
        10,
        [3, 5],
    )
    run("approve", "release-2", "--by", "bob")
    plan = json.loads(run("status", "--fleet", str(devices), "--json")[1])["rollout"]
    assert [wave["devices"] for wave in plan["waves"]] == found["devices"]
    assert plan["next"] == "wait"


def test_abort_and_pins(run, repo):
    run("create", "--by", "ann")
    run("approve", "release-2", "--by", "ann", "--alone")
    assert run("abort", "--reason", "bad", "--by", "ann")[0] == 0
    assert published(repo).release.rollback_to == 1
    assert run("pin", "--select", "device=cam-1", "--release", "1", "--reason", "fair", "--by", "ann")[0] == 0
    assert run("pins")[1].startswith("device=cam-1: release 1, pinned by ann at ")
    assert json.loads(run("pins", "--json")[1])[0]["reason"] == "fair"
    assert "pinned: 1 selectors" in run("status")[1]
    assert run("unpin", "--select", "device=cam-1")[0] == 0
    assert run("pins")[1] == ""


def test_changed_log_fails_its_history(run, repo):
    run("create", "--by", "ann")
    run("approve", "release-2", "--by", "bob")
    log = repo / "rollouts/audit.jsonl"
    log.write_text(log.read_text().replace("bob", "eve"))
    status, _, err = run("history")
    assert (status, "was changed" in err) == (1, True)


def test_run_needs_a_way_to_look(run):
    assert "give --fleet URL, or --blind" in run("run", "--once")[2]
    assert run("run", "--once", "--blind")[1] == "-: idle: no rollout is under way\n"


def test_unreachable_server_fails_one_look(run, repo):
    run("create", "--by", "ann")
    run("approve", "release-2", "--by", "bob")
    status, out, _ = run("run", "--once", "--fleet", str(repo / "nothing"))
    assert (status, "release-2: unreachable: nothing opens" in out) == (1, True)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--select", "group"),
        ("--select", "Group=a"),
        ("--canary", "0%"),
        ("--wave", "101%"),
        ("--soak", "1 hour"),
        ("--canary-at-least", "0"),
        ("--max-failed", "-1%"),
    ],
)
def test_wrong_option_is_wrong_usage(repo, capsys, option, value):
    with pytest.raises(SystemExit) as error:
        main(["rollout", "create", str(repo), f"{option}={value}"])
    assert error.value.code == 2
    assert option in capsys.readouterr().err


def test_parser_loads_no_library():
    """`edge-sync --help` and the verbs of a device start fast."""
    code = "import sys, gallery_sync.cli; sys.exit(' '.join({'numpy', 'pydantic', 'tuf'} & sys.modules.keys()) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_empty_name_is_nobody(run, repo):
    """The variable of `--by "$NAME"` may not be set: the audit log must not name the user of the machine then."""
    assert run("create", "--by", "ann")[0] == 0
    for name in ("", "  "):
        status, _, err = run("approve", "release-2", "--by", name)
        assert (status, "found an empty name" in err) == (1, True)
    assert published(repo).plan is None


def test_command_for_the_approval_can_be_copied(repo, capsys):
    """Folders have spaces."""
    moved = repo.rename(repo.parent / "my repo")
    assert main(["rollout", "create", str(moved), "--by", "ann"]) == 0
    assert f"rollout approve '{moved}' release-2 --digest" in capsys.readouterr().err
