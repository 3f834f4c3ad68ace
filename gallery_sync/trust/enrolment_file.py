"""Reads the enrolment of a device, which `edge-sync enrol` writes in two copies.

Rules this module keeps:
1. Damage to one copy stops nothing, and the log names it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from edge.errors import SyncError
from gallery_sync.formats.enrolment import Enrolment
from gallery_sync.formats.fields import parse
from gallery_sync.fresh_files import read_regular

log = logging.getLogger(__name__)

NAME, COPY = "enrolment.json", "trust/enrolment"  # in the state folder
LARGEST_BYTES = 1 << 20


def read_enrolment(state_dir: Path) -> Enrolment | None:
    """Read the enrolment of a device, from its copy if the file is damaged; None: it is not enrolled.

    Raises:
        SyncError: both are damaged.
    """
    problems = []
    for name in (NAME, COPY):
        try:
            return parse(Enrolment, read_regular(state_dir / name, LARGEST_BYTES), str(state_dir / name))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            problems.append(f"{state_dir / name}: cannot be read: {error.strerror}")
        except SyncError as error:
            problems.append(str(error))
        log.warning("%s", problems[-1])
    if problems:
        raise SyncError(f"{problems[0]}; enrol the device again: edge-sync enrol FILE --replace")
    return None
