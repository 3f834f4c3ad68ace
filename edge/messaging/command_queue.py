"""What comes over MQTT for the device, kept from the network thread to the frame loop."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edge.messaging.command import REPLY, Command, correlation_id, read_command, read_switch
from edge.messaging.connection import Received
from edge.telemetry.metrics import Counters

_WAITING = 32  # messages; a device that is sent more at once is being flooded


@dataclass(frozen=True, slots=True)
class Letter:
    """One message, and what it is."""

    kind: Literal["command", "switch", "home_assistant"]
    verb: str  # of a command; of a switch its camera
    message: Received

    def command(self, cameras: Mapping[str, object]) -> Command:
        """What it asks for.

        Raises:
            CommandError: it cannot be understood.
        """
        if self.kind == "switch":
            return read_switch(self.verb, self.message.payload, cameras)
        return read_command(self.verb, self.message.payload, cameras)

    @property
    def command_id(self) -> str | None:
        """The sender's own name for it."""
        return correlation_id(self.message.payload)


class Inbox:
    """A bounded queue of messages that the device subscribes to."""

    def __init__(self, device_topic: str, home_assistant_prefix: str | None, counters: Counters) -> None:
        """Empty.

        Args:
            device_topic: `<root>/<site>/<device>`.
            home_assistant_prefix: None: Home Assistant is not listened to.
            counters: `commands_ignored` by reason.
        """
        self._base = device_topic + "/"
        self._home_assistant = f"{home_assistant_prefix}/status" if home_assistant_prefix else None
        self._counters = counters
        self._letters: queue.Queue[Letter] = queue.Queue(_WAITING)

    def topics(self, *, commands: bool) -> tuple[str, ...]:
        """What to subscribe to: never all that is below the device, which is mostly what it says itself."""
        asked = (f"{self._base}cmd/+", f"{self._base}cmd/camera/+", f"{self._base}+/enabled/set") if commands else ()
        return (*asked, self._home_assistant) if self._home_assistant else asked

    def hear(self, message: Received) -> None:
        """Take in a message, on the network thread. Returns at once."""
        letter = self._letter(message)
        if letter is None:
            return
        if message.retained and letter.kind != "home_assistant":
            self._counters.add("commands_ignored", reason="retained")
            return
        try:
            self._letters.put_nowait(letter)
        except queue.Full:
            self._counters.add("commands_ignored", reason="too_many")

    def letters(self) -> list[Letter]:
        """What came since the last time."""
        found = []
        while not self._letters.empty():
            found.append(self._letters.get_nowait())
        return found

    def _letter(self, message: Received) -> Letter | None:
        if message.topic == self._home_assistant:
            # told twice when retained; either way the answer is the same
            return Letter("home_assistant", "", message) if message.payload == b"online" else None
        leaf = message.topic.removeprefix(self._base)
        if leaf == f"cmd/{REPLY}":  # our own
            return None
        if leaf.startswith("cmd/"):
            return Letter("command", leaf.removeprefix("cmd/"), message)
        return Letter("switch", leaf.removesuffix("/enabled/set"), message)
