"""`edge-train inbox`: take, review, apply."""

from __future__ import annotations

import csv
import json
import re

import pytest

from dataset_formats.index import read_index
from edge.errors import DataError
from tests.trainer.inbox.inbox_samples import jpeg, put, taught, unknown
from trainer.cli import main
from trainer.inbox.state import Proposal, ReviewFolder, Shown


class Desk:
    """An inbox and the folder of its review."""

    def __init__(self, folder, capsys):
        self.inbox, self.out, self._capsys = folder / "inbox", folder / "review", capsys
        self.inbox.mkdir()

    def run(self, *arguments):
        assert main(["inbox", *map(str, arguments), "-o", str(self.out)]) == 0
        return json.loads(self._capsys.readouterr().out)

    def take(self, *arguments):
        return self.run(self.inbox, *arguments)

    def apply(self):
        return self.run("--apply", self.out / "review.csv")

    def rows(self, name="review.csv"):
        with (self.out / name).open(newline="") as file:
            return list(csv.DictReader(file))

    def decide(self, **decisions):
        """Write decisions into the table, by the kind of group or its id."""
        rows = self.rows()
        for row in rows:
            for group, decision in decisions.items():
                if group.replace("_", "-") in (row["group"], row["kind"]):
                    row["decision"] = decision
        with (self.out / "review.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def index(self):
        """Return item, label and split of each row of the index."""
        return [(row["item"], row["label"], row["split"]) for row in self.rows("index.csv")]


@pytest.fixture
def desk(tmp_path, capsys):
    return Desk(tmp_path, capsys)


def test_taught_items_and_unknown_objects_are_taken(desk):
    put(desk.inbox, "kiosk-1", taught())
    put(desk.inbox, "cam-1", unknown())
    answer = desk.take()
    assert {key: answer[key] for key in ("taught", "unknown", "known", "left_out", "to_review", "sheets")} == {
        "taught": 1, "unknown": 1, "known": 0, "left_out": {}, "to_review": 2, "sheets": 1,
    }  # fmt: skip
    item = "taught-000000000001"
    assert desk.index() == [("", "", "catalogue"), *[(item, "Oat flakes", "catalogue")] * 2]
    seen, kiosk = desk.rows()
    assert (seen["kind"], seen["device"], seen["camera"], seen["reason"]) == (
        "unknown",
        "cam-1",
        "door",
        "unknown_item",
    )
    assert (seen["proposal_1"], seen["similarity_1"], seen["proposal_2"]) == ("carton/c1: Corn flakes", "0.5000", "")
    assert (kiosk["group"], kiosk["label"], kiosk["pictures"]) == (item, "Oat flakes", "2")
    assert {(sample.category, sample.item) for sample in read_index(desk.out).samples} == {("carton", item)}
    assert (desk.out / "sheet-000.jpg").stat().st_size > 1000


def test_second_run_takes_only_what_is_new(desk):
    put(desk.inbox, "cam-1", unknown(1, seed=1))
    desk.take()
    before = (desk.out / "taken.jsonl").read_bytes()
    put(desk.inbox, "cam-1", unknown(2, seed=2))
    answer = desk.take()
    assert (answer["known"], answer["unknown"], answer["to_review"]) == (1, 1, 2)
    assert (desk.out / "taken.jsonl").read_bytes().startswith(before)


def test_objects_that_look_alike_are_one_group(desk):
    put(desk.inbox, "cam-1", unknown(1, seed=1))
    put(desk.inbox, "cam-2", unknown(2, seed=1, camera="roof"))
    put(desk.inbox, "cam-2", unknown(3, seed=2))
    assert desk.take()["folded"] == 1
    assert [row["pictures"] for row in desk.rows()] == ["1", "1"]  # the same picture, byte by byte


def test_decisions_become_an_index(desk):
    for number in (1, 2, 3, 4):
        put(desk.inbox, "cam-1", unknown(number, seed=number + 20))
    put(desk.inbox, "kiosk-1", taught())
    desk.take()
    groups = [row["group"] for row in desk.rows() if row["kind"] == "unknown"]
    verdicts = ("accept 1", "New  Rye bread", "unknown", "reject")
    desk.decide(**dict(zip((group.replace("-", "_") for group in groups), verdicts, strict=True)))
    answer = desk.apply()
    assert answer["decided"] == {"accept": 1, "new": 1, "unknown": 1, "reject": 1, "as taught": 1}
    assert (answer["undecided"], answer["left_out"]) == (0, {})
    assert desk.index() == [
        ("c1", "Corn flakes", "catalogue"),
        ("rye-bread~e3adc9e1d6", "Rye bread", "catalogue"),
        *[("taught-000000000001", "Oat flakes", "catalogue")] * 2,
    ]
    assert desk.take()["to_review"] == 0


def test_rename_of_a_taught_item_keeps_its_id(desk):
    """The kiosk retires its copy by the id."""
    put(desk.inbox, "kiosk-1", taught())
    desk.take()
    desk.decide(taught="new Oat flakes 500 g")
    desk.apply()
    assert desk.index()[0] == ("taught-000000000001", "Oat flakes 500 g", "catalogue")


def test_taught_item_that_is_another_one_names_its_own_id(desk):
    """So the kiosk retires its copy although the gallery has it under another id."""
    put(desk.inbox, "kiosk-1", taught())
    desk.take()
    review = ReviewFolder(desk.out)
    near = Proposal(category="carton", item="c9", label="Oats", score=0.6)
    review.shown["taught-000000000001"] = Shown(group="taught-000000000001", category="carton", proposals=(near,))
    review.save()
    desk.decide(taught="accept 1")
    desk.apply()
    assert [(row["item"], row["label"], row["also"]) for row in desk.rows("index.csv")] == [
        ("c9", "Oats", "taught-000000000001")
    ] * 2
    assert read_index(desk.out).noticed == []


def test_item_that_must_not_be_named_is_in_a_split_of_its_own(desk):
    put(desk.inbox, "kiosk-1", taught(negative=True))
    desk.take()
    desk.decide(taught="accept 1")
    assert "must not be named" in next(iter(desk.apply()["left_out"].values()))
    desk.decide(taught="")
    desk.apply()
    assert {split for _, _, split in desk.index()} == {"negative"}


def test_newest_revision_counts(desk):
    put(desk.inbox, "kiosk-1", taught(revision=1, seeds=(1, 2)))
    desk.take()
    put(desk.inbox, "kiosk-1", taught(revision=2, seeds=(1, 2, 3), label="Oat flakes 2"))
    assert desk.take()["taught"] == 1
    assert [label for _, label, _ in desk.index()] == ["Oat flakes 2"] * 3


@pytest.mark.parametrize("is_applied", [True, False])
def test_item_that_was_taught_again_is_decided_on_again(desk, is_applied):
    """Nobody has seen its new pictures and its new name."""
    put(desk.inbox, "kiosk-1", taught(revision=1, label="Oat flaks"))
    put(desk.inbox, "kiosk-1", taught(number=2, seeds=(5, 6)))
    desk.take()
    desk.decide(taught="new Rolled oats")
    if is_applied:
        desk.apply()
    put(desk.inbox, "kiosk-1", taught(revision=2, seeds=(1, 2, 3), label="Oat flakes"))
    answer = desk.take()
    assert (answer["taught"], answer["taught_again"], answer["to_review"]) == (1, 1, 1 if is_applied else 2)
    (row,) = (row for row in desk.rows() if row["group"] == "taught-000000000001")
    assert (row["decision"], row["label"], row["pictures"]) == ("", "Oat flakes", "3")
    desk.apply()
    assert {label for _, label, _ in desk.index()} == {"Oat flakes", "Rolled oats"}


@pytest.mark.parametrize("changes", [{"revision": 1}, {"revision": 2}, {"revision": 1, "label": "Older words"}])
def test_decision_outlives_uploads_that_change_nothing(desk, changes):
    """A device that lost the answer to its upload, or that an older copy of the disk was put into, sends it again."""
    put(desk.inbox, "kiosk-1", taught(revision=2 if "label" in changes else 1))
    desk.take()
    desk.decide(taught="reject")
    desk.apply()
    put(desk.inbox, "kiosk-1", ("again.zip", taught(**changes, taught_at="2026-02-02T00:00:00Z")[1]))
    answer = desk.take()
    assert (answer["taught_again"], answer["to_review"]) == (0, 0)


def test_id_belongs_to_the_device_that_taught_it(desk):
    put(desk.inbox, "kiosk-1", taught())
    desk.take()
    put(desk.inbox, "kiosk-2", taught(label="Something else", revision=9))
    answer = desk.take()
    assert "has taught an item of this id" in answer["left_out"]["kiosk-2/taught-000000000001.zip"]
    assert {label for _, label, _ in desk.index()} == {"Oat flakes"}


@pytest.mark.parametrize(
    ("decision", "why"),
    [
        ("accept 4", "found the decision 'accept 4'"),
        ("accept 2", "there are 1 proposals"),
        ("yes", "found the decision 'yes'"),
        ("new", "found the decision 'new'"),
        ("reject it", "found the decision 'reject it'"),
        (f"new {'x' * 300}", "found 300 characters"),
    ],
)
def test_decision_that_means_nothing_is_left_out(desk, decision, why):
    put(desk.inbox, "cam-1", unknown())
    desk.take()
    desk.decide(unknown=decision)
    answer = desk.apply()
    assert (why in answer["left_out"]["line 2"], answer["undecided"], desk.index()) == (True, 1, [])


def test_row_that_does_not_fit_the_table_is_left_out(desk):
    put(desk.inbox, "cam-1", unknown())
    desk.take()
    with (desk.out / "review.csv").open("a") as file:
        file.write("x," * 99 + "\n")
    answer = desk.apply()
    assert list(answer["left_out"]) == ["line 3"]
    assert "values" in answer["left_out"]["line 3"]


def test_decisions_that_wait_survive_the_next_run(desk):
    put(desk.inbox, "cam-1", unknown(1, seed=1))
    desk.take()
    desk.decide(unknown="new Rye bread")
    put(desk.inbox, "cam-1", unknown(2, seed=2))
    desk.take()
    assert sorted(row["decision"] for row in desk.rows()) == ["", "new Rye bread"]


def test_object_without_category_needs_one_for_a_new_item(desk):
    put(desk.inbox, "cam-1", unknown(category=None))
    desk.take()
    desk.decide(unknown="new Rye bread")
    assert "no category" in next(iter(desk.apply()["left_out"].values()))
    rows = (desk.out / "review.csv").read_text().replace("new Rye bread,,", "new Rye bread,carton,")
    (desk.out / "review.csv").write_text(rows)
    assert desk.apply()["decided"] == {"new": 1}


def test_pictures_alone_and_with_a_record_are_unknown_objects(desk):
    put(desk.inbox, "cam-1", ("a.jpg", jpeg(5)))
    put(desk.inbox, "cam-1", ("b.jpg", jpeg(6)))
    record = json.dumps({**_record(), "camera": "roof"}).encode()
    put(desk.inbox, "cam-1", ("b.json", record))
    answer = desk.take()
    assert (answer["unknown"], answer["left_out"]) == (2, {})
    assert [row["camera"] for row in desk.rows()] == ["", "roof"]


def _record():
    from tests.trainer.inbox.test_hostile_uploads import record

    return record()


def test_archive_moves_what_was_taken_and_nothing_else(desk, tmp_path):
    put(desk.inbox, "cam-1", unknown(1, seed=1))
    put(desk.inbox, "cam-1", ("bad.zip", b"x"))
    assert desk.take("--archive", tmp_path / "archive")["archived"] == 1
    assert [path.name for path in desk.inbox.rglob("*.zip")] == ["bad.zip"]
    put(desk.inbox, "cam-1", unknown(1, seed=2))  # another one of the same name
    desk.take("--archive", tmp_path / "archive")
    assert len(list((tmp_path / "archive/cam-1").iterdir())) == 2


def test_folders_inside_the_inbox_are_refused(desk, capsys):
    assert main(["inbox", str(desk.inbox), "-o", str(desk.inbox / "out")]) == 1
    assert "is inside the inbox" in capsys.readouterr().err


def test_texts_of_devices_are_no_formulas_and_no_markup(desk):
    put(desk.inbox, "cam-1", unknown(camera="<script>", top=(("c1", '"><img src=x>', 0.5),), category="=1+1"))
    desk.take()
    assert desk.rows()[0]["category"] == "'=1+1"
    page = (desk.out / "review.html").read_text()
    assert "<script" not in page
    assert re.findall(r"<img[^>]*>", page) == [f'<img class="of" alt="" src="{desk.rows()[0]["picture"]}">']


def test_damaged_review_folder_is_an_error(desk):
    put(desk.inbox, "cam-1", unknown())
    desk.take()
    (desk.out / "taken.jsonl").write_text('{"sha256": "x"}\n')
    with pytest.raises(DataError, match=r"taken\.jsonl: line 1"):
        ReviewFolder(desk.out)
