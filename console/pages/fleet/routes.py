"""The devices of a fleet: counts, a table with filters, one device with its history and commands, and fragments."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from console.access import audit
from console.fleet.commands import VERBS, arguments_of, find_verb, read_command, why_not
from console.fleet.device_details import SentCommand, read_device
from console.fleet.devices import (
    DeviceFilter,
    DevicePage,
    DeviceView,
    failed_devices,
    read_page,
    read_summary,
)
from console.fleet.texts import clean
from console.pages.fleet import actions, rollouts
from console.web.routing import Answer, Call, Html, Values, api, page
from edge.errors import ConsoleError
from gallery_sync.formats.config import ConfigFragment

_ANSWER_S = 300.0  # after which nobody expects an answer to a command any more
_Found = TypeVar("_Found")
ShortText = Annotated[str, Field(max_length=120)]


class DevicesQuery(BaseModel):
    """Which devices to show."""

    line: ShortText = ""
    group: ShortText = ""
    label: Annotated[str, Field(max_length=1000)] = ""
    state: ShortText = ""
    release: Annotated[int, Field(ge=0, lt=10**15)] | None = None
    silent_s: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] | None = None
    begins: ShortText = ""
    after: ShortText = ""
    failed: bool = False

    def wanted(self) -> DeviceFilter:
        """Return it as the fleet's room takes it."""
        return DeviceFilter(
            self.line.strip(),
            self.group.strip(),
            self.label,
            self.state.strip(),
            self.release,
            self.silent_s,
            self.begins.strip(),
        )


class DeviceQuery(BaseModel):
    """Which device."""

    device: ShortText


class CommandBody(BaseModel):
    """A command to one device."""

    model_config = ConfigDict(extra="forbid")

    verb: Annotated[str, Field(max_length=40)]
    argument: ShortText = ""


class DeviceValue(BaseModel):
    """A device, as its last report claims."""

    id: str
    line: str
    labels: dict[str, str]
    state: str
    reason: str
    release: int | None
    bundle: str
    gallery: int | None
    on_trial: bool
    engine: str
    cameras: dict[str, str]
    connected: bool | None
    last_seen: float
    is_silent: bool
    has_failed: bool


class DevicesValue(BaseModel):
    """A page of devices."""

    devices: list[DeviceValue]
    next: str | None  # give it as `after`; null: these were the last
    unreadable: int  # reports that were left out


class CommandValue(BaseModel):
    """A command, and what became of it."""

    id: str
    verb: str
    state: str
    text: str
    is_waiting: bool


class SentValue(BaseModel):
    """A command that was sent."""

    id: str


def _devices_page(call: Call) -> Answer:
    fleet, query = call.services.fleet, call.query
    summary, problem = attempt(lambda: read_summary(fleet.reader))
    shown: DevicePage | None = None
    if not problem:
        shown, problem = attempt(lambda: _shown(call, query))
    values = {
        "summary": summary,
        "problem": problem,
        "page": shown,
        "query": query,
        "is_filtered": bool(query.model_dump(exclude={"after"}, exclude_defaults=True)),
        "next": _address(query, shown.next_device) if shown and shown.next_device else "",
        "first": _address(query, ""),
        "silences": ((3600, "an hour"), (7200, "2 hours"), (86400, "a day"), (604800, "a week")),
        "now_s": call.now_s,
    }
    return Html("fleet/devices.html", values)


def _shown(call: Call, query: DevicesQuery) -> DevicePage:
    fleet = call.services.fleet
    if not query.failed:
        return read_page(fleet.reader, query.wanted(), query.after, call.now_s)
    known = fleet.known.get(wait_s=2.0)
    if known.rows is None:
        raise ConsoleError("busy", known.problem or "the devices are being read; look again in a moment")
    return DevicePage(tuple(failed_devices(known.rows, call.now_s)), None, known.rows.unreadable)


def _address(query: DevicesQuery, after: str) -> str:
    """Return the address of another page of the same devices."""
    from urllib.parse import urlencode

    found = query.model_dump(exclude={"after"}, exclude_defaults=True) | ({"after": after} if after else {})
    return f"/fleet?{urlencode(found)}" if found else "/fleet"


def _device_page(call: Call) -> Answer:
    fleet, name = call.services.fleet, call.path["device"]
    details, problem = attempt(lambda: read_device(fleet.reader, name, call.now_s))
    values: dict[str, Any] = {"name": clean(name, 80), "details": details, "problem": problem, "verbs": ()}
    if details is not None:
        fragments, _ = attempt(fleet.signed.fragments)
        names = [one.name for one in fragments or [] if isinstance(one, ConfigFragment)]
        values["verbs"] = [(verb, why_not(verb, details.device)) for verb in VERBS]
        values |= {"fragments": names, **_commands(call, details.commands)}
    return Html("fleet/device.html", values)


def _commands_part(call: Call) -> Answer:
    details = read_device(call.services.fleet.reader, call.query.device, call.now_s)
    return Html("fleet/parts/commands.html", {"name": details.device.id, **_commands(call, details.commands)})


def _commands(call: Call, commands: tuple[SentCommand, ...]) -> dict[str, Any]:
    """Return commands, and whether an answer to one may still come."""
    young = [one for one in commands if one.is_waiting and one.at is not None and call.now_s - one.at < _ANSWER_S]
    return {"commands": commands, "expected": {one.id for one in young}}


def _list_devices(call: Call) -> Answer:
    found = read_page(call.services.fleet.reader, call.query.wanted(), call.query.after, call.now_s)
    devices = [_value(one) for one in found.devices]
    return Values(DevicesValue(devices=devices, next=found.next_device, unreadable=found.unreadable))


def _get_device(call: Call) -> Answer:
    return Values(_value(read_device(call.services.fleet.reader, call.path["device"], call.now_s).device))


def _value(one: DeviceView) -> DeviceValue:
    return DeviceValue(**{name: getattr(one, name) for name in DeviceValue.model_fields})


def _send(call: Call) -> Answer:
    fleet, name = call.services.fleet, call.path["device"]
    verb = find_verb(call.body.verb)
    arguments = arguments_of(verb, call.body.argument.strip())
    device = read_device(fleet.reader, name, call.now_s).device
    if reason := why_not(verb, device):
        raise ConsoleError("invalid", f"{device.id} would refuse {verb.name}: {reason}")
    if verb.argument == "camera" and arguments["camera"] not in device.cameras:
        raise ConsoleError("invalid", f"{device.id} has no camera {clean(arguments['camera'], 60)!r}")
    sent = fleet.reader.send(device.id, verb.name, arguments, call.user.name[:80])
    with call.services.database.write() as rows:
        audit.record(rows, call.now_s, call.user.name, "fleet.command", device.id, verb=verb.name, id=sent)
    return Values(SentValue(id=sent), says=f"{verb.name} was sent to {device.id}", go=f"/fleet/devices/{device.id}")


def _command(call: Call) -> Answer:
    found = read_command(call.services.fleet.reader, call.path["command"])
    return Values(CommandValue(**{name: getattr(found, name) for name in CommandValue.model_fields}))


def _fragments_page(call: Call) -> Answer:
    found, problem = attempt(call.services.fleet.signed.fragments)
    shown = [one for one in found or [] if isinstance(one, ConfigFragment)]
    damaged = [clean(one) for one in found or [] if isinstance(one, str)]
    values = [(one, json.dumps(one.values, indent=2, ensure_ascii=False)) for one in shown]
    repo = call.services.settings.repository
    return Html("fleet/fragments.html", {"fragments": values, "damaged": damaged, "problem": problem, "repo": repo})


def attempt(read: Callable[[], _Found]) -> tuple[_Found | None, str]:
    """Return what was read, or what is wrong and how to mend it: a page shows the rest."""
    try:
        return read(), ""
    except ConsoleError as error:
        return None, str(error)


ROUTES = (
    page("/fleet", "viewer", _devices_page, DevicesQuery),
    page("/fleet/devices/{device}", "viewer", _device_page),
    page("/parts/fleet/commands", "viewer", _commands_part, DeviceQuery),
    page("/fleet/fragments", "viewer", _fragments_page),
    *rollouts.ROUTES,
    api("GET", "/fleet/devices", "viewer", _list_devices, "A page of devices", query=DevicesQuery, answer=DevicesValue),
    api("GET", "/fleet/devices/{device}", "viewer", _get_device, "One device", answer=DeviceValue),
    api(
        "POST",
        "/fleet/devices/{device}/commands",
        "operator",
        _send,
        "Send a command to a device",
        body=CommandBody,
        answer=SentValue,
    ),
    api(
        "GET",
        "/fleet/commands/{command}",
        "viewer",
        _command,
        "A command, and what the device answered",
        answer=CommandValue,
    ),
    *actions.ROUTES,
)
