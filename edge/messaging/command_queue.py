"""Queues commands received over MQTT until the frame loop takes them."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edge.messaging.command import REPLY, Command, correlation_id, read_command, read_switch
from edge.messaging.settings import ReceivedMessage
from edge.telemetry.counters import Counters

_MAX_COMMANDS = 32  # waiting at once; more is a flood
_HOME_ASSISTANT = ReceivedMessage("", b"online", retained=False, received_ns=0)


@dataclass(frozen=True, slots=True)
class ReceivedCommand:
    """One message from a subscribed topic, and its kind."""

    kind: Literal["command", "switch", "home_assistant"]
    verb: str  # of a command; for a switch, the name of its camera
    message: ReceivedMessage

    def command(self, cameras: Mapping[str, object]) -> Command:
        """Parse the message.

        Raises:
            CommandError: the message is invalid.
        """
        if self.kind == "switch":
            return read_switch(self.verb, self.message.payload, cameras)
        return read_command(self.verb, self.message.payload, cameras)

    @property
    def command_id(self) -> str | None:
        """The id that the sender gave it, if any."""
        return correlation_id(self.message.payload)


class CommandQueue:
    """A bounded queue of messages from the subscribed topics."""

    def __init__(self, device_topic: str, home_assistant_prefix: str | None, counters: Counters) -> None:
        """Create an empty queue.

        Args:
            device_topic: `<root>/<site>/<device>`.
            home_assistant_prefix: first level of the Home Assistant topics; None: do not subscribe to them.
            counters: counts `commands_ignored` by reason.
        """
        self._home_assistant_waits = False
        self._base = device_topic + "/"
        self._home_assistant = f"{home_assistant_prefix}/status" if home_assistant_prefix else None
        self._counters = counters
        self._commands: queue.Queue[ReceivedCommand] = queue.Queue(_MAX_COMMANDS)

    def topics(self, *, commands: bool) -> tuple[str, ...]:
        """Return the topics to subscribe to; not everything below the device, most of which it publishes itself."""
        topics = (f"{self._base}cmd/+", f"{self._base}cmd/camera/+", f"{self._base}+/enabled/set") if commands else ()
        return (*topics, self._home_assistant) if self._home_assistant else topics

    def on_message(self, message: ReceivedMessage) -> None:
        """Queue a message; called on the network thread, returns at once."""
        received = self._classify(message)
        if received is None:
            return
        if received.kind == "home_assistant":  # one answer is enough for any number of requests
            self._home_assistant_waits = True
            return
        if message.retained:
            self._counters.add("commands_ignored", reason="retained")
            return
        try:
            self._commands.put_nowait(received)
        except queue.Full:
            self._counters.add("commands_ignored", reason="too_many")

    def take_commands(self) -> list[ReceivedCommand]:
        """Return the commands received since the last call."""
        commands = []
        if self._home_assistant_waits:
            self._home_assistant_waits = False
            commands.append(ReceivedCommand("home_assistant", "", _HOME_ASSISTANT))
        while not self._commands.empty():
            commands.append(self._commands.get_nowait())
        return commands

    def _classify(self, message: ReceivedMessage) -> ReceivedCommand | None:
        if message.topic == self._home_assistant:
            # a retained one may arrive twice; the reaction is the same
            return ReceivedCommand("home_assistant", "", message) if message.payload == b"online" else None
        leaf = message.topic.removeprefix(self._base)
        if leaf == f"cmd/{REPLY}":  # published by this device
            return None
        if message.topic.startswith(f"{self._base}cmd/"):
            return ReceivedCommand("command", leaf.removeprefix("cmd/"), message)
        if message.topic.startswith(self._base) and leaf.endswith("/enabled/set"):
            return ReceivedCommand("switch", leaf.removesuffix("/enabled/set"), message)
        self._counters.add("commands_ignored", reason="topic")  # a broker sends what was not subscribed to
        return None
