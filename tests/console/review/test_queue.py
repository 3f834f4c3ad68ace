"""The queue: order, pages, filters, near-duplicates, and the sample of "accept all above"."""

from __future__ import annotations

import numpy as np
import pytest

from console.review.accept import upper_bound
from console.review.folding import Candidate, difference_hash, fold, sequence_of
from console.review.proposals import Suggestion, best, doubt, lead
from console.review.reading_order import reading_order
from tests.console_review_samples import COLOURS, crops, decide, outcome, patch_set, propose, reviewing


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with reviewing(tmp_path_factory.mktemp("console")) as client:
        yield client


@pytest.fixture
def set_id(client, tmp_path):
    names = [f"{list(COLOURS)[i % 3]}*{i}" for i in range(9)]
    set_id = patch_set(client, tmp_path, [names[:3], names[3:6], names[6:], ["yellow*1"]])
    propose(client, set_id)
    return set_id


def test_worst_comes_first(client, set_id):
    found = crops(client, set_id)
    assert found[0]["name"] == "d.png"
    assert [one["doubt"] for one in found] == sorted((one["doubt"] for one in found), reverse=True)
    assert crops(client, set_id, "order=sure")[-1]["name"] == "d.png"


@pytest.mark.parametrize("order", ["doubt", "sure"])
def test_pages_hold_each_crop_once(client, set_id, order):
    seen, after = [], ""
    for _ in range(10):
        page = client.get(f"/api/v1/review/{set_id}/crops?limit=4&order={order}{after}").json
        seen += [one["id"] for one in page["crops"]]
        if page["after"] is None:
            break
        after = f"&after={page['after']}"
    assert seen == [one["id"] for one in crops(client, set_id, f"order={order}")]
    assert len(set(seen)) == 10


def test_pictures_come_whole_in_reading_order(client, set_id):
    page = client.get(f"/api/v1/review/{set_id}/crops?order=picture").json
    assert [one["name"] for one in page["crops"]] == ["a.png"] * 3 + ["b.png"] * 3 + ["c.png"] * 3
    lefts = [one["box"][0] for one in page["crops"][:3]]
    assert lefts == sorted(lefts)
    rest = client.get(f"/api/v1/review/{set_id}/crops?order=picture&after={page['after']}").json
    assert [one["name"] for one in rest["crops"]] == ["d.png"]


def test_filters_choose(client, set_id):
    assert {one["proposals"][0]["item"] for one in crops(client, set_id, "item=red")} == {"red"}
    assert len(crops(client, set_id, "text=d.png")) == 1
    assert crops(client, set_id, "text=%25") == []
    assert crops(client, set_id, "category=nothing") == []
    one = crops(client, set_id, "item=red")[0]
    decide(client, set_id, "d", [one], state="unknown")
    assert [one["id"] for one in crops(client, set_id, "state=unknown")] == [one["id"]]
    assert len(crops(client, set_id, "state=open&state=unknown")) == 10


@pytest.mark.parametrize(
    "query",
    ["after=x", "after=1,2,3", "after=nan,1", "after=inf,1", "limit=0", "limit=9999", "order=no", "state=no", "id=-1"],
)
def test_wrong_query_is_refused(client, set_id, query):
    assert client.get(f"/api/v1/review/{set_id}/crops?{query}").status == 422


@pytest.mark.parametrize("after", [f"1,{10**30}", "-1e308,0", "1e308,-7"])
def test_odd_cursors_are_answered(client, set_id, after):
    assert client.get(f"/api/v1/review/{set_id}/crops?after={after}").status == 200
    assert client.get(f"/api/v1/review/{set_id}/crops?order=picture&after={after}").status == 200


def test_near_duplicates_are_folded_and_decided_together(client, tmp_path):
    set_id = patch_set(client, tmp_path, [["red*1"], ["red*1"], ["red*1"], ["green*1"], ["red*1", "red*1"]], "twins")
    propose(client, set_id)
    found = crops(client, set_id)
    stands = next(one for one in found if one["folded"])
    assert stands["folded"] == 3  # two of one picture are two objects
    decided = decide(client, set_id, "d", [stands], state="item", category="colour", item="red", label="Red")
    assert decided.json["progress"]["item"] == 4
    client.send("POST", f"/api/v1/review/{set_id}/decisions", {"decisions": [{"id": "u", "undo": "d"}]})
    assert [one["folded"] for one in crops(client, set_id) if one["id"] == stands["id"]] == [3]


def test_unfolded_crops_are_decided_apart(client, tmp_path):
    set_id = patch_set(client, tmp_path, [["red*1"], ["red*1"], ["red*1"]], "twins")
    propose(client, set_id)
    (stands,) = crops(client, set_id)
    apart = client.send("POST", f"/api/v1/review/{set_id}/crops/{stands['id']}/unfold").json["crops"]
    assert len(apart) == 2
    decide(client, set_id, "d", [stands], state="unknown")
    assert {one["id"] for one in crops(client, set_id)} == {one["id"] for one in apart}
    propose(client, set_id)
    assert len(crops(client, set_id)) == 2


def test_deleting_the_one_that_stands_shows_the_others(client, tmp_path):
    set_id = patch_set(client, tmp_path, [["red*1"], ["red*1"], ["red*1"]], "twins")
    propose(client, set_id)
    (stands,) = crops(client, set_id)
    with client.services.database.write() as connection:
        connection.execute("DELETE FROM crops WHERE id = ?", (stands["id"],))
    assert len(crops(client, set_id)) == 2


def test_moved_box_is_looked_at_again(client, set_id):
    first = crops(client, set_id)[0]
    with client.services.database.write() as connection:
        connection.execute("UPDATE crops SET x0 = x0 + 5, proposals = NULL, vector = NULL WHERE id = ?", (first["id"],))
        assert connection.execute("SELECT 1 FROM review_marks WHERE crop_id = ?", (first["id"],)).fetchone() is None
    looked = client.services.models.looked
    propose(client, set_id)
    assert client.services.models.looked == looked + 1


def test_unreadable_picture_stops_nothing(client, tmp_path):
    set_id = patch_set(client, tmp_path, [["red*broken"], ["green*1"]], "broken")
    (tmp_path / "broken/a.png").write_bytes(b"no picture")
    propose(client, set_id)
    assert {one["name"]: len(one["proposals"]) for one in crops(client, set_id)} == {"a.png": 0, "b.png": 3}


def test_proposing_twice_looks_once(client, set_id):
    looked = client.services.models.looked
    propose(client, set_id)
    assert client.services.models.looked == looked
    client.send("POST", f"/api/v1/review/{set_id}/propose", {"again": True})
    client.services.tasks.wait(f"propose/{set_id}", 60.0)
    assert client.services.models.looked == looked + 10


def draw(client, set_id, **body):
    return client.send("POST", f"/api/v1/review/{set_id}/samples", body)


def test_sample_is_drawn_again_by_its_seed(client, set_id):
    one, two = (draw(client, set_id, similarity=0.5, seed=7).json for _ in range(2))
    assert [crop["id"] for crop in one["sample"]] == [crop["id"] for crop in two["sample"]]
    assert one["seed"] == 7
    assert draw(client, set_id, similarity=1.0, margin=1.0).status == 422


def test_cells_count_what_a_threshold_accepts(client, set_id):
    cells = client.get(f"/api/v1/review/{set_id}/cells").json["cells"]
    above = sum(one["shown"] for one in cells if one["similarity"] >= 90 and one["margin"] >= 10)
    assert draw(client, set_id, similarity=0.9, margin=0.1).json["crops"] == above == 9


def test_accept_needs_a_look_and_leaves_the_wrong_ones(client, set_id):
    sample = draw(client, set_id, similarity=0.9, margin=0.1).json
    path = f"/api/v1/review/{set_id}/samples/{sample['id']}/accept"
    ids = [one["id"] for one in sample["sample"]]
    assert client.send("POST", path, {"looked_at": ids[1:]}).status == 422
    key = client.send("POST", path, {"looked_at": ids, "wrong": ids[:1]}).json["key"]
    assert "8 crops are named" in client.services.tasks.wait(key, 60.0).says
    left = crops(client, set_id)
    assert {one["id"] for one in left} >= {ids[0]}
    assert next(one for one in left if one["id"] == ids[0])["doubt"] == 1.0
    assert client.send("POST", path, {"looked_at": ids}).status == 409
    undo = {"decisions": [{"id": "u", "undo": f"accept-{sample['id']}"}]}
    assert len(outcome(client.send("POST", f"/api/v1/review/{set_id}/decisions", undo))["stored"]) == 8
    assert len(crops(client, set_id)) == 10


def test_accept_leaves_alone_what_others_decided(client, set_id):
    sample = draw(client, set_id, similarity=0.9, margin=0.1).json
    ids = [one["id"] for one in sample["sample"]]
    decide(client, set_id, "theirs", sample["sample"][:1], state="nothing")
    path = f"/api/v1/review/{set_id}/samples/{sample['id']}/accept"
    key = client.send("POST", path, {"looked_at": ids}).json["key"]
    assert "1 were left alone" in client.services.tasks.wait(key, 60.0).says


def test_items_are_offered_by_label_and_id(client, set_id):
    first = crops(client, set_id)[0]
    decide(client, set_id, "d", [first], state="item", category="colour", item="sun-1", label="Yellow sun")
    for text in ("yell", "SUN", "un-1"):
        found = client.get(f"/api/v1/review/{set_id}/items?text={text}").json["items"]
        assert [one["item"] for one in found] == ["sun-1"]
    alike = client.get(f"/api/v1/review/{set_id}/alike?category=colour&item=sun-1").json
    assert alike["crops"] == [first["id"]]


def test_doubt_grows_with_distance_and_with_a_close_second():
    near, far = Suggestion("c", "a", "A", 0.9), Suggestion("c", "b", "B", 0.5)
    assert doubt(()) == 1.0
    assert doubt((near, far)) < doubt((far,)) < doubt((far, Suggestion("c", "d", "D", 0.49)))
    assert lead((near, far)) == pytest.approx(0.4)


def test_best_names_each_item_once():
    some = [Suggestion("c", "a", "A", 0.5), Suggestion("c", "a", "A", 0.7, 3), Suggestion("c", "b", "B", 0.6)]
    assert [(one.item, one.similarity) for one in best(some)] == [("a", 0.7), ("b", 0.6)]


def test_boxes_are_read_row_by_row():
    boxes = [(200, 12, 250, 60), (10, 100, 60, 150), (10, 10, 60, 60), (100, 0, 150, 64), (100, 104, 150, 160)]
    assert reading_order(boxes) == [2, 3, 0, 1, 4]
    assert reading_order([]) == []


def candidate(crop_id, picture, place, degrees, bits=0, item="a"):
    vector = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)
    return Candidate(crop_id, picture, "s", place, float(crop_id), bits, ("c", item), vector, "space")


def test_frames_of_a_sequence_fold_and_others_do_not():
    folded = fold([candidate(1, 1, 1, 0), candidate(2, 2, 2, 5), candidate(3, 3, 3, 5, item="b")])
    assert folded == {1: 2, 2: None, 3: None}  # the largest stands for them
    assert fold([candidate(1, 1, 1, 0), candidate(2, 1, 1, 0)]) == {1: None, 2: None}
    assert fold([candidate(1, 1, 1, 0), candidate(2, 2, 2, 0, bits=2**20 - 1)]) == {1: None, 2: None}


def test_slow_turns_do_not_chain_different_things():
    turned = fold([candidate(i, i, i, 6 * i) for i in range(1, 16)])
    assert sum(to is None for to in turned.values()) >= 3


def test_sequence_is_the_name_without_its_last_number():
    assert sequence_of("day2/frame-0012.jpg", "cam") == ("cam|day2/frame-", 12)
    assert sequence_of("cup.png", "cam") == ("cam|cup.png", 0)
    assert sequence_of("a" * 50 + "9" * 400 + ".png", "")[1] >= 0


def test_difference_hash_is_the_same_for_a_smaller_copy():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 255, (9, 9, 3), np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    assert (difference_hash(image) ^ difference_hash(image[::2, ::2])).bit_count() <= 4


def test_bound_of_a_clean_sample_of_twenty():
    assert upper_bound(0, 20) == pytest.approx(0.139, abs=0.001)
    assert upper_bound(1, 20) == pytest.approx(0.216, abs=0.001)
    assert upper_bound(20, 20) == upper_bound(0, 0) == 1.0
