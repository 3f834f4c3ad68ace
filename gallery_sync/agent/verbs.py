"""The verb `edge-sync agent`: takes releases by itself, shows what it does, and clears its quarantine."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from gallery_sync.command_line import add_state_dir, print_values
from gallery_sync.device.verbs import AGENT_CONFIG

log = logging.getLogger(__name__)

_DEVICE = Path("/etc/finesight/device.yaml")


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to a parser."""
    agent = verbs.add_parser(
        "agent",
        help="take releases by itself: fetch, prove, switch, watch, confirm or go back",
        description="Run the update agent of an enrolled device until it is stopped, or look at it.",
    )
    agent.add_argument(
        "what",
        nargs="?",
        choices=("run", "status", "audit", "clear-quarantine"),
        default="run",
        help="run the agent, show what it does, show the commands that it got from afar, or allow releases that failed "
        "to be tried again (default: run)",
    )
    add_state_dir(agent)
    agent.add_argument("--config", type=Path, help=f"what the device allows (default: {AGENT_CONFIG}, if it exists)")
    agent.add_argument(
        "--device-config",
        type=Path,
        help=f"the device's YAML file, for its inference engine (default: {_DEVICE}, if it exists)",
    )
    agent.add_argument(
        "--once", action="store_true", help="check once, carry out what follows, and end instead of waiting"
    )
    agent.set_defaults(act=_agent)


def _agent(arguments: argparse.Namespace) -> int:
    if arguments.what == "status":
        return _status(arguments)
    if arguments.what == "audit":
        return _audit(arguments)
    if arguments.what == "clear-quarantine":
        return _clear_quarantine(arguments)
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    import signal

    from edge.telemetry.systemd import notify_systemd
    from gallery_sync.agent.open_agent import Place, one_agent, open_agent
    from gallery_sync.agent.open_fleet import in_fleet
    from gallery_sync.agent.policy import read_policy

    signal.signal(signal.SIGTERM, _stop)
    try:
        policy = read_policy(arguments.config or AGENT_CONFIG, must_exist=arguments.config is not None)
        url, line = _repository(arguments.state_dir)
        device = arguments.device_config or (_DEVICE if _DEVICE.exists() else None)
        with one_agent(arguments.state_dir), in_fleet(arguments.state_dir, policy, os.environ) as fleet:
            agent = open_agent(Place(arguments.state_dir, url, line, device), policy, fleet=fleet)
            notify_systemd("READY=1")
            agent.run(once=arguments.once)
    except _StoppedError:
        return 0
    return _status(arguments) if arguments.once else 0


class _StoppedError(BaseException):
    """The agent received SIGTERM. Every step can be interrupted; the next start goes on."""


def _stop(*_: object) -> None:
    raise _StoppedError


def _repository(state_dir: Path) -> tuple[str, str | None]:
    """Return the URL of the repository, and the line of the device if it is enrolled.

    Raises:
        SyncError: no repository is known, or the enrolment is damaged.
    """
    from edge.errors import SyncError
    from gallery_sync.enrolment.device_files import read_enrolment

    enrolled = read_enrolment(state_dir)
    url = os.environ.get("FINESIGHT_REPOSITORY") or (enrolled.repository if enrolled else None)
    if not url:
        raise SyncError(f"{state_dir}: no repository; enrol it with edge-sync enrol, or set FINESIGHT_REPOSITORY")
    return url, enrolled.line if enrolled else None


def _status(arguments: argparse.Namespace) -> int:
    import json

    from edge.errors import ConfigError
    from gallery_sync.agent.status import lines, read_status
    from gallery_sync.device.identity import read_own_labels

    try:
        labels = read_own_labels(arguments.config or AGENT_CONFIG, must_exist=arguments.config is not None)
    except ConfigError as error:  # the rest is of use all the more
        log.warning("%s", error)
        labels = {}
    status = read_status(arguments.state_dir, labels)
    print(json.dumps(status) if arguments.json else "\n".join(lines(status)))
    return 0


def _audit(arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from edge.errors import one_line
    from gallery_sync.agent.status import time_of
    from gallery_sync.remote_hands.ledger import read_audit

    found = [asdict(one) | {"at": time_of(one.at)} for one in read_audit(arguments.state_dir)]
    shown = [f"{one['at']}: {one['verb']} of {one['who']}: {one['result']} {one['text']}".rstrip() for one in found]
    lines = [one_line(line) for line in shown]  # what came from afar may hold anything
    print(json.dumps(found) if arguments.json else "\n".join(lines or ["no command from afar so far"]))
    return 0


def _clear_quarantine(arguments: argparse.Namespace) -> int:
    from gallery_sync.agent.journal import open_journal

    journal = open_journal(arguments.state_dir)
    try:
        count = journal.clear_quarantine()
    finally:
        journal.close()
    return print_values({"cleared": count}, as_json=arguments.json)
