"""Pulls a release to a device: downloads missing files, verifies them, and stages the release in a slot that is free.

Rules this module keeps:
1. What serves never changes; `edge.bundle.slots.activate` is a separate step.
2. Only a release that follows the last one is accepted: see `gallery_sync.device.last_release`.
3. Nothing is installed before all of the release is verified, and fits together: see `gallery_sync.device.assemble`.
4. A damaged state folder is repaired, not refused: what is missing or wrong is installed again.
"""

from __future__ import annotations

import logging
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from edge.bundle import slots
from edge.bundle.active_pointer import (
    ActivePointer,
    ReleaseName,
    read_staged_pointer,
    write_active_pointer,
)
from edge.bundle.change_lock import changing
from edge.bundle.install import install_bundle, install_gallery
from edge.bundle.layout import STAGED
from edge.bundle.pairs import Pair, open_slot, read_pointer_or_none
from edge.errors import BundleError, SyncError
from gallery_sync.device.assemble import INCOMING_NAME, assemble
from gallery_sync.device.last_release import check_follows, read_last_release, write_last_release
from gallery_sync.device.plan import Plan, read_plan
from gallery_sync.device.state_folder import make_ready, one_pull
from gallery_sync.formats.fields import LARGEST_DOCUMENT_BYTES
from gallery_sync.formats.unsigned import RELEASE_NAME, Release
from gallery_sync.fresh_files import remove
from gallery_sync.transport.download import Fetcher, ReleaseError, Retry, StorageError, Transport

log = logging.getLogger(__name__)


class ReleaseVerifier(Protocol):
    """Verifies a release."""

    def verify(self, release_json: bytes, where: str) -> Release:
        """Return the release in these bytes, or raise SyncError."""
        ...


@dataclass(frozen=True, slots=True)
class Allowed:
    """What an operator allows on purpose."""

    line: str | None = None  # follow this product line from now on; None: that of the last release
    jump: bool = False  # accept a sequence number that is older or far newer


@dataclass(frozen=True, slots=True)
class PullResult:
    """The result of a pull."""

    line: str
    sequence: int  # sequence number of the release
    slot: str
    bundle_id: str
    gallery: str  # generation
    downloaded_bytes: int
    repaired: int  # things in the state folder that were damaged
    serving: bool  # the release is already active


def pull(
    transport: Transport,
    state_dir: Path,
    verifier: ReleaseVerifier,
    *,
    retry: Retry = Retry(attempts=5, sleep=time.sleep, jitter=random.random),  # noqa: B008 - frozen
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    allowed: Allowed = Allowed(),
) -> PullResult:
    """Download the newest release and stage it on this device.

    Args:
        transport: source of the repository files, from `open_transport`.
        state_dir: state folder of the device.
        verifier: verifies the release.
        retry: attempts and waits of a download.
        free_bytes: returns the free space of the file system of a folder.
        allowed: what the operator allows on purpose.

    Raises:
        SyncError: the network, the repository or the disk failed, or the release is not accepted.
        BundleError: another change of the state folder does not end.
    """
    cache = state_dir / "cache" / "sync"
    with _map_disk_errors(state_dir), one_pull(state_dir):
        repairs = make_ready(state_dir, cache)
        last = read_last_release(state_dir)
        if last.problem:
            known = f"release {last.sequence} is the last one known" if last.sequence else "no release is known"
            repairs.append(f"{state_dir / 'sync.json'}: {last.problem}; {known}")
            log.warning("%s", repairs[-1])
        fetcher = Fetcher(transport, cache, retry)
        try:
            where = f"{transport.base}/{RELEASE_NAME}"
            release = verifier.verify(fetcher.get_small(RELEASE_NAME, LARGEST_DOCUMENT_BYTES), where)
            check_follows(release, last, line=allowed.line, allow_jump=allowed.jump)
            pulled = _pull_release(release, fetcher, state_dir, cache, free_bytes, len(repairs))
        except (ReleaseError, StorageError):
            remove(cache)  # what a wrong release left is of no use, and a full disk must not stay full
            raise
        finally:
            with suppress(OSError):
                remove(cache / INCOMING_NAME)
        remove(cache)
    return pulled


@contextmanager
def _map_disk_errors(state_dir: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        own = f"; give the folder to this user: chown -R USER {state_dir}" if error.filename else ""
        raise SyncError(f"{error.filename or state_dir}: cannot read or write: {error.strerror}{own}") from error
    except OSError as error:
        raise SyncError(f"{state_dir}: cannot read or write: {error.strerror or error}") from error


def _pull_release(
    release: Release,
    fetcher: Fetcher,
    state_dir: Path,
    cache: Path,
    free_bytes: Callable[[Path], int],
    repaired: int,
) -> PullResult:
    plan = read_plan(fetcher, release)
    _remove_stale(cache, plan)
    bundle, gallery = assemble(plan, fetcher, state_dir, cache, free_bytes)
    pointer, serving = _install(plan, bundle.folder, gallery.folder, state_dir)
    log.info("release %s is ready: bundle %s, gallery %s", release.sequence, pointer.bundle_id, pointer.gallery)
    return PullResult(
        release.line,
        release.sequence,
        pointer.slot,
        pointer.bundle_id,
        pointer.gallery,
        fetcher.downloaded_bytes,
        repaired,
        serving,
    )


def _install(plan: Plan, bundle: Path, gallery: Path, state_dir: Path) -> tuple[ActivePointer, bool]:
    """Install and stage what is not yet installed; return what is staged or active, and whether it is active."""
    release = ReleaseName(line=plan.release.line, sequence=plan.release.sequence)
    with changing(state_dir, f"installing release {plan.release.sequence}"):
        slot = install_bundle(bundle, state_dir)
        generation = install_gallery(gallery, state_dir)
        active, _ = read_pointer_or_none(state_dir)
        if active is None or Pair.of(active) != Pair(slot, plan.manifest.bundle_id, generation):
            pointer, serving = slots.stage(state_dir, slot, generation, release=release), False
        else:
            pointer, serving = active.model_copy(update={"release": release}), True
            if active.release != release or _is_staged(state_dir):
                remove(state_dir / STAGED)
                write_active_pointer(state_dir, pointer)
        write_last_release(state_dir, plan.release)
    return pointer, serving


def activate_pulled(state_dir: Path, pulled: PullResult) -> PullResult:
    """Prove and activate what a pull staged.

    Raises:
        BundleError: the pair does not pass its proof here, or its slot was filled with another bundle meanwhile.
        GalleryError: the gallery does not pass.
        EngineError: a model cannot be loaded or run on this machine.
    """
    with changing(state_dir, f"activating release {pulled.sequence}"):
        open_slot(state_dir, pulled.slot, pulled.bundle_id)
        slots.activate(state_dir, pulled.slot, pulled.gallery)
    return replace(pulled, serving=True)


def _is_staged(state_dir: Path) -> bool:
    """Return whether anything is staged, readable or not."""
    try:
        return read_staged_pointer(state_dir) is not None
    except BundleError:
        return True


def _remove_stale(cache: Path, plan: Plan) -> None:
    """Delete downloads that this release does not need."""
    objects = (*plan.bundle_objects().values(), *plan.gallery_objects().values())
    wanted = {ref.sha256 for ref in objects}
    for path in cache.iterdir():
        if path.name.removesuffix(".part") not in wanted:
            remove(path)
