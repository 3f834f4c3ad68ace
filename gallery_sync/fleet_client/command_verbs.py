"""The verbs of `edge-sync` for commands to devices: sent, kept while a device is off, and withdrawn."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edge.errors import SyncError
from gallery_sync.command_line import who
from gallery_sync.fleet_client.verbs import add_fleet, as_tree, fleet_client, read_rows, seconds

if TYPE_CHECKING:
    from gallery_sync.fleet_client.client import FleetClient
    from gallery_sync.formats.reports import Answer

_MOST_NAMED = 20
_POLL_S = 0.3


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to a parser."""
    _add_send(verbs.add_parser("send", help="send a command to devices, and wait for their answers"))
    _add_commands(verbs.add_parser("commands", help="list commands that wait for a device or its answer"))


def _add_send(send: argparse.ArgumentParser) -> None:
    send.add_argument("command", metavar="verb", help="such as sync, rollback or restart_camera")
    send.add_argument("device", nargs="*", help="ids of devices")
    send.add_argument("--select", metavar="SELECTOR", help="devices by their labels, such as group=lab,site!=berlin")
    send.add_argument("--argument", action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    send.add_argument("--by", help="who sends it, for the audit (default: $USER)")
    send.add_argument("--keep", metavar="TIME", help="for devices that are off, such as 7d; 0s: not (default: 1d)")
    send.add_argument("--wait", default="60s", metavar="TIME", help="for the answers, such as 90s (default: 60s)")
    add_fleet(send)
    send.set_defaults(act=_send)


def _add_commands(commands: argparse.ArgumentParser) -> None:
    commands.add_argument("--withdraw", nargs="+", metavar="ID", help="withdraw commands that were not sent yet")
    commands.add_argument("--by", help="who withdraws them, for the audit (default: $USER)")
    add_fleet(commands)
    commands.set_defaults(act=_commands)


def _keep_s(text: str | None) -> float | None:
    """Return how long the server keeps a command, in seconds; None: as long as it does by itself."""
    from gallery_sync.formats.reports import LONGEST_KEEP_S

    keep_s = None if text is None else seconds(text)
    if keep_s is not None and keep_s > LONGEST_KEEP_S:
        raise SyncError(f"--keep: found {text}, expected at most {LONGEST_KEEP_S / 86_400:g}d")
    return keep_s


def _send(arguments: argparse.Namespace) -> int:
    from gallery_sync.fleet_client.show import answer_text

    given, wait_s = _arguments_of(arguments.argument), seconds(arguments.wait)
    keep_s = _keep_s(arguments.keep)
    answers: list[dict[str, Any]] = []

    def show(device: str, answer: Answer) -> None:
        answers.append(as_tree(answer))
        if not arguments.json:
            print(answer_text(device, answer), flush=True)

    by = who(arguments)
    commands: dict[str, str] = {}
    problems: dict[str, str] = {}
    with fleet_client(arguments) as client:
        for device in _chosen(client, arguments):
            try:
                commands[device] = client.send(device, arguments.command, given, by, keep_s)
            except SyncError as error:
                problems[device] = str(error)
                print(f"{device}: not sent: {error}", file=sys.stderr)
        last = wait_for_answers(client, commands, wait_s, show)
        stored = {one: client.command(commands[one]) for one in commands if one not in last}
    for device in commands:
        answer = last.get(device)
        if answer is None or answer.state == "accepted":
            problems[device] = _why_not_done(answer, stored.get(device, {}), arguments.wait)
            print(f"{device}: {problems[device]}; edge-sync device {device} shows later answers", file=sys.stderr)
        elif answer.state != "done":
            problems[device] = answer.state
    if arguments.json:
        print(json.dumps({"commands": commands, "answers": answers, "problems": problems}))
    return 1 if problems else 0


def _why_not_done(answer: Answer | None, stored: dict[str, Any], waited: str) -> str:
    from gallery_sync.fleet_client.show import time_text

    if answer is None and stored.get("state") == "waiting":
        return f"waits: the device is off, or the broker is; it is kept until {time_text(stored['until'])}"
    kept = f", sent again until {time_text(stored['until'])}" if stored.get("until") else ""
    return f"{'no answer' if answer is None else 'not done'} in {waited}{kept}"


def _commands(arguments: argparse.Namespace) -> int:
    from gallery_sync.fleet_client.show import command_text

    failed = False
    by = who(arguments) if arguments.withdraw else ""
    with fleet_client(arguments) as client:
        for command in arguments.withdraw or ():
            try:
                client.withdraw(command, by)
            except SyncError as error:
                failed = True
                print(f"edge-sync: {error}", file=sys.stderr)
        found = client.kept()
    if arguments.json:
        print(json.dumps({"commands": found}))
    else:
        print("\n".join(map(command_text, found)) or "no command waits", file=sys.stdout if found else sys.stderr)
    return 1 if failed else 0


def _chosen(client: FleetClient, arguments: argparse.Namespace) -> list[str]:
    """Return the devices that a command is for."""
    from gallery_sync.formats.rollouts import parse_selector

    if bool(arguments.device) == (arguments.select is not None):
        raise SyncError("name devices, or select them by --select; an empty selector is all of them")
    if arguments.select is None:
        return list(dict.fromkeys(arguments.device))
    try:
        selector = parse_selector(arguments.select)
    except ValueError as error:
        raise SyncError(f"--select: {error}") from error
    chosen = [row.device for row in read_rows(client, []) if selector.matches(row.labels)]
    if not chosen:
        raise SyncError(f"--select: no device matches {arguments.select[:80]!r}; edge-sync devices lists them")
    names = ", ".join(chosen[:_MOST_NAMED]) + (", ..." if len(chosen) > _MOST_NAMED else "")
    print(f"edge-sync: {arguments.command} to {len(chosen)} devices: {names}", file=sys.stderr)
    return chosen


def _arguments_of(texts: list[str]) -> dict[str, Any]:
    """Return the arguments of a command; a value that is a JSON number, true, false or null is taken as that."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise SyncError(f"--argument: found {text[:80]!r}, expected a key, = and a value")
        if key in found:
            raise SyncError(f"--argument: {key[:80]!r} comes twice")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def wait_for_answers(
    client: FleetClient,
    commands: Mapping[str, str],
    wait_s: float,
    on_answer: Callable[[str, Answer], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Answer]:
    """Wait until every command has its last answer, or the time is up; return the last answer of each device.

    Args:
        client: the server.
        commands: id of the command, by device.
        wait_s: longest wait.
        on_answer: called with each answer as it comes.
        clock: monotonic seconds.
        sleep: waits between two looks.

    Raises:
        SyncError: the server cannot be reached.
    """
    deadline, waiting = clock() + wait_s, dict(commands)
    seen: dict[str, int] = {}
    last: dict[str, Answer] = {}
    while waiting:
        for device, command in list(waiting.items()):
            answers = client.answers(command)
            for answer in answers[seen.get(device, 0) :]:
                on_answer(device, answer)
                last[device] = answer
            seen[device] = len(answers)
            if answers and answers[-1].state != "accepted":
                del waiting[device]
        if not waiting or clock() >= deadline:
            break
        sleep(_POLL_S)
    return last
