"""Transfer of labels: a found object takes the label of the known pictures whose representation is most similar.

This is the optional match of US 2018/0260664 between a query's representation and known features. It compares the
grids of `verify`, cell by cell; the k nearest known pictures vote, each with its similarity.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import CaptureError
from edge.finder.correlate import Kernel, similarity
from edge.imaging import image

NEAREST = 3  # known pictures that vote
MASK_SUFFIX = ".mask.png"  # of a mask beside a picture: `mug.mask.png` and `mug.jpg`


@dataclass(frozen=True, slots=True)
class KnownPicture:
    """The representation of one known picture."""

    label: str
    kernel: Kernel


@dataclass(frozen=True, slots=True)
class TransferredLabel:
    """The label that the nearest known pictures voted for."""

    label: str
    similarity: float  # of the most similar known picture with this label, -1..1


def list_known(folder: Path) -> list[tuple[str, Path]]:
    """List the pictures `folder/LABEL/*` and `folder/CATEGORY/LABEL/*` with their labels, without masks beside them.

    Raises:
        CaptureError: there is none.
    """
    found = [
        (path.parent.name, path)
        for path in sorted([*folder.glob("*/*"), *folder.glob("*/*/*")])
        if path.suffix.lower() in image.IMAGE_SUFFIXES
        and path.is_file()
        and not path.name.startswith(".")
        and not path.name.endswith(MASK_SUFFIX)
    ]
    if not found:
        raise CaptureError(f"{folder}: holds no pictures in folders of labels; give LABEL/PICTURE.jpg in it")
    return found


def transfer_label(kernel: Kernel, known: Sequence[KnownPicture], nearest: int = NEAREST) -> TransferredLabel:
    """Return the label of an object, by a vote of the nearest known pictures.

    Args:
        kernel: of the object, at the size of verification.
        known: at least one known picture, at the same size.
        nearest: number of pictures that vote.
    """
    scored = sorted(((similarity(kernel, one.kernel), one.label) for one in known), reverse=True)[:nearest]
    votes: dict[str, float] = defaultdict(float)
    for score, label in scored:
        votes[label] += max(0.0, score)
    winner = max(votes, key=lambda label: votes[label])
    return TransferredLabel(winner, next(score for score, label in scored if label == winner))
