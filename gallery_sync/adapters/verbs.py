"""The verbs of this room."""

from __future__ import annotations

import argparse


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to a parser."""
