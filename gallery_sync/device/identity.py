"""Who a device is, as rollouts select it: its id and labels from the enrolment, and labels of its own `agent.yaml`.

Rules this module keeps:
1. The labels device, group and line come from the enrolment alone.
2. A device that is not enrolled has no id and the label line alone; it follows the base.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gallery_sync.formats.enrolment import Enrolment
from gallery_sync.formats.rollouts import LINE, MOST_LABELS, RESERVED_LABELS, LabelKey, LabelValue
from gallery_sync.trust.enrolment_file import read_enrolment


def _check_own(labels: dict[str, str]) -> dict[str, str]:
    if reserved := sorted(RESERVED_LABELS & labels.keys()):
        raise ValueError(f"found the label {reserved[0]}, which comes from the enrolment; choose another name")
    return labels


OwnLabels = Annotated[dict[LabelKey, LabelValue], Field(max_length=MOST_LABELS), AfterValidator(_check_own)]


class _LabelsFile(BaseModel):
    """What this module reads of agent.yaml."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    labels: OwnLabels = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Identity:
    """A device, as rollouts see it."""

    device_id: str | None = None  # None: it is not enrolled
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """A hash of it."""
        return hashlib.sha256(json.dumps([self.device_id, sorted(self.labels.items())]).encode()).hexdigest()


NOBODY = Identity()


def read_own_labels(path: Path, *, must_exist: bool = False) -> dict[str, str]:
    """Read the labels of agent.yaml; none if the file is missing and need not exist.

    Raises:
        ConfigError: it cannot be read, or its labels are wrong.
    """
    from edge.config.yaml_file import load_typed

    if not must_exist and not path.exists():
        return {}
    return load_typed(path, _LabelsFile).labels


def identity_of(enrolment: Enrolment | None, line: str, own: Mapping[str, str] | None = None) -> Identity:
    """Return who a device is.

    Args:
        enrolment: of the device; None: it is not enrolled.
        line: that it follows.
        own: labels of its agent.yaml, which win over those of the enrolment.
    """
    if enrolment is None:
        return Identity(None, {LINE: line})
    reserved = {key: value for key, value in enrolment.all_labels().items() if key in RESERVED_LABELS}
    return Identity(enrolment.device_id, {**enrolment.labels, **(own or {}), **reserved, LINE: line})


def read_identity(state_dir: Path, line: str, own: Mapping[str, str] | None = None) -> Identity:
    """Read who a device is, see `identity_of`.

    Raises:
        SyncError: both copies of the enrolment are damaged.
    """
    return identity_of(read_enrolment(state_dir), line, own)
