"""Commands to one device: what each does, said before it is sent, and what the device answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from console.fleet.device_details import SentCommand, command_view
from console.fleet.devices import DeviceView
from console.fleet.reader import FleetReader
from console.fleet.texts import as_object
from edge.errors import ConsoleError

RESTART_CAMERA = "restart_camera"
CONFIG = "config"


@dataclass(frozen=True, slots=True)
class Verb:
    """A command."""

    name: str
    title: str
    does: str  # in sentences, for a dialog
    is_disruptive: bool = False  # the device stops recognising, or runs something else afterwards
    argument: str = ""  # its name; empty: none
    is_optional: bool = False  # the argument


VERBS = (
    Verb("sync", "Look for a release now", "The device looks at the repository at once, not at its next poll. What "
         "follows is the same as always: windows, waves and trials are kept."),
    Verb("prove", "Prove what runs", "The device runs the probes of the pair that serves, in a process of its own. "
         "This takes up to some minutes of its processor. Nothing changes."),
    Verb("support-bundle", "Upload a support bundle", "The device packs its logs, numbers and configuration without "
         "secrets, and uploads them to the address that its own agent.yaml names."),
    Verb(RESTART_CAMERA, "Open a camera again", "The device closes one camera and opens it again. Nothing is "
         "recognised on it for some seconds, and the objects in view end.", is_disruptive=True, argument="camera"),
    Verb("activate", "Switch to what is staged", "The device proves the pair that is staged, and then switches to it. "
         "Recognition stops for a moment, and goes on with the new pair.", is_disruptive=True),
    Verb("rollback", "Go back to the pair before", "The device returns to the pair that it ran before, and holds back "
         "the release that it leaves until a newer one comes. Other devices are not touched.", is_disruptive=True),
    Verb(CONFIG, "Try a configuration fragment", "The device takes a signed fragment on trial, starts again with it, "
         "and returns to what it had if its cameras do not come back within two minutes. Without a fragment it "
         "returns to its own file.", is_disruptive=True, argument="name", is_optional=True),
)  # fmt: skip


def find_verb(name: str) -> Verb:
    """Return a verb by its name.

    Raises:
        ConsoleError: the console does not send it.
    """
    for one in VERBS:
        if one.name == name:
            return one
    raise ConsoleError("invalid", f"verb: expected one of {', '.join(one.name for one in VERBS)}")


def why_not(verb: Verb, device: DeviceView) -> str:
    """Return why a device would not take a command; empty: it would."""
    if verb.name == RESTART_CAMERA:
        return "" if device.cameras else "it reports no camera"
    if verb.name not in device.allowed:
        return "its agent.yaml does not allow it"
    return ""


def arguments_of(verb: Verb, argument: str) -> Mapping[str, object]:
    """Return the arguments of a command.

    Raises:
        ConsoleError: it needs one, or takes none.
    """
    if not verb.argument:
        if argument:
            raise ConsoleError("invalid", f"{verb.name} takes no argument")
        return {}
    if not argument and not verb.is_optional:
        raise ConsoleError("invalid", f"{verb.name}: say which {verb.argument}")
    return {verb.argument: argument or None}


def read_command(reader: FleetReader, command: str) -> SentCommand:
    """Return what became of a command.

    Raises:
        ConsoleError: there is none, or see FleetReader.
    """
    found = reader.command(command)
    answers = found.get("answers")
    known = [as_object(one) for one in answers] if isinstance(answers, list) else []
    return command_view(found, known[::-1])
