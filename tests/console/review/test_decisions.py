"""Decisions: stored once, undone by their rows, refused where another one came between."""

from __future__ import annotations

import pytest

from tests.console_review_samples import crops, decide, outcome, patch_set, propose, reviewing


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with reviewing(tmp_path_factory.mktemp("console")) as client:
        yield client


@pytest.fixture
def set_id(client, tmp_path):
    return patch_set(client, tmp_path, [["red*1", "green*1"], ["blue*1", "yellow*1"]])


def count_log(client, set_id):
    with client.services.database.read() as rows:
        return rows.execute("SELECT count(*) FROM review_log WHERE set_id = ?", (set_id,)).fetchone()[0]


RED = {"state": "item", "category": "colour", "item": "red", "label": "Red"}


def test_decision_names_a_crop(client, set_id):
    first = crops(client, set_id)[0]
    done = outcome(decide(client, set_id, "d1", [first], **RED))
    assert done["stored"][0] | {"at": 0} == {
        "id": first["id"], "version": 2, **RED, "by": "local", "at": 0,
    }  # fmt: skip
    assert first["id"] not in [one["id"] for one in crops(client, set_id)]


def test_decision_sent_twice_is_stored_once(client, set_id):
    first = crops(client, set_id)[0]
    decide(client, set_id, "d1", [first], **RED)
    again = outcome(decide(client, set_id, "d1", [first], **RED))
    assert [one["version"] for one in again["stored"]] == [2]
    assert not again["conflicts"]
    assert count_log(client, set_id) == 1


def test_repeated_decision_does_not_undo_a_later_one(client, set_id):
    first = crops(client, set_id)[0]
    decide(client, set_id, "d1", [first], **RED)
    decide(client, set_id, "d2", [first | {"version": 2}], state="unknown")
    assert outcome(decide(client, set_id, "d1", [first], **RED))["stored"][0]["state"] == "unknown"


def test_stale_version_is_a_conflict(client, set_id):
    first = crops(client, set_id)[0]
    decide(client, set_id, "theirs", [first], state="unknown")
    mine = outcome(decide(client, set_id, "mine", [first], **RED))
    assert mine["stored"] == []
    assert (mine["conflicts"][0]["state"], mine["conflicts"][0]["by"]) == ("unknown", "local")
    assert outcome(decide(client, set_id, "mine-2", [mine["conflicts"][0]], **RED))["stored"][0]["item"] == "red"


def test_same_decision_of_two_people_is_no_conflict(client, set_id):
    first = crops(client, set_id)[0]
    decide(client, set_id, "theirs", [first], **RED)
    assert outcome(decide(client, set_id, "mine", [first], **RED))["conflicts"] == []


def test_what_one_decided_is_not_stored_as_anothers(client, set_id):
    """A browser keeps what was not sent; somebody else may be logged in when it is."""
    seen = [{"id": one["id"], "version": one["version"]} for one in crops(client, set_id)[:1]]
    body = {"decisions": [{"id": "d1", "crops": seen, "state": "nothing"}], "by": "eve"}
    refused = client.send("POST", f"/api/v1/review/{set_id}/decisions", body)
    assert (refused.status, refused.json["reason"]) == (401, "another_user")
    assert refused.json["error"] == "eve decided this; log in as eve: it is kept"
    assert len(crops(client, set_id)) == 4
    del body["by"]  # another program, which keeps nothing
    assert client.send("POST", f"/api/v1/review/{set_id}/decisions", body).status == 200


def test_crop_of_another_set_is_gone(client, set_id, tmp_path):
    other = patch_set(client, tmp_path, [["red*9"]], "other")
    theirs = crops(client, other)
    assert outcome(decide(client, set_id, "d1", theirs, **RED))["gone"] == [theirs[0]["id"]]
    assert crops(client, other)[0]["state"] == "open"


def test_undo_gives_back_what_was_there(client, set_id):
    seen = crops(client, set_id)
    decide(client, set_id, "d1", seen, **RED)
    undone = client.send("POST", f"/api/v1/review/{set_id}/decisions", {"decisions": [{"id": "u1", "undo": "d1"}]})
    assert {one["state"] for one in outcome(undone)["stored"]} == {"open"}
    assert len(crops(client, set_id)) == 4


def test_undo_of_a_crop_that_changed_since_is_a_conflict(client, set_id):
    first = crops(client, set_id)[0]
    decide(client, set_id, "d1", [first], **RED)
    decide(client, set_id, "d2", [first | {"version": 2}], state="nothing")
    undone = client.send("POST", f"/api/v1/review/{set_id}/decisions", {"decisions": [{"id": "u1", "undo": "d1"}]})
    assert [one["state"] for one in outcome(undone)["conflicts"]] == ["nothing"]


def test_log_lists_and_takes_back_a_single_row(client, set_id):
    seen = crops(client, set_id)[:2]
    decide(client, set_id, "d1", seen, **RED)
    page = client.get(f"/review/{set_id}/log").text
    assert page.count("<strong>Red (colour)") == 2
    with client.services.database.read() as rows:
        row = rows.execute("SELECT id, crop_id FROM review_log WHERE set_id = ? ORDER BY id", (set_id,)).fetchone()
    path = f"/api/v1/review/{set_id}/log/{row['id']}/undo"
    assert client.send("POST", path, {}).status == 200
    states = {one["id"]: one["state"] for one in crops(client, set_id, "state=open&state=item")}
    assert states[row["crop_id"]] == "open"
    assert sorted(states.values()) == ["item", "open", "open", "open"]
    decide(client, set_id, "d2", [{"id": row["crop_id"], "version": 3}], state="unknown")
    assert client.send("POST", path, {}).status == 409
    assert client.send("POST", f"/api/v1/review/{set_id}/log/99999/undo", {}).status == 404


def test_new_items_id_comes_from_its_label(client, set_id):
    one, two, three, four = crops(client, set_id)
    new = {"state": "item", "category": "colour", "label": "Crème  Brûlée 2 l"}
    assert outcome(decide(client, set_id, "a", [one], **new))["stored"][0]["item"] == "creme-brulee-2-l"
    same = outcome(decide(client, set_id, "b", [two], **new | {"label": "crème brûlée 2 L"}))["stored"][0]
    assert (same["item"], same["label"]) == ("creme-brulee-2-l", "Crème  Brûlée 2 l")
    near = outcome(decide(client, set_id, "c", [three], **new | {"label": "Creme Brulee 2-l"}))["stored"][0]
    assert near["item"] == "creme-brulee-2-l-2"
    script = outcome(decide(client, set_id, "d", [four], **new | {"label": "可口可乐"}))["stored"][0]
    assert script["item"] == "可口可乐"


def test_known_item_keeps_its_label(client, set_id):
    one, two, *_ = crops(client, set_id)
    decide(client, set_id, "a", [one], **RED)
    assert outcome(decide(client, set_id, "b", [two], **RED | {"label": "Rouge"}))["stored"][0]["label"] == "Red"


@pytest.mark.parametrize(
    "named",
    [
        {"state": "item"},
        {"state": "item", "category": "colour"},
        {"state": "item", "category": " ", "label": "x"},
        {"state": "item", "category": "a\x00b", "label": "x"},
        {"state": "item", "category": "colour", "label": "a\nb"},
        {"state": "item", "category": "colour", "label": "x", "item": "\x1b[31m"},
        {"state": "open"},
        {"state": "unknown", "undo": "x"},
        {},
    ],
)
def test_wrong_decision_is_refused_and_stores_nothing(client, set_id, named):
    assert decide(client, set_id, "d1", crops(client, set_id), **named).status == 422
    assert len(crops(client, set_id)) == 4


def test_odd_item_ids_are_stored(client, set_id):
    one = crops(client, set_id)[0]
    odd = {"state": "item", "category": "a/b?c=ü&'", "item": "../'\"<b>%00\u202e", "label": "<script>"}
    assert outcome(decide(client, set_id, "d1", [one], **odd))["stored"][0]["item"] == odd["item"]
    assert "<script>" not in client.get(f"/review/{set_id}/log").text.replace("<script src", "")


def test_huge_requests_are_refused(client, set_id):
    many = [{"id": 1, "version": 1}] * 1001
    body = {"decisions": [{"id": "d", "crops": many, "state": "unknown"}]}
    assert client.send("POST", f"/api/v1/review/{set_id}/decisions", body).status == 422
    body = {"decisions": [{"id": f"d{i}", "crops": many[:1], "state": "unknown"} for i in range(201)]}
    assert client.send("POST", f"/api/v1/review/{set_id}/decisions", body).status == 422
    body = {"decisions": [{"id": "d", "crops": [{"id": 2**60, "version": 1}], "state": "unknown"}]}
    assert client.send("POST", f"/api/v1/review/{set_id}/decisions", body).status == 422


def test_crop_listed_twice_is_decided_once(client, set_id):
    one = crops(client, set_id)[0]
    assert len(outcome(decide(client, set_id, "d", [one, one], state="unknown"))["stored"]) == 2
    assert count_log(client, set_id) == 1


def test_set_that_is_not_there_is_said(client):
    assert client.get("/review/7777").status == 404
    assert decide(client, 7777, "d", [{"id": 1, "version": 1}], state="unknown").status == 404
    assert client.get("/api/v1/review/7777/crops").status == 404


def test_decision_is_in_the_audit_log(client, set_id):
    decide(client, set_id, "d1", crops(client, set_id), **RED)
    with client.services.database.read() as rows:
        row = rows.execute(
            "SELECT by, target, details FROM audit WHERE action = 'review.decide' ORDER BY id DESC"
        ).fetchone()
    assert tuple(row) == ("local", f"set {set_id}", '{"crops": 4}')


def test_named_crops_go_to_the_gallery_once(client, set_id):
    decide(client, set_id, "d1", crops(client, set_id)[:2], **RED)
    assert "2 named things of 1 item" in client.get(f"/review/{set_id}").text
    assert client.send("POST", f"/api/v1/review/{set_id}/gallery").status == 200
    assert client.send("POST", f"/api/v1/review/{set_id}/gallery").status == 422
    assert "Nothing waits" in client.get(f"/review/{set_id}").text


def test_start_page_shows_sets_with_open_crops(client, set_id):
    assert f'<a class="card" href="/review/{set_id}">' in client.get("/review").text
    decide(client, set_id, "d1", crops(client, set_id), **RED)
    page = client.get("/review").text
    assert f'<a class="card" href="/review/{set_id}">' not in page
    assert f'href="/review/{set_id}?state=all"' in page


def test_decisions_propose_for_the_next_crops(client, tmp_path):
    set_id = patch_set(client, tmp_path, [["violet*1"], ["violet*2"], ["red*1"]], "violets")
    propose(client, set_id)
    seen = {one["name"]: one for one in crops(client, set_id)}
    body = {
        "decisions": [{"id": "d", "crops": [{"id": seen["a.png"]["id"], "version": 1}], "state": "item",
                       "category": "colour", "label": "Violet"}],
        "shown": [seen["b.png"]["id"]],
    }  # fmt: skip
    answer = client.send("POST", f"/api/v1/review/{set_id}/decisions", body).json
    first = answer["proposals"][str(seen["b.png"]["id"])][0]
    assert (first["item"], first["crop"]) == ("violet", seen["a.png"]["id"])
    assert first["similarity"] > 0.99
