"""The verb `edge-sync config`: signed parts of the configuration, which devices take on trial on command."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from gallery_sync.command_line import print_values
from gallery_sync.repository.verb_options import add_repo
from gallery_sync.rollouts.argument_types import selector
from gallery_sync.rollouts.verb_options import desk, say_draft

if TYPE_CHECKING:
    from gallery_sync.formats.config import ConfigFragment
    from gallery_sync.rollouts.fragments import FragmentChange

_ABOUT = (
    "Sign keys of device.yaml that devices use over their own file. On the command config, a device takes a fragment, "
    "tries it, and returns to what it had if its cameras do not come back."
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
            parser.add_argument("--by", required=True, metavar="NAME", help="your name, for the audit log")
    for parser in (published, removed, shown):
        parser.add_argument("name", help="name of the fragment, such as night-mode")
    published.add_argument("--file", type=Path, required=True, help="YAML file with the keys")
    published.add_argument(
        "--select",
        type=selector,
        default="",
        metavar="SELECTOR",
        help="devices that may take it, such as group=lab,site!=berlin (default: all of the line)",
    )
    for parser, act in ((published, _publish), (listed, _list), (shown, _show), (removed, _remove)):
        parser.set_defaults(act=act)


def _publish(arguments: argparse.Namespace) -> int:
    from edge.config.yaml_file import load_mapping
    from gallery_sync.rollouts.fragments import publish_fragment

    values = load_mapping(arguments.file)
    return _print_change(publish_fragment(desk(arguments), arguments.name, values, arguments.select), arguments)


def _remove(arguments: argparse.Namespace) -> int:
    from gallery_sync.rollouts.fragments import remove_fragment

    return _print_change(remove_fragment(desk(arguments), arguments.name), arguments)


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


def _print_change(done: FragmentChange, arguments: argparse.Namespace) -> int:
    values: dict[str, object] = {"config": done.name, "revision": done.revision, "changed": done.changed}
    if done.draft is not None:
        values |= {"draft": str(done.draft), "waits_for": list(done.waits_for)}
        say_draft(done.draft)
    return print_values(values, as_json=arguments.json)
