"""Fingerprint of everything that a loaded model's outputs depend on, so that outputs can be cached."""

from __future__ import annotations

import hashlib
import json
import platform
from functools import cache
from pathlib import Path

import numpy as np

from edge import __version__
from edge.imaging import image
from edge.manifest.embedder import EmbedderModel
from edge.manifest.stages import ClassifierModel, LocaliserModel

# Manifest keys without influence on the outputs. The hash of its content identifies the form that runs.
_IGNORED_KEYS = {"files", "ship", "why", "categories", "open_set", "compatible", "outline", "threshold", "gathering"}


def fingerprint_of(model: ClassifierModel | EmbedderModel | LocaliserModel, form_sha256: str, library: str) -> str:
    """Return the fingerprint of a loaded model: with equal fingerprints, a picture gives the same bits.

    Args:
        model: the manifest's entry; an embedder's includes its space.
        form_sha256: of the model file that runs.
        library: what runs it, as the engine reports.
    """
    parts = {
        "model": model.model_dump(mode="json", exclude=_IGNORED_KEYS),
        "form": form_sha256,
        "library": library,
        "around": [image.LIBRARY, f"numpy {np.__version__}"],
        "edge": __version__,
        "processor": processor(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def processor() -> list[str]:
    """Return the CPU properties by which libraries choose their kernels: a disk may move to another machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    properties = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    return [platform.machine(), *sorted(properties)]
