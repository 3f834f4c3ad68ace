"""The verb `edge-sync gallery`: list and change single items of the published gallery."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import SyncError
from gallery_sync.command_line import print_values, utc_now
from gallery_sync.repository.verb_options import add_hold, add_repo, key_ring, print_publication, published_in

if TYPE_CHECKING:
    from gallery_sync.repository.items.edit import EditPlan, ItemContent
    from gallery_sync.repository.published import Published

_ABOUT = (
    "List the items of the published gallery, or change some of them. Each change is one signed release. Devices "
    "download only what changed."
)


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to a parser."""
    gallery = verbs.add_parser("gallery", help="list, add, rename, merge or delete single items", description=_ABOUT)
    actions = gallery.add_subparsers(dest="action", required=True)
    listed = actions.add_parser("list", help="list the items of the published gallery")
    add_repo(listed, keys=False)
    listed.add_argument("--category", help="only items of this category")
    listed.set_defaults(act=_list)

    _add_upsert(actions)

    add = actions.add_parser(
        "add",
        help="add all pictures of an index.csv, such as that of a review, in one release",
        description=(
            "Add items, or pictures to items that are there, from an index.csv with the columns path, category, item, "
            "and optionally label, split and also. All of it is one release."
        ),
    )
    add_repo(add)
    add.add_argument("index", type=Path, metavar="INDEX", help="index.csv, or its folder")
    add.add_argument("--dry-run", action="store_true", help="publish nothing, only say what would change")
    add_hold(add)
    add.set_defaults(act=_change, plan=_plan_add)

    rename = actions.add_parser("rename", help="give an item another label")
    _add_item(rename)
    rename.add_argument("label", metavar="LABEL", help="the new label")
    rename.set_defaults(act=_change, plan=_plan_rename)

    merge = actions.add_parser(
        "merge",
        help="make two items one",
        description=("Give the vectors of one item to another one, and delete the first."),
    )
    _add_item(merge)
    merge.add_argument("target", metavar="INTO", help="id of the item that stays")
    merge.set_defaults(act=_change, plan=_plan_merge)

    delete = actions.add_parser("delete", help="delete items; devices erase their vectors and pictures")
    _add_item(delete, several=True)
    delete.add_argument(
        "--urgent",
        action="store_true",
        help="every device deletes them at its next poll, from all galleries that it holds, before any wave or window",
    )
    delete.set_defaults(act=_change, plan=_plan_delete)


def _add_upsert(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    upsert = actions.add_parser(
        "upsert",
        help="add an item or replace one, from pictures or vectors",
        description="Add an item, or replace the one with this id. What you leave out is kept from the old item.",
    )
    _add_item(upsert)
    source = upsert.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--pictures", type=Path, nargs="+", metavar="FILE", help="its pictures, embedded with the newest bundle"
    )
    source.add_argument(
        "--vectors", type=Path, metavar="FILE", help="its vectors as a NumPy file (.npy): float (n, dim), unit length"
    )
    upsert.add_argument("--label", help="its label; needed for a new item")
    upsert.add_argument(
        "--space", metavar="ID", help="embedding space of --vectors (default: that of the newest bundle)"
    )
    upsert.add_argument(
        "--plain-background",
        action="store_true",
        help="each picture shows one object on a plain background; cut it out",
    )
    upsert.add_argument("--thumbnail", type=Path, metavar="FILE", help="JPEG or PNG (default: the first picture)")
    upsert.add_argument("--metadata", metavar="JSON", help='an object, such as {"sku": 12}')
    upsert.add_argument(
        "--negative", action=argparse.BooleanOptionalAction, help="an object that must not be named, or not any more"
    )
    upsert.set_defaults(act=_change, plan=_plan_upsert)


def _add_item(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    add_repo(parser)
    parser.add_argument("category", metavar="CATEGORY", help="category of the item")
    parser.add_argument("item", metavar="ITEM", nargs="+" if several else None, help="id of the item")
    parser.add_argument("--dry-run", action="store_true", help="publish nothing, only say what would change")
    add_hold(parser)


def _list(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.items.edit import list_items

    rows = list_items(published_in(arguments.repo), arguments.category)
    if arguments.json:
        print(json.dumps(list(rows)))
        return 0
    for row in rows:
        negative = " (must not be named)" if row["negative"] else ""
        print(f"{row['category']!r} {row['item']!r}: {row['label']!r}, {row['vectors']} vectors{negative}")
    return 0


def _change(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.publish import publish_gallery_change

    plan: EditPlan = arguments.plan(arguments, published_in(arguments.repo))
    for line in plan.says:
        print(f"edge-sync: {'would ' if arguments.dry_run else ''}{line}", file=sys.stderr)
    if arguments.dry_run:
        return print_values({"dry_run": True, "changes": list(plan.says)}, as_json=arguments.json)
    done = publish_gallery_change(
        arguments.repo, key_ring(arguments), utc_now(), plan.changes, urgent=plan.urgent, hold=arguments.hold
    )
    return print_publication(done, arguments)


def _plan_upsert(arguments: argparse.Namespace, published: Published) -> EditPlan:
    from gallery_sync.repository.items import edit

    manifest = edit.newest_manifest(published)
    model = manifest.embedder_for(arguments.category)
    thumbnail = edit.read_small(arguments.thumbnail) if arguments.thumbnail else None
    content: ItemContent
    if arguments.pictures:
        from gallery_sync.repository.items.pictures import embed_pictures

        found = embed_pictures(
            published.repo, manifest, arguments.category, arguments.pictures, trim=arguments.plain_background
        )
        space_id, vectors, silhouettes = found.space_id, found.vectors, found.silhouettes
        thumbnail = thumbnail or found.thumbnail
    else:
        space_id = arguments.space or (model.space_id if model else "")
        if not space_id:
            raise SyncError(
                f"bundle {manifest.bundle_id} has no embedder for category {arguments.category[:80]!r}; give --space"
            )
        vectors, silhouettes = edit.read_vectors(arguments.vectors), None
    content = edit.ItemContent(
        vectors, arguments.label, _metadata(arguments.metadata), arguments.negative, thumbnail, silhouettes
    )
    return edit.plan_upsert(published, arguments.category, arguments.item, space_id, content)


def _plan_add(arguments: argparse.Namespace, published: Published) -> EditPlan:
    from gallery_sync.repository.items.index import plan_add

    return plan_add(published, arguments.index)


def _plan_rename(arguments: argparse.Namespace, published: Published) -> EditPlan:
    from gallery_sync.repository.items.edit import plan_rename

    return plan_rename(published, arguments.category, arguments.item, arguments.label)


def _plan_merge(arguments: argparse.Namespace, published: Published) -> EditPlan:
    from gallery_sync.repository.items.edit import plan_merge

    return plan_merge(published, arguments.category, arguments.item, arguments.target)


def _plan_delete(arguments: argparse.Namespace, published: Published) -> EditPlan:
    from gallery_sync.repository.items.edit import plan_delete

    return plan_delete(published, arguments.category, arguments.item, urgent=arguments.urgent)


def _metadata(text: str | None) -> dict[str, Any] | None:
    from edge.gallery.limits import parse_metadata

    if text is None:
        return None
    try:
        return parse_metadata(text)
    except ValueError as error:
        raise SyncError(f"--metadata: {error}") from error
