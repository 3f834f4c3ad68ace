"""Signed configuration fragments on the server: what may be published, its revisions, and the audit log."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge.errors import ConfigError, SyncError
from gallery_sync.cli import main
from gallery_sync.formats.config import ConfigFragment, config_target
from gallery_sync.formats.fields import parse
from gallery_sync.formats.rollouts import parse_selector
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.upkeep.check import check_repository
from gallery_sync.rollouts import audit
from gallery_sync.rollouts.changes import Desk
from gallery_sync.rollouts.fragments import list_fragments, publish_fragment, remove_fragment, show_fragment
from tests.signing_samples import LINE, NOW
from tests.sync_samples import make_repository

NIGHT = {"cameras": {"door": {"max_px": 640}}, "recognition": {"min_looks": 5}}
EVERYBODY = parse_selector("")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    keys = make_repository(tmp_path / "repo", LINE, now=NOW)
    return Desk(tmp_path / "repo", keys, "alice", NOW)


def target(desk: Desk, name: str = "night-mode") -> ConfigFragment:
    path = config_target(LINE, name)
    data = SignedMetadata.open(desk.repo).read_target(path)
    assert data is not None
    return parse(ConfigFragment, data, path)


def logged(desk: Desk) -> list[dict[str, object]]:
    rows, problems = audit.read_history(desk.repo, None)
    assert problems == []
    return rows


def test_published_fragment_is_signed_with_who_and_for_whom(desk):
    done = publish_fragment(desk, "night-mode", NIGHT, parse_selector("site!=berlin"))
    found = target(desk)
    assert found == show_fragment(desk.repo, "night-mode")
    assert (found.values, str(found.selector), found.by) == (NIGHT, "site!=berlin", "alice")
    assert (done.changed, done.revision, done.draft) == (True, found.revision, None)


def test_revision_grows_also_after_a_removal(desk):
    first = publish_fragment(desk, "night-mode", NIGHT, EVERYBODY).revision
    second = publish_fragment(desk, "night-mode", {"recognition": {"min_looks": 6}}, EVERYBODY).revision
    remove_fragment(desk, "night-mode")
    assert list_fragments(desk.repo) == []
    third = publish_fragment(desk, "night-mode", NIGHT, EVERYBODY).revision
    assert first < second < third


def test_same_fragment_again_changes_nothing(desk):
    first = publish_fragment(desk, "night-mode", NIGHT, EVERYBODY)
    version = SignedMetadata.open(desk.repo).version("rollout")
    again = publish_fragment(desk, "night-mode", NIGHT, EVERYBODY)
    assert (again.changed, again.revision) == (False, first.revision)
    assert SignedMetadata.open(desk.repo).version("rollout") == version
    assert publish_fragment(desk, "night-mode", NIGHT, parse_selector("group=lab")).changed


def test_each_change_is_in_the_audit_log(desk):
    revision = publish_fragment(desk, "night-mode", NIGHT, parse_selector("group=lab")).revision
    remove_fragment(desk, "night-mode")
    published, removed = logged(desk)
    assert published["what"] == "config publish"
    assert (published["config"], published["config_revision"], published["by"]) == ("night-mode", revision, "alice")
    assert (published["select"], published["state"]) == ("group=lab", "done")
    assert published["keys"] == ["cameras.door.max_px", "recognition.min_looks"]
    assert (removed["what"], removed["state"]) == ("config remove", "done")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"recogniton": {}}, "unknown key 'recogniton'; did you mean 'recognition'"),
        ({"cameras": {"door": {"view": {"frozen": 5}}}}, r"cameras\.door\.view\.frozen: unknown key"),
        ({"cameras": {"door": {"max_px": "big"}}}, r"overlay night-mode: cameras\.door\.max_px: found"),
        ({"cameras": {"door": {"framing": "whole_frame", "motion": {}}}}, "motion cannot be used"),
        ({"mqtt": {"host": "evil"}}, "mqtt: may not be set from afar: it says which broker"),
        ({"cameras": {"door": {"source": "rtsp://u:p@h/x"}}}, "user and password stay"),
    ],
)
def test_wrong_keys_and_values_are_refused_by_name(desk, values, told):
    with pytest.raises(ConfigError, match=told):
        publish_fragment(desk, "night-mode", values, EVERYBODY)
    assert list_fragments(desk.repo) == []
    assert logged(desk) == []


@pytest.mark.parametrize("values", [{"cameras": {"door": {"enabled": False}}}, {"cameras": {"door": None}}])
def test_fragment_that_fits_only_some_devices_can_be_published(desk, values):
    assert publish_fragment(desk, "night-mode", values, EVERYBODY).changed


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "x" * 100, "näh"])
def test_wrong_names_are_refused(desk, name):
    with pytest.raises(SyncError):
        publish_fragment(desk, name, NIGHT, EVERYBODY)
    with pytest.raises(SyncError):
        show_fragment(desk.repo, name)


def test_empty_large_and_missing_fragments_are_refused(desk):
    with pytest.raises(SyncError, match="sets nothing"):
        publish_fragment(desk, "night-mode", {}, EVERYBODY)
    many = {f"camera-{n}": {"max_px": 640} for n in range(4000)}
    with pytest.raises(SyncError, match="at most 65536"):
        publish_fragment(desk, "night-mode", {"cameras": many}, EVERYBODY)
    with pytest.raises(SyncError, match="has no fragment"):
        remove_fragment(desk, "night-mode")


def test_damaged_fragment_is_named_and_replaced_by_a_newer_one(desk):
    first = publish_fragment(desk, "night-mode", NIGHT, EVERYBODY).revision
    (path,) = (desk.repo / "targets/rollout").glob("*config.night-mode.json")
    path.write_bytes(b"{}")
    assert isinstance(list_fragments(desk.repo)[0], str)
    found = [one for one in check_repository(desk.repo, NOW).problems if "edge-sync config publish" in one]
    assert len(found) == 1
    assert publish_fragment(desk, "night-mode", NIGHT, EVERYBODY).revision > first


def test_without_the_key_it_waits_for_signatures(desk):
    held = desk.keys.roles["rollout"]
    elsewhere = replace(held, keys=tuple(replace(key, uri=None) for key in held.keys))
    replace(desk.keys, roles={**desk.keys.roles, "rollout": elsewhere}).write()
    desk = replace(desk, keys=KeyRing.open(desk.keys.folder), by="bob")
    done = publish_fragment(desk, "night-mode", NIGHT, EVERYBODY)
    assert done.draft is not None
    assert done.waits_for
    assert list_fragments(desk.repo) == []
    assert logged(desk)[0]["state"] == "waits"
    with pytest.raises(SyncError, match="waits for signatures"):
        publish_fragment(desk, "night-mode", {"recognition": {"min_looks": 9}}, EVERYBODY)


def test_verbs_publish_list_show_and_remove(tmp_path, capsys, desk):
    file = tmp_path / "night.yaml"
    file.write_text("cameras: {door: {max_px: 640}}\n")
    keys = ["--keys", str(desk.keys.folder), "--by", "alice"]
    publish = ["config", "publish", str(desk.repo), "night-mode", "--file", str(file), "--select", "group=lab", *keys]
    assert main([*publish, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is True
    assert main(["config", "list", str(desk.repo)]) == 0
    assert ": group=lab, by alice at " in capsys.readouterr().out
    assert main(["config", "show", str(desk.repo), "night-mode"]) == 0
    assert json.loads(capsys.readouterr().out)["values"] == {"cameras": {"door": {"max_px": 640}}}
    assert main(["config", "remove", str(desk.repo), "night-mode", *keys]) == 0
    assert main(["config", "show", str(desk.repo), "night-mode"]) == 1
    assert "has no fragment 'night-mode'" in capsys.readouterr().err
    for select in ("nonsense", "Group=a"):
        with pytest.raises(SystemExit):
            main([*publish, "--select", select])
        assert "error: argument --select: " in capsys.readouterr().err.splitlines()[-1]
    file.write_text("sitte: x\n")
    assert main(publish) == 1
    assert "did you mean 'site'" in capsys.readouterr().err
