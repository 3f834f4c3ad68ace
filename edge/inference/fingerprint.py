"""Names all that the numbers of a loaded model depend on, so that what it made may be kept and known again."""

from __future__ import annotations

import hashlib
import json
import platform
from functools import cache
from pathlib import Path

import numpy as np

from edge import __version__
from edge.imaging import image
from edge.manifest import ClassifierModel, EmbedderModel, LocaliserModel

# What of a manifest's entry has no part in the numbers: the form that runs is named by its content.
_BESIDE = {"files", "ship", "why", "categories", "open_set", "compatible", "outline", "threshold", "gathering"}


def fingerprint_of(model: ClassifierModel | EmbedderModel | LocaliserModel, form_sha256: str, library: str) -> str:
    """Name them: two of one origin answer a picture with the same bits.

    Args:
        model: of the manifest; an embedder's names its space.
        form_sha256: of the file that runs.
        library: what runs it, as the engine says.
    """
    parts = {
        "model": model.model_dump(mode="json", exclude=_BESIDE),
        "form": form_sha256,
        "library": library,
        "around": [image.LIBRARY, f"numpy {np.__version__}"],
        "edge": __version__,
        "processor": _processor(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def _processor() -> list[str]:
    """What libraries choose their kernels by: a disk may move to another machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    return [platform.machine(), *sorted(told)]
