"""The `edge` command: sets up logging and runs one verb of `edge.verbs`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from edge.errors import FinesightError
from edge.options import build_parser
from edge.process import leave
from edge.telemetry.known_secrets import hide, set_up_logging
from edge.verbs import bundles, operation, tools

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return 0 when done, 1 after an error, 2 on wrong usage."""
    arguments = build_parser(os.environ.get("FINESIGHT_LOG", "info")).parse_args(argv)
    _set_up_logging(arguments.log_level)
    try:
        status = _VERBS[arguments.verb](arguments)
    except FinesightError as error:
        print(f"edge: {hide(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `edge ... | head`
        sys.stderr.close()
        return 0
    return status


def program() -> NoReturn:
    """Run one verb and end the process, whatever its threads do."""
    # A plug-in of another package could change what a bundle may hold; the search for one looks at every package.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    # Read when numpy is loaded. Networks and cameras use the cores, and the second thread of a small product waits for
    # one: 4 vectors of 1280 numbers, busy machine: 1.1 ms with one thread, 122 with two (docs/results/whitening.md).
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        status = main()
    except Exception:
        log.exception("unexpected error")
        status = 1
    leave(status)


def _set_up_logging(level: str) -> None:
    # journald adds the time
    stamp = "" if os.environ.get("JOURNAL_STREAM") else "%(asctime)s "
    set_up_logging(level.upper(), f"{stamp}%(levelname)s %(name)s: %(message)s")


_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": operation.run,
    "status": operation.status,
    "record": operation.record,
    "replay": tools.replay,
    "check": operation.check,
    "doctor": operation.doctor,
    "support-bundle": operation.support,
    "recognise": tools.recognise,
    "bench": tools.bench,
    "demo": tools.demo,
    "init": tools.init,
    "find": tools.find,
    "schema": tools.schema,
    "bundle list": bundles.bundle_list,
    "bundle verify": bundles.bundle_verify,
    "bundle prove": bundles.bundle_prove,
    "bundle install": bundles.bundle_install,
    "bundle activate": bundles.bundle_activate,
    "bundle rollback": bundles.bundle_rollback,
    "gallery status": bundles.gallery_status,
    "gallery cut": bundles.gallery_cut,
}
