"""Pulls a release to a device: reads what is signed, erases what is deleted, fetches, verifies and stages the rest.

    refresh -> read -> erase -> fetch -> stage

Each step is a function of its own, which an agent calls when its policy allows; `pull` is all of them, for a person.

Rules this module keeps:
1. What serves never changes, but for urgent deletions; `edge.bundle.slots.activate` is a separate step.
2. Urgent deletions are applied before a release is judged, and also when it is refused.
3. Nothing is installed before all of the release is verified, and fits together: see `gallery_sync.device.fetch`.
4. A damaged state folder is repaired, not refused: what is missing or wrong is installed again.
5. Where nothing changed since the last complete pull, one small request says so.
6. A device that stays where it is, such as a pinned one, has nothing to pull: that is no error.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.bundle import slots
from edge.bundle.active_pointer import ActivePointer, read_staged_pointer
from edge.bundle.change_lock import changing
from edge.bundle.pairs import Pair, open_pair, open_slot, read_pointer_or_none
from edge.durable import set_aside, write_durably
from edge.errors import FinesightError, SyncError
from gallery_sync.command_line import utc_now
from gallery_sync.device.erase import Eraser
from gallery_sync.device.erased import Erasure, categories_on
from gallery_sync.device.fetch import Options, cache_folder, clear_cache, fetch
from gallery_sync.device.identity import NOBODY, Identity
from gallery_sync.device.last_release import active_sequence, newest_sequence
from gallery_sync.device.root_of_trust import keep_root, repair_root
from gallery_sync.device.security_floor import raise_security_floor, read_security_floor
from gallery_sync.device.source import Source, open_source
from gallery_sync.device.stage import Staged, stage
from gallery_sync.device.state_folder import make_ready, one_pull
from gallery_sync.device.wanted import Known, RefusedError, Wanted, read_logs, read_wanted
from gallery_sync.formats.fields import Name
from gallery_sync.fresh_files import remove
from gallery_sync.transport.download import Retry, Transport
from gallery_sync.transport.errors import ReleaseError, StorageError

log = logging.getLogger(__name__)

RECORD_NAME = "pulled.json"


@dataclass(frozen=True, slots=True)
class PullResult:
    """The result of a pull."""

    line: str
    sequence: int  # sequence number of the release
    gallery_sequence: int
    slot: str
    bundle_id: str
    gallery: str  # generation
    security_floor: int  # of the bundle: raised when the release is confirmed
    downloaded_bytes: int
    repaired: int  # things in the state folder that were damaged
    erased: int  # items that urgent deletions took away
    serving: bool  # the release is already active, and not on trial
    waits: str | None = None  # why it is not what other devices take


class _Record(BaseModel):
    """The content of pulled.json: the last pull that came to its end."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    timestamp_sha256: str  # of the metadata that it read
    line: Name
    sequence: int
    gallery_sequence: int
    security_floor: int
    identity: str = ""  # hash of what rollouts select the device by
    waits: str | None = None


def pull(  # noqa: PLR0913  most have a default
    transport: Transport,
    state_dir: Path,
    root: bytes | None = None,
    *,
    line: str | None = None,
    retry: Retry | None = None,
    free_bytes: Callable[[Path], int] | None = None,
    options: Options = Options(),  # noqa: B008 - frozen
    now: Callable[[], datetime] = utc_now,
    labels: Mapping[str, str] | None = None,
) -> PullResult:
    """Fetch the release that this device takes, and stage it.

    Args:
        transport: reaches the repository, from `open_transport`.
        state_dir: state folder of the device.
        root: root of trust, for a device that was not enrolled; None: the one that it has.
        line: product line; None: that of the device or, if it has no release yet, the repository's.
        retry: attempts and waits of a request; None: as usual.
        free_bytes: returns the free space of the file system of a folder; None: asks the system.
        options: what the device allows.
        now: the system clock, UTC.
        labels: of its agent.yaml; None: there are none.

    Raises:
        TrustError: the signed metadata is expired, older than before, or not signed as it must be.
        RefusedError: the release is not for this device.
        SyncError: the network, the repository or the disk failed.
        BundleError: another change of the state folder does not end.
    """
    if free_bytes is not None:
        options = replace(options, resources=replace(options.resources, free_bytes=free_bytes))
    open_it = partial(open_source, transport, state_dir, root, line=line, retry=retry, now=now, labels=labels)
    return pull_source(open_it, state_dir, options, now)


def pull_source(
    open_it: Callable[[], Source],
    state_dir: Path,
    options: Options = Options(),  # noqa: B008 - frozen
    now: Callable[[], datetime] = utc_now,
) -> PullResult:
    """Fetch the newest release of a repository that is opened when the state folder is ready, as `pull` does."""
    with _map_disk_errors(state_dir), one_pull(state_dir):
        repairs = make_ready(state_dir, cache_folder(state_dir))
        source = open_it()
        pulled = _settled(source, state_dir, len(repairs)) or _pull(source, state_dir, options, now, len(repairs))
        if pulled.serving:
            raise_security_floor(state_dir, pulled.line, pulled.security_floor)
        clear_cache(state_dir)
    return pulled


def _pull(source: Source, state_dir: Path, options: Options, now: Callable[[], datetime], repaired: int) -> PullResult:
    source.client.refresh()
    keep_root(state_dir, source.root)
    try:
        wanted, erasure = read_and_erase(source, state_dir, options, now)
        staged = stage(fetch(wanted, source.objects, state_dir, options), state_dir)
    except RefusedError as error:
        clear_cache(state_dir)
        if error.reason == "stays" and (stays := _stays(source, state_dir, str(error), repaired)):
            return stays
        raise
    except (ReleaseError, StorageError):
        clear_cache(state_dir)  # what a wrong release left is of no use, and a full disk must not stay full
        raise
    source.client.prune_targets()
    settle(source, state_dir, wanted)
    return _result(wanted, staged, source.downloaded_bytes, repaired, sum(one.items for one in erasure.receipts))


def _stays(source: Source, state_dir: Path, why: str, repaired: int) -> PullResult | None:
    """Return the result for a device that stays at what is active; None: nothing is."""
    active, _ = read_pointer_or_none(state_dir)
    if active is None or active.release is None:
        return None
    release, line = active.release, source.line
    return PullResult(
        line,
        release.sequence,
        release.gallery_sequence or 0,
        active.slot,
        active.bundle_id,
        active.gallery,
        read_security_floor(state_dir, line),
        source.downloaded_bytes,
        repaired,
        0,
        active.trial is None,
        why,
    )


def known(
    state_dir: Path, line: str, identity: Identity = NOBODY, now: datetime | None = None, begun: int = 0
) -> Known:
    """Return what a device had of a line, and who it is.

    Args:
        state_dir: of the device.
        line: that it follows.
        identity: of the device.
        now: for deadlines; None: the system clock's.
        begun: sequence number of the release that it is preparing; 0: none.
    """
    return Known(
        line,
        newest_sequence(state_dir, line),
        read_security_floor(state_dir, line),
        active_sequence(state_dir, line),
        begun,
        identity,
        now or utc_now(),
    )


def read_and_erase(
    source: Source, state_dir: Path, options: Options, now: Callable[[], datetime]
) -> tuple[Wanted, Erasure]:
    """Read the release that the device takes, and apply the urgent deletions, also if the release is refused.

    Raises:
        RefusedError: the release is not for this device.
        SyncError: a document is wrong, or the network or the disk failed.
        BundleError: another change of the state folder does not end.
    """
    try:
        had = known(state_dir, source.line, source.identity, now())
        wanted = read_wanted(source.client, source.objects, had)
    except ReleaseError:
        erase(source, state_dir, options, now, None)
        raise
    return wanted, erase(source, state_dir, options, now, wanted)


def erase(
    source: Source, state_dir: Path, options: Options, now: Callable[[], datetime], wanted: Wanted | None
) -> Erasure:
    """Apply the urgent deletions to every gallery on a device. Metadata must have been refreshed.

    Args:
        source: the repository.
        state_dir: of the device.
        options: what the device allows.
        now: the time, UTC.
        wanted: the newest release, whose bundle may allow large changes; None: it is refused or not known.

    Raises:
        SyncError: a document is wrong, or the network or the disk failed.
        BundleError: another change of the state folder does not end.
    """
    read = wanted.logs if wanted else {}
    others = [category for category in categories_on(state_dir) if category not in read]
    logs = {**read_logs(source.client, source.line, others), **read}
    eraser = Eraser(state_dir, source.objects, now, options.counts, options.cap)
    return eraser.run(logs, wanted.head.big_change_to if wanted else 0)


def settle(source: Source, state_dir: Path, wanted: Wanted) -> None:
    """Remember that everything that is signed now was dealt with.

    Raises:
        OSError: the disk failed.
    """
    if (trusted := source.trusted()) is None:
        return
    path, release = state_dir / RECORD_NAME, wanted.release
    record = _Record(
        timestamp_sha256=trusted,
        line=release.line,
        sequence=release.sequence,
        gallery_sequence=release.gallery_sequence,
        security_floor=wanted.head.security_floor,
        identity=source.identity.sha256,
        waits=wanted.waits,
    )
    set_aside(path)
    remove_folder(path.with_name(f"{path.name}.partial"))
    write_durably(path, json.dumps(record.model_dump()).encode() + b"\n")


def remove_folder(path: Path) -> None:
    """Remove a folder that has the name of a file.

    Raises:
        OSError: it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        remove(path)


def _settled(source: Source, state_dir: Path, repaired: int) -> PullResult | None:
    """Return the result of the last pull if nothing changed since: here, or in the repository."""
    try:
        record = _Record.model_validate_json((state_dir / RECORD_NAME).read_bytes())
    except (OSError, ValidationError, RecursionError):
        return None
    if (record.timestamp_sha256, record.line, record.identity) != (
        source.trusted(),
        source.line,
        source.identity.sha256,
    ):
        return None
    pair = _whole_pair_of(record, state_dir)
    if pair is None or not source.client.unchanged():
        return None
    repair_root(state_dir, source.root)
    pointer, serving = pair
    return PullResult(
        record.line,
        record.sequence,
        record.gallery_sequence,
        pointer.slot,
        pointer.bundle_id,
        pointer.gallery,
        record.security_floor,
        source.downloaded_bytes,
        repaired,
        0,
        serving and pointer.trial is None,
        record.waits,
    )


def _whole_pair_of(record: _Record, state_dir: Path) -> tuple[ActivePointer, bool] | None:
    """Return the active or staged pair of a release if it is whole, and whether it is active."""
    active, _ = read_pointer_or_none(state_dir)
    staged, wrong = read_pointer_or_none(state_dir, read_staged_pointer)
    if wrong:
        return None
    for pointer, serving in ((active, True), (staged, False)):
        release = pointer.release if pointer else None
        if pointer is None or release is None:
            continue
        if (release.line, release.sequence, release.gallery_sequence) == (
            record.line,
            record.sequence,
            record.gallery_sequence,
        ):
            with suppress(FinesightError, OSError):
                if not open_pair(state_dir, Pair.of(pointer))[2]:
                    return pointer, serving
    return None


def _result(wanted: Wanted, staged: Staged, downloaded: int, repaired: int, erased: int) -> PullResult:
    release, pointer = wanted.release, staged.pointer
    return PullResult(
        release.line,
        release.sequence,
        release.gallery_sequence,
        pointer.slot,
        pointer.bundle_id,
        pointer.gallery,
        wanted.head.security_floor,
        downloaded,
        repaired,
        erased,
        staged.serving and pointer.trial is None,
        wanted.waits,
    )


def activate_pulled(state_dir: Path, pulled: PullResult) -> PullResult:
    """Prove and activate what a pull staged. A person who does this confirms it.

    Raises:
        BundleError: the pair does not pass its proof here, or its slot was filled with another bundle meanwhile.
        GalleryError: the gallery does not pass.
        EngineError: a model cannot be loaded or run on this machine.
    """
    with changing(state_dir, f"activating release {pulled.sequence}"):
        open_slot(state_dir, pulled.slot, pulled.bundle_id)
        slots.activate(state_dir, pulled.slot, pulled.gallery)
        raise_security_floor(state_dir, pulled.line, pulled.security_floor)
    return replace(pulled, serving=True)


@contextmanager
def _map_disk_errors(state_dir: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        own = f"; give the folder to this user: chown -R USER {state_dir}" if error.filename else ""
        raise SyncError(f"{error.filename or state_dir}: cannot read or write: {error.strerror}{own}") from error
    except OSError as error:
        raise SyncError(f"{state_dir}: cannot read or write: {error.strerror or error}") from error
