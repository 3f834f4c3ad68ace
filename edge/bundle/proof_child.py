"""The child process of `edge.bundle.prove`: tries a bundle and a gallery, and says what is wrong with them.

Rules this module keeps:
1. It has no network, and limits on processor time and memory, before it reads anything of a bundle.
2. Everything that is wrong is reported, not only the first failed check.
3. Requests are lines of JSON: perhaps one that warms it up, then one that it answers before it ends.
4. It waits a few minutes for a request, and then ends: a gallery that is loaded for nothing takes memory.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.bundle.child_process import (
    WARM,
    be_the_first_to_die,
    forbid_network,
    give_way,
    limit_cpu,
    limit_memory,
    peak_memory_bytes,
    take_stdout,
)
from edge.errors import BundleError, FinesightError

if TYPE_CHECKING:
    from edge.bundle.bundle import Bundle
    from edge.gallery.loaded_gallery import LoadedGallery

log = logging.getLogger(__name__)

_LIMIT_S = 300.0  # of processor time, for each core
_FULL_SPEED_S = 4.0  # of processor time in all, for a gallery alone
_WAIT_S = 180.0  # for a request


def _try_it(request: dict[str, Any], warm: _Warm) -> dict[str, Any]:
    # only the child loads the libraries that run models
    from edge.bundle.bundle import read_bundle

    folder = Path(request["bundle"])
    gallery, cache = (Path(request[name]) if request[name] else None for name in ("gallery", "cache"))
    try:
        if request.get("gallery_only") and gallery is not None:
            # whoever asks for this has verified the files of the bundle
            _prove_change(read_bundle(folder, verify=False), gallery, cache, warm)
            return {"lines": []}
        bundle = read_bundle(folder)
        if request["choose"]:
            return _choose(bundle, request, cache)
        return {"lines": _prove(bundle, gallery, request, cache)}
    except FinesightError as error:
        return {"error": str(error), "kind": type(error).__name__}
    except Exception as error:  # noqa: BLE001  whatever a wrong model or gallery does, it is refused
        return {"error": f"{folder}: {type(error).__name__}: {error}", "kind": "BundleError"}


def _choose(bundle: Bundle, request: dict[str, Any], cache: Path | None) -> dict[str, Any]:
    from edge.bundle.choose_engines import TrialOptions, choose_engines
    from edge.config.schema import TensorRtConfig

    tensorrt = TensorRtConfig.model_validate(request["tensorrt"]) if request["tensorrt"] else None
    options = TrialOptions(request["backend"], request["threads"], cache, build=request["build"], tensorrt=tensorrt)
    return {"choice": choose_engines(bundle.folder, bundle.manifest, options).model_dump(mode="json", by_alias=True)}


def _prove(bundle: Bundle, gallery: Path | None, request: dict[str, Any], cache: Path | None) -> list[str]:
    """Return a line for each probe, if nothing is wrong.

    Raises:
        FinesightError: everything that is wrong; of the kind of the first failed check.
    """
    lines: list[str] = []
    checks: list[Callable[[], None]] = [lambda: _prove_models(bundle, request, cache, lines)]
    if gallery is not None:
        checks.append(lambda: _prove_gallery(bundle, gallery, cache))
    checks.append(lambda: _check_memory(bundle, request))
    failed: list[FinesightError] = []
    for check in checks:
        try:
            check()
        except FinesightError as error:
            failed.append(error)
        except Exception as error:  # noqa: BLE001  whatever a wrong model or gallery does, it is refused
            failed.append(BundleError(f"{bundle.folder}: {type(error).__name__}: {error}"))
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise type(failed[0])(f"{len(failed)} checks failed: {'; '.join(map(str, failed))}")
    return lines


def _prove_models(bundle: Bundle, request: dict[str, Any], cache: Path | None, lines: list[str]) -> None:
    from edge.bundle.golden_probes import check_latency, run_all_probes
    from edge.config.schema import TensorRtConfig
    from edge.engine_store.engine_store import EngineStore
    from edge.engine_store.process_memory import default_budget_bytes
    from edge.inference.engine_choice import EngineChoice
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
    results = run_all_probes(bundle, stages)
    budget = bundle.manifest.budget
    limit_ms = _smaller(request.get("p95_ms"), budget.p95_ms if budget else None)
    if limit_ms is not None:
        check_latency(bundle, stages, results, limit_ms)
    lines += map(str, results)


def _prove_gallery(bundle: Bundle, gallery: Path, cache: Path | None) -> None:
    from edge.bundle.gallery_proof import prove_gallery
    from edge.gallery.generation import read_gallery
    from edge.gallery.index_cache import CACHE_NAME, IndexCache

    prove_gallery(bundle, read_gallery(gallery), IndexCache(cache / CACHE_NAME) if cache else None)


def _check_memory(bundle: Bundle, request: dict[str, Any]) -> None:
    budget = bundle.manifest.budget
    limit_mib = _smaller(request.get("memory_mib"), budget.memory_mib if budget else None)
    found_mib = peak_memory_bytes() / 2**20
    if limit_mib is not None and found_mib > limit_mib:
        raise BundleError(
            f"{bundle.folder}: it takes {found_mib:.0f} MiB of memory with everything loaded, more than the "
            f"{limit_mib:.0f} MiB that are allowed; do not activate this bundle"
        )


def _smaller(one: float | None, other: float | None) -> float | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)


@dataclass(frozen=True, slots=True)
class _Warm:
    """What a child has loaded while it waited."""

    gallery: LoadedGallery | None = None  # that serves


def _warm_up(request: dict[str, Any]) -> _Warm:
    """Import what a proof needs, and load the gallery that serves; one that cannot be loaded is left out."""
    from edge.bundle import gallery_proof  # noqa: F401  imported now, needed later
    from edge.bundle.bundle import read_bundle
    from edge.gallery.generation import read_gallery
    from edge.gallery.index_cache import CACHE_NAME, IndexCache
    from edge.gallery.loaded_gallery import load_gallery
    from edge.inference import onnxruntime_engine  # noqa: F401

    if not request["gallery"]:
        return _Warm()
    try:
        bundle = read_bundle(Path(request["bundle"]), verify=False)
        cache = IndexCache(Path(request["cache"]) / CACHE_NAME) if request["cache"] else None
        loaded = load_gallery(bundle.manifest, read_gallery(Path(request["gallery"])), cache=cache)
        loaded.build_lists()
    except FinesightError as error:
        log.debug("%s", error)
        return _Warm()
    return _Warm(loaded)


def _prove_change(bundle: Bundle, gallery: Path, cache: Path | None, warm: _Warm) -> None:
    """Prove another gallery for a bundle that serves: what it shares with the one that serves is loaded already."""
    from edge.bundle.gallery_proof import prove_gallery
    from edge.gallery.generation import read_gallery
    from edge.gallery.index_cache import CACHE_NAME, IndexCache

    index_cache = IndexCache(cache / CACHE_NAME) if cache else None
    prove_gallery(bundle, read_gallery(gallery), index_cache, warm.gallery)


def _reserves_memory(request: dict[str, Any]) -> bool:
    """Return whether an engine may reserve far more memory than it uses, as CUDA does."""
    if request.get("gallery_only"):  # no engine runs
        return False
    from edge.inference.engine import GPU_BACKENDS, RUNS

    chosen = [model["backend"] for model in request["choice"]["models"].values()] if request["choice"] else []
    return any(one != "auto" and (one not in RUNS or one in GPU_BACKENDS) for one in (request["backend"], *chosen))


def main(arguments: list[str]) -> None:
    """Be the child: read a request, prove, write the result as JSON to standard output, and end the process."""
    be_the_first_to_die(int(arguments[0]), _FULL_SPEED_S if WARM in arguments else 0.0)
    wall = forbid_network()
    answer = take_stdout()
    warm = _Warm()
    request: dict[str, Any] = {}
    end = threading.Timer(_WAIT_S, os._exit, [0])  # as without a request
    end.daemon = True
    end.start()
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("do") != "warm up":
            break
        warm = _warm_up(request)
        request = {}
    end.cancel()
    if not request:  # whoever started it needs no proof
        os._exit(0)
    if not request.get("gallery_only"):
        give_way()
    if not _reserves_memory(request):
        limit_memory()
    if not request.get("choose"):
        # Trials of engines have limits of their own. With this one, Linux would count their time in steps of 4 ms.
        limit_cpu(request.get("limit_s", _LIMIT_S))
    tried = _try_it(request, warm)
    with os.fdopen(answer, "w", encoding="utf-8") as file:
        json.dump(tried | {"wall": wall}, file)
    os._exit(0)  # without the clean-up of native libraries
