"""The verbs of `edge-sync` that publish, take back, check and clean up."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gallery_sync.command_line import print_values, utc_now
from gallery_sync.repository.verb_options import (
    KEYS_HELP,
    add_hold,
    add_repo,
    key_ring,
    print_publication,
    published_in,
)


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to a parser."""
    _add_publish(verbs)
    _add_release(verbs)
    _add_rollback(verbs)
    check = verbs.add_parser(
        "check",
        help="verify signatures, expiry, galleries and the hash of every file",
        description="Verify signatures, expiry, gallery logs and the hash of every file. Exit code 1 on a problem.",
    )
    add_repo(check, keys=False)
    check.add_argument("--history", action="store_true", help="also check that earlier releases can be rolled back to")
    check.add_argument("--url", help="also fetch every file from this address, as devices do")
    check.set_defaults(act=_check)
    _add_gc(verbs)
    adopt = verbs.add_parser(
        "adopt",
        help="take over the unsigned releases of an older version, after edge-sync init",
        description="Sign the releases that an older version published in this folder. Run edge-sync init first.",
    )
    add_repo(adopt)
    adopt.set_defaults(act=_adopt)


def _add_publish(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    publish = verbs.add_parser(
        "publish",
        help="publish a bundle, a gallery or both as a signed release",
        description="Publish a bundle, a gallery or both as a signed release. What you leave out stays as it is.",
    )
    add_repo(publish)
    publish.add_argument("--bundle", type=Path, help="bundle folder")
    publish.add_argument("--gallery", type=Path, help="gallery folder")
    publish.add_argument(
        "--security-floor",
        type=int,
        metavar="N",
        help="devices that confirmed this bundle never again run one with a sequence number below N; it never falls",
    )
    publish.add_argument("--needs", metavar="VERSION", help="oldest version of finesight that runs the bundle: 0.9")
    publish.add_argument(
        "--allow-big-change",
        action="store_true",
        help="devices accept this gallery though it changes more items than their limit",
    )
    publish.add_argument(
        "--allow-erased",
        action="store_true",
        help="publish the gallery though it has items that were deleted urgently: they come back to every device",
    )
    publish.add_argument("--sequence", type=int, help="number of the release (default: one more than the last)")
    add_hold(publish)
    publish.set_defaults(act=_publish)


def _add_release(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    release = verbs.add_parser("release", help="list, show, compare and withdraw releases")
    actions = release.add_subparsers(dest="action", required=True)
    listed = actions.add_parser("list", help="list the releases of a repository, the oldest first")
    shown = actions.add_parser("show", help="show what a release is, and whether you can go back to it")
    compared = actions.add_parser("diff", help="show how two releases differ")
    dropped = actions.add_parser(
        "drop", help="give up a release that is held back", description="Give up a release that is held back."
    )
    withdrawn = actions.add_parser(
        "withdraw",
        help="make sure that no release can name the bundle of a release again",
        description="Take the bundle of a release out of the signed list; never that of a release in use.",
    )
    for parser in (listed, shown, compared):
        add_repo(parser, keys=False)
    add_repo(withdrawn)
    add_repo(dropped)
    shown.add_argument("number", type=int, help="release")
    compared.add_argument("first", type=int, help="release")
    compared.add_argument("second", type=int, help="another release")
    withdrawn.add_argument("number", type=int, help="release")
    dropped.add_argument("number", type=int, help="held release")
    acts = ((listed, _list), (shown, _show), (compared, _diff), (withdrawn, _withdraw), (dropped, _drop))
    for parser, act in acts:
        parser.set_defaults(act=act)


def _add_rollback(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    rollback = verbs.add_parser(
        "rollback",
        help="go back to the bundle and gallery of an earlier release",
        description="Publish the bundle and gallery of an earlier release again, as a newer one. Nothing is packed.",
    )
    rollback.add_argument("line", metavar="LINE", help="product line; it must be that of the repository")
    rollback.add_argument("--to", type=int, required=True, metavar="RELEASE", help="earlier release")
    rollback.add_argument("--repo", type=Path, default=Path(), help="repository folder (default: this folder)")
    rollback.add_argument("--keys", type=Path, help=KEYS_HELP)
    add_hold(rollback)
    rollback.set_defaults(act=_rollback)


def _add_gc(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    gc = verbs.add_parser(
        "gc",
        help="delete what no device needs within the promised offline window",
        description="Delete earlier metadata, documents and objects that no device needs within the promised window.",
    )
    add_repo(gc)
    gc.add_argument("--dry-run", action="store_true", help="delete nothing, only say how much it would be")
    gc.add_argument(
        "--keep-days", type=int, help="keep what was current in the last days (default: the promised offline window)"
    )
    gc.add_argument(
        "--keep-bundles",
        type=int,
        metavar="N",
        help="also give up bundles before the newest N that no release of the window has; needs the key of models",
    )
    gc.set_defaults(act=_gc)


def _publish(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.publish import Demands, publish

    done = publish(
        arguments.repo,
        key_ring(arguments),
        utc_now(),
        bundle_folder=arguments.bundle,
        gallery_folder=arguments.gallery,
        demands=Demands(arguments.security_floor, arguments.needs, arguments.allow_big_change),
        sequence=arguments.sequence,
        allow_erased=arguments.allow_erased,
        hold=arguments.hold,
    )
    return print_publication(done, arguments)


def _rollback(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.releases import rollback

    arguments.repo = arguments.repo.resolve()
    keys = key_ring(arguments)
    done = rollback(arguments.repo, keys, utc_now(), arguments.line, arguments.to, hold=arguments.hold)
    return print_publication(done, arguments)


def _list(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.releases import list_releases

    rows = list_releases(published_in(arguments.repo))
    if arguments.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        if row.get("damaged"):
            print(f"{row['release']}: its file is damaged")
            continue
        notes = [
            f"(release {row['rollback_to']} again)" if row["rollback_to"] else "",
            "(withdrawn)" if row["withdrawn"] else "",
            *(f"({one})" for one in row["in_use"]),
        ]
        text = f"{row['release']}: {row['created_at']} bundle {row['bundle']}, gallery {row['gallery']}"
        print(" ".join([text, *filter(None, notes)]))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.releases import show_release

    return _print_tree(show_release(published_in(arguments.repo), arguments.number, utc_now()), arguments)


def _diff(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.releases import compare_releases

    return _print_tree(compare_releases(published_in(arguments.repo), arguments.first, arguments.second), arguments)


def _withdraw(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.releases import withdraw

    values = withdraw(arguments.repo, key_ring(arguments), utc_now(), arguments.number)
    if values["draft"]:
        print(f"edge-sync: it is not withdrawn until it is signed: edge-sync sign {values['draft']}", file=sys.stderr)
    print(
        "edge-sync: devices that run this bundle go on until they take the newest release; none installs it again. A "
        "device that tries the release after it, and fails, may still go back to it",
        file=sys.stderr,
    )
    return print_values(values, as_json=arguments.json)


def _drop(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.releases import drop_held

    values = drop_held(arguments.repo, key_ring(arguments), utc_now(), arguments.number)
    if values["draft"]:
        print(f"edge-sync: it is not dropped until it is signed: edge-sync sign {values['draft']}", file=sys.stderr)
    return print_values(values, as_json=arguments.json)


def _check(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.upkeep.check import check_repository

    reached = _reader(arguments.url) if arguments.url else None
    report = check_repository(arguments.repo, utc_now(), history=arguments.history, reached=reached)
    for problem in report.problems:
        print(problem, file=sys.stderr)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print_values(
        {"whole": report.whole, "wrong": len(report.problems), "warnings": len(report.warnings)},
        as_json=arguments.json,
    )
    return 1 if report.problems else 0


def _gc(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.upkeep.gc import collect_garbage

    collected = collect_garbage(
        arguments.repo,
        utc_now(),
        dry_run=arguments.dry_run,
        keep_days=arguments.keep_days,
        keep_bundles=arguments.keep_bundles,
        keys=key_ring(arguments) if arguments.keep_bundles is not None else None,
    )
    values: dict[str, object] = {
        "would_free_bytes" if arguments.dry_run else "freed_bytes": collected.freed_bytes,
        "files": collected.files,
        "kept_bytes": collected.kept_bytes,
        "kept_files": collected.kept_files,
        "retired_bundles": collected.retired,
    }
    return print_values(values, as_json=arguments.json)


def _adopt(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.upkeep.adopt import LOUD_WORD, adopt

    done = adopt(arguments.repo, key_ring(arguments), utc_now())
    print(f"edge-sync: {LOUD_WORD}", file=sys.stderr)
    for number, problem in done.left.items():
        print(f"edge-sync: release {number} is not adopted: {problem}", file=sys.stderr)
    values: dict[str, object] = {"line": done.line, "adopted": list(done.releases), "left": list(done.left)}
    if done.draft is not None:
        values["draft"] = str(done.draft)
        print(f"edge-sync: devices see nothing until it is signed: edge-sync sign {done.draft}", file=sys.stderr)
    return print_values(values, as_json=arguments.json)


def _print_tree(tree: dict[str, Any], arguments: argparse.Namespace) -> int:
    if arguments.json:
        print(json.dumps(tree))
        return 0
    for key, value in tree.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, inner in value.items():
                print(f"  {name}: {inner}")
        else:
            print(f"{key}: {value}")
    return 0


def _reader(url: str) -> Any:
    from gallery_sync.repository.upkeep.reached import reader

    return reader(url)
