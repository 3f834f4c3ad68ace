"""The table that an operator fills in: `review.csv`, one row for each group that is not decided.

Rules this module keeps:
1. Only the columns `group`, `category` and `decision` are read back. Everything else is for people.
2. A decision that cannot be understood is left out and reported. The others count.
3. No cell that a device wrote is a formula: a spreadsheet gets it with `'` in front.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset_formats.csv_table import read_table
from edge.errors import DataError
from edge.file_names import file_name
from trainer.inbox.state import Decision, Proposal, Taken

REVIEW_FILE = "review.csv"
COLUMNS = (
    *("group", "decision", "category", "kind", "label", "picture", "pictures", "device", "camera", "at", "reason"),
    *(f"{name}_{number}" for number in (1, 2, 3) for name in ("proposal", "similarity")),
)
HOW = (
    "accept 1, accept 2, accept 3, new NAME, unknown, or reject; "
    "empty: a taught item stays as it was taught, and an unknown object undecided"
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
_MAX_NAME_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Case:
    """One group, as the review shows it."""

    group: str
    members: Sequence[Taken]  # at least one
    category: str  # as taught or as is likely; empty: not known
    proposals: tuple[Proposal, ...]

    @property
    def pictures(self) -> list[str]:
        """Return the pictures of all members, each once."""
        return list(dict.fromkeys(name for one in self.members for name in one.pictures))


def review_table(cases: Sequence[Case], filled: Mapping[str, tuple[str, str]]) -> bytes:
    """Return the table for an operator.

    Args:
        cases: what is to be decided.
        filled: decision and category by group, that are in the table already.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for case in cases:
        first = case.members[0]
        decision, category = filled.get(case.group, ("", case.category))
        row: list[object] = [case.group, decision, category, first.kind, first.label, first.pictures[0]]
        row += [len(case.pictures), first.device, first.camera, first.at, first.reason]
        for number in range(3):
            near = case.proposals[number] if number < len(case.proposals) else None
            row += [f"{near.category}/{near.item}: {near.label}", f"{near.score:.4f}"] if near else ["", ""]
        writer.writerow([_plain(str(value)) for value in row])
    return text.getvalue().encode()


def filled_in(file: Path) -> dict[str, tuple[str, str]]:
    """Return decision and category of the groups that a table on disk has a decision for; none if there is no table.

    Raises:
        DataError: the file is no such table.
    """
    if not file.exists():
        return {}
    table = read_table(file)
    table.require("group", "decision", "category")
    return {
        _bare(values["group"]): (_bare(values["decision"]), _bare(values["category"]))
        for _, values in table.rows
        if values["decision"]
    }


def read_review(file: Path, cases: Mapping[str, Case]) -> tuple[list[Decision], dict[str, str]]:
    """Read a table that an operator filled in.

    Args:
        file: the table.
        cases: by group; a decision on another group is left out.

    Returns:
        the decisions, and by line why other rows are left out.

    Raises:
        DataError: the file is no such table.
    """
    table = read_table(file)
    table.require("group", "decision", "category")
    decisions: dict[str, Decision] = {}
    left_out = dict(line.removeprefix(f"{file}: ").split(": ", 1) for line in table.left_out)
    for line, values in table.rows:
        group, where = _bare(values["group"]), f"line {line}"
        if group not in cases:
            left_out[where] = f"there is no group {group[:80]!r} to decide on"
        elif group in decisions:
            left_out[where] = f"group {group!r} is there twice; the first row counts"
        else:
            try:
                decided = decide(_bare(values["decision"]), _bare(values["category"]), cases[group])
            except DataError as error:
                left_out[where] = str(error)
                continue
            if decided is not None:
                decisions[group] = decided
    return list(decisions.values()), left_out


def decide(text: str, category: str, case: Case) -> Decision | None:
    """Return the decision that a cell means; None: nothing is decided.

    Args:
        text: of the cell, see HOW.
        category: of the row.
        case: that it is about.

    Raises:
        DataError: it cannot be understood, or does not fit the case.
    """
    words = " ".join(text.split())
    verb, _, rest = words.partition(" ")
    match verb.casefold(), rest:
        case "", _:
            return _as_taught(category, case) if case.members[0].kind == "taught" else None
        case "unknown", "":
            return Decision(group=case.group, verdict="unknown")
        case "reject", "":
            return Decision(group=case.group, verdict="reject")
        case "accept", ("1" | "2" | "3"):
            return _accept(int(rest), case)
        case "new", name if name:
            return _new(name, category, case)
    raise DataError(f"found the decision {text[:80]!r}, expected {HOW}")


def _as_taught(category: str, case: Case) -> Decision:
    first = case.members[0]
    if not category:
        raise DataError("the taught item has no category; write one")
    return Decision(group=case.group, verdict="as taught", category=category, item=first.id, label=first.label)


def _accept(number: int, case: Case) -> Decision:
    if case.members[0].negative:
        raise DataError("accept: the item was taught as one that must not be named; write reject, or leave it empty")
    if number > len(case.proposals):
        raise DataError(f"accept {number}: there are {len(case.proposals)} proposals")
    chosen = case.proposals[number - 1]
    return Decision(group=case.group, verdict="accept", category=chosen.category, item=chosen.item, label=chosen.label)


def _new(name: str, category: str, case: Case) -> Decision:
    """Return the decision that a group is an item that is not in the gallery. A taught item keeps its id."""
    first = case.members[0]
    if not category:
        raise DataError("new: the row has no category; write one")
    if len(name) > _MAX_NAME_CHARACTERS or not name.isprintable():
        raise DataError(f"new: found {len(name)} characters, expected 1 to {_MAX_NAME_CHARACTERS} printable ones")
    item = first.id if first.kind == "taught" else file_name(name).lstrip("-")
    return Decision(group=case.group, verdict="new", category=category, item=item, label=name)


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _bare(text: str) -> str:
    return text.strip().removeprefix("'")
