"""Whether a command may be carried out: pure.

Rules this module keeps:
1. What `agent.yaml` does not allow is refused, whoever asks.
2. A command from long ago is refused where the clock of the device can be trusted, unless the fleet's server kept it
   for this device. Such a one is refused if the device could have carried it out and forgotten that. Elsewhere, its id
   and that no retained command is taken must do.
3. Whatever arrives is read as far as an answer needs it: its id and who sent it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from edge.errors import first_validation_error, one_line
from edge.strict_json import parse_json
from gallery_sync.formats.reports import LARGEST_REQUEST_BYTES, Request
from gallery_sync.remote_hands.permission import ELSEWHERE, VERBS, Commands

OLDEST_S = 600.0  # of a command, in either direction
_NOBODY = "unknown"


@dataclass(frozen=True, slots=True)
class Refused:
    """A command that is not carried out."""

    id: str  # as far as it could be read
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Now:
    """The time of a device."""

    at: float  # Unix seconds, its clock
    floor: float  # Unix seconds: it is later, as something signed says

    @property
    def is_trusted(self) -> bool:
        """Whether the clock can be right."""
        return self.at >= self.floor


def read_request(payload: bytes) -> Request | Refused:
    """Read a command."""
    if len(payload) > LARGEST_REQUEST_BYTES:
        return Refused("", _NOBODY, f"the command is larger than {LARGEST_REQUEST_BYTES} bytes")
    try:
        content = parse_json(payload, LARGEST_REQUEST_BYTES)
    except ValueError as error:
        return Refused("", _NOBODY, f"the command is not JSON: {one_line(str(error))}")
    try:
        return Request.model_validate(content)
    except ValidationError as error:
        fields = content if isinstance(content, dict) else {}
        told = first_validation_error(error)
        return Refused(_text(fields, "id"), _text(fields, "by") or _NOBODY, f"this is no command: {told}")


def why_not(verb: str, request: Request, commands: Commands, now: Now, remembers_from: float = 0.0) -> str | None:
    """Return why a command is not carried out; None: it is.

    Args:
        verb: of the command.
        request: the command.
        commands: what the device allows.
        now: the time of the device.
        remembers_from: Unix seconds; what the device carried out earlier, it may have forgotten.
    """
    if verb == ELSEWHERE:
        return "`edge run` restarts cameras, on its own topic <root>/<site>/<device>/cmd/restart_camera; send it there"
    if verb not in VERBS:
        return f"the verb {one_line(verb)!r} is unknown; use one of {', '.join(VERBS)}"
    if verb not in commands.allow:
        return f"this device does not allow {verb}; add it to commands.allow in its agent.yaml, and restart the agent"
    return _why_too_old(request, now, remembers_from) if now.is_trusted else None


def _why_too_old(request: Request, now: Now, remembers_from: float) -> str | None:
    if abs(now.at - request.at) <= OLDEST_S:
        return None
    if request.until is None or not request.at < now.at <= request.until:
        return (
            f"the command is of another time: found {request.at:.0f}, and it is {now.at:.0f} here; expected at most "
            f"{OLDEST_S:.0f} s in between; check the clocks, and send it again"
        )
    if request.at <= remembers_from + OLDEST_S:
        return "this device does not remember whether it has carried this command out; send it again"
    return None


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return one_line(value[:80])[:80] if isinstance(value, str) else ""
