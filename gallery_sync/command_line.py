"""What the verbs of all rooms share: options, the time, and how a result is printed."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

from edge.errors import SyncError

FLEET_TOKEN = "FINESIGHT_FLEET_TOKEN"  # noqa: S105  the variable with the token of the fleet's server
_BROKER_PORTS = {"mqtt": 1883, "mqtts": 8883}
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def add_state_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the state folder of a device."""
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=Path(os.environ.get("FINESIGHT_STATE_DIR", "/var/lib/finesight")),
        help="state folder of the device (default: $FINESIGHT_STATE_DIR or /var/lib/finesight)",
    )


def add_ca_file(parser: argparse.ArgumentParser) -> None:
    """Add the option that names certificate authorities."""
    parser.add_argument(
        "--ca-file", type=Path, help="trust only the certificate authorities in this PEM file (default: the system's)"
    )


def add_json(parser: argparse.ArgumentParser, *, default: object = False) -> None:
    """Add `--json` to a verb, and to the verbs below it, which leave the value of the one above as it is."""
    parser.add_argument("--json", action="store_true", default=default, help="print JSON")
    for action in parser._actions:  # noqa: SLF001  argparse has no public list of the verbs of a parser
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for below in action.choices.values():
                add_json(below, default=argparse.SUPPRESS)


def print_values(values: Mapping[str, object], *, as_json: bool) -> int:
    """Print named values: lines for people, or JSON for programs. Return the exit code 0."""
    if as_json:
        print(json.dumps(values))
    else:
        for key, value in values.items():
            print(f"{key}: {as_text(value)}")
    return 0


def as_text(value: object) -> str:
    """Return a value as people read it: a list without brackets, nothing as `none`."""
    if isinstance(value, Mapping):
        value = [f"{key} {one}" for key, one in value.items()]
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def parse_duration(text: str) -> float:
    """Return a time in seconds: `90s`, `15m`, `15min`, `1h` or `2d`; a number alone is seconds.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(|s|m|min|h|d)", text.strip())
    if found is None:
        raise ValueError(f"found {text[:40]!r}, expected a time such as 90s, 15m, 1h or 2d")
    return float(found[1]) * _UNITS_S[found[2]]


def parse_broker(text: str) -> tuple[str, int, bool]:
    """Return host, port and whether it has TLS of a broker: `mqtt://HOST[:PORT]` or `mqtts://HOST[:PORT]`.

    Raises:
        ValueError: it is none, or has a user or a path.
    """
    parts = urlsplit(text)
    port = parts.port or _BROKER_PORTS.get(parts.scheme)
    if parts.scheme not in _BROKER_PORTS or not parts.hostname or port is None:
        raise ValueError("expected mqtt:// or mqtts://, and a host")
    if parts.username is not None or parts.path.strip("/"):
        raise ValueError("expected a host and a port alone")
    return parts.hostname, port, parts.scheme == "mqtts"


def who(arguments: argparse.Namespace) -> str:
    """Return the name of the operator: that of `--by`, or the user name.

    Raises:
        SyncError: there is neither, or `--by` is empty.
    """
    if arguments.by is not None and not arguments.by.strip():  # such as of a variable that is not set
        raise SyncError("--by: found an empty name; give yours, for the audit log")
    if arguments.by:
        return str(arguments.by)[:80]
    try:
        return getpass.getuser()[:80]
    except (KeyError, OSError) as error:
        raise SyncError("found no user name for you on this system; give --by NAME") from error


def utc_now() -> datetime:
    """Return the time of the system's clock."""
    return datetime.now(timezone.utc)
