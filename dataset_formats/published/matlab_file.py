"""Read a MATLAB file in a process of its own: changed bytes may crash the library that reads it.

This module is the only one that imports scipy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from edge.errors import DataError

MEMORY_MIB = 3072  # of addresses, libraries included
TIMEOUT_S = 60.0
_ANSWER_MIB = 64


def read_matlab(file: Path, *names: str) -> dict[str, Any]:
    """Return the named variables that a MATLAB file has: lists of numbers, texts or structs; None for other values.

    Raises:
        DataError: the file cannot be read, is damaged, or needs too much memory or time.
    """
    command = [sys.executable, "-m", "dataset_formats.published.matlab_file", str(MEMORY_MIB), str(file), *names]
    places = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": places, "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{file}: took more than {TIMEOUT_S:g} s to read; the file is damaged, copy it again") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot read: {error}") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or [""])[-1]
        raise DataError(
            f"{file}: reading it ended with status {done.returncode} {last}; the file is damaged, copy it again"
        ) from None
    if "error" in answer:
        raise DataError(f"{file}: {answer['error']}")
    return dict(answer["variables"])


def _limit_memory(mib: int) -> None:
    import resource

    size = mib << 20
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _load(memory_mib: int, file: str, names: list[str]) -> dict[str, Any]:
    """Return the answer of the other process."""
    import scipy.io

    _limit_memory(memory_mib)
    try:
        tree = scipy.io.loadmat(file, squeeze_me=True, variable_names=names)
        return {"variables": {name: _plain(tree[name]) for name in names if name in tree}}
    except MemoryError:
        return {"error": f"needs more than {memory_mib} MiB of memory; the file is damaged, copy it again"}
    except OSError as error:
        return {"error": f"cannot read: {error.strerror or error}"}
    except Exception as error:  # noqa: BLE001 a damaged file may raise anything; this process does nothing else
        return {"error": f"not a MATLAB file: {error}"}


def _plain(value: Any) -> Any:
    """Return a value of scipy as JSON has it; None for one that has no such form."""
    import numpy as np

    if isinstance(value, np.ndarray):
        if value.dtype.names:
            return [_plain(row) for row in np.atleast_1d(value).ravel()]
        return [_plain(one) for one in value.tolist()] if value.ndim == 1 else None
    if isinstance(value, np.void):
        return {name: _plain(value[name]) for name in value.dtype.names or ()}
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, (bool, int, float, str)) else None


if __name__ == "__main__":
    _answer = json.dumps(_load(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
    if len(_answer) > _ANSWER_MIB << 20:
        _answer = json.dumps({"error": f"holds more than {_ANSWER_MIB} MiB; the file is damaged, copy it again"})
    sys.stdout.write(_answer)
