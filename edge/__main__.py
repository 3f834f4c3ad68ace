"""Runs the `edge` command as `python -m edge`."""

from edge.cli import program

program()
