"""The pictures of decided groups as a data set: `index.csv`, which `edge-train embed` and `edge-sync gallery` read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

from trainer.inbox.review import Case
from trainer.inbox.state import Decision

NEGATIVE_SPLIT, SPLIT = "negative", "catalogue"  # as `edge-train embed --negative` and its default take them
COLUMNS = ("path", "split", "category", "item", "label", "also")


def index_table(cases: Sequence[Case], decisions: Mapping[str, Decision], *, undecided: bool) -> bytes:
    """Return the index.

    Args:
        cases: all groups.
        decisions: by group.
        undecided: also list what is not decided: taught items as they were taught, unknown objects without item.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for case in cases:
        writer.writerows(_rows(case, decisions.get(case.group), undecided=undecided))
    return text.getvalue().encode()


def _rows(case: Case, decision: Decision | None, *, undecided: bool) -> Iterator[Sequence[str]]:
    first = case.members[0]
    if decision is None:
        if not undecided:
            return
        item = first.id if first.kind == "taught" else ""
        named = (case.category, item, first.label)
    elif decision.verdict in ("unknown", "reject"):
        return
    else:
        named = (decision.category, decision.item, decision.label)
    split = NEGATIVE_SPLIT if first.negative else SPLIT
    also = first.id if first.kind == "taught" and first.id != named[1] else ""  # so that the kiosk retires its copy
    for picture in case.pictures:
        yield picture, split, *named, also
