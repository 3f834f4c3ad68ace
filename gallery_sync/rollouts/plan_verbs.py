"""The verbs `edge-sync rollout create` and `approve`: one person plans a rollout, another person approves it."""

from __future__ import annotations

import argparse
import shlex
import sys

from edge.errors import SyncError
from gallery_sync.command_line import as_text, print_values, utc_now, who
from gallery_sync.repository.verb_options import add_repo, published_in
from gallery_sync.rollouts.argument_types import count, percent, seconds, selector
from gallery_sync.rollouts.verb_options import (
    add_by,
    add_fleet,
    add_gates,
    desk,
    fleet_of,
    gates_of,
    print_changed,
)


def add_verbs(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to the parser of `rollout`."""
    _add_create(actions)
    approve = actions.add_parser("approve", help="sign a plan that another person made, and open its first wave")
    add_repo(approve)
    approve.add_argument("id", help="name of the rollout")
    approve.add_argument("--by", required=True, metavar="NAME", help="your name, for the audit log")
    approve.add_argument("--digest", help="digest of the plan that you read; another plan is refused")
    approve.add_argument("--alone", action="store_true", help="approve a plan of your own, that nobody else looks at")
    approve.set_defaults(act=_approve)


def _add_create(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    create = actions.add_parser("create", help="plan a rollout; no key is needed, and no device sees it")
    add_repo(create, keys=False)
    create.add_argument("--release", type=int, metavar="N", help="held release (default: the newest one)")
    create.add_argument("--id", help="name of the rollout (default: release-N)")
    create.add_argument("--select", type=selector, metavar="SELECTOR", help="only devices such as group=lab|test")
    create.add_argument(
        "--exclude",
        type=selector,
        action="append",
        default=[],
        metavar="SELECTOR",
        help="devices that never take it; repeat it for more",
    )
    create.add_argument("--canary", type=percent, default=5.0, metavar="5%", help="the first wave (default: 5%%)")
    create.add_argument(
        "--canary-at-least",
        type=count,
        default=1,
        metavar="N",
        help="devices that the first wave has at least (default: 1)",
    )
    create.add_argument(
        "--wave",
        type=percent,
        action="append",
        metavar="25%",
        help="a wave after it; repeat it for more. A last one with all devices is added (default: 25%%)",
    )
    create.add_argument("--soak", type=seconds, default=3600.0, metavar="1h", help="time between waves (default: 1h)")
    create.add_argument(
        "--min-confirmed",
        type=int,
        metavar="N",
        help="devices that must confirm before the next wave opens (default: half of the known ones, and at least "
        "--canary-at-least)",
    )
    add_gates(create)
    create.add_argument(
        "--silent-after",
        type=seconds,
        metavar="1h",
        help="time without a report after which a device that began is silent (default: 1h)",
    )
    create.add_argument(
        "--window",
        action="append",
        default=[],
        metavar="'Sat,Sun 02:00-05:00'",
        help="when devices may begin, in their local time (default: always)",
    )
    create.add_argument(
        "--max-unavailable", type=count, metavar="N", help="devices that may switch at the same time (default: all)"
    )
    create.add_argument(
        "--unavailable-by",
        default="site",
        metavar="LABEL",
        help="label: --max-unavailable counts for each of its values (default: site)",
    )
    create.add_argument(
        "--deadline", type=seconds, metavar="14d", help="time until it completes or pauses (default: 14d)"
    )
    create.add_argument(
        "--abort-to",
        type=int,
        metavar="N",
        help="release whose pair devices get if it is aborted (default: the newest one)",
    )
    add_by(create)
    add_fleet(create)
    create.set_defaults(act=_create)


def _create(arguments: argparse.Namespace) -> int:
    import secrets

    from gallery_sync.formats.rollouts import Selector
    from gallery_sync.rollouts.plans import DEADLINE_S, Wish, describe, write_plan

    fleet = fleet_of(arguments)
    rows = fleet.rows(published_in(arguments.repo).line).rows if fleet else None
    wish = Wish(
        by=who(arguments),
        release=arguments.release,
        id=arguments.id,
        selector=arguments.select or Selector(terms=[]),
        exclude=arguments.exclude,
        canary_percent=arguments.canary,
        canary_at_least=arguments.canary_at_least,
        wave_percents=arguments.wave or (25.0,),
        soak_s=arguments.soak,
        min_confirmed=arguments.min_confirmed,
        gates=gates_of(arguments),
        windows=arguments.window,
        max_unavailable=arguments.max_unavailable,
        unavailable_by=arguments.unavailable_by,
        abort_to=arguments.abort_to,
        deadline_s=DEADLINE_S if arguments.deadline is None else arguments.deadline,
    )
    done, path = write_plan(arguments.repo, wish, secrets.token_hex(16), utc_now(), rows)
    for note in done.notes:
        print(f"edge-sync: {note}", file=sys.stderr)
    print(
        "edge-sync: no device sees it until another person approves it: edge-sync rollout approve "
        f"{shlex.quote(str(arguments.repo))} "
        f"{done.draft.id} --digest {done.draft.digest()} --by NAME",
        file=sys.stderr,
    )
    known = {"devices": list(done.known)} if done.known is not None else {}
    values = {**describe(done.draft), **known, "draft": str(path)}
    return print_values(values, as_json=arguments.json)


def _approve(arguments: argparse.Namespace) -> int:
    from gallery_sync.rollouts import changes
    from gallery_sync.rollouts.plans import describe, draft_path, read_draft

    draft = read_draft(arguments.repo, arguments.id)
    if arguments.digest and arguments.digest != draft.digest():
        path = draft_path(arguments.repo, draft.id)
        raise SyncError(f"{path}: found another plan than the one of --digest; read it again")
    done = changes.approve(desk(arguments), draft, alone=arguments.alone)
    print("edge-sync: you approved this plan:", file=sys.stderr)
    for key, value in describe(draft).items():
        print(f"  {key}: {as_text(value)}", file=sys.stderr)
    return print_changed(done, arguments)
