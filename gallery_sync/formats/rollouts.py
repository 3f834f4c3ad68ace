"""The signed document of a line's rollouts: which devices may take a release that the others wait for.

    rollout/<line>.rollouts.json      Rollouts      role rollout

`Release` in `rollout/<line>.json` is the *base*: what every device of the line may run. A *plan* lets a part of the
devices take a newer release first, its *candidate*. A device computes by itself whether it belongs to that part: from
its id, its labels and this document. There are no lists of devices, and no server on the way.

A device of an earlier snapshot ignores this document and follows the base alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from edge.errors import first_validation_error
from edge.manifest.fields import Sha256
from gallery_sync.formats.documents import Release
from gallery_sync.formats.fields import Count, Document, Name, Sequence, Time

BUCKETS = 10_000
MOST_WAVES, MOST_TERMS, MOST_VALUES, MOST_SELECTORS, MOST_LABELS = 20, 20, 1000, 100, 32
MOST_PINS = MOST_GROUPS = MOST_HELD = 100
DEVICE, GROUP, LINE = "device", "group", "line"  # labels that every device carries, from its enrolment
RESERVED_LABELS = frozenset({DEVICE, GROUP, LINE})

LabelKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,39}$")]
LabelValue = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}$")]
Person = Annotated[str, Field(min_length=1, max_length=80)]
Percent = Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0.0, le=366 * 86400.0, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=400)]


class Term(Document):
    """A condition on one label."""

    key: LabelKey
    values: Annotated[list[LabelValue], Field(min_length=1, max_length=MOST_VALUES)]  # any of them
    is_not: bool = False  # none of them; a device without the label counts as having none of them

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether a device with these labels meets the condition."""
        return (labels.get(self.key) in self.values) != self.is_not


class Selector(Document):
    """Which devices: those that meet every term. Without a term: all."""

    terms: Annotated[list[Term], Field(default_factory=list, max_length=MOST_TERMS)]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether it selects a device with these labels."""
        return all(term.matches(labels) for term in self.terms)

    def __str__(self) -> str:
        """Return it as `parse_selector` reads it."""
        return ",".join(f"{one.key}{'!=' if one.is_not else '='}{'|'.join(one.values)}" for one in self.terms)


class Wave(Document):
    """A part of the selected devices. Each wave includes the ones before it; the first one is the canary."""

    buckets: Annotated[int, Field(strict=True, ge=1, le=BUCKETS)]  # devices whose bucket is smaller belong to it
    min_confirmed: Count = 1  # devices of it that must have confirmed before the next one opens
    soak_s: Seconds = 0.0  # that it must be open before the next one opens


class Gates(Document):
    """When a rollout stops by itself. Devices of all open waves count."""

    max_failed_percent: Percent = 0.0  # of the devices that should have taken the release; more stop the rollout
    max_silent_percent: Percent = 10.0  # likewise, of those that began and sent no report since
    silent_after_s: Seconds = 3600.0  # without a report, a device that began counts as silent


class Plan(Document):
    """A rollout that is under way."""

    id: Name
    release: Release  # the candidate, newer than the base
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]  # so that other devices are the canary next time
    selector: Selector = Selector(terms=[])
    exclude: Annotated[list[Selector], Field(default_factory=list, max_length=MOST_SELECTORS)]
    waves: Annotated[list[Wave], Field(min_length=1, max_length=MOST_WAVES)]
    open_waves: Count = 0  # 0: none yet
    opened_at: Time | None = None  # when the last of them opened
    state: Literal["running", "paused"] = "running"
    reason: Text | None = None  # why it is paused
    gates: Gates = Gates()
    windows: Annotated[list[str], Field(default_factory=list, max_length=50)]  # local time of the device; none: always
    max_unavailable: Annotated[int, Field(strict=True, ge=1, le=10**6)] | None = None  # devices that switch at a time
    unavailable_by: LabelKey = "site"  # the label whose value they share
    deadline: Time | None = None  # a device that did not begin until then does not begin
    abort_to: Sequence | None = None  # the release whose pair all return to if it is aborted; None: the base's
    planned_by: Person
    planned_at: Time
    approved_by: Person
    approved_at: Time

    @model_validator(mode="after")
    def _is_in_order(self) -> Plan:
        limits = [wave.buckets for wave in self.waves]
        if limits != sorted(set(limits)):
            raise ValueError("found waves that do not grow, expected each to include more than the one before")
        if self.open_waves > len(self.waves):
            raise ValueError(f"found {self.open_waves} open waves, expected at most {len(self.waves)}")
        return self

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Return whether the plan is for a device, in any wave."""
        return selects(self.selector, self.exclude, labels)

    def bucket(self, device_id: str) -> int:
        """Return the bucket of a device in this plan."""
        return bucket_of(self.salt, device_id)

    def open_buckets(self) -> tuple[str, int]:
        """Return the salt, and the bucket below which devices are in a wave that is open."""
        return self.salt, self.waves[self.open_waves - 1].buckets if self.open_waves else 0

    def wave_of(self, device_id: str) -> int | None:
        """Return the first wave of a device, from 0; None: it is in no wave."""
        bucket = self.bucket(device_id)
        return next((i for i, wave in enumerate(self.waves) if bucket < wave.buckets), None)


class Pin(Document):
    """Devices that stay at a release until they are unpinned. One that is newer already stays where it is."""

    selector: Selector
    release: Release
    by: Person
    at: Time
    reason: Text | None = None


class GroupRelease(Document):
    """A release that a rollout brought to a part of the devices; the newest of it and the base counts for them."""

    selector: Selector
    exclude: Annotated[list[Selector], Field(default_factory=list, max_length=MOST_SELECTORS)]
    release: Release
    plan: Name  # that brought it

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Return whether it is for a device."""
        return selects(self.selector, self.exclude, labels)


class Rollouts(Document):
    """All that differs from "every device runs the base"."""

    kind: ClassVar[str] = "rollouts"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    line: Name
    revision: Sequence  # increases with every change
    plan: Plan | None = None  # None: no rollout is under way
    pins: Annotated[list[Pin], Field(default_factory=list, max_length=MOST_PINS)]  # the first that matches counts
    groups: Annotated[list[GroupRelease], Field(default_factory=list, max_length=MOST_GROUPS)]
    held: Annotated[list[Release], Field(default_factory=list, max_length=MOST_HELD)]  # published, for no device yet
    audit: Sha256 | None = None  # of the line of the audit log that says who made this revision

    @field_validator("held")
    @classmethod
    def _are_distinct(cls, held: list[Release]) -> list[Release]:
        if len({one.sequence for one in held}) != len(held):
            raise ValueError("found a held release twice")
        return held

    def releases(self) -> list[Release]:
        """Return every release that it names."""
        of_plan = [self.plan.release] if self.plan else []
        return [*of_plan, *(one.release for one in self.pins), *(one.release for one in self.groups), *self.held]


def selects(selector: Selector, exclude: Iterable[Selector], labels: Mapping[str, str]) -> bool:
    """Return whether a selector selects a device with these labels, and no other one excludes it."""
    return selector.matches(labels) and not any(one.matches(labels) for one in exclude)


def bucket_of(salt: str, device_id: str) -> int:
    """Return the bucket of a device in a plan with this salt, 0 to 9999: as good as random, and the same each time."""
    digest = hashlib.sha256(f"{salt}:{device_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % BUCKETS


def rollouts_target(line: str) -> str:
    """Return the target path of the rollouts of a line."""
    return f"rollout/{line}.rollouts.json"


def parse_selector(text: str) -> Selector:
    """Parse a selector such as `group=lab|test,site!=berlin`; empty: all devices.

    Raises:
        ValueError: it is not written as one.
    """
    try:
        return Selector(terms=[_parse_term(part) for part in map(str.strip, text.split(",")) if part])
    except ValidationError as error:
        raise ValueError(first_validation_error(error)) from error


def _parse_term(text: str) -> Term:
    key, equals, values = text.partition("=")
    is_not = key.endswith("!")
    if not equals or not key.removesuffix("!") or not values:
        raise ValueError(f"found {text[:80]!r}, expected a selector such as group=lab|test or site!=berlin")
    return Term(key=key.removesuffix("!"), values=values.split("|"), is_not=is_not)
