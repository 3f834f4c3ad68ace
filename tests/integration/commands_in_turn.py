"""Runs commands one after another in one process: their libraries take longer to load than they take to run."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
from importlib import import_module

_MODULES = {"edge-sync": "gallery_sync.cli", "edge-console": "console.cli"}


def run(name: str, arguments: list[str], typed: str) -> tuple[int, str]:
    """Run one command; return its exit status and the end of what it printed."""
    program, *verbs = name.split()
    said, before = io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(typed)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = import_module(_MODULES[program]).main([*verbs, *arguments])
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 2
    except Exception:
        said.write(traceback.format_exc())
        status = 70
    finally:
        sys.stdin = before
    return status, said.getvalue()[-600:]


if __name__ == "__main__":
    print(json.dumps({name: run(name, arguments, typed) for name, arguments, typed in json.load(sys.stdin)}))
