"""What devices and the fleet's server tell each other over MQTT. Nothing here is signed, and nothing here is trusted.

    fleet/v1/line/<line>/desired        Desired     retained, by the server: look at the repository
    fleet/v1/device/<id>/desired        Turn        retained, by the server: this device may switch now
    fleet/v1/device/<id>/reported       Reported    retained, by the device: what it runs, does and did
    fleet/v1/device/<id>/available      text        retained, by the device: online; its last will: offline
    fleet/v1/device/<id>/cmd/<verb>     Request     by the server: see gallery_sync.remote_hands
    fleet/v1/device/<id>/answer         Answer      by the device

A message wakes a device; what it does, it derives from signed documents. A report is a claim of that device.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from gallery_sync.formats.fields import Count, Document, Name, Sequence
from gallery_sync.formats.rollouts import MOST_LABELS, LabelKey, LabelValue, Person

PREFIX = "fleet/v1"
LARGEST_REPORT_BYTES = 32 << 10
LARGEST_REQUEST_BYTES = 16 << 10
MOST_TRIES, MOST_CAMERAS, MOST_HELD, MOST_COUNTERS = 10, 64, 20, 64
MOST_KNOWN_TRIES = 50  # that the fleet's server keeps of a device
LONGEST_KEEP_S = 30 * 86_400.0  # that the fleet's server keeps a command for a device that is off

Text = Annotated[str, Field(max_length=400)]
ShortText = Annotated[str, Field(max_length=120)]
UnixSeconds = Annotated[float, Field(ge=0.0, le=1e11, allow_inf_nan=False)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(default_factory=dict, max_length=MOST_LABELS)]
Ended = Literal["confirmed", "rolled back", "refused", "kept", "taken over", "failsafe", "postponed"]
FAILED: frozenset[str] = frozenset({"rolled back", "refused", "kept", "failsafe"})


class Running(Document):
    """The pair that serves."""

    line: ShortText | None = None  # None: installed from folders
    release: Sequence | None = None
    bundle_id: ShortText
    gallery_sequence: Count | None = None
    gallery: ShortText | None = None  # its generation
    slot: ShortText | None = None
    trial: ShortText | None = None  # it is on trial; None: it is confirmed


class Try(Document):
    """How a try of a release ended. Only `confirmed` is a success."""

    release: Sequence
    bundle_id: ShortText
    gallery_sequence: Count = 0
    outcome: Ended
    trial: ShortText | None = None  # None: there was none, because the pair was confirmed already or never switched to
    plan: ShortText | None = None
    reason: Text | None = None
    at: UnixSeconds


class Quarantined(Document):
    """A release that is held back on this device."""

    release: Sequence
    reason: Text
    until: UnixSeconds | None = None  # None: until a newer one or a person comes


class Reported(Document):
    """The whole state of a device. A newer report replaces an older one; the tries of a lost one are in the next."""

    kind: ClassVar[str] = "report"

    schema_name: Literal["finesight.reported/1"] = Field(default="finesight.reported/1", alias="schema")
    device: Name
    line: Name
    labels: Labels  # with device, group and line
    site: ShortText | None = None  # of its configuration, for its own topics
    epoch: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]  # another one: the device lost its numbers
    revision: Sequence  # increases with every report of an epoch
    at: UnixSeconds  # the device's clock
    state: ShortText  # of the agent, such as idle, fetch or trial
    since: UnixSeconds | None = None
    reason: Text | None = None  # why it waits or failed
    target: Sequence | None = None  # the release that it turns to
    plan: ShortText | None = None  # that brought it
    waits_for_turn: bool = False  # ready to switch, see Plan.max_unavailable
    running: Running | None = None  # None: nothing is active
    serves: bool = False  # `edge run` runs
    tries: Annotated[list[Try], Field(default_factory=list, max_length=MOST_TRIES)]  # the newest first
    quarantine: Annotated[list[Quarantined], Field(default_factory=list, max_length=MOST_HELD)]
    engine: Text | None = None  # the inference engine that serves
    cameras: Annotated[dict[ShortText, ShortText], Field(default_factory=dict, max_length=MOST_CAMERAS)]  # states
    fps: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    versions: Annotated[dict[ShortText, ShortText], Field(default_factory=dict, max_length=16)]
    counters: Annotated[dict[ShortText, Count], Field(default_factory=dict, max_length=MOST_COUNTERS)]
    config: Text | None = None  # the configuration fragment in use, name and revision
    expires_at: UnixSeconds | None = None  # of the signed metadata
    allowed: Annotated[list[ShortText], Field(default_factory=list, max_length=32)]  # commands that it takes
    problem: Text | None = None


class Desired(Document):
    """Something new is in the repository."""

    kind: ClassVar[str] = "doorbell"

    schema_name: Literal["finesight.desired/1"] = Field(default="finesight.desired/1", alias="schema")
    line: Name
    revision: Sequence  # version of the repository's timestamp; a device ignores what is not above the last it had


class Turn(Document):
    """A device may switch to a release now, see Plan.max_unavailable."""

    kind: ClassVar[str] = "turn"

    schema_name: Literal["finesight.turn/1"] = Field(default="finesight.turn/1", alias="schema")
    device: Name
    release: Sequence
    plan: ShortText


class Request(Document):
    """A command to a device; its verb is in the topic."""

    kind: ClassVar[str] = "command"

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,80}$")]
    by: Person  # for the audit
    at: UnixSeconds  # when it was ordered; an old one is refused
    until: UnixSeconds | None = None  # the fleet's server keeps it so long for a device that is off; None: it does not
    arguments: Annotated[dict[ShortText, Any], Field(default_factory=dict, max_length=16)]


class Answer(Document):
    """What became of a command."""

    kind: ClassVar[str] = "answer"

    schema_name: Literal["finesight.answer/1"] = Field(default="finesight.answer/1", alias="schema")
    device: Name
    id: Annotated[str, Field(max_length=80)]
    verb: ShortText
    by: Person
    state: Literal["accepted", "done", "refused", "failed"]  # accepted: it goes on; another answer follows
    text: Annotated[str, Field(max_length=1000)] = ""
    result: Annotated[dict[str, Any], Field(default_factory=dict)]
    at: UnixSeconds


class DeviceRow(Document):
    """A device as the fleet's server knows it."""

    kind: ClassVar[str] = "device"

    device: Name
    line: Name
    labels: Labels
    first_seen: UnixSeconds  # the server's clock, as below
    last_seen: UnixSeconds  # its last report
    available: bool | None = None  # what the broker says of its connection; None: not known
    reported: Reported
    tries: Annotated[list[Try], Field(default_factory=list, max_length=MOST_KNOWN_TRIES)]  # of all reports


def line_topic(line: str, prefix: str = PREFIX) -> str:
    """Return the topic that wakes the devices of a line."""
    return f"{prefix}/line/{line}/desired"


def device_topic(device_id: str, leaf: str, prefix: str = PREFIX) -> str:
    """Return a topic of one device."""
    return f"{prefix}/device/{device_id}/{leaf}"
