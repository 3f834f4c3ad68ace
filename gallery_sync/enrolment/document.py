"""The text of a QR code that makes a device one of a fleet.

Two forms carry an enrolment. The *file* holds everything, see gallery_sync.formats.enrolment. The *text* holds the
address of the repository and the hash of the root of trust, which the device then fetches; with a claim token, also
the rest, which the device fetches sealed, see gallery_sync.enrolment.sealed.

Rules this module keeps:
1. A text is shorter than 500 characters, so that a QR code that a phone camera reads on a box can hold it.
2. Passwords and tokens are never part of a message.
3. Labels are part of a text as far as they fit into it. Where they do not, the claim brings them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar
from urllib.parse import parse_qsl, quote, urlencode

from pydantic import Field, ValidationError

from edge.errors import SyncError, first_validation_error
from gallery_sync.formats.enrolment import Hash, Policy, Url
from gallery_sync.formats.fields import Document, Name
from gallery_sync.formats.rollouts import MOST_LABELS, LabelKey, LabelValue

LARGEST_TEXT = 499  # characters
SCHEME = "finesight:enrol"
_KEYS = {"r": "repository", "v": "root_version", "h": "root_sha256", "i": "device_id", "l": "line", "g": "group"}


class Text(Document):
    """The content of a QR code."""

    kind: ClassVar[str] = "text of an enrolment"

    repository: Url
    root_version: Annotated[int, Field(ge=1)]
    root_sha256: Hash
    device_id: Name
    line: Name
    group: Name | None = None
    labels: Annotated[dict[LabelKey, LabelValue], Field(default_factory=dict, max_length=MOST_LABELS)]
    policy: Policy = "online"
    claim: Annotated[str, Field(pattern=r"^[A-Z2-7]{26}$")] | None = Field(default=None, repr=False)


def write_text(text: Text) -> str:
    """Return the text for a QR code.

    Raises:
        SyncError: it is too long.
    """
    fields = text.model_dump(exclude_none=True)
    pairs = [(short, str(fields[name])) for short, name in _KEYS.items() if name in fields]
    pairs += [("p", text.policy[:2])] if text.policy != "online" else []
    pairs += [("c", text.claim)] if text.claim else []
    labels = ",".join(f"{key}={value}" for key, value in sorted(text.labels.items()))
    written = _written([*pairs, ("t", labels)] if labels else pairs)
    if len(written) > LARGEST_TEXT and text.claim:
        written = _written(pairs)
    if len(written) > LARGEST_TEXT:
        raise SyncError(
            f"the text of {text.device_id} has {len(written)} characters, expected at most {LARGEST_TEXT}: too many "
            "for a QR code; use a shorter --url, fewer labels or --claims, or enrol from files"
        )
    return written


def _written(pairs: list[tuple[str, str]]) -> str:
    return f"{SCHEME}?{urlencode(pairs, quote_via=quote, safe='/:=,')}"


def read_text(written: str) -> Text:
    """Read the text of a QR code.

    Raises:
        SyncError: it is none.
    """
    scheme, _, query = written.strip().partition("?")
    if scheme != SCHEME or len(written) > 4 * LARGEST_TEXT:
        raise SyncError(f"this is no text of an enrolment; it starts with {SCHEME}?")
    try:
        pairs = parse_qsl(query, strict_parsing=True, max_num_fields=20)
        if len({key for key, _ in pairs}) != len(pairs):
            raise SyncError("the text of the enrolment names a field twice; scan it again")
        found: dict[str, object] = {_KEYS[key]: value for key, value in pairs if key in _KEYS}
        given = dict(pairs)
        labels = dict(one.split("=", 1) for one in given["t"].split(",")) if given.get("t") else {}
        found |= {"policy": "offline" if given.get("p") == "of" else "online", "claim": given.get("c")}
        return Text.model_validate(found | {"labels": labels})
    except ValidationError as error:
        told = first_validation_error(error).partition(":")[0]
        raise SyncError(f"the text of the enrolment is damaged: {told}; scan it again") from error
    except ValueError as error:
        raise SyncError("the text of the enrolment is damaged; scan it again") from error
