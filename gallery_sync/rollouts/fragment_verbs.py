"""The verb `edge-sync config`: signed parts of the configuration, which devices take on trial when they are told to."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gallery_sync.command_line import print_values, utc_now
from gallery_sync.repository.verb_options import add_repo, key_ring

if TYPE_CHECKING:
    from gallery_sync.formats.config import ConfigFragment
    from gallery_sync.rollouts.changes import Desk
    from gallery_sync.rollouts.fragments import FragmentChange

_ABOUT = (
    "Sign keys of device.yaml that devices use over their own file. A device takes a fragment when the command config "
    "says so, tries it, and returns to what it had if its cameras do not come back."
)


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to a parser."""
    config = verbs.add_parser("config", help="change keys of the configuration of devices", description=_ABOUT)
    actions = config.add_subparsers(dest="action", required=True)
    published = actions.add_parser(
        "publish",
        help="sign a fragment, or a new revision of it",
        description="Sign a fragment, or a new revision of it. No device changes by that alone.",
    )
    shown = actions.add_parser("show", help="show a fragment")
    removed = actions.add_parser(
        "remove",
        help="take a fragment out of the signed list",
        description="Take a fragment out of the signed list. Devices that have it keep it.",
    )
    listed = actions.add_parser("list", help="list the fragments of a repository")
    for parser, is_signed in ((published, True), (removed, True), (shown, False), (listed, False)):
        add_repo(parser, keys=is_signed)
        if is_signed:
            parser.add_argument("--by", required=True, metavar="NAME", help="who does it, for the audit log")
    for parser in (published, removed, shown):
        parser.add_argument("name", help="name of the fragment, such as night-mode")
    published.add_argument("--file", type=Path, required=True, help="YAML file with the keys")
    published.add_argument(
        "--select",
        default="",
        metavar="SELECTOR",
        help="devices that may take it, such as group=lab,site!=berlin (default: all of the line)",
    )
    for parser, act in ((published, _publish), (listed, _list), (shown, _show), (removed, _remove)):
        parser.set_defaults(act=act)


def _publish(arguments: argparse.Namespace) -> int:
    from edge.config.yaml_file import load_mapping
    from edge.errors import SyncError
    from gallery_sync.formats.rollouts import parse_selector
    from gallery_sync.rollouts.fragments import publish_fragment

    try:
        selector = parse_selector(arguments.select)
    except ValueError as error:
        raise SyncError(f"--select: {error}") from None
    values = load_mapping(arguments.file)
    return _print_change(publish_fragment(_desk(arguments), arguments.name, values, selector), arguments)


def _remove(arguments: argparse.Namespace) -> int:
    from gallery_sync.rollouts.fragments import remove_fragment

    return _print_change(remove_fragment(_desk(arguments), arguments.name), arguments)


def _list(arguments: argparse.Namespace) -> int:
    from gallery_sync.rollouts.fragments import list_fragments

    rows = list_fragments(arguments.repo)
    if arguments.json:
        print(json.dumps([one if isinstance(one, str) else _row(one) for one in rows]))
        return 0
    for one in rows:
        if isinstance(one, str):
            print(f"damaged: {one}")
        else:
            print(f"{one.name} {one.revision}: {str(one.selector) or 'all devices'}, by {one.by} at {one.at}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from gallery_sync.rollouts.fragments import show_fragment

    fragment = _row(show_fragment(arguments.repo, arguments.name))
    print(json.dumps(fragment, indent=None if arguments.json else 1))
    return 0


def _row(fragment: ConfigFragment) -> dict[str, object]:
    return {**fragment.model_dump(by_alias=True), "selector": str(fragment.selector)}


def _desk(arguments: argparse.Namespace) -> Desk:
    from gallery_sync.rollouts.changes import Desk

    return Desk(arguments.repo, key_ring(arguments), arguments.by, utc_now())


def _print_change(done: FragmentChange, arguments: argparse.Namespace) -> int:
    values: dict[str, object] = {"config": done.name, "revision": done.revision, "changed": done.changed}
    if done.draft is not None:
        values |= {"draft": str(done.draft), "waits_for": list(done.waits_for)}
        print(f"edge-sync: devices see nothing of it until it is signed: edge-sync sign {done.draft}", file=sys.stderr)
    return print_values(values, as_json=arguments.json)
