"""Prints the result of a verb: lines for people, or JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping


def print_values(values: Mapping[str, object], *, as_json: bool) -> int:
    """Print named values, and return the exit code 0."""
    if as_json:
        print(json.dumps(values))
    else:
        for key, value in values.items():
            print(f"{key}: {value}")
    return 0
