"""The JSON of hawkBit's Direct Device Integration (DDI), as far as this device reads and writes it.

Its shapes are those of hawkBit 1.1.0: `hawkbit-ddi-api` and `DdiRootController` of eclipse-hawkbit/hawkbit.

Rules this module keeps:
1. Whatever a server sends is a value of these types or one SyncError. Fields that are not used here are ignored.
2. No address of an answer is followed. A link only gives the number of an action or of a software module; addresses are
   made of `--url`.
3. A release is named by exactly one software module of an action, in one way. Otherwise nothing is.
4. The result `none` is never sent with `closed`: hawkBit would count it as success (its issue 3185).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError

from edge.errors import SyncError, one_line
from gallery_sync.adapters.device_view import Named
from gallery_sync.formats.fields import Document, ObjectRef, parse

LARGEST_ANSWER_BYTES = 1 << 20
LARGEST_NAME_BYTES = 64 << 10
RELEASE_NAME = "release.json"  # of an artifact that names a release: {"line": "shop", "sequence": 3}
RELEASE_KEY, LINE_KEY = "finesight.release", "finesight.line"  # metadata of a software module, visible to targets
USUAL_SLEEP_S, LEAST_SLEEP_S, MOST_SLEEP_S = 300.0, 10.0, 86400.0
MOST_DETAIL = 500  # characters of a message; hawkBit stores 512 in one piece
_ACTION = re.compile(r"/(deploymentBase|cancelAction)/([0-9]{1,18})(?:\?c=(-?[0-9]{1,11}))?$")
_MODULE = re.compile(r"/softwaremodules/([0-9]{1,18})/artifacts/release\.json$")
_ATTRIBUTE = re.compile(r"[a-zA-Z0-9_\-!@#$%^&*()+=\[\]{}|;:'\",.<>/\\?\s]{0,128}")

Text = Annotated[str, Field(max_length=4000)]
Execution = Literal["closed", "proceeding", "rejected", "downloaded"]
Finished = Literal["success", "failure", "none"]


class _Link(Document):
    href: Text


class _Links(Document):
    deployment: _Link | None = Field(default=None, alias="deploymentBase")
    cancel: _Link | None = Field(default=None, alias="cancelAction")
    config: _Link | None = Field(default=None, alias="configData")
    confirmation: _Link | None = Field(default=None, alias="confirmationBase")
    download: _Link | None = None
    download_http: _Link | None = Field(default=None, alias="download-http")


class _Polling(Document):
    sleep: Text | None = None


class _Config(Document):
    polling: _Polling | None = None


class _Base(Document):
    kind: ClassVar[str] = "answer of hawkBit"

    config: _Config | None = None
    links: _Links = Field(default=_Links(), alias="_links")


class _Hashes(Document):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None


class _Artifact(Document):
    filename: Text
    hashes: _Hashes = _Hashes()
    size: Annotated[int, Field(ge=0, lt=2**63)]
    links: _Links = Field(default=_Links(), alias="_links")


class _Metadata(Document):
    key: Text
    value: Text


class _Chunk(Document):
    name: Text = ""
    version: Text = ""
    artifacts: Annotated[list[_Artifact], Field(default_factory=list, max_length=10_000)]
    metadata: Annotated[list[_Metadata], Field(max_length=10_000)] | None = None


class _Deployment(Document):
    download: Text = "forced"
    update: Text = "forced"
    window: Text | None = Field(default=None, alias="maintenanceWindow")
    chunks: Annotated[list[_Chunk], Field(default_factory=list, max_length=10_000)]


class _DeploymentBase(Document):
    kind: ClassVar[str] = "deployment of hawkBit"

    id: Text
    deployment: _Deployment


class _Stop(Document):
    stop_id: Annotated[str, Field(alias="stopId", pattern=r"^[0-9]{1,18}$")]


class _Cancel(Document):
    kind: ClassVar[str] = "cancellation of hawkBit"

    action: _Stop = Field(alias="cancelAction")


@dataclass(frozen=True, slots=True)
class Poll:
    """What hawkBit wants of this device."""

    sleep_s: float  # until the next request
    deployment: str | None = None  # id of an action
    tag: str | None = None  # that hawkBit put into its link
    cancel: str | None = None  # id of an action that is to be cancelled
    wants_labels: bool = False
    wants_confirmation: bool = False  # a person must confirm the action first, in hawkBit


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """The artifact that names a release."""

    module: str  # id of the software module
    ref: ObjectRef


@dataclass(frozen=True, slots=True)
class Deployment:
    """An action."""

    may_download: bool
    may_install: bool
    download_only: bool  # it is done once everything is downloaded
    names: Named | ReleaseFile | str  # text: why it names none


def read_poll(data: bytes) -> Poll:
    """Read the answer to a poll.

    Raises:
        SyncError: it is none.
    """
    base = parse(_Base, data, "poll")
    deployment, tag = _action(base.links.deployment, "deploymentBase")
    cancel, _ = _action(base.links.cancel, "cancelAction")
    polling = base.config.polling if base.config else None
    return Poll(
        sleep_s=read_sleep(polling.sleep if polling else None),
        deployment=deployment,
        tag=tag,
        cancel=cancel,
        wants_labels=base.links.config is not None,
        wants_confirmation=base.links.confirmation is not None,
    )


def _action(link: _Link | None, kind: str) -> tuple[str | None, str | None]:
    if link is None:
        return None, None
    match = _ACTION.search(link.href)
    if match is None or match[1] != kind:
        raise SyncError(f"found the link {one_line(link.href[:200])!r}, expected …/{kind}/NUMBER")
    return match[2], match[3]


def read_sleep(text: str | None) -> float:
    """Return the seconds of a time such as 00:05:00, within 10 s and a day; the usual ones if it is no time."""
    match = re.fullmatch(r"([0-9]{1,3}):([0-9]{2}):([0-9]{2})", text or "")
    if match is None:
        return USUAL_SLEEP_S
    hours, minutes, seconds = map(int, match.groups())
    return min(max(3600.0 * hours + 60.0 * minutes + seconds, LEAST_SLEEP_S), MOST_SLEEP_S)


def read_deployment(data: bytes, action: str, line: str) -> Deployment:
    """Read an action.

    Args:
        data: the answer of hawkBit.
        action: its id.
        line: of this device.

    Raises:
        SyncError: it is none, or another one.
    """
    base = parse(_DeploymentBase, data, f"action {action}")
    if base.id != action:
        raise SyncError(f"action {action}: found the id {one_line(base.id[:40])!r}")
    one = base.deployment
    may_install = one.update in ("attempt", "forced") and one.window in (None, "available")
    return Deployment(
        may_download=one.download in ("attempt", "forced"),
        may_install=may_install and one.download in ("attempt", "forced"),
        download_only=one.update == "skip" and one.window is None and one.download in ("attempt", "forced"),
        names=_names(one.chunks, line),
    )


def _names(chunks: list[_Chunk], line: str) -> Named | ReleaseFile | str:
    found: list[Named | ReleaseFile | str] = []
    for chunk in chunks:
        values = {one.key: one.value for one in chunk.metadata or []}
        if RELEASE_KEY in values:
            found.append(_named(values[RELEASE_KEY], values.get(LINE_KEY, line)))
        found += [_release_file(one) for one in chunk.artifacts if one.filename == RELEASE_NAME]
    if len(found) == 1:
        return found[0]
    how = f"one artifact {RELEASE_NAME}, or the metadata {RELEASE_KEY}, visible to targets"
    return f"found {len(found)} names of a release in the software modules, expected {how}"


def _named(sequence: str, line: str) -> Named | str:
    try:
        return Named(line=line, sequence=int(sequence) if re.fullmatch(r"[0-9]{1,16}", sequence) else 0)
    except ValidationError:
        return f"{RELEASE_KEY} {one_line(sequence[:40])!r} of line {one_line(line[:80])!r} is no release"


def _release_file(artifact: _Artifact) -> ReleaseFile | str:
    sha256 = artifact.hashes.sha256
    link = artifact.links.download or artifact.links.download_http
    match = _MODULE.search(link.href) if link else None
    if sha256 is None or match is None:
        what = "without SHA-256" if sha256 is None else "that hawkBit itself does not serve"
        return f"found an artifact {RELEASE_NAME} {what}; name the release in the metadata {RELEASE_KEY}"
    if artifact.size > LARGEST_NAME_BYTES:
        return f"{RELEASE_NAME}: found {artifact.size} bytes, expected at most {LARGEST_NAME_BYTES}"
    return ReleaseFile(match[1], ObjectRef(sha256=sha256.lower(), size=artifact.size))


def read_named(data: bytes) -> Named:
    """Read the content of `release.json`; the document `rollout/LINE.json` of a repository is one, too.

    Raises:
        SyncError: it names no release.
    """
    return parse(Named, data, RELEASE_NAME)


def read_cancel(data: bytes) -> str:
    """Return the id of the action that is to be stopped.

    Raises:
        SyncError: it names none.
    """
    return parse(_Cancel, data, "cancelAction").action.stop_id


def feedback(execution: Execution, finished: Finished, text: str) -> dict[str, Any]:
    """Return a feedback. It has no time: hawkBit's own is better than that of a device without a clock.

    Raises:
        ValueError: it would close an action without a result.
    """
    if execution == "closed" and finished == "none":
        raise ValueError("an action is closed with success or failure")
    details = [one_line(text)[:MOST_DETAIL]] if text else []
    return {"status": {"execution": execution, "result": {"finished": finished}, "details": details}}


def labels_json(labels: dict[str, str]) -> dict[str, Any]:
    """Return the attributes of a device; what hawkBit would refuse is left out."""
    good = {key: value for key, value in labels.items() if _ATTRIBUTE.fullmatch(key) and _ATTRIBUTE.fullmatch(value)}
    return {"mode": "merge", "data": good}
