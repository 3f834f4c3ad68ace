"""The id of an embedding space: a hash of everything that determines its vectors."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from edge.manifest.embedder import Head
from edge.manifest.model import Preprocess


def embedding_space_id(
    fp32_sha256: str, preprocess: Preprocess, heads: list[Head], classifier: dict[str, Any] | None = None
) -> str:
    """Return the id of a model's embedding space: a hash of everything that determines its vectors.

    The hash uses the FP32 master, so that its INT8 forms, verified as equivalent when packed, share the space.

    Args:
        fp32_sha256: of the FP32 master.
        preprocess: of the embedder.
        heads: the parts of its vectors.
        classifier: the same for the classifier, and its share, if it contributes to the vectors.
    """
    parts = {
        "fp32": fp32_sha256,
        "preprocess": preprocess.model_dump(mode="json"),
        "heads": [head.model_dump(mode="json") for head in heads],
        "metric": "cosine",
    }
    if classifier is not None:
        parts["classifier"] = classifier
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def whitened_space_id(space_id: str, whitening_sha256: str) -> str:
    """Return the id of a space after its whitening.

    Args:
        space_id: of the joint vectors.
        whitening_sha256: of the file of the map.
    """
    return hashlib.sha256(f"{space_id} whitened {whitening_sha256}".encode()).hexdigest()
