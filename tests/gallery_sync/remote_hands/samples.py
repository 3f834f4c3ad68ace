"""A device that takes commands: its memory is real, its post is a list."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.telemetry.counters import Counters
from gallery_sync.mailbox.messages import CommandMessage
from gallery_sync.remote_hands.commands import Command, Context, Outcome
from gallery_sync.remote_hands.hands import LeftOver, RemoteHands
from gallery_sync.remote_hands.judge import Now
from gallery_sync.remote_hands.ledger import open_ledger
from gallery_sync.remote_hands.permission import Commands
from tests.waiting import until

NOW = 1_800_000_000.0
ALL = Commands(allow=("sync", "activate", "rollback", "prove", "support-bundle", "config"))


def request(command_id: str = "c-1", by: str = "ada", at: float = NOW, **arguments: Any) -> bytes:
    return json.dumps({"id": command_id, "by": by, "at": at, "arguments": arguments}).encode()


@dataclass
class Post:
    """What arrived and what was answered."""

    arrived: list[CommandMessage] = field(default_factory=list)
    answered: list[dict[str, Any]] = field(default_factory=list)
    delivered: list[str] = field(default_factory=list)
    nudges: int = 0

    def take_commands(self) -> list[CommandMessage]:
        taken, self.arrived = self.arrived, []
        return taken

    def answer(self, key: str, payload: bytes) -> None:
        self.answered.append(json.loads(payload) | {"key": key})

    def take_delivered(self) -> list[str]:
        taken, self.delivered = self.delivered, []
        return taken

    def nudge(self) -> None:
        self.nudges += 1

    def states(self) -> list[str]:
        return [one["state"] for one in self.answered]


def context_of(folder: Path, commands: Commands = ALL) -> Context:
    return Context(
        folder,
        "cam-1",
        "shop",
        {"device": "cam-1", "line": "shop"},
        commands,
        None,
        ring=lambda: None,
        hold=lambda *_: None,
        prove=lambda *_: [],
        prove_new=lambda *_: [],
    )


class Device:
    """One device, and each start of its agent."""

    def __init__(self, folder: Path, commands: Mapping[str, Command] | None = None, allow: Commands = ALL) -> None:
        self.folder, self.clock, self.calls = folder, Now(NOW, NOW - 1000), []  # type: Path, Now, list[str]
        self.may_end = threading.Event()  # a long command
        self.may_end.set()
        self.commands = commands or {
            "sync": Command("sync", self.carried_out),
            "rollback": Command("rollback", self.carried_out),
            "prove": Command("prove", self.long, is_long=True, proves=True),
            "activate": Command("activate", self.two_parts, is_long=True, proves=True),
            "config": Command("config", self.watched, is_long=True, in_loop=True),
        }
        self.context = context_of(folder, allow)
        self.counters = Counters()
        self.start()

    def start(self, left_over: LeftOver | None = None) -> None:
        """Start the agent; what an earlier one had in memory is gone."""
        self.post, self.ledger = Post(), open_ledger(self.folder)
        self.hands = RemoteHands(
            self.post, self.ledger, self.commands, self.context, lambda: self.clock, self.counters, left_over
        )

    def send(self, verb: str = "sync", payload: bytes | None = None, *, proving: bool = False) -> dict[str, Any] | None:
        """Send a command, and return the last answer."""
        self.post.arrived.append(CommandMessage(verb, request() if payload is None else payload))
        self.hands.turn(proving=proving)
        return self.post.answered[-1] if self.post.answered else None

    def finish(self, count: int) -> None:
        """Wait until so many answers are given."""

        def is_done() -> bool:
            self.hands.turn()
            return len(self.post.answered) >= count

        until(is_done, f"{count} answers")

    def audit(self) -> list[tuple[str, str, str]]:
        return [(one.who, one.verb, one.result) for one in reversed(self.ledger.audit())]

    def carried_out(self, one: Any, _: Context) -> Outcome:
        self.calls.append(one.id)
        return Outcome("done", "as you wish", {"n": len(self.calls)})

    def long(self, one: Any, _: Context) -> Outcome:
        self.calls.append(f"{one.id} begins")
        assert self.may_end.wait(60)
        return Outcome("done", "proved")

    def two_parts(self, one: Any, _: Context) -> Outcome:
        thread = threading.get_ident()

        def switch() -> Outcome:
            self.calls.append("switched in the loop" if threading.get_ident() != thread else "switched in the thread")
            return Outcome("done", "switched")

        return Outcome("done", then=switch)

    def watched(self, one: Any, _: Context) -> Outcome:
        loop = threading.get_ident()

        def watch() -> Outcome:
            self.calls.append("watched in the loop" if threading.get_ident() == loop else "watched in a thread")
            return Outcome("done", "it stays")

        return Outcome("done", watch=watch)
