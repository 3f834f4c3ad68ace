"""Changes of a gallery: drafted in words, taken back, and published as one signed release."""

from __future__ import annotations

from console.galleries import publishing
from edge.errors import SyncError
from gallery_sync.repository.verb_options import published_in
from tests.console_galleries import (
    add_pictures,
    curating,
    devices_see,
    draft,
    publish_all,
    read_gallery,
)
from tests.fleet_bundles import CATEGORY

FIRST = {f"item-{number}": f"Item {number}" for number in range(4)}


def plan(client):
    return client.get("/api/v1/gallery/drafts").json


def post(client, kind, item="item-1", **more):
    return client.send("POST", f"/api/v1/gallery/drafts/{kind}", {"category": CATEGORY, "item": item, **more})


def test_several_changes_become_one_signed_release(tmp_path):
    with curating(tmp_path) as client:
        draft(client, "rename", "item-1", label="Better")
        draft(client, "metadata", "item-1", metadata='{"sku": 4}')
        draft(client, "negative", "item-2", negative=True)
        draft(client, "merge", "item-3", target="item-1")
        assert plan(client)["drafts"][3]["does"] == [
            "merge item 'item-3' of 'shelf' into 'item-1': 3 vectors of 'Item 3' go to 'Better'",
            "delete item 'item-3' of 'shelf'",
        ]
        assert devices_see(tmp_path / "repo") == FIRST
        assert publish_all(client) == "done: release 2 is published"
        assert devices_see(tmp_path / "repo") == {"item-0": "Item 0", "item-1": "Better", "item-2": "Item 2"}
        (segment,) = published_in(tmp_path / "repo").logs[CATEGORY].spaces[0].segments
        assert (segment.upserts, segment.deletes) == (2, 1)
        page = client.get(f"/gallery/{CATEGORY}/items?item=item-1").text
        assert "release 2" in page
        assert "&#34;sku&#34;: 4" in page


def test_change_that_was_taken_back_is_not_published(tmp_path):
    with curating(tmp_path) as client:
        first = draft(client, "rename", "item-1", label="Wrong")
        draft(client, "rename", "item-2", label="Right")
        assert client.send("DELETE", f"/api/v1/gallery/drafts/{first}").status == 200
        publish_all(client)
        assert devices_see(tmp_path / "repo") == FIRST | {"item-2": "Right"}
        assert client.send("DELETE", f"/api/v1/gallery/drafts/{first}").status == 409


def test_change_that_another_builds_on_cannot_be_taken_back(tmp_path):
    with curating(tmp_path) as client:
        made = add_pictures(client, "new", "New", 7, 8, 9)
        renamed = draft(client, "rename", "new", label="Newer")
        refused = client.send("DELETE", f"/api/v1/gallery/drafts/{made}")
        assert refused.status == 409
        assert f"change {renamed} builds on it" in refused.json["error"]
        publish_all(client)
        assert devices_see(tmp_path / "repo")["new"] == "Newer"


def test_edit_of_what_somebody_else_changed_is_a_conflict(tmp_path):
    with curating(tmp_path) as client:
        page = client.get(f"/gallery/{CATEGORY}/items?item=item-1").text
        seen = page.partition('name="seen" value="')[2].partition('"')[0]
        draft(client, "rename", "item-1", label="Mine", seen=seen)
        refused = post(client, "rename", label="Yours", seen=seen)
        assert refused.status == 409
        assert "it is 'Mine' with 3 vectors now" in refused.json["error"]
        assert len(plan(client)["drafts"]) == 1


def test_plan_of_another_repository_state_is_not_published(tmp_path):
    with curating(tmp_path) as client:
        first = draft(client, "rename", "item-1", label="One")
        old = plan(client)
        publish_all(client)
        second = draft(client, "rename", "item-2", label="Two")
        body = {"version": old["version"], "drafts": [second]}
        assert client.send("POST", "/api/v1/gallery/publish", body).status == 409
        body = {"version": plan(client)["version"], "drafts": [first, second]}
        assert client.send("POST", "/api/v1/gallery/publish", body).status == 409


def test_published_merge_is_undone_from_the_log(tmp_path):
    with curating(tmp_path) as client:
        merged = draft(client, "merge", "item-3", target="item-1")
        publish_all(client)
        undone = client.send("POST", f"/api/v1/gallery/drafts/{merged}/undo")
        assert "as it was before release 2, without any change since: 'Item 3' with 3 vectors" in undone.json["does"]
        publish_all(client)
        assert devices_see(tmp_path / "repo") == FIRST
        assert client.send("POST", f"/api/v1/gallery/drafts/{merged}/undo").status == 200


def test_undone_label_leaves_later_metadata(tmp_path):
    with curating(tmp_path) as client:
        renamed = draft(client, "rename", "item-1", label="Wrong")
        publish_all(client)
        draft(client, "metadata", "item-1", metadata='{"sku": 1}')
        publish_all(client)
        undone = client.send("POST", f"/api/v1/gallery/drafts/{renamed}/undo")
        assert undone.json["does"] == "rename item 'item-1' of 'shelf': 'Wrong' to 'Item 1'"
        publish_all(client)
        assert "&#34;sku&#34;: 1" in client.get(f"/gallery/{CATEGORY}/items?item=item-1").text
        assert devices_see(tmp_path / "repo") == FIRST


def test_deleted_item_comes_back_unless_it_was_urgent(tmp_path):
    with curating(tmp_path) as client:
        usual = draft(client, "delete", "item-1", urgent=False)
        urgent = draft(client, "delete", "item-2", urgent=True)
        draft(client, "rename", "item-3", label="Three")
        assert publish_all(client) == "done: release 2 is published; release 3 is published"
        assert devices_see(tmp_path / "repo") == {"item-0": "Item 0", "item-3": "Three"}
        segments = published_in(tmp_path / "repo").logs[CATEGORY].spaces[0].segments
        assert [(one.urgent, one.deletes) for one in segments] == [(True, 1), (False, 1)]
        refused = client.send("POST", f"/api/v1/gallery/drafts/{urgent}/undo")
        assert refused.status == 409
        assert "deleted urgently" in refused.json["error"]
        assert "Item 2" not in client.get(f"/gallery/{CATEGORY}/items?item=item-2").text.partition("History")[2]
        assert client.send("POST", f"/api/v1/gallery/drafts/{usual}/undo").status == 200
        publish_all(client)
        assert devices_see(tmp_path / "repo")["item-1"] == "Item 1"


def test_held_release_reaches_no_device(tmp_path):
    with curating(tmp_path) as client:
        draft(client, "rename", "item-1", label="Held")
        assert "held" in publish_all(client, hold=True)
        published = published_in(tmp_path / "repo")
        assert published.release.sequence == 1
        assert [one.sequence for one in published.rollouts.held] == [2]
        read_gallery(client)
        draft(client, "delete", "item-2", urgent=True)
        assert "an urgent deletion waits for nothing" in publish_all(client, hold=True)


def test_without_keys_a_draft_waits_for_edge_sync_sign(tmp_path):
    from gallery_sync.cli import main

    with curating(tmp_path, keys=False) as client:
        draft(client, "rename", "item-1", label="Signed elsewhere")
        assert "waits for signatures" in publish_all(client)
        assert devices_see(tmp_path / "repo") == FIRST
        (path,) = (tmp_path / "data/gallery/signing/drafts").iterdir()
        page = client.get("/gallery/-/changes").text
        assert f"edge-sync sign {path} --publish {tmp_path / 'repo'} --yes" in page
        assert main(["sign", str(path), "--publish", str(tmp_path / "repo"), "--yes"]) == 0
        assert devices_see(tmp_path / "repo")["item-1"] == "Signed elsewhere"
        read_gallery(client)
        assert "Release 2 waits for signatures" not in client.get("/gallery/-/changes").text
        with client.services.database.read() as rows:
            assert rows.execute("SELECT state, release FROM gallery_drafts").fetchone()[:] == ("published", 2)


def test_draft_that_waits_for_signatures_is_taken_back(tmp_path):
    with curating(tmp_path, keys=False) as client:
        made = draft(client, "rename", "item-1", label="Never")
        publish_all(client)
        assert client.send("POST", f"/api/v1/gallery/drafts/{made}/reopen").status == 200
        assert [one["id"] for one in plan(client)["drafts"]] == [made]
        assert not list((tmp_path / "data/gallery/signing/drafts").iterdir())


def test_console_killed_after_publishing_finds_out(tmp_path, monkeypatch):
    def die(*_):
        raise SyncError("killed here")

    with curating(tmp_path) as client:
        draft(client, "rename", "item-1", label="Published")
        with monkeypatch.context() as patch:
            patch.setattr(publishing, "settle", die)
            assert "killed here" in publish_all(client)
        assert devices_see(tmp_path / "repo")["item-1"] == "Published"
        read_gallery(client)
        assert plan(client)["drafts"] == []
        with client.services.database.read() as rows:
            assert rows.execute("SELECT state, release FROM gallery_drafts").fetchone()[:] == ("published", 2)


def test_release_that_came_to_nothing_leaves_its_changes_open(tmp_path):
    with curating(tmp_path) as client:
        made = draft(client, "rename", "item-1", label="Later")
        (tmp_path / "repo.keys/gallery.pem").unlink()
        assert publish_all(client).startswith("failed")
        read_gallery(client)
        assert [one["id"] for one in plan(client)["drafts"]] == [made]
        with client.services.database.read() as rows:
            assert rows.execute("SELECT state, release FROM gallery_drafts").fetchone()[:] == ("open", None)


def test_who_published_what_is_in_the_audit_log(tmp_path):
    with curating(tmp_path) as client:
        made = draft(client, "rename", "item-1", label="Audited")
        publish_all(client)
        with client.services.database.read() as rows:
            found = rows.execute("SELECT action, target, details FROM audit ORDER BY id").fetchall()
        assert [row["action"] for row in found][-2:] == ["gallery.rename", "gallery.publish"]
        assert found[-1]["target"] == "release 2"
        assert f'"drafts": [{made}]' in found[-1]["details"]


def test_wrong_edits_say_what_is_wrong(tmp_path):
    with curating(tmp_path) as client:
        cases = [
            ("rename", {"item": "none", "label": "x"}, 409, "has no item 'none'"),
            ("rename", {"label": ""}, 422, "label"),
            ("rename", {"label": "\x00"}, 422, ""),
            ("rename", {"label": "x" * 2000}, 422, "label"),
            ("metadata", {"metadata": "[1]"}, 422, "expected an object"),
            ("metadata", {"metadata": '{"a": NaN}'}, 422, "metadata"),
            ("metadata", {"metadata": "{" * 5000}, 422, "metadata"),
            ("merge", {"target": "item-1"}, 409, "merged with itself"),
            ("merge", {"target": "none"}, 409, "has no item"),
            ("split", {"new_item": "n", "label": "n", "vectors": ["zz"]}, 422, "24 hexadecimal digits"),
            ("split", {"new_item": "n", "label": "n", "vectors": ["0" * 24]}, 409, "none of these vectors"),
            ("restore", {"gallery": 1}, 409, "is given up"),
            ("add-crops", {"crops": []}, 422, "crops"),
        ]
        for kind, more, status, text in cases:
            item = more.pop("item", "item-1")
            reply = post(client, kind, item, **more)
            assert (reply.status, text in reply.json["error"]) == (status, True), (kind, more, reply.text)
        assert post(client, "rename", label="\ud800").status in (400, 422)
        assert plan(client)["drafts"] == []


def test_viewer_changes_nothing(tmp_path):
    with curating(tmp_path) as client:
        stranger = client.without_token()
        body = {"category": CATEGORY, "item": "item-1", "label": "x"}
        assert stranger.send("POST", "/api/v1/gallery/drafts/rename", body).status == 401
        assert stranger.get(f"/gallery/{CATEGORY}").status == 303
