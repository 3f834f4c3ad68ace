"""Builds TensorRT engines in a child process: one that crashes, hangs or takes all memory costs only the build.

The child builds one engine after the other and keeps each on disk, so that an interrupted build goes on later.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

from edge.bundle.child_process import be_the_first_to_die, command, how_it_ended, take_stdout
from edge.config.schema import TensorRtConfig
from edge.errors import EngineError, FinesightError, GpuError, one_line
from edge.types import BuildProgress

Models = Sequence[tuple[Path, int]]  # ONNX files, and rows of their largest batch
OnProgress = Callable[[BuildProgress], None]

_SILENCE_LIMIT_S = 3600.0  # TensorRT reports its steps; one that takes longer hangs


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How and where engines are built."""

    cache: Path
    tensorrt: TensorRtConfig
    silence_limit_s: float = _SILENCE_LIMIT_S


def engines_missing(models: Models, options: BuildOptions) -> Models:
    """Return the models whose engines are not built for this machine.

    Raises:
        GpuError: the GPU is missing or lost, or its driver is too old.
        EngineError: TensorRT is not usable, or a file cannot be read.
    """
    try:
        from edge.inference.tensorrt_engine import gpu_kind
        from edge.inference.tensorrt_plans import plans_missing
    except ImportError as error:
        raise EngineError(f"engine tensorrt: installed but not usable: {error}") from error
    return plans_missing(models, options.cache, options.tensorrt, gpu_kind())


def build_engines(models: Models, options: BuildOptions, progress: OnProgress) -> None:
    """Build the engines that are missing, in a child process; return when they are built.

    Raises:
        EngineError: one cannot be built, or the child crashed or hung.
    """
    request = {
        "models": [(str(path), rows) for path, rows in models],
        "cache": str(options.cache),
        "tensorrt": options.tensorrt.model_dump(),
    }
    with subprocess.Popen(command("edge.bundle.engine_builds"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            answer = _listen(child, request, options.silence_limit_s, progress)
        finally:
            child.kill()
    if "error" in answer:
        kind = GpuError if answer.get("kind") == "GpuError" else EngineError
        raise kind(str(answer["error"]))


def _listen(
    child: subprocess.Popen[bytes], request: dict[str, Any], silence_limit_s: float, progress: OnProgress
) -> dict[str, Any]:
    """Send the request, pass the progress on, and return the last line."""
    last_s = time.monotonic()
    ended, is_silent = threading.Event(), threading.Event()

    def watch() -> None:
        while not ended.wait(max(0.0, last_s + silence_limit_s - time.monotonic())):
            if time.monotonic() >= last_s + silence_limit_s:
                is_silent.set()
                child.kill()
                return

    threading.Thread(target=watch, name="engine-build-watch", daemon=True).start()
    try:
        with contextlib.suppress(BrokenPipeError), cast("IO[bytes]", child.stdin) as requests:
            requests.write(json.dumps(request).encode())
        for line in cast("IO[bytes]", child.stdout):
            last_s = time.monotonic()
            answer: dict[str, Any] = json.loads(line)
            if "built" not in answer:
                return answer
            progress(BuildProgress(**answer))
    finally:
        ended.set()
    if is_silent.is_set():
        raise EngineError(f"building engines: nothing happened for {silence_limit_s:g} s; it was ended")
    raise EngineError(f"building engines: the process ended with {how_it_ended(child.wait())}")


def main(arguments: list[str]) -> None:
    """Be the child: read a request, build, write progress and the result as lines of JSON, and end the process."""
    be_the_first_to_die(int(arguments[0]))
    with os.fdopen(take_stdout(), "w", encoding="utf-8", buffering=1) as answers:

        def report(progress: BuildProgress) -> None:
            answers.write(json.dumps(asdict(progress)) + "\n")

        answers.write(json.dumps(_build(json.load(sys.stdin), report)) + "\n")
    os._exit(0)  # without the clean-up of native libraries


def _build(request: dict[str, Any], report: OnProgress) -> dict[str, Any]:
    try:
        from edge.inference.tensorrt_engine import gpu_kind
        from edge.inference.tensorrt_plans import build_plans

        models = [(Path(path), int(rows)) for path, rows in request["models"]]
        config = TensorRtConfig.model_validate(request["tensorrt"])
        build_plans(models, Path(request["cache"]), config, gpu_kind(), report)
    except FinesightError as error:
        return {"error": str(error), "kind": type(error).__name__}
    except Exception as error:  # noqa: BLE001  whatever a library raises, the parent gets it
        return {"error": f"building engines: {type(error).__name__}: {one_line(str(error))}", "kind": "EngineError"}
    return {"done": True}


def describe(progress: BuildProgress) -> str:
    """Return how far a build is, in words."""
    left = "" if progress.left_s is None else f", about {max(1, round(progress.left_s / 60))} min left"
    return f"building engine {progress.built + 1} of {progress.of} ({progress.model}, {progress.share:.0%}){left}"
