"""Opens the commands of a device: its memory, and what each verb does."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge.telemetry.counters import Counters
from gallery_sync.mailbox.messages import CommandMessage
from gallery_sync.remote_hands.commands import Command, Context
from gallery_sync.remote_hands.config import CONFIG_COMMANDS, left_over
from gallery_sync.remote_hands.hands import LeftOver, Post, RemoteHands
from gallery_sync.remote_hands.judge import Now
from gallery_sync.remote_hands.ledger import open_ledger
from gallery_sync.remote_hands.pair_commands import PAIR_COMMANDS
from gallery_sync.remote_hands.support import SUPPORT_COMMANDS
from gallery_sync.transport.errors import StorageError

log = logging.getLogger(__name__)

COMMANDS: dict[str, Command] = {one.verb: one for one in (*PAIR_COMMANDS, *SUPPORT_COMMANDS, *CONFIG_COMMANDS)}


class _NoPost:
    """Of a device without a broker: brings nothing."""

    def take_commands(self) -> list[CommandMessage]:
        return []

    def answer(self, key: str, payload: bytes) -> None:
        """Nobody waits for it."""

    def take_delivered(self) -> list[str]:
        return []

    def nudge(self) -> None:
        """Nothing waits for it."""


def open_hands(post: Post | None, context: Context, now: Callable[[], Now], counters: Counters) -> RemoteHands | None:
    """Return the commands of a device; None: it has no broker and nothing is left of an earlier command, or no disk.

    Args:
        post: the mailbox; None: there is none.
        context: what commands may use.
        now: returns the time.
        counters: of the agent.
    """
    left = left_over(context.state_dir, context.device_config)
    if post is None and left is None:
        return None
    try:
        ledger = open_ledger(context.state_dir, now().at)
    except StorageError as error:
        counters.add("commands", result="not_written")
        log.warning("%s; the agent takes no commands", error)
        return None
    return RemoteHands(post or _NoPost(), ledger, COMMANDS, context, now, counters, LeftOver(*left) if left else None)
