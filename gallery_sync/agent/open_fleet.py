"""Opens what connects the agent with its fleet: the mailbox, and the commands that arrive in it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.bundle.prove import Prove
from edge.errors import SyncError
from edge.telemetry.counters import Counters
from gallery_sync.agent.journal import Journal
from gallery_sync.agent.machine import Held
from gallery_sync.agent.policy import Policy
from gallery_sync.agent.repository_steps import CHECK_LIMIT_S, Repository
from gallery_sync.mailbox.mailbox import MqttMailbox
from gallery_sync.mailbox.open_mailbox import Device, open_mailbox
from gallery_sync.remote_hands.commands import Context
from gallery_sync.remote_hands.hands import RemoteHands
from gallery_sync.remote_hands.judge import Now
from gallery_sync.remote_hands.open_hands import open_hands
from gallery_sync.trust.clock import BUILT_AT
from gallery_sync.trust.enrolment_file import read_enrolment

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The fleet of a device."""

    mailbox: MqttMailbox | None = None  # None: the device has no broker
    counters: Counters = field(default_factory=Counters)
    environment: Mapping[str, str] = field(default_factory=dict)  # of the agent
    problem: str | None = None  # why there is no mailbox; None: there is one, or nothing names a broker

    def about(self) -> dict[str, Any] | None:
        """Return how the connection is, for agent.json; None: there is no broker."""
        if self.mailbox is None:
            return {"connected": False, "error": self.problem, "counters": {}} if self.problem else None
        return {"connected": self.mailbox.connected, "error": self.mailbox.error, "counters": self.mailbox.counts()}


@dataclass(frozen=True, slots=True)
class Parts:
    """What commands use of the agent."""

    state_dir: Path
    device_config: Path | None
    repository: Repository
    journal: Journal
    prove: Prove  # runs the probes of a pair
    prove_new: Prove  # also chooses its engines


@contextmanager
def in_fleet(state_dir: Path, policy: Policy, environment: Mapping[str, str]) -> Iterator[Fleet]:
    """Connect a device with its fleet in the background, and disconnect at the end.

    Where the address of the broker is wrong, the agent logs and reports it, and goes on without its fleet.

    Args:
        state_dir: of the device.
        policy: of the device.
        environment: of the process.
    """
    counters, mailbox, problem = Counters(), None, None
    try:
        device = Device(state_dir, read_enrolment(state_dir))
        mailbox = open_mailbox(policy.fleet, device, environment, counters)
    except SyncError as error:
        problem = str(error)
        log.warning("%s; the agent goes on without its fleet", problem)
    if mailbox is not None:
        mailbox.start()
    try:
        yield Fleet(mailbox, counters, environment, problem)
    finally:
        if mailbox is not None:
            mailbox.close()


def hands_of(fleet: Fleet, policy: Policy, parts: Parts, now: Callable[[], float] = time.time) -> RemoteHands | None:
    """Return the commands of a device; None: none can arrive, or there is no memory for them.

    Args:
        fleet: of the device.
        policy: of the device.
        parts: of the agent.
        now: Unix seconds.
    """
    source, journal, deadline = parts.repository.source, parts.journal, parts.repository.deadline
    identity, mailbox = source.identity, fleet.mailbox
    if identity.device_id is None:
        return None

    def hold(line: str, sequence: int, reason: str) -> None:
        before = [one.count for one in journal.all_held() if (one.line, one.sequence) == (line, sequence)]
        journal.hold([Held(line, sequence, reason, max(before, default=0) + 1, None)])

    def clocks() -> Now:
        fresh = parts.repository.freshness()
        issued_at = fresh.issued_at if fresh is not None else None
        return Now(now(), max(BUILT_AT, issued_at or BUILT_AT).timestamp())

    context = Context(
        parts.state_dir,
        identity.device_id,
        source.line,
        identity.labels,
        policy.commands,
        parts.device_config,
        ring=mailbox.ring if mailbox is not None else lambda: None,
        hold=hold,
        prove=parts.prove,
        prove_new=parts.prove_new,
        environment=fleet.environment,
        source=source,
        renew_deadline=lambda: deadline.renew(CHECK_LIMIT_S),
    )
    return open_hands(mailbox, context, clocks, fleet.counters)
