"""Builds ONNX files with the device's TensorRT door, in one child process: to start the library takes long.

The child reads `[path, rows]` pairs as JSON from its first argument and writes one JSON line for each to the second.
TensorRT writes to stdout and stderr as it likes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """What the door made of a file."""

    size: int  # bytes of the plan, 0 where it was refused
    seconds: float
    error: str  # the message of the EngineError, "" where it was built


def build_all(files: Mapping[Path, int], builder: Path) -> dict[Path, Outcome]:
    """Build files, each for this many rows if its batch is open; return the outcomes.

    Raises:
        RuntimeError: the process died; the message names the file that it had reached.
    """
    with tempfile.TemporaryDirectory(prefix="finesight-trt-") as folder:
        asked, answers = Path(folder, "asked"), Path(folder, "answers")
        asked.write_text(json.dumps([[str(path), rows] for path, rows in files.items()]), encoding="utf-8")
        answers.touch()
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.tensorrt_builds", asked, answers],
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{builder}", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        found = [Outcome(**json.loads(line)) for line in answers.read_text(encoding="utf-8").splitlines()]
    if len(found) < len(files):
        reached = list(files)[len(found)]
        raise RuntimeError(f"the builder died with status {done.returncode} at {reached}: {done.stderr[-2000:]}")
    return dict(zip(files, found, strict=True))


def build_one(path: Path, max_batch: int) -> Outcome:
    """Build a file in this process, which finds TensorRT."""
    from edge.config.schema import TensorRtConfig
    from edge.errors import EngineError
    from edge.inference.tensorrt_build import build_plan

    started_s = time.monotonic()
    try:
        built = build_plan(path.read_bytes(), path.name, max_batch, TensorRtConfig())
    except EngineError as error:
        return Outcome(0, time.monotonic() - started_s, str(error))
    return Outcome(len(built.plan), time.monotonic() - started_s, "")


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with Path(sys.argv[2]).open("a", encoding="utf-8", buffering=1) as answers:
        answers.writelines(json.dumps(asdict(build_one(Path(path), rows))) + "\n" for path, rows in asked)


if __name__ == "__main__":
    main()
