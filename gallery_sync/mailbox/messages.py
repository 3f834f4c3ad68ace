"""What arrives: judges each message by its topic and content; pure.

Rules this module keeps:
1. Nothing that arrives is trusted. A doorbell names a line and a number, a turn names this device, and no more counts.
2. A retained command is ignored: the broker would repeat it on every connection.
3. What is ignored has a reason, which is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from edge.messaging.settings import ReceivedMessage
from edge.strict_json import parse_json
from gallery_sync.formats.reports import (
    LARGEST_REQUEST_BYTES,
    PREFIX,
    Desired,
    Turn,
    device_topic,
    line_topic,
)

_LARGEST_BYTES = 4096  # of a doorbell or a turn
_LONGEST_VERB = 64


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one device."""

    device: str  # id
    line: str
    prefix: str = PREFIX

    @property
    def doorbell(self) -> str:
        """Rings for the whole line."""
        return line_topic(self.line, self.prefix)

    @property
    def turn(self) -> str:
        """Says that this device may switch."""
        return device_topic(self.device, "desired", self.prefix)

    @property
    def commands(self) -> str:
        """The topic filter of all commands to this device."""
        return device_topic(self.device, "cmd/+", self.prefix)

    @property
    def reported(self) -> str:
        """Where its reports go."""
        return device_topic(self.device, "reported", self.prefix)

    @property
    def available(self) -> str:
        """Where `online` and `offline` go."""
        return device_topic(self.device, "available", self.prefix)

    @property
    def answer(self) -> str:
        """Where answers to commands go."""
        return device_topic(self.device, "answer", self.prefix)


@dataclass(frozen=True, slots=True)
class Ring:
    """The doorbell."""

    revision: int


@dataclass(frozen=True, slots=True)
class TurnChange:
    """A device's turn; None: it has none any more."""

    turn: Turn | None


@dataclass(frozen=True, slots=True)
class CommandMessage:
    """A command as it arrived; a payload that is too large is cut, and one byte longer than any that is not."""

    verb: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message that changes nothing."""

    reason: str  # retained, topic, junk, too_large, other_line, other_device


def read_message(message: ReceivedMessage, topics: Topics) -> Ring | TurnChange | CommandMessage | Ignored:
    """Judge a message."""
    if message.topic.startswith(commands := topics.commands.removesuffix("+")):
        return _command(message.topic.removeprefix(commands), message)
    if message.topic not in (topics.doorbell, topics.turn):
        return Ignored("topic")
    if len(message.payload) > _LARGEST_BYTES:
        return Ignored("too_large")
    try:
        return _doorbell(message, topics) if message.topic == topics.doorbell else _turn(message, topics)
    except (ValueError, ValidationError):
        return Ignored("junk")


def _doorbell(message: ReceivedMessage, topics: Topics) -> Ring | Ignored:
    desired = Desired.model_validate(parse_json(message.payload, _LARGEST_BYTES))
    return Ring(desired.revision) if desired.line == topics.line else Ignored("other_line")


def _turn(message: ReceivedMessage, topics: Topics) -> TurnChange | Ignored:
    if not message.payload:
        return TurnChange(None)
    turn = Turn.model_validate(parse_json(message.payload, _LARGEST_BYTES))
    return TurnChange(turn) if turn.device == topics.device else Ignored("other_device")


def _command(verb: str, message: ReceivedMessage) -> CommandMessage | Ignored:
    if message.retained:
        return Ignored("retained")
    if not verb or "/" in verb or len(verb) > _LONGEST_VERB:
        return Ignored("topic")
    return CommandMessage(verb, message.payload[: LARGEST_REQUEST_BYTES + 1])
