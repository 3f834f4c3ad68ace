"""An update module of Mender (protocol version 3): an artifact names a signed release, Mender says when.

    Download                 reads `release.json`, and `repository.tar` where the artifact brings a whole repository
    ArtifactInstall          permits the release, and waits until the agent switched to it, on trial
    ArtifactCommit           waits until the agent confirmed it
    ArtifactRollback         goes back, unless the agent did already, or never switched
    Cleanup                  withdraws the permit, and removes what was read

A failure is exit code 1, with one line that says why. Mender then rolls back, or marks the deployment as failed.
The protocol: Documentation/update-modules-v3-file-api.md of mendersoftware/mender (read at commit dc6ff6e).

Rules this module keeps:
1. An artifact names a release. Bytes are verified as those of any repository: Mender's checks prove nothing here.
2. Each state ends within a given time, which is shorter than Mender's own limit.
3. What was ordered is on the disk before anything changes, so a rollback after a power cut knows what to undo.
4. States and questions that are not known are answered with nothing, as the protocol demands.
5. What it changes in the state folder belongs to the owner of that folder, also where Mender runs it as root.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from edge.bundle import slots
from edge.bundle.prove import Prove
from edge.durable import make_folder, write_durably
from edge.errors import BundleError, EngineError, GalleryError, SyncError, one_line
from gallery_sync.adapters.device_view import DeviceView, Named, judge, line_of, read_view
from gallery_sync.adapters.mender_streams import LARGEST_NAME_BYTES, RELEASE_NAME, read_streams
from gallery_sync.device.permit import Permit, withdraw_permit, write_permit
from gallery_sync.formats.fields import Document, canonical_json, parse
from gallery_sync.fresh_files import read_regular, remove

log = logging.getLogger(__name__)

BY = "mender"
ORDER_NAME = "order.json"
SETTLE_S = 10.0  # that a permit is gone before the device is looked at: the agent may just have read it
_LOOK_S = 2.0
_ANSWERS = {"NeedsArtifactReboot": "No", "SupportsRollback": "Yes", "ProvidePayloadFileSizes": "Yes"}


class Order(Document):
    """What ArtifactInstall began with."""

    kind: ClassVar[str] = "order"

    named: Named
    ran_before: bool  # it was active already
    mark: Annotated[str, Field(max_length=4000)] | None = None  # of the newest try then


@dataclass(frozen=True, slots=True)
class Tools:
    """The doors to the world."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    prove: Prove | None = None  # of what a repository.tar brought; None: in a child process


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of the module."""

    folder: Path
    state_dir: Path
    wait_s: float
    tools: Tools

    @property
    def own(self) -> Path:
        """Where the module keeps what it needs from state to state; Mender removes it at the end."""
        return self.folder / "tmp" / "finesight"

    @property
    def brought(self) -> Path:
        """The repository that the artifact brought, if it did."""
        return self.state_dir / "cache" / "mender"

    @contextmanager
    def as_owner(self) -> Iterator[None]:
        """Be the account that owns the state folder: Mender is root, and what root wrote, the agent could not change.

        Raises:
            OSError: the folder is not there.
        """
        owner = self.state_dir.stat()
        if os.geteuid() != 0 or owner.st_uid == 0:
            yield
            return
        group = os.getegid()
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(group)


def script(state_dir: Path, wait_s: float) -> str:
    """Return the script that Mender runs: it calls this program, wherever it is installed."""
    program = shutil.which("edge-sync", path=Path(sys.executable).parent) or "edge-sync"
    options = f"--state-dir {shlex.quote(str(state_dir.absolute()))} --wait-s {wait_s:g}"
    return f'#!/bin/sh\nexec {shlex.quote(program)} mender {options} "$@"\n'


def call(
    step: str,
    folder: Path | None,
    state_dir: Path,
    *,
    wait_s: float,
    tools: Tools = Tools(),
) -> str | None:
    """Carry out one call; return what the module answers, None: nothing.

    Args:
        step: a state or a question.
        folder: that Mender prepared.
        state_dir: of the device.
        wait_s: the longest time that a state may take.
        tools: clock, waiting and proof.

    Raises:
        SyncError: the state failed.
    """
    states: dict[str, Callable[[_Call], None]] = {
        "Download": _download,
        "DownloadWithFileSizes": _download,
        "ArtifactInstall": _install,
        "ArtifactCommit": _commit,
        "ArtifactRollback": _roll_back,
        "Cleanup": _clean_up,
    }
    if step in states:
        if folder is None:
            raise SyncError(f"{step}: needs the folder that Mender prepared; Mender runs this command, not a person")
        try:
            states[step](_Call(folder, state_dir, wait_s, tools))
        except OSError as error:
            raise SyncError(f"{error.filename or folder}: {error.strerror or error}; free some space") from error
    return _ANSWERS.get(step)


def _download(this: _Call) -> None:
    read_streams(this.folder, this.own / RELEASE_NAME, this.brought, this.as_owner)
    _read_named(this)


def _read_named(this: _Call) -> Named:
    """Return the release that the artifact names: as Download kept it, or as Mender did."""
    for path in (this.own / RELEASE_NAME, this.folder / "files" / RELEASE_NAME):
        if path.is_file():
            return parse(Named, read_regular(path, LARGEST_NAME_BYTES), RELEASE_NAME)
    raise SyncError(f'the artifact has no {RELEASE_NAME}; it says {{"line": "shop", "sequence": 3}}')


def _install(this: _Call) -> None:
    """Permit the release, and wait until the device turned to it."""
    named, view = _read_named(this), read_view(this.state_dir)
    _check_line(this.state_dir, named, view)
    order = Order(named=named, ran_before=view.runs(named), mark=view.newest_mark)
    make_folder(this.own)
    write_durably(this.own / ORDER_NAME, canonical_json(order))
    if order.ran_before:
        return
    permit = Permit(line=named.line, sequence=named.sequence, by=BY, reference=_artifact(this))
    try:
        with this.as_owner():
            if this.brought.is_dir():
                _install_brought(this, named)
            write_permit(this.state_dir, permit)
        _wait(this, order, lambda view: view.runs(named), "the device did not switch to it")
    except SyncError:
        _withdraw(this)
        this.tools.sleep(SETTLE_S)
        if not read_view(this.state_dir).has_switched(named):
            raise
        log.warning("%s: the agent had switched already", named)


def _check_line(state_dir: Path, named: Named, view: DeviceView) -> None:
    line = line_of(state_dir, view)
    if line not in (None, named.line):
        raise SyncError(f"the artifact names {named}, and this device is of line {line}; assign it to other devices")


def _artifact(this: _Call) -> str:
    try:
        with (this.folder / "header" / "artifact_name").open("rb") as file:
            return one_line(file.read(100).decode("utf-8", "replace").strip())[:120]
    except OSError:
        return ""


def _install_brought(this: _Call, named: Named) -> None:
    """Pull the repository that the artifact brought, prove the release, and switch to it on trial.

    The agent adopts the trial, and judges it: the repository that it follows by itself may be out of reach.
    """
    from gallery_sync.device.pull import pull
    from gallery_sync.transport.repository_files import FolderTransport

    pulled = pull(FolderTransport(this.brought), this.state_dir, line=named.line)
    if pulled.sequence != named.sequence:
        raise SyncError(f"the artifact names {named}, and its repository has release {pulled.sequence}; make it again")
    if not pulled.serving:
        with _as_sync_error():
            trial = f"mender-{secrets.token_hex(8)}"
            slots.activate(this.state_dir, pulled.slot, pulled.gallery, this.tools.prove, trial)


@contextmanager
def _as_sync_error() -> Iterator[None]:
    try:
        yield
    except (BundleError, GalleryError, EngineError) as error:
        raise SyncError(str(error)) from error


def _commit(this: _Call) -> None:
    order = _read_order(this)
    if order is None:
        raise SyncError("nothing was installed here, so nothing can be committed")
    _wait(this, order, lambda view: judge(view, order.named, order.mark).kind == "confirmed", "nobody confirmed it")


def _read_order(this: _Call) -> Order | None:
    try:
        return parse(Order, read_regular(this.own / ORDER_NAME, LARGEST_NAME_BYTES), ORDER_NAME)
    except FileNotFoundError:
        return None


def _wait(this: _Call, order: Order, is_done: Callable[[DeviceView], bool], what: str) -> None:
    """Wait for a device.

    Raises:
        SyncError: the release failed, or the time is over.
    """
    end_s = this.tools.monotonic() + this.wait_s
    while not is_done(view := read_view(this.state_dir)):
        verdict = judge(view, order.named, order.mark)
        if verdict.kind == "failed":
            raise SyncError(verdict.text)
        if this.tools.monotonic() >= end_s:
            raise SyncError(f"{what} within {this.wait_s:.0f} s; {verdict.text}")
        this.tools.sleep(_LOOK_S)


def _roll_back(this: _Call) -> None:
    """Go back, unless the device never switched, or is back already."""
    order = _read_order(this)
    if order is None or order.ran_before:
        return
    if _withdraw(this):
        this.tools.sleep(SETTLE_S)
    end_s = this.tools.monotonic() + this.wait_s
    while not _is_back(this, order.named):
        if this.tools.monotonic() >= end_s:
            raise SyncError(f"{order.named} still serves after {this.wait_s:.0f} s; run: edge bundle rollback")
        this.tools.sleep(_LOOK_S)  # the agent is about to switch


def _is_back(this: _Call, named: Named) -> bool:
    """Go back if a release is active; return whether it is not, and will not be."""
    view = read_view(this.state_dir)
    if view.runs(named):
        try:
            with this.as_owner():
                slots.rollback(this.state_dir)
        except (BundleError, GalleryError) as error:
            if read_view(this.state_dir).runs(named):
                raise SyncError(f"cannot go back: {error}") from error
        return True
    return not view.is_at(named, frozenset({"switch"}))


def _withdraw(this: _Call) -> bool:
    with this.as_owner():
        return withdraw_permit(this.state_dir, BY)


def _clean_up(this: _Call) -> None:
    _withdraw(this)
    with this.as_owner():
        remove(this.brought)
    remove(this.own)
