"""The verb `edge-sync rollout`: plan, approve, watch and end the rollout of a release."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from edge.errors import SyncError
from gallery_sync.command_line import as_text, utc_now
from gallery_sync.repository.verb_options import add_repo, key_ring, published_in
from gallery_sync.rollouts import plan_verbs
from gallery_sync.rollouts.argument_types import seconds, selector
from gallery_sync.rollouts.verb_options import (
    add_by,
    add_fleet,
    add_gates,
    desk,
    fleet_of,
    print_changed,
    say_draft,
)

if TYPE_CHECKING:
    from gallery_sync.rollouts.controller import Look

_ABOUT = (
    "Bring a release that is held back to devices in waves. One person plans it, another person approves it, and a "
    "controller opens the waves while devices report that it works."
)


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to a parser."""
    rollout = verbs.add_parser("rollout", help="bring a release to devices in waves", description=_ABOUT)
    actions = rollout.add_subparsers(dest="action", required=True)
    plan_verbs.add_verbs(actions)
    status = actions.add_parser("status", help="show the rollout that is under way, by wave")
    add_repo(status, keys=False)
    add_fleet(status)
    status.set_defaults(act=_status)
    _add_control(actions)
    _add_run(actions)
    _add_pins(actions)
    history = actions.add_parser("history", help="show who did what, and verify the audit log")
    add_repo(history, keys=False)
    history.set_defaults(act=_history)


def _add_control(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pause = actions.add_parser("pause", help="let no further device begin")
    resume = actions.add_parser("resume", help="go on with a paused rollout")
    following = actions.add_parser("next", help="open the next wave yourself")
    complete = actions.add_parser("complete", help="end a rollout whose waves are all open; devices keep its release")
    abort = actions.add_parser("abort", help="end a rollout; devices that took its release go back")
    for parser, act in (
        *((pause, _pause), (resume, _resume), (following, _next)),
        *((complete, _complete), (abort, _abort)),
    ):
        add_repo(parser)
        add_by(parser)
        parser.set_defaults(act=act)
    for parser in (pause, following, complete, abort):
        parser.add_argument("--reason", help="for the status and the audit log")
    add_gates(resume, "unchanged", "unchanged")
    resume.add_argument("--deadline", type=seconds, metavar="7d", help="new deadline, from now (default: unchanged)")
    abort.add_argument(
        "--to", type=int, metavar="N", help="release whose pair all devices get (default: that of the plan)"
    )


def _add_run(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = actions.add_parser("run", help="open waves, pause and complete, from what devices report")
    add_repo(run)
    add_fleet(run)
    run.add_argument("--once", action="store_true", help="look once, and stop")
    run.add_argument("--every", type=seconds, default=30.0, metavar="30s", help="time between looks (default: 30s)")
    run.add_argument(
        "--until-end",
        action="store_true",
        help="stop when the rollout ends: exit code 0 if it is complete, 1 if it is paused",
    )
    run.add_argument("--blind", action="store_true", help="look at no device: only the soak counts")
    run.set_defaults(act=_run)


def _add_pins(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pin = actions.add_parser("pin", help="keep devices at a release until they are unpinned")
    unpin = actions.add_parser("unpin", help="let pinned devices go on")
    pins = actions.add_parser("pins", help="list pinned devices")
    add_repo(pins, keys=False)
    for parser, act in ((pin, _pin), (unpin, _unpin)):
        add_repo(parser)
        parser.add_argument("--select", type=selector, required=True, metavar="SELECTOR", help="which devices")
        add_by(parser)
        parser.set_defaults(act=act)
    pin.add_argument("--release", type=int, required=True, metavar="N", help="release at which they stay")
    pin.add_argument("--reason", help="for the audit log")
    pins.set_defaults(act=_pins)


def _status(arguments: argparse.Namespace) -> int:
    from gallery_sync.rollouts.status import print_status, status

    published, fleet = published_in(arguments.repo), fleet_of(arguments)
    rows = fleet.rows(published.line, published.plan.release if published.plan else None) if fleet else None
    unreadable = rows.unreadable if rows else 0
    found = status(published, utc_now(), rows.rows if rows else None, unreadable=unreadable)
    print(json.dumps(found) if arguments.json else "\n".join(print_status(found)))
    return 0


def _pause(arguments: argparse.Namespace) -> int:
    from gallery_sync.rollouts import changes

    return print_changed(changes.pause(desk(arguments), arguments.reason), arguments)


def _resume(arguments: argparse.Namespace) -> int:
    from gallery_sync.rollouts import changes

    gates = {
        "max_failed_percent": arguments.max_failed,
        "max_silent_percent": arguments.max_silent,
    }
    changed = {key: value for key, value in gates.items() if value is not None}
    return print_changed(changes.resume(desk(arguments), changed, arguments.deadline), arguments)


def _next(arguments: argparse.Namespace) -> int:
    from gallery_sync.rollouts import changes

    return print_changed(changes.open_next(desk(arguments), reason=arguments.reason), arguments)


def _complete(arguments: argparse.Namespace) -> int:
    from gallery_sync.rollouts import changes

    return print_changed(changes.complete(desk(arguments), reason=arguments.reason), arguments)


def _abort(arguments: argparse.Namespace) -> int:
    from gallery_sync.rollouts import changes

    return print_changed(changes.abort(desk(arguments), arguments.to, reason=arguments.reason), arguments)


def _pin(arguments: argparse.Namespace) -> int:
    from gallery_sync.rollouts import changes

    done = changes.pin(desk(arguments), arguments.select, arguments.release, arguments.reason)
    return print_changed(done, arguments)


def _unpin(arguments: argparse.Namespace) -> int:
    from gallery_sync.rollouts import changes

    return print_changed(changes.unpin(desk(arguments), arguments.select), arguments)


def _pins(arguments: argparse.Namespace) -> int:
    published = published_in(arguments.repo)
    rows = [
        {
            "select": str(one.selector),
            "release": one.release.sequence,
            "bundle": one.release.bundle_id,
            "by": one.by,
            "at": one.at,
            "reason": one.reason,
        }
        for one in (published.rollouts.pins if published.rollouts else [])
    ]
    if arguments.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        why = f": {row['reason']}" if row["reason"] else ""
        print(f"{row['select']}: release {row['release']}, pinned by {row['by']} at {row['at']}{why}")
    return 0


def _history(arguments: argparse.Namespace) -> int:
    from gallery_sync.rollouts import audit

    rows, problems = audit.read_history(arguments.repo, published_in(arguments.repo).rollouts)
    for problem in problems:
        print(f"edge-sync: {audit.log_path(arguments.repo)}: {problem}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(rows))
    else:
        for row in rows:
            rest = sorted(row.keys() - {"at", "by", "what", "state", "revision"})
            details = ", ".join(f"{key} {as_text(row[key])}" for key in rest if row[key] != "")
            state = "" if row["state"] == "done" else f" ({row['state']})"
            print(f"{row.get('at')} {row.get('by')}: {row.get('what')} {details}{state}")
    return 0 if all(problem.endswith(audit.TORN) for problem in problems) else 1


def _run(arguments: argparse.Namespace) -> int:
    import time

    from gallery_sync.rollouts.controller import Controller
    from gallery_sync.rollouts.heartbeat import Seen, forget_seen, write_seen

    fleet = fleet_of(arguments)
    if (fleet is None) != arguments.blind:
        raise SyncError("give --fleet URL, or --blind to go by the soak alone; not both")
    controller = Controller(arguments.repo, lambda: key_ring(arguments), fleet, utc_now)

    def say(look: Look) -> None:
        values: dict[str, object] = {"rollout": look.rollout, "did": look.did, "reason": look.reason}
        if look.draft is not None:
            values["draft"] = str(look.draft)
            say_draft(look.draft)
        values |= {"looks": dict(controller.counters)} if arguments.json else {}
        print(json.dumps(values) if arguments.json else f"{look.rollout or '-'}: {look.did}: {look.reason}", flush=True)

    if arguments.once:
        look = controller.look()
        say(look)
        return 1 if look.did in ("failed", "unreachable") else 0

    def wait() -> None:
        write_seen(arguments.repo, Seen(time.time(), arguments.every))
        time.sleep(arguments.every)

    last = controller.run(say, wait, until_end=arguments.until_end)
    forget_seen(arguments.repo)
    return 0 if last.did in ("idle", "complete") else 1
