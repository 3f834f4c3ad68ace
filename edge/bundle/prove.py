"""Proves a bundle and a gallery in a child process, before they serve, and chooses the engines that run it.

What was downloaded can be whole and still be wrong: a model that never ends, or one that takes all memory. A child
process without network, with limits on time and memory, tries it; the process that serves is not touched.

Rules this module keeps:
1. Nothing of a bundle is loaded in this process; see `edge.bundle.proof_child`.
2. Another gallery for the active bundle, or for one that was just proved, is loaded and searched; the models are not
   tried again.
3. A child that was started early has imported what it needs. It gets its request later, and its limits then. The
   proof of a gallery alone is short, so it gives way to what serves only after a few seconds of processor time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge.bundle.active_pointer import ActivePointer, read_active_pointer
from edge.bundle.child_process import WARM, command, how_it_ended
from edge.bundle.layout import gallery_folder, identity, slot_folder
from edge.bundle.pairs import open_slot
from edge.config.schema import TensorRtConfig
from edge.errors import BundleError, EngineError, FinesightError, GalleryError, GpuError
from edge.inference.engine import BUILDING_BACKENDS, Backend, Precision
from edge.inference.engine_choice import EngineChoice, choice_path, keep_since, read_choice, write_choice

log = logging.getLogger(__name__)

Prove = Callable[[Path, "Path | None"], list[str]]  # bundle folder, gallery folder -> a line for each probe

_LIMIT_S = 300.0
_CHOOSING_LIMIT_S = 1200.0  # at low priority, on a device that recognises meanwhile
_BUILDING_LIMIT_S = 4 * 3600.0  # TensorRT builds engines for minutes each
_KINDS: dict[str, type[FinesightError]] = {
    kind.__name__: kind for kind in (BundleError, EngineError, GpuError, GalleryError)
}


class _EndedError(BundleError):
    """A child gave no answer: it took too long or crashed."""


@dataclass(frozen=True, slots=True)
class ProofOptions:
    """How to prove."""

    backend: Backend = "auto"  # as configured
    threads: int = 1  # inside one model, on a CPU
    precision: Precision = "shipped"  # as configured
    cache: Path | None = None  # folder of engines built on this machine; None: the bundle's folder
    choose: bool = False  # try every engine and form, and choose; else only the default is proved
    build: bool = False  # also try engines that build for minutes
    tensorrt: TensorRtConfig | None = None  # how TensorRT builds and runs; None: the defaults
    gallery_only: bool = False  # the bundle serves already: load and search the gallery alone
    p95_ms: float | None = None  # most milliseconds of a probe, 95th percentile; None: only the manifest's budget
    memory_mib: int | None = None  # most resident memory with everything loaded; None: only the manifest's budget

    @property
    def limit_s(self) -> float:
        """How long the proof may take, in seconds."""
        if self.build or self.backend in BUILDING_BACKENDS:
            return _BUILDING_LIMIT_S
        return _CHOOSING_LIMIT_S if self.choose else _LIMIT_S


@dataclass(frozen=True, slots=True)
class Proof:
    """What a proof gave."""

    lines: list[str]  # one for each probe
    choice: EngineChoice | None  # None: no engine was chosen


def prove_bundle(
    bundle: Path,
    gallery: Path | None,
    options: ProofOptions,
    limit_s: float | None = None,
    early: EarlyChild | None = None,
) -> Proof:
    """Prove a bundle and a gallery in child processes.

    One checks every hash and chooses the engines, if that is wanted. The next one loads every model as serving does,
    runs every golden probe, loads the gallery and searches it. If choosing does not end, or what was
    chosen fails there, the default is proved.

    Args:
        bundle: folder.
        gallery: folder; None: only the bundle.
        options: how.
        limit_s: how long a child may take, in seconds; None: that of the options.
        early: a child that was started before, for the first request; None: none was.

    Raises:
        BundleError: the bundle must not serve, or a child did not end in time.
        GalleryError: the gallery must not serve.
        EngineError: a model cannot be loaded or run.
    """
    folders = {"bundle": str(bundle), "gallery": str(gallery or "")}
    tensorrt = options.tensorrt and options.tensorrt.model_dump()
    settings = {"cache": str(options.cache or ""), "tensorrt": tensorrt, "choose": False, "choice": None}
    choose = options.choose and not options.gallery_only
    options = replace(options, choose=choose)
    request: dict[str, Any] = asdict(options) | folders | settings
    proof = _choose_and_prove(request, limit_s or options.limit_s, early) if choose else None
    if proof is None:
        limit_s = limit_s or replace(options, choose=False).limit_s
        proof = Proof(_in_child(request, limit_s, None if choose else early)["lines"], None)
    return proof


def _choose_and_prove(request: dict[str, Any], limit_s: float, early: EarlyChild | None) -> Proof | None:
    """Choose engines and prove the bundle with them; None if choosing did not end, or they fail."""
    try:
        found = _in_child(request | {"choose": True}, limit_s, early)["choice"]
    except _EndedError as error:
        log.warning("no engines were chosen: %s; proving the default ones", error)
        return None
    try:
        lines = _in_child(request | {"choice": found}, limit_s)["lines"]
    except (BundleError, EngineError) as error:
        log.warning("the chosen engines fail together: %s; proving the default ones", error)
        return None
    return Proof(lines, EngineChoice.model_validate(found))


class Prover:
    """Proves bundles and galleries, as `prove_bundle`, for a device or for none; one proof at a time."""

    def __init__(self, options: ProofOptions, state_dir: Path | None, limit_s: float | None) -> None:
        """See `prover`."""
        self._options, self._state_dir, self._limit_s = options, state_dir, limit_s
        self._early: EarlyChild | None = None
        self._proved: tuple[Path, tuple[int, int] | None] | None = None  # the bundle of the last proof, with models

    def start_early(self) -> None:
        """Start the child now, while something is still downloaded: it imports what it needs, and waits.

        It ends with the thread that calls this. Without a call of the prover, `close` ends it.
        """
        if self._early is None or not self._early.is_alive:
            self.close()
            self._early = EarlyChild(self._warm_up())

    def close(self) -> None:
        """End a child that was started early and not used."""
        if self._early is not None:
            self._early.close()
            self._early = None

    def __call__(self, bundle: Path, gallery: Path | None) -> list[str]:
        """Prove, and return a line for each probe.

        Raises:
            FinesightError: as `prove_bundle`.
        """
        early, self._early = self._early, None
        options, state_dir = self._options, self._state_dir
        tried = (bundle, identity(bundle))
        if state_dir is not None and gallery is not None:
            known = tried == self._proved or _serves_already(state_dir, bundle, gallery)
            options = replace(options, gallery_only=known)
        try:
            proof = prove_bundle(bundle, gallery, options, self._limit_s, early)
        finally:
            if early is not None:
                early.close()
        if state_dir is not None and proof.choice is not None:
            remember(state_dir, bundle, proof.choice)
        self._proved = tried
        return proof.lines

    def _warm_up(self) -> dict[str, Any]:
        """Return what the child loads while it waits: the gallery that serves, of which the next one is a change."""
        request = {"do": "warm up", "bundle": "", "gallery": "", "cache": str(self._options.cache or "")}
        active = _active(self._state_dir) if self._state_dir is not None else None
        if self._state_dir is not None and active is not None:
            request["bundle"] = str(slot_folder(self._state_dir, active.slot))
            request["gallery"] = str(gallery_folder(self._state_dir, active.gallery))
        return request


def prover(options: ProofOptions | None = None, state_dir: Path | None = None, limit_s: float | None = None) -> Prover:
    """Return what proves a bundle and a gallery, as `prove_bundle`.

    Args:
        options: how; None: with the default engine.
        state_dir: of a device: engines are chosen, too, and the choice is written there.
        limit_s: how long the child may take, in seconds; None: that of the options.
    """
    options = options or ProofOptions()
    if state_dir is not None:
        options = replace(options, choose=True)
    return Prover(options, state_dir, limit_s)


def _active(state_dir: Path) -> ActivePointer | None:
    try:
        return read_active_pointer(state_dir)
    except BundleError:
        return None


def _serves_already(state_dir: Path, bundle: Path, gallery: Path) -> bool:
    """Return whether a bundle is active and confirmed, and only the gallery is another one."""
    active = _active(state_dir)
    if active is None or active.trial is not None or gallery == gallery_folder(state_dir, active.gallery):
        return False
    try:
        is_same = open_slot(state_dir, active.slot, active.bundle_id).folder == bundle
    except BundleError:
        return False
    return is_same


def remember(state_dir: Path, bundle: Path, choice: EngineChoice) -> EngineChoice:
    """Write a choice down, with the older dates of what it keeps; a disk that cannot be written is logged.

    Args:
        state_dir: of the device.
        bundle: folder of the bundle.
        choice: for this bundle.

    Raises:
        BundleError: the manifest cannot be read.
    """
    from edge.bundle.bundle import read_bundle

    path = choice_path(state_dir, read_bundle(bundle, verify=False).manifest)
    choice = keep_since(choice, read_choice(path))
    try:
        write_choice(path, choice)
    except OSError as error:
        log.warning("%s: cannot write the engine choice: %s", path, error.strerror or error)
    return choice


class EarlyChild:
    """A child that proves; it waits for its request."""

    def __init__(self, warm_up: dict[str, Any] | None = None) -> None:
        """Start it.

        Args:
            warm_up: what it loads while it waits; None: nothing.
        """
        how = [] if warm_up is None else [WARM]
        self._child = subprocess.Popen(
            command("edge.bundle.proof_child", *how), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        if warm_up is not None and self._child.stdin is not None:
            with contextlib.suppress(OSError):  # it ended; whoever asks it for a proof starts another one
                self._child.stdin.write(json.dumps(warm_up).encode() + b"\n")
                self._child.stdin.flush()

    @property
    def is_alive(self) -> bool:
        """Whether it waits."""
        return self._child.poll() is None

    def ask(self, request: dict[str, Any], limit_s: float) -> tuple[int, bytes]:
        """Return its exit status and its answer.

        Raises:
            subprocess.TimeoutExpired: it did not answer in time.
        """
        data = json.dumps(request | {"limit_s": limit_s}).encode() + b"\n"
        answer, _ = self._child.communicate(data, timeout=limit_s)
        return self._child.returncode, answer

    def close(self) -> None:
        """End it."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _in_child(request: dict[str, Any], limit_s: float, early: EarlyChild | None = None) -> dict[str, Any]:
    bundle = request["bundle"]
    child = early if early is not None and early.is_alive else EarlyChild()
    try:
        status, answer = child.ask(request, limit_s)
        if child is early and status == 0 and not answer:  # it had waited too long, and ended just now
            child = EarlyChild()
            status, answer = child.ask(request, limit_s)
    except subprocess.TimeoutExpired:
        raise _EndedError(f"{bundle}: the proof did not end within {limit_s:g} s; do not use this bundle") from None
    finally:
        child.close()
    if status != 0 or not answer:
        how = how_it_ended(status)
        raise _EndedError(f"{bundle}: the process that tried it ended with {how}; do not use this bundle")
    result: dict[str, Any] = json.loads(answer)
    if result.get("wall") == "python":
        log.warning("%s: the kernel does not take the network from a proof here; Python alone refuses sockets", bundle)
    if "error" in result:
        raise _KINDS.get(result["kind"], BundleError)(result["error"])
    return result
