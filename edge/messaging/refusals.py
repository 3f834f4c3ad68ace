"""What a broker does not take: messages for which it hangs up, and topics that it refuses.

A broker of MQTT 3.1.1 does not say why it closes a connection: perhaps a message is too long for it, or its topic is
forbidden; perhaps it only restarts. Rules for such messages:
1. Only messages in flight when the connection ended are noted. An acknowledgement clears a message of everything.
2. A message noted at two such ends is a suspect. It is sent alone, once the broker has acknowledged something else on
   the same connection: the broker works, and nothing else can be to blame.
3. A suspect whose connection ends before its answer, _STRIKES times in a row, is guilty. Before the last time, the
   connection must have lasted CONTROL_S with nothing sent: a broker that goes away by itself does so then, too, and
   that clears the suspect. The last time, what can be left out of the message is left out.
4. An end that the broker explains by something else (MQTT 5), or before it acknowledged anything, accuses nobody.
5. Nothing is written: after a restart of the device the message is found again, in as many hang-ups.

Rules for topics:
6. Nothing is sent on a held topic until its time has come. Then one message is tried: it releases the topic, or holds
   it twice as long. Events of a held topic wait in the outbox.
7. A new connection is a reason to try again, because the broker's rules may have changed: at once the first time, then
   once a minute at most. It is none if the broker hangs up on the topic.
8. No held topic is tried while there are suspects, so that nothing else is to blame for an end; unless nothing else
   could show that the broker works.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

_NOTED = 2
_STRIKES = 3
CONTROL_S = 5.0  # how long a connection must last before the last try of a suspect
_MAX_KEYS = 1000
_REFUSED_S = (60.0, 3600.0)  # how long a topic is held at first, and at most
_HUNG_UP_S = (3600.0, 24 * 3600.0)
# MQTT 5 §3.14.2.1: reasons of a DISCONNECT that are not about a message
_EXPLAINED = frozenset({0x00, 0x89, 0x8B, 0x8D, 0x8E, 0x93, 0x96, 0x97, 0x98, 0x9C, 0x9D, 0xA0})


class Suspects:
    """What is known of messages by their keys, over all connections of one process; not thread-safe."""

    def __init__(self) -> None:
        self._noted: dict[str, int] = {}  # ends of connections, by key
        self._strikes: dict[str, int] = {}  # of suspects

    def __bool__(self) -> bool:
        return bool(self._strikes)

    def __contains__(self, key: str) -> bool:
        return key in self._strikes

    def is_guilty(self, key: str) -> bool:
        """Return whether a message is to be set aside."""
        return self._strikes.get(key, 0) >= _STRIKES

    def has_struck(self, key: str) -> bool:
        """Return whether a connection ended when this message was sent alone."""
        return self._strikes.get(key, 0) > 0

    def is_last_try(self, key: str) -> bool:
        """Return whether a message is sent a last time."""
        return self._strikes.get(key, 0) == _STRIKES - 1

    def accuse(self, key: str) -> None:
        """Make a message a suspect."""
        self._strikes.setdefault(key, 0)

    def awaits_last_try(self) -> bool:
        """Return whether the connection must last for a while before anything is sent."""
        return any(strikes == _STRIKES - 1 for strikes in self._strikes.values())

    def clear(self, key: str) -> None:
        """Forget a message: it was acknowledged, refused or set aside."""
        self._noted.pop(key, None)
        self._strikes.pop(key, None)

    def connection_ended(
        self, in_flight: Collection[str], *, answered: bool, lasted_s: float = 0.0, code: int | None = None
    ) -> None:
        """Note the messages without an answer.

        Args:
            in_flight: their keys.
            answered: whether the broker had acknowledged anything on this connection.
            lasted_s: how long it lasted.
            code: the reason that the broker gave (MQTT 5).
        """
        if not answered or code in _EXPLAINED:
            return
        if lasted_s < CONTROL_S:
            for key, strikes in self._strikes.items():
                if strikes == _STRIKES - 1 and key not in in_flight:
                    self._strikes[key] = 0
        for key in in_flight:
            if key in self._strikes:
                self._strikes[key] += 1
                continue
            self._noted[key] = self._noted.pop(key, 0) + 1
            if self._noted[key] >= _NOTED:
                del self._noted[key]
                self._strikes[key] = 0
        while len(self._noted) > _MAX_KEYS:
            del self._noted[next(iter(self._noted))]


@dataclass(slots=True)
class _Hold:
    reason: str
    hangs_up: bool
    held_s: float
    since: float
    until: float
    trying: bool = False
    due_told: bool = False


class HeldTopics:
    """The topics on which nothing is sent for now, over all connections of one process; not thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Hold nothing.

        Args:
            clock: monotonic seconds.
        """
        self._clock = clock
        self._holds: dict[str, _Hold] = {}

    def hold(self, topic: str, reason: str, *, hangs_up: bool = False) -> bool:
        """Hold a topic, after a failed try for longer; return whether it was free."""
        hold = self._holds.get(topic)
        first_s, most_s = _HUNG_UP_S if hangs_up else _REFUSED_S
        if hold is None:
            self._holds[topic] = _Hold(reason, hangs_up, first_s, self._clock(), self._clock() + first_s)
            return True
        if hold.trying:
            held_s = min(2 * hold.held_s, most_s)
            self._holds[topic] = _Hold(reason, hangs_up, held_s, self._clock(), self._clock() + held_s)
        return False

    def __contains__(self, topic: str) -> bool:
        return topic in self._holds

    def blocks(self, topic: str) -> bool:
        """Return whether nothing may be sent on a topic now."""
        hold = self._holds.get(topic)
        return hold is not None and (hold.trying or self._clock() < hold.until)

    def start_try(self, topic: str) -> None:
        """Note that a message is sent on a topic, if it was held."""
        if (hold := self._holds.get(topic)) is not None:
            hold.trying = True

    def release(self, topic: str) -> bool:
        """Release a topic that the broker takes; return whether it was held."""
        return self._holds.pop(topic, None) is not None

    def take_due(self) -> dict[str, bool]:
        """Return the topics whose time has come since the last call, and whether the broker hangs up on them."""
        now = self._clock()
        due = [topic for topic, hold in self._holds.items() if not hold.due_told and now >= hold.until]
        for topic in due:
            self._holds[topic].due_told = True
        return {topic: self._holds[topic].hangs_up for topic in due}

    def on_connect(self) -> None:
        """Let the topics be tried that were refused, not those on which the broker hangs up."""
        for hold in self._holds.values():
            if not hold.hangs_up:
                wait_s = _REFUSED_S[0] if hold.held_s > _REFUSED_S[0] else 0.0
                hold.until = min(hold.until, hold.since + wait_s)
            hold.due_told = False

    def tell_again(self) -> None:
        """Let `take_due` return the topics whose time has come once more."""
        for hold in self._holds.values():
            hold.due_told = False

    def on_disconnect(self) -> None:
        """Hold the topics longer whose try got no answer."""
        for topic, hold in list(self._holds.items()):
            if hold.trying:
                self.hold(topic, hold.reason, hangs_up=hold.hangs_up)

    def reasons(self) -> dict[str, str]:
        """Return why each topic is held; from any thread."""
        return {topic: hold.reason for topic, hold in self._holds.copy().items()}
