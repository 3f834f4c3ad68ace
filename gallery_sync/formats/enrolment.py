"""The enrolment of a device: its id, its line, its group, its repository with the root of trust, its broker.

Rules this module keeps:
1. The root of trust is the one that its hash names.
2. Passwords are never part of a message.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from gallery_sync.formats.fields import Document, Name
from gallery_sync.formats.rollouts import DEVICE, GROUP, LINE, MOST_LABELS, LabelKey, LabelValue

Policy = Literal["online", "offline"]
Url = Annotated[str, Field(pattern=r"^(https?|file)://[!-~]{1,900}$")]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Plain = Annotated[str, Field(pattern=r"^[ !-&(-~]{1,200}$")]  # printable ASCII without ', so that any shell reads it


class Broker(Document):
    """The MQTT broker of a device, and its account there."""

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_-]{1,253}$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    tls: bool = False
    username: Plain
    password: Plain = Field(repr=False)


class Enrolment(Document):
    """What a device is given once."""

    kind: ClassVar[str] = "enrolment"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    device_id: Name
    line: Name
    group: Name | None = None
    labels: Annotated[dict[LabelKey, LabelValue], Field(default_factory=dict, max_length=MOST_LABELS)]  # such as site
    repository: Url
    policy: Policy = "online"
    root: Annotated[str, Field(max_length=512_000)]  # the signed root of trust, as text, byte by byte
    root_sha256: Hash
    broker: Broker | None = None

    @model_validator(mode="after")
    def _root_is_the_one_named(self) -> Enrolment:
        if hashlib.sha256(self.root.encode()).hexdigest() != self.root_sha256:
            raise ValueError("the root of trust does not match its hash")
        return self

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes this device another one, if it changes."""
        return self.device_id, self.line, self.root_sha256

    def all_labels(self) -> dict[str, str]:
        """Return the labels that rollouts select by: its own, and device, group and line."""
        group = {GROUP: self.group} if self.group else {}
        return {**self.labels, **group, DEVICE: self.device_id, LINE: self.line}
