"""The steps of the agent that need no repository: prove, switch, confirm, roll back, and look at the device.

Rules this module keeps:
1. A trial is switched to only if what is staged is the release that was proved.
2. Going back verifies the pair that was active before; if it is damaged or gone, the pair on trial stays.
3. Each step may be repeated after a crash: it looks at the pointer first.
4. A proof runs beside the caller. Its result counts only for the pair that is still staged when it ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.bundle import slots
from edge.bundle.active_pointer import ActivePointer, read_active_pointer, read_staged_pointer
from edge.bundle.change_lock import changing
from edge.bundle.layout import gallery_folder, slot_folder
from edge.bundle.pairs import Pair, read_pointer_or_none
from edge.bundle.prove import Prove
from edge.errors import BundleError, GalleryError, SyncError
from edge.telemetry.vital_signs import VitalSigns, fresh_vital_signs
from gallery_sync.agent.doors import Active, NothingBeforeError, StaleError, TakenOverError
from gallery_sync.agent.machine import Serving, Target
from gallery_sync.agent.proof_thread import ProofThread
from gallery_sync.device.security_floor import raise_security_floor
from gallery_sync.remote_hands.config_files import why_busy
from gallery_sync.transport.errors import StorageError

log = logging.getLogger(__name__)

_MOMENT_S = 5.0  # that a step waits for a proof, before urgent deletions are looked for again


class LocalSteps:
    """The steps on one device."""

    def __init__(self, state_dir: Path, prove: Prove, monotonic: Callable[[], float]) -> None:
        """Use a state folder.

        Args:
            state_dir: of the device.
            prove: tries a pair on this machine, in a child process.
            monotonic: the clock of the vital signs, in seconds.
        """
        self._state_dir, self._prove, self._monotonic = state_dir, prove, monotonic
        self._proof: ProofThread | None = None  # that goes on, or whose result nobody read yet

    def prove(self, release: Target, wait_s: float = _MOMENT_S) -> str | None:
        """Try the staged pair beside the caller, and wait a moment for the result.

        If the staged gallery changes meanwhile, as by an urgent deletion, the proof is repeated; one that succeeded is
        repeated for the gallery alone.

        Args:
            release: that is staged.
            wait_s: how long to wait, in seconds.

        Returns:
            How far it is, for people; None: the pair is proved.

        Raises:
            StaleError: another release is staged, or none.
            BundleError, GalleryError, EngineError: the pair must not serve.
        """
        if self._proof is None:
            self._proof = self._start_proof(self._staged(release))
        proof = self._proof
        if not proof.has_ended(wait_s):
            return "proving it in a child process; engines that are missing are built"
        self._proof = None
        if Pair.of(self._staged(release)) != proof.pair:
            return "the pair changed while it was proved; it is proved again"
        for line in proof.result():
            log.info("%s", line)
        return None

    def _start_proof(self, staged: ActivePointer) -> ProofThread:
        bundle, gallery = slot_folder(self._state_dir, staged.slot), gallery_folder(self._state_dir, staged.gallery)
        return ProofThread(Pair.of(staged), self._prove, bundle, gallery)

    def switch(self, release: Target, trial: str) -> bool:
        """Make the staged pair active, on trial; return whether it is: a pair that was active and confirmed stays so.

        Raises:
            StaleError: another pair is staged, or none, or it is damaged.
            SyncError: the disk failed, or another change does not end.
        """
        with self._changing("switching"):
            active = read_active_pointer(self._state_dir)
            if active is not None and active.trial == trial:
                return True
            staged = self._staged(release)
            if busy := why_busy(self._state_dir):
                raise SyncError(f"{self._state_dir}: {busy}")
            with _as_stale():
                pointer = slots.activate(self._state_dir, staged.slot, staged.gallery, _proved_already, trial)
        return pointer.trial == trial

    def _staged(self, release: Target) -> ActivePointer:
        staged, problem = read_pointer_or_none(self._state_dir, read_staged_pointer)
        name = staged.release if staged else None
        if staged is None or name is None or (name.line, name.sequence) != (release.line, release.sequence):
            found = problem or (f"release {name.sequence}" if name else "nothing")
            raise StaleError(f"{self._state_dir}: found {found} staged, expected {release.name}; it is staged again")
        return staged

    def confirm(self, release: Target, trial: str | None) -> None:
        """End the trial, and raise the security floor.

        Raises:
            TakenOverError: another pair is active.
            SyncError: the disk failed, or another change does not end.
        """
        with self._changing("confirming"):
            active = read_active_pointer(self._state_dir)
            name = active.release if active else None
            if name is None or (name.line, name.sequence) != (release.line, release.sequence):
                raise TakenOverError(f"{self._state_dir}: {release.name} is not active any more; it is not confirmed")
            if trial is not None:
                slots.confirm(self._state_dir, trial)
            raise_security_floor(self._state_dir, release.line, release.security_floor)

    def roll_back(self) -> None:
        """Return to the pair before the trial.

        Raises:
            NothingBeforeError: there is none that can be used; the trial is ended, and its pair stays.
            SyncError: the disk failed, or another change does not end.
        """
        with self._changing("rolling back"):
            active = read_active_pointer(self._state_dir)
            if active is None or active.trial is None:
                return
            try:
                slots.rollback(self._state_dir)
            except (BundleError, GalleryError) as error:
                if isinstance(error.__cause__, OSError):
                    raise
                slots.confirm(self._state_dir, active.trial)
                raise NothingBeforeError(str(error)) from None

    @contextmanager
    def _changing(self, what: str) -> Iterator[None]:
        """Hold the lock of the state folder; a fault of the disk or the lock is one that may pass."""
        try:
            with changing(self._state_dir, what):
                yield
        except OSError as error:
            raise StorageError(f"{self._state_dir}: {what}: disk error: {error.strerror or error}") from error
        except (BundleError, GalleryError) as error:
            raise SyncError(str(error)) from error

    def serving(self) -> Serving:
        """Return what the pointer says; nothing if it is damaged."""
        active = self.active()
        if active is None:
            return Serving()
        return Serving(active.line, active.sequence, active.trial, active.bundle_id, active.gallery_sequence or 0)

    def active(self) -> Active | None:
        """Return the active pair; None: there is none, or the pointer is damaged."""
        active, _ = read_pointer_or_none(self._state_dir)
        if active is None:
            return None
        name = active.release
        return Active(
            active.slot,
            active.bundle_id,
            active.gallery,
            name.line if name else None,
            name.sequence if name else None,
            name.gallery_sequence if name else None,
            active.trial,
        )

    def pair(self) -> Pair | None:
        """Return the active pair."""
        active, _ = read_pointer_or_none(self._state_dir)
        return Pair.of(active) if active is not None else None

    def signs(self) -> VitalSigns | None:
        """Return fresh vital signs; None: the device does not run, or is stopping."""
        return fresh_vital_signs(self._state_dir, self._monotonic())


def _proved_already(*_: object) -> list[str]:
    """Prove nothing: the staged pair was proved in PROVE, and is verified again."""
    return []


@contextmanager
def _as_stale() -> Iterator[None]:
    """Map what is wrong with a staged pair; a fault of the disk passes."""
    try:
        yield
    except (BundleError, GalleryError) as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise StaleError(str(error)) from error
