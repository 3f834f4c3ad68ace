"""The command `edge-train inbox`: take what devices uploaded, have it reviewed, and write it as a data set."""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import DataError, TrainError

if TYPE_CHECKING:
    from trainer.inbox.listing import InboxFile
    from trainer.inbox.proposals import Proposer
    from trainer.inbox.review import Case
    from trainer.inbox.state import ReviewFolder

log = logging.getLogger(__name__)


def add_inbox(commands: Any) -> None:
    """Add the arguments of `edge-train inbox`."""
    text = "review what devices uploaded, taught items and unknown objects, and make items of it"
    inbox = commands.add_parser("inbox", help=text, description=f"{text[0].upper()}{text[1:]}.")
    inbox.add_argument("inbox", type=Path, nargs="?", metavar="DIR", help="folder with a folder for each device")
    inbox.add_argument(
        "-o", "--out", type=Path, required=True, help="folder of the review: pictures, index.csv, review.csv, page"
    )
    inbox.add_argument("--bundle", type=Path, help="bundle folder; with --gallery, proposes the nearest items")
    inbox.add_argument("--gallery", type=Path, help="gallery folder whose items are proposed")
    inbox.add_argument(
        "--archive", type=Path, metavar="FOLDER", help="move uploads there, by device, once they are taken"
    )
    inbox.add_argument(
        "--apply", type=Path, metavar="REVIEW", help="take the decisions from a filled-in review.csv; reads no uploads"
    )


def run_inbox(args: argparse.Namespace) -> dict[str, object]:
    """Run `edge-train inbox`; return its answer.

    Raises:
        FinesightError: the inbox, the review, the bundle or the gallery cannot be used.
    """
    from trainer.inbox.state import ReviewFolder

    if (args.bundle is None) != (args.gallery is None):
        raise TrainError("--bundle and --gallery: found one, expected both or none")
    if args.apply is not None:
        if args.bundle or args.archive:
            raise TrainError("--apply only takes decisions; leave out --bundle, --gallery and --archive")
        return _apply(args.apply, ReviewFolder(args.out))
    if args.inbox is None:
        raise TrainError("give the folder of the inbox, or --apply REVIEW")
    return _take(args, ReviewFolder(args.out))


def _take(args: argparse.Namespace, review: ReviewFolder) -> dict[str, object]:
    """Take what is new, and write all that a reviewer needs."""
    from trainer.inbox.index import index_table
    from trainer.inbox.page import PAGE_FILE, review_page, write_sheets
    from trainer.inbox.proposals import open_proposer
    from trainer.inbox.review import REVIEW_FILE, filled_in, review_table
    from trainer.inbox.state import write
    from trainer.inbox.take import take_new

    _check_outside(args.inbox, out=args.out, archive=args.archive)
    filled = filled_in(review.folder / REVIEW_FILE)
    proposer = open_proposer(args.bundle, args.gallery) if args.bundle else None
    taking = take_new(args.inbox, review)
    review.save()
    filled = {group: cells for group, cells in filled.items() if group not in taking.changed}
    cases = _cases(review, proposer, filled)
    review.save()
    waiting = [case for case in cases.values() if case.group not in review.decisions]
    write(review.folder / "index.csv", index_table(list(cases.values()), review.decisions, undecided=True))
    write(review.folder / REVIEW_FILE, review_table(waiting, filled))
    write(review.folder / PAGE_FILE, review_page(waiting, proposer.thumbnail if proposer else lambda _: None))
    sheets = write_sheets(review, waiting)
    archived = _archive(taking.files, review, args.archive) if args.archive else 0
    return {
        "out": str(review.folder),
        "taught": taking.taught,
        "taught_again": len(taking.changed),
        "unknown": taking.unknown,
        "folded": taking.folded,
        "known": taking.known,
        "left_out": taking.left_out,
        "archived": archived,
        "to_review": len(waiting),
        "sheets": sheets,
    }


def _apply(table: Path, review: ReviewFolder) -> dict[str, object]:
    """Take decisions, and write the index of what is decided."""
    from trainer.inbox.index import index_table
    from trainer.inbox.review import read_review
    from trainer.inbox.state import write

    cases = _cases(review, None)
    decisions, left_out = read_review(table, cases)
    for where, why in left_out.items():
        log.warning("%s: left out %s: %s", table, where, why)
    review.decisions |= {one.group: one for one in decisions}
    review.save()
    index = review.folder / "index.csv"
    write(index, index_table(list(cases.values()), review.decisions, undecided=False))
    verdicts: dict[str, int] = {}
    for one in decisions:
        verdicts[one.verdict] = verdicts.get(one.verdict, 0) + 1
    undecided = sum(group not in review.decisions for group in cases)
    return {"index": str(index), "decided": verdicts, "left_out": left_out, "undecided": undecided}


def _cases(review: ReviewFolder, proposer: Proposer | None, fixed: Collection[str] = ()) -> dict[str, Case]:
    """Return all groups, each with the proposals that the operator saw or will see.

    Args:
        review: what was taken.
        proposer: makes new proposals for groups that nobody has decided on; None: the earlier ones count, or those of
            the device.
        fixed: groups whose proposals stay as they were shown.
    """
    from trainer.inbox.review import Case
    from trainer.inbox.state import Shown

    cases = {}
    for group, members in review.groups().items():
        first, shown = members[0], review.shown.get(group)
        if proposer is not None and group not in review.decisions and group not in fixed:
            likeliest, proposals = proposer.propose(review.folder, members)
            shown = Shown(group=group, category=first.category or likeliest, proposals=proposals)
        shown = shown or Shown(group=group, category=first.category, proposals=first.top)
        review.shown[group] = shown
        cases[group] = Case(group, members, shown.category, shown.proposals)
    return cases


def _archive(files: list[InboxFile], review: ReviewFolder, archive: Path) -> int:
    """Move uploads that are taken out of the inbox; one that was replaced meanwhile stays. Return how many."""
    from edge.durable import make_folder
    from trainer.inbox.submission import digest_of

    moved = 0
    for file in files:
        target = archive / file.device if file.device else archive
        try:
            digest = digest_of(file)
            if not review.has(digest):
                continue
            make_folder(target)
            for path in [file.path] + ([file.record] if file.record else []):
                place = target / path.name
                if place.exists():
                    place = target / f"{path.stem}-{digest[:12]}{path.suffix}"
                shutil.move(path, place)
        except DataError as error:
            log.warning("%s: not moved: %s", file.name, error)
            continue
        except OSError as error:
            raise DataError(f"{file.path}: cannot be moved to {target}: {error.strerror}") from error
        moved += 1
    return moved


def _check_outside(inbox: Path, **folders: Path | None) -> None:
    for option, folder in folders.items():
        if folder is not None and inbox.resolve() in (folder.resolve(), *folder.resolve().parents):
            raise TrainError(f"--{option}: {folder} is inside the inbox, where it would be read as a device; move it")
