"""What readers tell about their records: counts, first examples, text that can be printed."""

from __future__ import annotations

import os

from dataset_formats.notices import Notices, in_bulk, printable, report
from dataset_formats.records import Listing


def test_report_gives_counts_and_the_first_few():
    listing = Listing("index", left_out=[f"row {number}" for number in range(7)], noticed=["odd"])
    assert report(listing, "a.csv", first=2) == [
        "a.csv: left out 7: row 0; row 1, and 5 more; edge-train data lists them",
        "a.csv: noticed 1: odd",
    ]
    assert report(Listing("index"), "a.csv") == []


def test_report_of_names_that_are_not_utf_8_can_be_printed():
    name = os.fsdecode(b"caf\xe9")
    assert printable(name) == "caf\\udce9"
    assert report(Listing("index", noticed=[name]), name)[0].encode() == b"caf\\udce9: noticed 1: caf\\udce9"


def test_many_of_one_kind_are_one_line():
    assert in_bulk("rows", [1, 2, 3, 4], first=2) == ["rows: 4 (1, 2, …)"]
    assert in_bulk("rows", ["a"]) == ["rows: 1 (a)"]
    assert in_bulk("rows", []) == []


def test_notices_count_all_and_keep_the_first_three():
    notices = Notices("a.xml")
    for number in range(5):
        notices.notice("flags", f"object {number}")
    notices.leave_out("object 9", "no box; draw it")
    assert notices.noticed() == ["a.xml: flags: 5 (object 0, object 1, object 2, …)"]
    assert notices.left_out == ["a.xml: object 9: no box; draw it"]
    assert Notices().noticed() == []
