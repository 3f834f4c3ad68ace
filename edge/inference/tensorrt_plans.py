"""Plans of TensorRT on disk: built once, kept with what they depend on, and deleted when they are not used any more.

Rules:
1. The name and the note of a plan hold all that it depends on. A plan without its note, or with another, is not read.
2. A plan is not trusted: its hash is checked before TensorRT reads it, and one that TensorRT rejects is built again.
3. One process of a cache folder builds at a time: two builds need twice the memory.
4. A full or read-only disk is a warning: the next start builds again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edge.config.schema import TensorRtConfig
from edge.durable import make_folder, oldest_first, set_aside, sha256_of, write_durably
from edge.errors import EngineError
from edge.inference.tensorrt_build import Built, build_plan
from edge.inference.tensorrt_library import VERSION
from edge.types import BuildProgress

log = logging.getLogger(__name__)

_PLAN, _NOTE = ".plan", ".json"
_LOCK = "building.lock"
_MIB = 1 << 20
_TELLING_SHARE = 0.1  # of a build; from there on, its pace says how long it takes

Wanted = Sequence[tuple[Path, int]]  # ONNX files, and rows of their largest batch


@dataclass(frozen=True, slots=True)
class GpuKind:
    """What the plans of a device depend on, besides TensorRT."""

    short: str  # sm87, for the names of files
    name: str
    driver: int


@dataclass(frozen=True, slots=True)
class PlanKey:
    """All that a plan depends on."""

    model: str  # SHA-256 of the ONNX file
    tensorrt: str
    gpu: GpuKind
    max_batch: int
    optimisation_level: int
    workspace_mib: int | None
    dla_core: int | None

    @property
    def stem(self) -> str:
        """The name of its files, without the ending."""
        rest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.model[:24]}-trt{self.tensorrt}-{self.gpu.short}-b{self.max_batch}-{rest}"


def plan_key(model_sha256: str, max_batch: int, config: TensorRtConfig, gpu: GpuKind) -> PlanKey:
    """Return the key of a model's plan on a GPU."""
    return PlanKey(
        model_sha256, VERSION, gpu, max_batch, config.optimisation_level, config.workspace_mib, config.dla_core
    )


class PlanCache:
    """A folder of plans, and of the times that TensorRT measured for them."""

    def __init__(self, folder: Path, most_bytes: int, kept: Collection[PlanKey] = ()) -> None:
        """Wrap a folder, which need not exist.

        Args:
            folder: of the plans.
            most_bytes: of all plans; above it, those that were not loaded for the longest time are deleted.
            kept: never deleted for that: plans of one bundle, which would delete each other.
        """
        self.folder = folder
        self._most_bytes, self._kept = most_bytes, kept

    def holds(self, key: PlanKey) -> bool:
        """Return whether there is a plan of this key, without reading it."""
        note = self._note(key.stem + _PLAN)
        try:
            return note.get("key") == _plain(key) and self._path(key).stat().st_size == note.get("bytes")
        except OSError:
            return False

    def read(self, key: PlanKey) -> bytes | None:
        """Return the plan of a key, whole and unchanged; None if there is none."""
        if not self.holds(key):
            if self._path(key).exists():
                log.warning(
                    "%s: the plan is cut off, or not the one that its note describes; building it again", key.stem
                )
            return None
        plan = self._read(key.stem + _PLAN)
        if plan is not None:
            with contextlib.suppress(OSError):
                os.utime(self._path(key))  # it is loaded: pruning deletes it last
        return plan

    def forget(self, key: PlanKey) -> None:
        """Delete the plan of a key."""
        with contextlib.suppress(OSError):
            _delete(self._path(key))

    def save(self, key: PlanKey, built: Built) -> None:
        """Keep a plan and the measured times; delete old plans if there are too many."""
        if self._write(key.stem + _PLAN, built.plan, {"key": _plain(key), "took_s": round(built.took_s, 1)}):
            self._prune(key)
        if built.timing_cache:
            self._write(_timings_of(key), built.timing_cache, {})

    def timings(self, key: PlanKey) -> bytes:
        """Return the times that TensorRT measured on this GPU; b"" if there are none."""
        return self._read(_timings_of(key)) or b""

    def usual_build_s(self) -> float | None:
        """Return the median time of a build here, in seconds; None: no plan is known."""
        notes = [self._note(path.name) for path in sorted(self.folder.glob("*" + _PLAN))]
        took_s = [took for note in notes if isinstance(took := note.get("took_s"), int | float)]
        return float(statistics.median(took_s)) if took_s else None

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Wait until no other process builds into this folder, and keep others from it."""
        try:
            make_folder(self.folder)
            lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:  # nothing can be saved there either
            log.warning("%s: cannot be written, the next start builds again: %s", self.folder, error.strerror)
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _path(self, key: PlanKey) -> Path:
        return self.folder / (key.stem + _PLAN)

    def _note(self, name: str) -> dict[str, object]:
        try:
            note = json.loads((self.folder / (name + _NOTE)).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return note if isinstance(note, dict) else {}

    def _read(self, name: str) -> bytes | None:
        note = self._note(name)
        try:
            data = (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s: cannot be read, building it again: %s", self.folder / name, error.strerror)
            return None
        if hashlib.sha256(data).hexdigest() != note.get("sha256"):
            log.warning("%s: damaged, building it again", self.folder / name)
            return None
        return data

    def _write(self, name: str, data: bytes, about: dict[str, object]) -> bool:
        note = {**about, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        try:
            make_folder(self.folder)
            set_aside(self.folder / name)
            write_durably(self.folder / name, data)
            write_durably(self.folder / (name + _NOTE), json.dumps(note, indent=1).encode() + b"\n")
        except OSError as error:
            log.warning("%s: cannot be saved, the next start builds it again: %s", self.folder / name, error.strerror)
            return False
        return True

    def _prune(self, newest: PlanKey) -> None:
        """Delete the plans that were not loaded for the longest time, until the rest fits."""
        kept = {self._path(key) for key in (newest, *self._kept)}
        found = oldest_first(self.folder, "*" + _PLAN)
        total = sum(size for _, size in found)
        for path, size in found:
            if total > self._most_bytes and path not in kept:
                log.info("%s: deleted, the plans exceed engine.tensorrt.cache_mib", path)
                with contextlib.suppress(OSError):
                    _delete(path)
                    total -= size
        if total > self._most_bytes:
            log.warning("the plans in use need %.0f MiB; raise engine.tensorrt.cache_mib", total / _MIB)


def _delete(plan: Path) -> None:
    plan.unlink(missing_ok=True)
    plan.with_name(plan.name + _NOTE).unlink(missing_ok=True)


def _plain(key: PlanKey) -> object:
    return json.loads(json.dumps(asdict(key)))


def _timings_of(key: PlanKey) -> str:
    """The times hold for one TensorRT on one GPU."""
    gpu = hashlib.sha256(json.dumps(asdict(key.gpu), sort_keys=True).encode()).hexdigest()[:12]
    return f"trt{key.tensorrt}-{key.gpu.short}-{gpu}.timings"


def plans_missing(wanted: Wanted, cache: Path, config: TensorRtConfig, gpu: GpuKind) -> Wanted:
    """Return the models whose plans are not in a cache folder, whole.

    Raises:
        EngineError: a file cannot be read.
    """
    plans = PlanCache(cache, config.cache_mib * _MIB)
    return [(path, rows) for path, rows in wanted if plans.read(plan_key(_sha256(path), rows, config, gpu)) is None]


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise EngineError(f"{path}: cannot read: {error.strerror}") from error


def obtain_plan(
    path: Path,
    max_batch: int,
    cache: Path,
    config: TensorRtConfig,
    gpu: GpuKind,
    *,
    rejected: bool = False,
    on_share: Callable[[float], None] = lambda _: None,
    kept: Collection[PlanKey] = (),
) -> bytes:
    """Return the plan of a model, from the cache folder or, after minutes, from TensorRT's builder.

    Args:
        path: the ONNX file.
        max_batch: rows of the largest batch if the batch is dynamic.
        cache: folder of the plans.
        config: how to build.
        gpu: what the plan is for.
        rejected: TensorRT rejected the plan in the cache.
        on_share: called with the share of the build that is done.
        kept: plans that this one must not push out of the cache.

    Raises:
        EngineError: the file cannot be read or built.
    """
    try:
        onnx = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path}: cannot read: {error.strerror}") from error
    plans = PlanCache(cache, config.cache_mib * _MIB, kept)
    key = plan_key(hashlib.sha256(onnx).hexdigest(), max_batch, config, gpu)
    if rejected:
        plans.forget(key)
    elif (plan := plans.read(key)) is not None:
        return plan
    with plans.building():
        if (plan := plans.read(key) if plans.holds(key) else None) is not None:  # built by another process meanwhile
            return plan
        log.info("%s: building for TensorRT %s, which takes minutes: %s", path, VERSION, key.stem)
        built = build_plan(onnx, str(path), max_batch, config, plans.timings(key), on_share)
        log.info("%s: built in %.1f s, %d bytes", path, built.took_s, len(built.plan))
        plans.save(key, built)
    return built.plan


def build_plans(
    wanted: Wanted, cache: Path, config: TensorRtConfig, gpu: GpuKind, progress: Callable[[BuildProgress], None]
) -> None:
    """Build the plans that are missing in a cache folder, one after the other.

    Args:
        wanted: the models.
        cache: folder of the plans.
        config: how to build.
        gpu: what the plans are for.
        progress: called before and during each build.

    Raises:
        EngineError: a model cannot be built; the plans before it are kept.
    """
    missing = plans_missing(wanted, cache, config, gpu)
    kept = [plan_key(_sha256(path), rows, config, gpu) for path, rows in wanted]
    plans = PlanCache(cache, config.cache_mib * _MIB)
    for built, (path, rows) in enumerate(missing):
        usual_s, started_s = plans.usual_build_s(), time.monotonic()

        def report(share: float, built: int = built, name: str = path.name) -> None:
            left_s = _left_s(len(missing) - built, share, usual_s, time.monotonic() - started_s)  # noqa: B023
            progress(BuildProgress(built, len(missing), name, share, left_s))

        report(0.0)
        obtain_plan(path, rows, cache, config, gpu, on_share=report, kept=kept)


def _left_s(plans: int, share: float, usual_s: float | None, spent_s: float) -> float | None:
    """Estimate the seconds until some plans are built, the first of them to a share.

    Args:
        plans: not built yet.
        share: of the first one that is built, 0..1.
        usual_s: of one build; None: unknown.
        spent_s: on the first one.
    """
    if share >= _TELLING_SHARE:  # TensorRT's phases are not equally long: trust both
        current_s = spent_s / share
        usual_s = current_s if usual_s is None else (usual_s + current_s) / 2
    if usual_s is None:
        return None
    return max(0.0, usual_s * (plans - 1) + max(0.0, usual_s - spent_s))
