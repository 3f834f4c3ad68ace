from __future__ import annotations

import json
import shutil

import pytest

from edge.errors import SyncError
from gallery_sync.repository.ceremonies.ceremony import describe, publish_draft, sign_draft
from gallery_sync.repository.ceremonies.rotate import rotate
from gallery_sync.repository.keys import KeyRing, RoleKeys
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.roles.draft import read_draft
from tests.signing_samples import (
    GALLERY,
    MODEL,
    NOW,
    RELEASE,
    client,
    days,
    development,
    key_of,
    people,
    production,
    publish,
)


def signed_by(tmp_path, draft, *names):
    for name in names:
        sign_draft(draft, key_of(tmp_path, name))


def test_two_of_three_people_make_a_repository(tmp_path):
    repo, keys, draft = production(tmp_path)
    assert not (repo / "metadata").exists()  # half a ceremony is invisible
    first = sign_draft(draft, key_of(tmp_path, "alice"))
    assert (first.signed_by.split()[0], first.roles) == ("alice", ("root", "targets"))
    assert first.missing["root"].startswith("1 more of: bob")
    with pytest.raises(SyncError, match=r"signatures are missing: root: 1 more of: bob .*, carol"):
        publish_draft(draft, repo, keys, NOW)
    assert sign_draft(draft, key_of(tmp_path, "carol")).missing == {}
    publish_draft(draft, repo, keys, NOW)
    assert not draft.exists()
    publish(repo, KeyRing.open(keys.folder), b"{}")
    assert client(tmp_path, repo).read(repo, MODEL, GALLERY, RELEASE) == [b"{}"] * 3


def test_draft_is_signed_on_another_machine(tmp_path):
    repo, keys, draft = production(tmp_path)
    stick = tmp_path / "stick" / draft.name
    stick.parent.mkdir()
    shutil.copy(draft, stick)
    signed_by(tmp_path, stick, "alice", "bob")
    publish_draft(stick, repo, keys, NOW)
    assert not draft.exists()


def test_ceremony_of_two_weeks_is_published_fresh(tmp_path):
    repo, keys, draft = production(tmp_path)
    signed_by(tmp_path, draft, "alice", "bob")
    publish_draft(draft, repo, keys, NOW + days(14))
    assert client(tmp_path, repo).read(repo, MODEL, now=NOW + days(14)) == [None]


def test_stranger_cannot_sign(tmp_path):
    _, _, draft = production(tmp_path)
    people(tmp_path, "mallory")
    before = draft.read_bytes()
    with pytest.raises(SyncError, match="does not wait for this key"):
        sign_draft(draft, key_of(tmp_path, "mallory"))
    assert draft.read_bytes() == before


def test_one_person_cannot_sign_twice(tmp_path):
    _, _, draft = production(tmp_path)
    signed_by(tmp_path, draft, "alice")
    with pytest.raises(SyncError, match="does not wait for this key; it waits for root: 1 more of: bob"):
        signed_by(tmp_path, draft, "alice")


def test_draft_that_was_changed_loses_its_signatures(tmp_path):
    repo, keys, draft = production(tmp_path)
    signed_by(tmp_path, draft, "alice", "bob")
    document = json.loads(draft.read_bytes())
    document["documents"]["root"]["signed"]["roles"]["root"]["threshold"] = 1
    draft.write_text(json.dumps(document))
    with pytest.raises(SyncError, match="signatures are missing: root"):
        publish_draft(draft, repo, keys, NOW)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"schema":1,"documents":{}}', b"{" * 1000])
def test_file_that_is_no_draft_is_refused(tmp_path, content):
    path = tmp_path / "draft.json"
    path.write_bytes(content)
    with pytest.raises(SyncError, match="not a draft") as caught:
        read_draft(path)
    assert "\n" not in str(caught.value)


def test_draft_without_its_base_is_refused(tmp_path):
    _, _, draft = production(tmp_path)
    document = json.loads(draft.read_bytes())
    del document["documents"]["root"]
    draft.write_text(json.dumps(document))
    with pytest.raises(SyncError, match="lacks who must sign"):
        read_draft(draft)


def test_draft_shows_keys_and_thresholds(tmp_path):
    _, _, draft = production(tmp_path)
    lines = list(describe(read_draft(draft)))
    assert "line demo, policy online" in lines[0]
    assert "  root: 2 of 3 keys" in lines
    assert sum("+ alice" in line for line in lines) == 2
    assert any(line.startswith("root waits for 2 more of: alice") for line in lines)


def offline_models(tmp_path):
    """A repository whose models key is on another machine."""
    repo, keys = development(tmp_path)
    alice = people(tmp_path, "alice")["alice"]
    metadata = SignedMetadata.open(repo, keys)
    metadata.set_role("models", 1, [alice])
    done = metadata.commit(NOW)
    assert done.missing["models"].startswith("1 more of: alice")
    signed_by(tmp_path, done.draft, "alice")
    publish_draft(done.draft, repo, keys, NOW)
    return repo, KeyRing.open(keys.folder)


def test_bundle_waits_for_the_models_key_with_its_release(tmp_path):
    repo, keys = offline_models(tmp_path)
    device = client(tmp_path, repo)
    done = publish(repo, keys, b'{"new":1}')
    assert not done.is_published
    assert device.read(repo, MODEL, RELEASE, GALLERY) == [b'{"first":1}'] * 3
    shown = "\n".join(describe(read_draft(done.draft)))
    assert '{"new":1}' in shown
    assert f"published with it, by rollout: {RELEASE}" in shown
    signed_by(tmp_path, done.draft, "alice")
    SignedMetadata.open(repo, keys).refresh(NOW + days(4))  # cron does not spoil a draft
    publish_draft(done.draft, repo, keys, NOW + days(4))
    assert device.read(repo, MODEL, RELEASE, GALLERY, now=NOW + days(4)) == [b'{"new":1}'] * 3


def test_second_draft_of_a_role_does_not_replace_the_first(tmp_path):
    repo, keys = offline_models(tmp_path)
    publish(repo, keys, b"{}")
    with pytest.raises(SyncError, match="waits for signatures; publish it"):
        publish(repo, keys, b"[]")


def test_draft_is_refused_when_its_release_was_overtaken(tmp_path):
    repo, keys = offline_models(tmp_path)
    done = publish(repo, keys, b'{"new":1}')
    signed_by(tmp_path, done.draft, "alice")
    metadata = SignedMetadata.open(repo, keys)
    metadata.put("rollout", RELEASE, b'{"other":1}')
    metadata.commit(NOW)
    with pytest.raises(SyncError, match="changed since the draft was made"):
        publish_draft(done.draft, repo, keys, NOW)


def test_published_draft_cannot_be_published_again(tmp_path):
    repo, keys = offline_models(tmp_path)
    done = publish(repo, keys, b'{"new":1}')
    signed_by(tmp_path, done.draft, "alice")
    copy = shutil.copy(done.draft, tmp_path / "copy.json")
    publish_draft(done.draft, repo, keys, NOW)
    with pytest.raises(SyncError, match="make a new draft"):
        publish_draft(tmp_path / copy, repo, keys, NOW)


def test_draft_of_another_line_is_refused(tmp_path):
    draft = production(tmp_path)[2]
    signed_by(tmp_path, draft, "alice", "bob")
    other = KeyRing.development(tmp_path / "other.keys")
    SignedMetadata.create(tmp_path / "other", "shop", "online", other, NOW)
    with pytest.raises(SyncError, match="found a draft of line 'demo', expected 'shop'"):
        publish_draft(draft, tmp_path / "other", other, NOW)


def test_publishing_where_the_online_keys_are_not_is_refused(tmp_path):
    repo, keys, draft = production(tmp_path)
    signed_by(tmp_path, draft, "alice", "bob")
    empty = KeyRing(tmp_path / "laptop", {})
    with pytest.raises(SyncError, match=r"waits|publish where they are|needs more signatures"):
        publish_draft(draft, repo, empty, NOW)
    assert not (repo / "metadata/timestamp.json").exists()
    publish_draft(draft, repo, keys, NOW)


def test_thresholds_above_the_keys_are_refused(tmp_path):
    repo, keys = development(tmp_path)
    alice = people(tmp_path, "alice")["alice"]
    with pytest.raises(SyncError, match="threshold of 2 and 1 keys"):
        SignedMetadata.open(repo, keys).set_role("gallery", 2, [alice, alice])
    with pytest.raises(SyncError, match="one of root, targets"):
        SignedMetadata.open(repo, keys).set_role("king", 1, [alice])
    assert RoleKeys(1, (alice,)).keys[0].uri is None


def test_draft_that_starts_from_a_false_root_is_refused(tmp_path):
    repo, keys, draft = production(tmp_path)
    sign_draft(draft, key_of(tmp_path, "alice"), b"{}")  # the first draft starts from nothing
    sign_draft(draft, key_of(tmp_path, "bob"))
    publish_draft(draft, repo, keys, NOW)
    ours = (keys.folder / "root.json").read_bytes()
    done = rotate(repo, KeyRing.open(keys.folder), NOW, renew=["root"])
    shown = json.loads(done.draft.read_bytes())
    false = json.loads(done.draft.read_bytes())
    false["base"]["root"]["signed"]["roles"]["root"]["threshold"] = 1
    done.draft.write_text(json.dumps(false))
    with pytest.raises(SyncError, match="starts from another root than yours"):
        sign_draft(done.draft, key_of(tmp_path, "alice"), ours)
    done.draft.write_text(json.dumps(shown))
    assert sign_draft(done.draft, key_of(tmp_path, "alice"), ours).roles == ("root",)
