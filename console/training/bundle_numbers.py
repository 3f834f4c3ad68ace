"""The sequence numbers of the bundles that this console can see."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from console.settings import Settings
from console.training.progress import LEARNED_WORK
from edge.bundle.bundle import MANIFEST_NAME
from edge.bundle.layout import SLOTS, slot_folder
from edge.errors import FinesightError
from edge.strict_json import parse_json

log = logging.getLogger(__name__)

_MOST_BYTES = 16 << 20  # of a manifest
_RUNS = ("*/bundle", f"*/{LEARNED_WORK}/bundle")


def largest_sequence(settings: Settings) -> int:
    """Return the largest number of the runs, the device and the repository; 0: there is no bundle."""
    return max(_known(settings), default=0)


def _known(settings: Settings) -> Iterator[int]:
    folders = [path for pattern in _RUNS for path in settings.runs.glob(pattern)]
    if settings.device is not None:
        folders += [slot_folder(settings.device, slot) for slot in SLOTS]
    for folder in folders:
        try:
            yield int(parse_json((folder / MANIFEST_NAME).read_bytes(), _MOST_BYTES)["sequence"])
        except (OSError, ValueError, TypeError, KeyError, FinesightError):
            continue
    if settings.repository is not None:
        from gallery_sync.repository.metadata import SignedMetadata
        from gallery_sync.repository.published import read_published

        try:
            published = read_published(settings.repository, SignedMetadata.open(settings.repository))
            yield from (head.sequence for head in published.all_heads().values())
        except FinesightError as error:
            log.debug("the repository cannot be read: %s", error)
