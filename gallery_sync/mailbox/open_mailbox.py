"""Opens the mailbox of an enrolled device, if it has a broker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import SyncError
from edge.telemetry.counters import Counters
from gallery_sync.formats.enrolment import Enrolment
from gallery_sync.mailbox.mailbox import MqttMailbox
from gallery_sync.mailbox.messages import Topics
from gallery_sync.mailbox.numbers import Numbers
from gallery_sync.mailbox.settings import Fleet, mqtt_settings


@dataclass(frozen=True, slots=True)
class Device:
    """The device whose mailbox it is."""

    state_dir: Path
    enrolment: Enrolment | None  # None: it is not enrolled, and has no mailbox
    about: Mapping[str, Any] = field(default_factory=dict)  # fields of every report, such as labels and allowed


def open_mailbox(
    fleet: Fleet, device: Device, environment: Mapping[str, str], counters: Counters | None = None
) -> MqttMailbox | None:
    """Return the mailbox of a device, not started; None: it is not enrolled, or nothing names a broker.

    Args:
        fleet: of agent.yaml.
        device: whose mailbox it is.
        environment: of the process.
        counters: of the agent; None: its own.

    Raises:
        SyncError: an address is wrong, or agent.yaml names a broker for a device that is not enrolled.
    """
    enrolment = device.enrolment
    if enrolment is None:
        if fleet.host is not None:
            raise SyncError(
                "agent.yaml names a broker (fleet.host), and this device has no id; enrol it: edge-sync enrol"
            )
        return None
    settings = mqtt_settings(fleet, device.state_dir, enrolment.device_id, environment)
    if settings is None:
        return None
    topics = Topics(enrolment.device_id, enrolment.line, fleet.prefix)
    numbers = Numbers(device.state_dir, " ".join(enrolment.identity))
    return MqttMailbox(settings, topics, numbers, fleet, counters or Counters(), about=device.about)
