"""The verbs of `edge-sync` that make repositories, keys and signatures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edge.errors import SyncError
from gallery_sync.command_line import print_values, utc_now
from gallery_sync.repository.verb_options import KEYS_HELP, add_repo, key_ring, keys_folder

_KEY_HELP = (
    "FILE.pub, FILE.pub,ADDRESS or ADDRESS; an address says where the private key is: file2:PATH, envvar:NAME, "
    "awskms:ID, gcpkms:NAME, azurekms:URL, hsm:URL, hv:NAME (Vault)"
)


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to a parser."""
    _add_init(verbs)
    _add_key(verbs)
    _add_sign(verbs)
    _add_rotate(verbs)
    refresh = verbs.add_parser("refresh", help="sign again what gets old; run it every day from cron")
    add_repo(refresh)
    refresh.set_defaults(act=_refresh)
    _add_recover(verbs)


def _add_init(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    init = verbs.add_parser(
        "init",
        help="make a repository of signed releases",
        description="Make a repository of signed releases. The result is a draft until enough people signed it.",
    )
    add_repo(init)
    init.add_argument("--line", required=True, help="product line that the repository serves")
    init.add_argument(
        "--policy",
        choices=["online", "offline"],
        default="online",
        help="online: devices ask at least weekly; offline: they are updated by stick (default: online)",
    )
    init.add_argument(
        "--offline-days", type=int, default=365, help="offline: how long signatures last, 90 to 365 (default: 365)"
    )
    init.add_argument(
        "--key", action="append", default=[], metavar="ROLE=KEY", help=f"a key of a role; repeat it. KEY: {_KEY_HELP}"
    )
    init.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="ROLE=N",
        help="how many keys of a role must sign (default: root 2, targets 2, others 1)",
    )
    init.add_argument(
        "--development", action="store_true", help="one file key per role signs alone; not for production"
    )
    init.set_defaults(act=_init)


def _add_key(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    key = verbs.add_parser("key", help="make, read and list keys")
    actions = key.add_subparsers(dest="action", required=True)
    new = actions.add_parser("new", help="make a key for a person: NAME.pem to be kept, NAME.pub to be given away")
    new.add_argument("folder", type=Path, help="folder for the two files, such as an encrypted stick")
    new.add_argument("name", help="name of the person")
    new.set_defaults(act=_key_new)
    public = actions.add_parser("import", help="save the public key of a key management service or hardware module")
    public.add_argument("address", help="awskms:ID, gcpkms:NAME, hv:NAME (Vault) or hsm:")
    public.add_argument("file", type=Path, help="file to write, such as gallery.pub")
    public.set_defaults(act=_key_import)
    shown = actions.add_parser("list", help="list the published keys of a repository, and which are here")
    add_repo(shown)
    shown.set_defaults(act=_key_list)


def _add_sign(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sign = verbs.add_parser(
        "sign",
        help="show a draft, sign it, and publish it when it is complete",
        description="Show what a draft changes, sign it after you agreed, and publish it when all have signed.",
    )
    sign.add_argument("draft", type=Path, help="the draft, a file that you can carry on a stick")
    sign.add_argument("--key", metavar="KEY", help="your private key: its file, or an address such as envvar:NAME")
    sign.add_argument("--root", type=Path, help="your copy of root.json: refuse a draft that starts from another one")
    sign.add_argument("--publish", type=Path, metavar="REPO", help="publish the complete draft in this repository")
    sign.add_argument("--keys", type=Path, help=f"with --publish: {KEYS_HELP}")
    sign.add_argument("--yes", action="store_true", help="sign without asking")
    sign.set_defaults(act=_sign)


def _add_rotate(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    rotate = verbs.add_parser(
        "rotate",
        help="replace, add or revoke keys of roles, sign roles again, or change the policy",
        description="Replace, add or revoke keys of roles. The result is a draft until enough people signed it.",
    )
    add_repo(rotate)
    rotate.add_argument("--role", action="append", default=[], help="role whose keys change; repeat it with --new")
    rotate.add_argument("--new", action="store_true", help="make a key here that takes the place of the role's keys")
    rotate.add_argument("--add", action="append", default=[], metavar="KEY", help=f"a key to add; {_KEY_HELP}")
    rotate.add_argument("--revoke", action="append", default=[], metavar="NAME", help="name or id of a key to revoke")
    rotate.add_argument("--threshold", type=int, help="how many keys of the role must sign from now on")
    rotate.add_argument(
        "--renew", action="append", default=[], metavar="ROLE", help="sign a role again before it expires"
    )
    rotate.add_argument("--policy", choices=["online", "offline"], help="change the policy of the line")
    rotate.add_argument("--offline-days", type=int, default=365, help="with --policy offline: 90 to 365 (default: 365)")
    rotate.set_defaults(act=_rotate)


def _add_recover(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    recover = verbs.add_parser(
        "recover",
        help="make a lost repository again, so that devices accept it",
        description="Make a lost repository again, or one that was restored from an old copy.",
    )
    add_repo(recover)
    recover.add_argument(
        "--from",
        dest="copies",
        type=Path,
        action="append",
        default=[],
        metavar="COPY",
        help="a copy: a mirror, a backup, a stick, or the trust/metadata folder of a device; repeat it",
    )
    recover.add_argument("--line", help="product line, if no copy is left")
    recover.add_argument("--policy", choices=["online", "offline"], default="online", help="likewise (default: online)")
    recover.add_argument("--offline-days", type=int, default=365, help="likewise (default: 365)")
    recover.add_argument(
        "--above", type=int, default=1000, help="how far versions jump above the newest known ones (default: 1000)"
    )
    recover.set_defaults(act=_recover)


def _init(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.ceremonies.init import DEVELOPMENT_WARNING, given_key, make_key_ring, make_repository
    from gallery_sync.repository.keys import KeyRing

    folder = keys_folder(arguments.keys, arguments.repo)
    if arguments.development:
        keys = KeyRing.development(folder)
        print(f"edge-sync: NOT FOR PRODUCTION: {DEVELOPMENT_WARNING}", file=sys.stderr)
    else:
        given: dict[str, list[Any]] = {}
        for role, key in map(given_key, arguments.key):
            given.setdefault(role, []).append(key)
        keys = make_key_ring(folder, given, dict(map(_threshold, arguments.threshold)))
    done = make_repository(
        arguments.repo,
        keys,
        utc_now(),
        line=arguments.line,
        policy=arguments.policy,
        offline_days=arguments.offline_days,
    )
    if (arguments.repo / "release.json").exists():
        print("edge-sync: unsigned releases are here; take them over once with edge-sync adopt", file=sys.stderr)
    return _print_committed(done, arguments)


def _key_new(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.private_keys import make_key

    made = make_key(arguments.folder, arguments.name)
    private = arguments.folder / f"{arguments.name}.pem"
    values = {"private": str(private), "public": str(private.with_suffix(".pub")), "id": made.keyid}
    return print_values(values, as_json=arguments.json)


def _key_import(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.private_keys import public_of
    from gallery_sync.repository.public_keys import save_public

    public = public_of(arguments.address)
    save_public(arguments.file, public)
    return print_values({"public": str(arguments.file), "id": public.keyid}, as_json=arguments.json)


def _key_list(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.ceremonies.rotate import list_keys
    from gallery_sync.repository.keys import KeyRing
    from gallery_sync.repository.public_keys import key_label

    folder = keys_folder(arguments.keys, arguments.repo)
    roles = list_keys(arguments.repo, KeyRing.open_or_empty(folder))
    if arguments.json:
        shown = {
            role: {"threshold": one.threshold, "keys": [{"id": key.keyid, "here": key.uri} for key in one.keys]}
            for role, one in roles.items()
        }
        print(json.dumps(shown))
        return 0
    for role, one in roles.items():
        print(f"{role}: {one.threshold} of {len(one.keys)}")
        for key in one.keys:
            print(f"  {key_label(key.public)} {key.uri or 'not here'}")
    return 0


def _sign(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.ceremonies.ceremony import describe, publish_draft, sign_draft
    from gallery_sync.repository.keys import KeyRing
    from gallery_sync.repository.roles.draft import read_draft

    for line in describe(read_draft(arguments.draft)):
        print(line, file=sys.stderr)
    if arguments.key is None and arguments.publish is None:
        return 0
    if not arguments.yes and not _agreed("Sign this?" if arguments.key else "Publish this?"):
        print("edge-sync: nothing was signed or published", file=sys.stderr)
        return 1
    values: dict[str, object] = {}
    if arguments.key is not None:
        signed = sign_draft(arguments.draft, arguments.key, _root(arguments.root))
        values = {"signed_by": signed.signed_by, "signed": ", ".join(signed.roles)}
        values |= {f"{role} waits for": lacks for role, lacks in signed.missing.items()}
    if arguments.publish is not None:
        keys = KeyRing.open(keys_folder(arguments.keys, arguments.publish))
        done = publish_draft(arguments.draft, arguments.publish, keys, utc_now())
        values["published"] = _versions(done)
    return print_values(values, as_json=arguments.json)


def _rotate(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.ceremonies.init import read_key
    from gallery_sync.repository.ceremonies.rotate import KeyChange, rotate
    from gallery_sync.repository.keys import KeyRing

    changes_keys = arguments.add or arguments.revoke or arguments.new or arguments.threshold is not None
    if bool(arguments.role) != bool(changes_keys) or not (arguments.role or arguments.renew or arguments.policy):
        raise SyncError("what changes? give --role with --new, --add, --revoke or --threshold; or --renew; or --policy")
    if len(arguments.role) > 1 and (arguments.add or arguments.revoke):
        raise SyncError("give one --role with --add and --revoke")
    added = [read_key(text) for text in arguments.add]
    changes = [
        KeyChange(role, added, arguments.revoke, is_new=arguments.new, threshold=arguments.threshold)
        for role in arguments.role
    ]
    done = rotate(
        arguments.repo,
        KeyRing.open_or_empty(keys_folder(arguments.keys, arguments.repo)),
        utc_now(),
        changes,
        renew=arguments.renew,
        policy=arguments.policy,
        offline_days=arguments.offline_days,
    )
    return _print_committed(done, arguments)


def _refresh(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.ceremonies.rotate import refresh

    done = refresh(arguments.repo, key_ring(arguments), utc_now())
    return _print_committed(done, arguments)


def _recover(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.ceremonies.recover import recover

    done = recover(
        arguments.repo,
        key_ring(arguments),
        utc_now(),
        copies=arguments.copies,
        line=arguments.line,
        policy=arguments.policy,
        offline_days=arguments.offline_days,
        above=arguments.above,
    )
    for problem in done.problems:
        print(f"edge-sync: not used: {problem}", file=sys.stderr)
    for path in done.lost:
        print(f"edge-sync: lost, publish it again from its folder: {path}", file=sys.stderr)
        if path.endswith(".rollouts.json"):
            print(
                "edge-sync: with it, rollouts, pins and held releases are lost; give the next release a --sequence "
                "above every file in releases/, for some devices may have such a release",
                file=sys.stderr,
            )
    return _print_committed(done.committed, arguments, objects=done.objects, lost=len(done.lost))


def _print_committed(done: Any, arguments: argparse.Namespace, **more: object) -> int:
    """Print what a commit did: the versions that are published, or the draft and whose signatures it waits for."""
    for warning in done.warnings:
        print(f"edge-sync: {warning}", file=sys.stderr)
    if done.draft is None:
        return print_values({"published": _versions(done) or "nothing changed", **more}, as_json=arguments.json)
    values: dict[str, object] = {"draft": str(done.draft)}
    values |= {f"{role} waits for": lacks for role, lacks in done.missing.items()}
    return print_values({**values, **more}, as_json=arguments.json)


def _versions(done: Any) -> str:
    return ", ".join(f"{role} {version}" for role, version in done.versions.items())


def _threshold(text: str) -> tuple[str, int]:
    role, _, number = text.partition("=")
    if not (number.isascii() and number.isdecimal()) or not 1 <= int(number[:3]) <= 16:
        raise SyncError(f"found --threshold {text!r}, expected ROLE=N, such as root=2")
    return role, int(number)


def _root(path: Path | None) -> bytes | None:
    from gallery_sync.repository.files import read_file
    from gallery_sync.repository.roles.state import LARGEST_BYTES

    return None if path is None else read_file(path, LARGEST_BYTES["root"])


def _agreed(question: str) -> bool:
    print(f"{question} Type yes: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() == "yes"
