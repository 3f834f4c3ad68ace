"""The steps of the agent that ask the repository: check, erase, fetch, verify and stage; the others are local.

Rules this module keeps:
1. A step that another process left unfinished is done again from what is on the disk: nothing is downloaded twice.
2. Each go of a download ends after a few minutes, so that urgent deletions and newer releases are seen meanwhile.
3. One process at a time changes downloads: a manual pull makes the agent wait.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edge.bundle.pairs import read_pointer_or_none
from edge.bundle.prove import Prover
from edge.errors import FinesightError, SyncError
from gallery_sync.agent.doors import Erased, Freshness, Read, StaleError, skipped_before
from gallery_sync.agent.gates import Surroundings
from gallery_sync.agent.journal import Receipt
from gallery_sync.agent.local_steps import LocalSteps
from gallery_sync.agent.machine import Target
from gallery_sync.agent.policy import Policy
from gallery_sync.command_line import utc_now
from gallery_sync.device.fetch import Options, cache_folder, clear_cache, fetch
from gallery_sync.device.permit import read_permit
from gallery_sync.device.pull import erase, known
from gallery_sync.device.root_of_trust import keep_root
from gallery_sync.device.source import Source
from gallery_sync.device.stage import Fetched, stage
from gallery_sync.device.state_folder import make_ready, one_pull
from gallery_sync.device.wanted import RefusedError, Wanted, read_wanted
from gallery_sync.formats.documents import Release
from gallery_sync.formats.rollouts import Plan
from gallery_sync.remote_hands.config_files import why_busy
from gallery_sync.transport.byte_budget import ByteBudget
from gallery_sync.transport.errors import ReleaseError, StorageError
from gallery_sync.transport.time_limits import Deadline
from gallery_sync.trust.clock import BUILT_AT, read_time

if TYPE_CHECKING:
    from gallery_sync.trust.client import Freshness as SignedFreshness

log = logging.getLogger(__name__)

CHECK_LIMIT_S = 300.0


class RenewedDeadline(Deadline):
    """The end of the time that one step may take; each step begins it again."""

    def renew(self, limit_s: float) -> None:
        """Begin again."""
        self._limit_s, self._end_s = limit_s, self._clock() + limit_s

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self._clock() >= self._end_s


@dataclass(frozen=True, slots=True)
class Repository:
    """What reaches the repository of a device."""

    source: Source
    freshness: Callable[[], SignedFreshness | None]  # without a request
    deadline: RenewedDeadline  # of the source's transport
    budget: ByteBudget
    options: Options


class DeviceSteps(LocalSteps):
    """All steps on one device."""

    def __init__(
        self,
        state_dir: Path,
        repository: Repository,
        policy: Policy,
        prove: Prover,
        monotonic: Callable[[], float],
        local_time: Callable[[], datetime],
    ) -> None:
        """Use a state folder and a repository.

        Args:
            state_dir: of the device.
            repository: of its line.
            policy: of the device.
            prove: tries a pair on this machine, in a child process.
            monotonic: the clock of the vital signs, in seconds.
            local_time: for the windows.
        """
        super().__init__(state_dir, prove, monotonic)
        self._prover = prove
        self._repository, self._policy, self._local_time = repository, policy, local_time
        self._wanted: Wanted | None = None  # the newest release, as it was read last
        self._read_trusted: str | None = None  # the hash of the timestamp that it was read with
        self._fetched: Fetched | None = None

    def unchanged(self) -> bool:
        """Return whether the repository is as it was when it was last read; one small request."""
        self._repository.deadline.renew(CHECK_LIMIT_S)
        source = self._repository.source
        is_same = source.trusted() == self._read_trusted and source.client.unchanged()  # a command may refresh, too
        if not is_same and self.pair() is not None and self._proof is None:
            self._prover.start_early()  # while the rest is read; most changes are of a gallery, and small
        return is_same

    def read(self, begun: int = 0) -> Read:
        """Read and verify what is signed, choose a release, and judge whether this device may run it.

        Args:
            begun: sequence number of the release of which a try is under way; 0: none.

        Raises:
            TrustError: the metadata is expired, older than before, or not signed as it must be.
            SyncError: the network or the disk failed.
        """
        self._repository.deadline.renew(CHECK_LIMIT_S)
        self._wanted = None
        try:
            self._wanted = self._read_wanted(begun)
        except RefusedError as error:
            return _refused(error)
        except ReleaseError as error:
            return Read(refused=str(error))
        finally:
            if not self._is_other_gallery():
                self._prover.close()
        return Read(_target(self._wanted), waits=self._wanted.waits)

    def _read_wanted(self, begun: int) -> Wanted:
        source = self._repository.source
        with self._disk_errors():
            source.client.refresh()
            self._read_trusted = source.trusted()
            keep_root(self._state_dir, source.root)
            had = known(self._state_dir, source.line, source.identity, self._time(), begun)
            return read_wanted(source.client, source.objects, had)

    def _time(self) -> datetime:
        """Return the time, which is never before that of the signed metadata."""
        fresh = self._repository.freshness()
        return max(utc_now(), (fresh and fresh.issued_at) or BUILT_AT)

    def _is_other_gallery(self) -> bool:
        """Return whether the release that was read changes nothing but the gallery of what is active."""
        active, _ = read_pointer_or_none(self._state_dir)
        if active is None or self._wanted is None:
            return False
        release = self._wanted.release
        has_it = active.release is not None and active.release.sequence == release.sequence
        return active.bundle_id == release.bundle_id and not has_it

    def erase(self) -> Erased:
        """Apply the urgent deletions that were read, to every gallery on this device.

        Raises:
            SyncError: the network or the disk failed; it is tried again.
        """
        repository = self._repository
        repository.deadline.renew(CHECK_LIMIT_S)
        with self._disk_errors():
            done = erase(repository.source, self._state_dir, repository.options, utc_now, self._wanted)
        now, changed = utc_now().timestamp(), any(one.generations for one in done.receipts)
        if changed:
            self._fetched = None  # what was made of erased items is gone
        return Erased(tuple(Receipt(one.category, one.sequence, one.items, now) for one in done.receipts), changed)

    def freshness(self) -> Freshness | None:
        """Return how fresh the signed metadata is, without a request; None: it was never read."""
        if (found := self._repository.freshness()) is None:
            return None
        return Freshness(found.expires_at.timestamp(), found.warn_at.timestamp(), found.expired)

    def fetch(self, release: Target) -> bool:
        """Download what is missing; return whether it is complete. False: the time for one go is over.

        Raises:
            ReleaseError: the release is wrong.
            SyncError: the network or the disk failed, or there is too little space.
        """
        repository, limit_s = self._repository, self._policy.download.at_once_s
        repository.deadline.renew(limit_s)
        had = repository.source.objects.downloaded_bytes
        if self._is_other_gallery() and self._proof is None:
            self._prover.start_early()
        try:
            self._fetched = self._fetch(release)
        except (ReleaseError, StorageError):
            with self._disk_errors():
                clear_cache(self._state_dir)  # of no use, and a full disk must not stay full
            raise
        except SyncError:
            if repository.deadline.is_over and repository.source.objects.downloaded_bytes > had:
                return False
            raise
        return True

    def _fetch(self, release: Target) -> Fetched:
        wanted, repository = self._wanted_release(release), self._repository
        with self._disk_errors(), one_pull(self._state_dir):
            for repair in make_ready(self._state_dir, cache_folder(self._state_dir)):
                log.warning("%s", repair)
            return fetch(wanted, repository.source.objects, self._state_dir, repository.options)

    def _wanted_release(self, release: Target) -> Wanted:
        if self._wanted is None:
            self.read(release.sequence)
        if self._wanted is None or _target(self._wanted) != release:
            raise StaleError(f"{release.name} is not the newest release any more")
        return self._wanted

    def verify(self, release: Target) -> None:
        """Check what was downloaded as a whole, also after a restart.

        Raises:
            ReleaseError: the release is wrong.
            StaleError: something is missing.
        """
        fetched = self._fetched
        if fetched is None or _target(fetched.wanted) != release:
            if not self.fetch(release):
                raise StaleError(f"{release.name} is not complete")
            fetched = self._fetched
        if fetched is None:
            raise StaleError(f"{release.name} is not complete")

    def stage(self, release: Target) -> bool:
        """Install the release beside what serves; return whether its pair is active and confirmed already.

        Raises:
            ReleaseError: the release is wrong.
            StaleError: something is missing.
            SyncError: the disk failed, or another change does not end.
        """
        self.verify(release)
        fetched = self._fetched
        if fetched is None:
            raise StaleError(f"{release.name} is not complete")
        with self._disk_errors(), one_pull(self._state_dir):
            staged = stage(fetched, self._state_dir)
        self._fetched = None
        return staged.serving

    def surroundings(self) -> Surroundings:
        """Return what the gates look at."""
        try:
            free = shutil.disk_usage(self._state_dir).free
        except OSError:
            free = 0
        permit = read_permit(self._state_dir) if self._policy.install.permit else None
        left, busy = self._repository.budget.allowance().left_bytes, why_busy(self._state_dir)
        local = self._local_time()
        return Surroundings(local, free, left, permit, busy, skipped_before(local))

    def rest(self) -> None:
        """End the child that was started for a proof, if no proof followed."""
        self._prover.close()

    def tidy(self) -> None:
        """Remove downloads that no release needs any more."""
        self._fetched = None
        with self._disk_errors(), one_pull(self._state_dir):
            clear_cache(self._state_dir)
            self._repository.source.client.prune_targets()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"{self._state_dir}: disk error: {error.strerror or error}") from error
        except SyncError:
            raise
        except FinesightError as error:  # the lock of the state folder
            raise SyncError(str(error)) from error


def _refused(error: RefusedError) -> Read:
    choice = error.choice
    if error.reason == "stays":
        return Read(waits=str(error))
    if choice is None or choice.release is None:
        return Read(refused=str(error))
    return Read(refused=str(error), waits=choice.reason, refused_release=_named(choice.release, choice.plan))


def _target(wanted: Wanted) -> Target:
    named = _named(wanted.release, wanted.plan)
    return replace(named, bundle_sequence=wanted.head.sequence, security_floor=wanted.head.security_floor)


def _named(release: Release, plan: Plan | None) -> Target:
    """Return a release with what its rollout says, without what its bundle says."""
    target = Target(release.line, release.sequence, release.bundle_id, gallery_sequence=release.gallery_sequence)
    if plan is None:
        return target
    deadline = read_time(plan.deadline)
    return replace(
        target,
        plan=plan.id,
        windows=tuple(plan.windows),
        deadline=deadline.timestamp() if deadline else None,
        max_unavailable=plan.max_unavailable,
        unavailable_by=plan.unavailable_by,
    )
