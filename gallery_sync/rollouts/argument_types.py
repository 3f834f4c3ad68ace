"""Types of the arguments of `edge-sync rollout`: selectors, percentages, times and counts."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from gallery_sync.command_line import parse_duration

if TYPE_CHECKING:
    from gallery_sync.formats.rollouts import Selector


def selector(text: str) -> Selector:
    """Parse `group=lab|test,site!=berlin`."""
    from gallery_sync.formats.rollouts import parse_selector

    try:
        return parse_selector(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def percent(text: str) -> float:
    """Parse a percentage above 0."""
    found = share(text)
    if found == 0:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected more than 0 %")
    return found


def share(text: str) -> float:
    """Parse a percentage: `5%` or `5`."""
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,2})?) ?%?", text)
    if found is None or float(found[1]) > 100:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a percentage such as 5%")
    return float(found[1])


def seconds(text: str) -> float:
    """Parse a time: `30s`, `10min`, `1h` or `14d`."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def count(text: str) -> int:
    """Parse a whole number from 1."""
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 10**6:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from 1")
    return int(text)
