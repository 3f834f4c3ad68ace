"""What a device says over MQTT, of what it sees and of itself, and what it hears there.

Rules:
1. Events wait in the outbox until the broker has them.
2. What is retained (birth, status, switches, discovery) is said again on every connection; only the latest counts.
3. Replies and the Frigate mirror are said once, at best effort; what cannot be said is counted.
4. Without an `mqtt` section, nothing is said and nothing is heard; events gather in the outbox.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from edge.config.schema import CameraConfig, DeviceConfig
from edge.errors import CommandError
from edge.messaging.command import REPLY, reply_payload
from edge.messaging.command_queue import Inbox, Letter
from edge.messaging.frigate import TOPIC, FrigateMirror
from edge.messaging.home_assistant import Described, discovery_payload, discovery_topic
from edge.messaging.outbox import Outbox
from edge.messaging.payload import birth_payload, event_payload, health_payload, priority_of, status_payload, topic_of
from edge.messaging.publisher import Publisher, Subscriptions
from edge.messaging.settings import mqtt_settings
from edge.telemetry.metrics import Counters, HealthReport, StageTimer
from edge.types import CameraStatus, Event

log = logging.getLogger(__name__)


class Announcer:
    """The device's voice and ears; only the frame loop calls it."""

    def __init__(
        self, config: DeviceConfig, boot_id: str, outbox: Outbox, journeys: Journeys, counters: Counters
    ) -> None:
        """Prepare; nothing is connected before `start`.

        Args:
            config: site, device and mqtt of it count; they stay as they are.
            boot_id: names this run of the process.
            outbox: where events wait.
            journeys: of events, ended when the broker has them.
            counters: commands by outcome.
        """
        mqtt = config.mqtt
        self._site, self._device = config.site, config.device
        self._boot_id, self._sequence = boot_id, 0  # of the next event
        self._outbox, self._journeys = outbox, journeys
        self._root = mqtt.root if mqtt else "finesight"
        self._counters = counters
        self._home_assistant = mqtt.home_assistant.prefix if mqtt and mqtt.home_assistant else None
        self._commands = mqtt is not None and mqtt.commands
        self._mirror = FrigateMirror() if mqtt and mqtt.frigate_mirror else None
        self._removed: set[str] = set()  # cameras that Home Assistant was told of
        base = topic_of(self._root, self._site, self._device, None, "x").removesuffix("/x")
        self._inbox = Inbox(base, self._home_assistant, counters)
        self.publisher: Publisher | None = None
        if mqtt is None:
            log.warning("no mqtt section: events stay in %s", config.state_dir / "outbox.sqlite")
            return
        subscriptions = Subscriptions(self._inbox.topics(commands=self._commands), self._inbox.hear)
        self.publisher = Publisher(
            mqtt_settings(mqtt, self._site, self._device),
            outbox,
            counters,
            self.topic(None, "available"),
            subscriptions=subscriptions,
            on_delivered=journeys.end,
        )

    @property
    def connected(self) -> bool:
        """Whether there is a broker, and it hears us."""
        return self.publisher is not None and self.publisher.connected

    def start(self) -> None:
        """Begin connecting, in the background."""
        if self.publisher is not None:
            self.publisher.start()

    def close(self) -> None:
        """Send what waits, say stopped, and leave."""
        if self.publisher is not None:
            self.publisher.close()

    def topic(self, camera: str | None, leaf: str) -> str:
        """A topic of the device or of one of its cameras."""
        return topic_of(self._root, self._site, self._device, camera, leaf)

    def letters(self) -> list[Letter]:
        """What was asked of the device since the last time."""
        return self._inbox.letters()

    def event(self, event: Event) -> None:
        """Say what was seen and, where that is asked for, as Frigate would."""
        if event.latency_ms:
            self._journeys.begin(event.event_id, event.captured_ns)
        payload = event_payload(event, self._site, self._device, self._boot_id, self._sequence)
        self._sequence += 1
        self._outbox.put(self.topic(event.camera, "events"), payload, priority_of(event.type), event.event_id)
        if self._mirror is not None and self.publisher is not None:
            self.publisher.tell(TOPIC, self._mirror.payload(event), "frigate_event")

    def health(self, report: HealthReport) -> None:
        """Say how the device is."""
        self._announce(self.topic(None, "health"), health_payload(report), retain=False)

    def introduce(
        self, report: HealthReport, cameras: Mapping[str, CameraConfig], switches: Mapping[str, bool]
    ) -> None:
        """Say what the device is: its birth, its switches and, to Home Assistant, all of it."""
        framings = {name: camera.framing for name, camera in cameras.items()}
        self._announce(self.topic(None, "birth"), birth_payload(report, framings))
        for name, on in switches.items():
            self.switch(name, on=on)
        if self._home_assistant is not None:
            described = Described(
                self._root, self._site, self._device, report.versions["edge"], tuple(cameras), self._commands
            )
            payload = discovery_payload(described, self._removed.difference(cameras))
            self._announce(discovery_topic(self._home_assistant, described), payload)

    def status(self, status: CameraStatus) -> None:
        """Publish the state of a camera."""
        payload = status_payload(status.camera, status.state, status.at, status.reason)
        self._announce(self.topic(status.camera, "status"), payload)

    def switch(self, camera: str, *, on: bool) -> None:
        """Say whether a camera is switched on."""
        self._announce(f"{self.topic(camera, 'enabled')}/state", b"ON" if on else b"OFF")

    def forget(self, cameras: Iterable[str]) -> None:
        """Take back what was said of cameras that are gone: an empty message clears a retained one."""
        for camera in cameras:
            self._removed.add(camera)
            self._announce(self.topic(camera, "status"), b"")
            self._announce(f"{self.topic(camera, 'enabled')}/state", b"")

    def answer(self, letter: Letter, outcome: Mapping[str, Any] | CommandError) -> None:
        """Reply to what was asked; a switch that moved needs no words, its state says it."""
        refused = isinstance(outcome, CommandError)
        if refused:
            log.warning("command on %s: %s", letter.message.topic[:200], outcome)
        self._counters.add("commands", result="refused" if refused else "done")
        if self.publisher is None or (letter.kind == "switch" and not refused):
            return
        verb = "enabled/set" if letter.kind == "switch" else letter.verb
        payload = reply_payload(verb, letter.command_id, outcome)
        self.publisher.tell(self._reply_topic(letter), payload, "reply", letter.message.correlation)

    def _reply_topic(self, letter: Letter) -> str:
        wanted = letter.message.reply_to  # an empty one, or one with wildcards, is none
        if wanted and wanted.isprintable() and not set("#+$") & set(wanted):
            return wanted
        return f"{self.topic(None, 'cmd')}/{REPLY}"

    def _announce(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        if self.publisher is not None:
            self.publisher.announce(topic, payload, retain=retain)


STAGE = "capture_to_publish"
_MOST = 4096  # events under way; of an outage, the latest


class Journeys:
    """Events on their way; begun on the frame loop, ended on the publisher's thread."""

    def __init__(self, timer: StageTimer, clock_ns: Callable[[], int]) -> None:
        self._timer, self._clock_ns = timer, clock_ns
        self._lock = threading.Lock()
        self._captured_ns: OrderedDict[str, int] = OrderedDict()  # by event

    def begin(self, event_id: str, captured_ns: int) -> None:
        """Expect an event of a picture that was captured then."""
        with self._lock:
            self._captured_ns[event_id] = captured_ns
            if len(self._captured_ns) > _MOST:
                self._captured_ns.popitem(last=False)

    def end(self, event_ids: Iterable[str]) -> None:
        """Measure events that the broker has acknowledged."""
        now_ns = self._clock_ns()
        with self._lock:
            began = [self._captured_ns.pop(event_id, None) for event_id in event_ids]
        for captured_ns in began:
            if captured_ns is not None:
                self._timer.add({STAGE: (now_ns - captured_ns) / 1e6})
