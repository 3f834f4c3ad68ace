"""Proves a bundle and a gallery in a child process, before they serve, and chooses the engines that run it.

What was downloaded can be whole and still be wrong: a model that never ends, or one that takes all memory. A child
process with limits on time and memory tries it; the process that serves is not touched.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.bundle.child_process import be_the_first_to_die, command, how_it_ended, limit_memory, take_stdout
from edge.config.schema import TensorRtConfig
from edge.errors import BundleError, EngineError, FinesightError, GalleryError, GpuError
from edge.inference.engine import BUILDING_BACKENDS, GPU_BACKENDS, RUNS, Backend, Precision
from edge.inference.engine_choice import EngineChoice, choice_path, keep_since, read_choice, write_choice

if TYPE_CHECKING:
    from edge.bundle.bundle import Bundle

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


def prove_bundle(bundle: Path, gallery: Path | None, options: ProofOptions, limit_s: float | None = None) -> Proof:
    """Prove a bundle and a gallery in child processes.

    One checks every hash and chooses the engines, if that is wanted. The next one loads every model as serving does,
    runs every golden probe, loads the gallery and searches it. If choosing does not end, or what was
    chosen fails there, the default is proved.

    Args:
        bundle: folder.
        gallery: folder; None: only the bundle.
        options: how.
        limit_s: how long a child may take, in seconds; None: that of the options.

    Raises:
        BundleError: the bundle must not serve, or a child did not end in time.
        GalleryError: the gallery must not serve.
        EngineError: a model cannot be loaded or run.
    """
    folders = {"bundle": str(bundle), "gallery": str(gallery or "")}
    tensorrt = options.tensorrt and options.tensorrt.model_dump()
    settings = {"cache": str(options.cache or ""), "tensorrt": tensorrt, "choose": False, "choice": None}
    request: dict[str, Any] = folders | asdict(options) | settings
    proof = _choose_and_prove(request, limit_s or options.limit_s) if options.choose else None
    if proof is None:
        limit_s = limit_s or replace(options, choose=False).limit_s
        proof = Proof(_in_child(request, limit_s)["lines"], None)
    return proof


def _choose_and_prove(request: dict[str, Any], limit_s: float) -> Proof | None:
    """Choose engines and prove the bundle with them; None if choosing did not end, or they fail."""
    try:
        found = _in_child(request | {"choose": True}, limit_s)["choice"]
    except _EndedError as error:
        log.warning("no engines were chosen: %s; proving the default ones", error)
        return None
    try:
        lines = _in_child(request | {"choice": found}, limit_s)["lines"]
    except (BundleError, EngineError) as error:
        log.warning("the chosen engines fail together: %s; proving the default ones", error)
        return None
    return Proof(lines, EngineChoice.model_validate(found))


def prover(options: ProofOptions | None = None, state_dir: Path | None = None, limit_s: float | None = None) -> Prove:
    """Return a function that proves a bundle and a gallery, as `prove_bundle`.

    Args:
        options: how; None: with the default engine.
        state_dir: of a device: engines are chosen, too, and the choice is written there.
        limit_s: how long the child may take, in seconds; None: that of the options.
    """
    options = options or ProofOptions()
    if state_dir is not None:
        options = replace(options, choose=True)

    def prove(bundle: Path, gallery: Path | None) -> list[str]:
        proof = prove_bundle(bundle, gallery, options, limit_s)
        if state_dir is not None and proof.choice is not None:
            remember(state_dir, bundle, proof.choice)
        return proof.lines

    return prove


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


def _in_child(request: dict[str, Any], limit_s: float) -> dict[str, Any]:
    bundle = request["bundle"]
    arguments = command("edge.bundle.prove")
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            answer, _ = child.communicate(json.dumps(request).encode(), timeout=limit_s)
        except subprocess.TimeoutExpired:
            child.kill()
            raise _EndedError(f"{bundle}: the proof did not end within {limit_s:g} s; do not use this bundle") from None
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0 or not answer:
        how = how_it_ended(child.returncode)
        raise _EndedError(f"{bundle}: the process that tried it ended with {how}; do not use this bundle")
    result: dict[str, Any] = json.loads(answer)
    if "error" in result:
        raise _KINDS.get(result["kind"], BundleError)(result["error"])
    return result


def _try_it(request: dict[str, Any]) -> dict[str, Any]:
    # only the child loads the libraries that run models
    from edge.bundle.bundle import read_bundle

    folder = Path(request["bundle"])
    gallery, cache = (Path(request[name]) if request[name] else None for name in ("gallery", "cache"))
    try:
        bundle = read_bundle(folder)
        if request["choose"]:
            return _choose(bundle, request, cache)
        return _prove(bundle, gallery, request, cache)
    except FinesightError as error:
        return {"error": str(error), "kind": type(error).__name__}
    except Exception as error:  # noqa: BLE001  whatever a wrong model or gallery does, it is refused
        return {"error": f"{folder}: {type(error).__name__}: {error}", "kind": "BundleError"}


def _choose(bundle: Bundle, request: dict[str, Any], cache: Path | None) -> dict[str, Any]:
    from edge.bundle.choose_engines import TrialOptions, choose_engines

    tensorrt = TensorRtConfig.model_validate(request["tensorrt"]) if request["tensorrt"] else None
    options = TrialOptions(request["backend"], request["threads"], cache, build=request["build"], tensorrt=tensorrt)
    return {"choice": choose_engines(bundle.folder, bundle.manifest, options).model_dump(mode="json", by_alias=True)}


def _prove(bundle: Bundle, gallery: Path | None, request: dict[str, Any], cache: Path | None) -> dict[str, Any]:
    from edge.bundle.gallery_proof import prove_gallery
    from edge.bundle.golden_probes import run_all_probes
    from edge.engine_store.engine_store import EngineStore
    from edge.engine_store.process_memory import default_budget_bytes
    from edge.gallery.generation import read_gallery
    from edge.gallery.index_cache import CACHE_NAME, IndexCache
    from edge.inference.open_models import OpenOptions
    from edge.inference.stages import load_stages
    from edge.telemetry.counters import Counters

    choice = EngineChoice.model_validate(request["choice"]) if request["choice"] else None
    tensorrt = TensorRtConfig.model_validate(request["tensorrt"]) if request["tensorrt"] else None
    options = OpenOptions(request["threads"], cache, tensorrt)
    store = EngineStore(default_budget_bytes(), Counters())
    backend, precision = request["backend"], request["precision"]
    stages = load_stages(bundle.folder, bundle.manifest, backend, options, precision, choice, store)
    store.open_each()
    lines = [str(result) for result in run_all_probes(bundle, stages)]
    if gallery is not None:
        prove_gallery(bundle, read_gallery(gallery), IndexCache(cache / CACHE_NAME) if cache else None)
    return {"lines": lines}


def _reserves_memory(request: dict[str, Any]) -> bool:
    """Return whether an engine may reserve far more memory than it uses, as CUDA does."""
    chosen = [model["backend"] for model in request["choice"]["models"].values()] if request["choice"] else []
    return any(one != "auto" and (one not in RUNS or one in GPU_BACKENDS) for one in (request["backend"], *chosen))


def main(arguments: list[str]) -> None:
    """Be the child: read a request, prove, write the result as JSON to standard output, and end the process."""
    be_the_first_to_die(int(arguments[0]))
    request = json.load(sys.stdin)
    if not _reserves_memory(request):
        limit_memory()
    answer = take_stdout()
    tried = _try_it(request)
    with os.fdopen(answer, "w", encoding="utf-8") as file:
        json.dump(tried, file)
    os._exit(0)  # without the clean-up of native libraries
