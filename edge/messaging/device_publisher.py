"""Publishes a device's events and state over MQTT, and receives the commands sent to it.

Rules:
1. Events wait in the outbox until the broker acknowledges them.
2. Retained messages (birth, status, counts, switches, snapshots, discovery) are sent again on every connection; only
   the latest counts. Those that are no longer wanted are cleared, also after a restart.
3. Replies and the Frigate mirror are sent once, at best effort; those that cannot be sent are counted. Replies go to
   the device's own reply topics alone.
4. Without an `mqtt` section nothing is sent or received; events stay in the outbox.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

from edge.config.schema import CameraConfig, DeviceConfig
from edge.errors import CommandError
from edge.messaging.command import reply_correlation, reply_payload, reply_topic
from edge.messaging.command_queue import CommandQueue, ReceivedCommand
from edge.messaging.frigate import LEAF, FrigateMirror
from edge.messaging.home_assistant import HAND_OVER, DeviceDescription, device_topic, discovery
from edge.messaging.in_view import InView
from edge.messaging.outbox import Outbox
from edge.messaging.payload import birth_payload, event_payload, health_payload, priority_of, status_payload, topic_of
from edge.messaging.publisher import Listeners, Publisher, Subscriptions
from edge.messaging.retained_topics import RetainedTopics
from edge.messaging.settings import mqtt_settings
from edge.telemetry.counters import Counters
from edge.telemetry.health_report import HealthReport
from edge.telemetry.timing import StageTimer
from edge.types import CameraStatus, Event

log = logging.getLogger(__name__)

_WARN_AGAIN_S = 10.0  # between two log lines about refused commands


class DevicePublisher:
    """Everything a device sends and receives over MQTT; the frame loop calls it, and any thread `publish_snapshot`."""

    def __init__(
        self, config: DeviceConfig, boot_id: str, outbox: Outbox, publish_latency: PublishLatency, counters: Counters
    ) -> None:
        """Prepare; `start` connects.

        Args:
            config: only site, device, mqtt, snapshots and state_dir are used; a reload does not change them.
            boot_id: names this run of the process.
            outbox: where events wait.
            publish_latency: measures each event until the broker acknowledges it.
            counters: counts commands by result.
        """
        mqtt = config.mqtt
        self._site, self._device = config.site, config.device
        self._boot_id, self._sequence = boot_id, 0  # of the next event
        self._outbox, self._publish_latency = outbox, publish_latency
        self._root = mqtt.root if mqtt else "finesight"
        self._counters = counters
        self._home_assistant = mqtt.home_assistant.prefix if mqtt and mqtt.home_assistant else None
        self._items = mqtt.home_assistant.items if mqtt and mqtt.home_assistant else ()
        self._commands = mqtt is not None and mqtt.commands
        self._mirror = FrigateMirror() if mqtt and mqtt.frigate_mirror else None
        self._mirror_topic = f"{mqtt.frigate_prefix}/{LEAF}" if mqtt else LEAF
        self._in_view = InView()
        self._snapshots = config.snapshots is not None
        self._snapshot_lock = threading.Lock()
        self._cameras: frozenset[str] = frozenset()  # whose messages are wanted
        self._retained_topics = RetainedTopics(config.state_dir / "retained_topics.json")
        self._base = topic_of(self._root, self._site, self._device, None, "x").removesuffix("/x")
        self._command_queue = CommandQueue(self._base, self._home_assistant, counters)
        self._said: set[str] = set()  # wishes for replies that were not met, and logged
        self._warned_s = -inf  # when a refused command was last logged
        self.publisher: Publisher | None = None
        if mqtt is None:
            log.warning("no mqtt section: events stay in %s", config.state_dir / "outbox.sqlite")
            return
        subscriptions = Subscriptions(
            self._command_queue.topics(commands=self._commands), self._command_queue.on_message
        )
        self.publisher = Publisher(
            mqtt_settings(mqtt, self._site, self._device),
            outbox,
            counters,
            self.topic(None, "available"),
            subscriptions=subscriptions,
            listeners=Listeners(publish_latency.finish, self._retained_topics.forget),
        )

    @property
    def connected(self) -> bool:
        """Whether a broker is configured and connected."""
        return self.publisher is not None and self.publisher.connected

    def start(self) -> None:
        """Connect in the background."""
        if self.publisher is not None:
            self.publisher.start()

    def close(self) -> None:
        """Send waiting messages, publish "stopped" and disconnect."""
        if self.publisher is not None:
            self.publisher.close()

    def topic(self, camera: str | None, leaf: str) -> str:
        """Return a topic of the device, or of one of its cameras."""
        return topic_of(self._root, self._site, self._device, camera, leaf)

    def take_commands(self) -> list[ReceivedCommand]:
        """Return the commands received since the last call."""
        return self._command_queue.take_commands()

    def publish_event(self, event: Event) -> None:
        """Queue an event and, if configured, mirror it in Frigate's format."""
        if event.latency_ms:
            self._publish_latency.start(event.event_id, event.captured_ns)
        payload = event_payload(event, self._site, self._device, self._boot_id, self._sequence)
        self._sequence += 1
        self._outbox.put(self.topic(event.camera, "events"), payload, priority_of(event.type), event.event_id)
        if self._in_view.update(event):
            self._publish_latest(self.topic(event.camera, "in_view"), self._in_view.payload(event.camera))
        if self._mirror is not None and self.publisher is not None and (mirrored := self._mirror.payload(event)):
            self.publisher.publish_once(self._mirror_topic, mirrored, "frigate_event")

    def publish_snapshot(self, camera: str, jpeg: bytes) -> None:
        """Publish the picture of a recognised object, unless its camera has been removed; from any thread."""
        with self._snapshot_lock:
            if camera in self._cameras:
                self._publish_latest(self.topic(camera, "snapshot"), jpeg)

    def objects_in_view(self) -> dict[str, int]:
        """Return how many objects are in view of each camera."""
        return {camera: self._in_view.total(camera) for camera in self._cameras}

    def publish_health(self, report: HealthReport) -> None:
        """Publish a health report."""
        self._publish_latest(self.topic(None, "health"), health_payload(report), retain=False)

    def publish_birth(
        self, report: HealthReport, cameras: Mapping[str, CameraConfig], switches: Mapping[str, bool]
    ) -> None:
        """Publish the birth message, the states of these cameras and, if configured, the Home Assistant discovery.

        Retained messages of other cameras, and of what is not configured any more, are cleared.
        """
        with self._snapshot_lock:
            added, self._cameras = cameras.keys() - self._cameras, frozenset(cameras)
        framings = {name: camera.framing for name, camera in cameras.items()}
        self._publish_latest(self.topic(None, "birth"), birth_payload(report, framings))
        for name, on in switches.items():
            self.publish_switch(name, on=on)
        for name in added:
            self._publish_latest(self.topic(name, "in_view"), self._in_view.payload(name))
        description = DeviceDescription(
            self._root,
            self._site,
            self._device,
            report.versions["edge"],
            tuple(cameras),
            self._commands,
            self._snapshots,
            self._items,
        )
        prefix = self._home_assistant
        entities = {} if prefix is None else discovery(prefix, description)
        bundle = device_topic(prefix, description) if prefix is not None else None
        self._clear_others({*self._wanted_topics(description), *entities}, bundle)
        for topic, payload in entities.items():
            self._publish_latest(topic, payload)

    def publish_status(self, status: CameraStatus) -> None:
        """Publish the state of a camera."""
        payload = status_payload(status.camera, status.state, status.at, status.reason)
        self._publish_latest(self.topic(status.camera, "status"), payload)

    def publish_switch(self, camera: str, *, on: bool) -> None:
        """Publish whether a camera is switched on."""
        self._publish_latest(f"{self.topic(camera, 'enabled')}/state", b"ON" if on else b"OFF")

    def publish_reply(self, received: ReceivedCommand, outcome: Mapping[str, Any] | CommandError) -> None:
        """Reply to a command. A switch that worked gets no reply: its state topic shows it."""
        refused = isinstance(outcome, CommandError)
        if refused:
            flood = time.monotonic() - self._warned_s < _WARN_AGAIN_S
            level = logging.DEBUG if flood else logging.WARNING
            log.log(level, "command on %.200r: %s", received.message.topic, outcome)
            self._warned_s = self._warned_s if flood else time.monotonic()
        self._counters.add("commands", result="refused" if refused else "done")
        if self.publisher is None or (received.kind == "switch" and not refused):
            return
        verb = "enabled/set" if received.kind == "switch" else received.verb
        payload = reply_payload(verb, received.command_id, outcome)
        topic, why = reply_topic(self._base, received.message.reply_to)
        correlation, why_not = reply_correlation(received.message.correlation)
        for reason in filter(None, (why, why_not)):
            self._note_unmet_wish(reason, topic)
        self.publisher.publish_once(topic, payload, "reply", correlation)

    def _note_unmet_wish(self, reason: str, topic: str) -> None:
        """Count what a command asked for its reply and did not get; log each kind once."""
        self._counters.add("reply_wishes_unmet", reason=reason)
        if reason not in self._said:
            self._said.add(reason)
            log.warning("a command asked for a reply elsewhere or with long data (%s); replied on %s", reason, topic)

    def _wanted_topics(self, description: DeviceDescription) -> set[str]:
        """Return the topics on which the broker should keep a message, except those of Home Assistant."""
        leaves = ["status", "enabled/state", "in_view", *(["snapshot"] if self._snapshots else [])]
        wanted = {f"{description.base}/{camera}/{leaf}" for camera in description.cameras for leaf in leaves}
        return wanted | {self.topic(None, "available"), self.topic(None, "birth")}

    def _clear_others(self, wanted: set[str], handed_over: str | None) -> None:
        """Clear every other topic; an empty payload deletes a retained message.

        Args:
            wanted: the topics to keep.
            handed_over: a topic whose entities are announced on others now; it is cleared after those.
        """
        if self.publisher is None:
            return
        self._retained_topics.add(wanted)
        for topic in self._retained_topics.others(wanted):
            if topic == handed_over:
                self.publisher.hand_over(topic, HAND_OVER)
            else:
                self._publish_latest(topic, b"")

    def _publish_latest(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        if self.publisher is not None:
            self.publisher.publish_latest(topic, payload, retain=retain)


STAGE = "capture_to_publish"
_MAX_EVENTS = 4096  # waiting for their acknowledgement; after a long outage only the latest are measured


class PublishLatency:
    """Measures the time from capture to the broker's acknowledgement; thread-safe."""

    def __init__(self, timer: StageTimer, clock_ns: Callable[[], int]) -> None:
        self._timer, self._clock_ns = timer, clock_ns
        self._lock = threading.Lock()
        self._captured_ns: OrderedDict[str, int] = OrderedDict()  # by event

    def start(self, event_id: str, captured_ns: int) -> None:
        """Start measuring an event whose frame was captured at this time."""
        with self._lock:
            self._captured_ns[event_id] = captured_ns
            if len(self._captured_ns) > _MAX_EVENTS:
                self._captured_ns.popitem(last=False)

    def finish(self, event_ids: Iterable[str]) -> None:
        """Record the latency of events that the broker has acknowledged."""
        now_ns = self._clock_ns()
        with self._lock:
            captured = [self._captured_ns.pop(event_id, None) for event_id in event_ids]
        for captured_ns in captured:
            if captured_ns is not None:
                self._timer.add({STAGE: (now_ns - captured_ns) / 1e6})
