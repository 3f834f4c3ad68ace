"""Proves a bundle and a gallery in a child process, before they serve.

What was downloaded can be whole and still be wrong: a model that never ends, or one that takes all memory. A child
process with limits on time and memory tries it; the process that serves is not touched.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from edge.errors import BundleError, EngineError, FinesightError, GalleryError

if TYPE_CHECKING:
    from edge.inference.engine import Backend

Prove = Callable[[Path, "Path | None"], list[str]]  # bundle folder, gallery folder -> a line for each probe

_LIMIT_S = 300.0
_BUILDING_LIMIT_S = 3600.0  # TensorRT builds engines for minutes each
# isolated: the same modules as here, whatever folder the process was started in
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from edge.bundle.prove import main; main(sys.argv[2:])"
)
_PR_SET_PDEATHSIG = 1  # of prctl(2)
_KINDS: dict[str, type[FinesightError]] = {kind.__name__: kind for kind in (BundleError, EngineError, GalleryError)}


def prover(backend: Backend = "auto", cache: Path | None = None, limit_s: float | None = None) -> Prove:
    """Return a function that proves a bundle and a gallery in a child process.

    It checks every hash, runs every golden probe, loads the gallery and searches it. It raises BundleError,
    GalleryError or EngineError if they must not serve, also if the child does not end in time.

    Args:
        backend: which engine runs the models.
        cache: folder of engines built on this machine; the bundle's folder when None.
        limit_s: how long the child may take, in seconds; None: five minutes, an hour where engines are built.
    """
    builds = importlib.util.find_spec("tensorrt") is not None
    limit_s = limit_s or (_BUILDING_LIMIT_S if builds else _LIMIT_S)

    def prove(bundle: Path, gallery: Path | None) -> list[str]:
        return _in_child([str(bundle), str(gallery or ""), backend, str(cache or "")], limit_s)

    return prove


def _in_child(arguments: list[str], limit_s: float) -> list[str]:
    command = [sys.executable, "-I", "-c", _CHILD, json.dumps(sys.path), str(os.getpid()), *arguments]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        try:
            told, _ = child.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            child.kill()
            raise BundleError(
                f"{arguments[0]}: the proof did not end within {limit_s:g} s; do not use this bundle"
            ) from None
        except BaseException:
            child.kill()
            raise
    status = child.returncode
    if status != 0 or not told:
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        raise BundleError(f"{arguments[0]}: the process that tried it ended with {how}; do not use this bundle")
    result = json.loads(told)
    if "error" in result:
        raise _KINDS.get(result["kind"], BundleError)(result["error"])
    lines: list[str] = result["lines"]
    return lines


def _try_it(bundle: Path, gallery: Path | None, backend: str, cache: Path | None) -> dict[str, object]:
    # only the child loads the libraries that run models
    from edge.bundle.bundle import read_bundle
    from edge.bundle.gallery_proof import prove_gallery
    from edge.bundle.golden_probes import verify_bundle
    from edge.gallery.generation import read_gallery

    try:
        lines = [str(result) for result in verify_bundle(bundle, cast("Backend", backend), cache)]
        if gallery is not None:
            prove_gallery(read_bundle(bundle, verify=False), read_gallery(gallery))
    except FinesightError as error:
        return {"error": str(error), "kind": type(error).__name__}
    except Exception as error:  # noqa: BLE001  whatever a wrong model or gallery does, it is refused
        return {"error": f"{bundle}: {type(error).__name__}: {error}", "kind": "BundleError"}
    return {"lines": lines}


def _be_the_first_to_die(parent: int) -> None:
    """Give way to the process that serves: in time, in memory, and when the parent ends."""
    os.nice(10)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        sys.exit(1)
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:  # not Linux, or not allowed
        return


def _limit_memory(meminfo: Path = Path("/proc/meminfo")) -> None:
    """Let the kernel refuse more memory than is free now, so that a model that wants all of it fails here."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        free_bytes = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        return
    resource.setrlimit(resource.RLIMIT_DATA, (free_bytes, free_bytes))


def main(arguments: list[str]) -> None:
    """Be the child: prove, write the result as JSON to standard output, and end the process."""
    parent, bundle, gallery, backend, cache = arguments
    _be_the_first_to_die(int(parent))
    if backend not in ("tensorrt", "onnxruntime-cuda"):  # CUDA reserves far more than it uses
        _limit_memory()
    answer = os.dup(1)
    os.dup2(2, 1)  # what native libraries print is not the answer
    tried = _try_it(Path(bundle), Path(gallery) if gallery else None, backend, Path(cache) if cache else None)
    with os.fdopen(answer, "w", encoding="utf-8") as file:
        json.dump(tried, file)
    os._exit(0)  # without the clean-up of native libraries
