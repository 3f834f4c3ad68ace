"""What `--help` of the commands says."""

from __future__ import annotations

import argparse
from collections.abc import Iterator


def parsers_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its verbs."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from parsers_of(verb)


def is_worth_telling(default: object) -> bool:
    return default is not None and default is not False and default not in ("", [], (), argparse.SUPPRESS)


def test_help_names_every_default():
    from console.options import build_parser as console_parser
    from edge.options import build_parser as edge_parser
    from gallery_sync.cli import build_parser as sync_parser
    from quantize.options import build_parser as quantize_parser
    from trainer.options import build_parser as train_parser

    silent = [
        f"{parser.prog} {'/'.join(action.option_strings) or action.dest}"
        for top in (console_parser(), edge_parser("info"), sync_parser(), quantize_parser(), train_parser())
        for parser in parsers_of(top)
        for action in parser._actions
        if is_worth_telling(action.default) and "default" not in (action.help or "")
    ]
    assert silent == []
