"""Uploads as devices send them, without a device."""

from __future__ import annotations

import io
import json
import zipfile

import cv2
import numpy as np

AT = "2026-01-01T00:00:00Z"


def jpeg(seed=1, size=96):
    """A picture; pictures of other seeds do not look alike."""
    pattern = np.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    picture = cv2.resize(pattern, (size, size), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", picture)[1].tobytes()


def zipped(method=zipfile.ZIP_STORED, **entries):
    """A zip file of entries; `item_json` stands for `item.json`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in entries.items():
            file.writestr(name.replace("_json", ".json"), data if isinstance(data, (bytes, str)) else json.dumps(data))
    return buffer.getvalue()


def taught(number=1, *, label="Oat flakes", category="carton", revision=1, seeds=(1, 2), **changes):
    """The upload of a taught item, and its name."""
    item = {
        "schema": 1,
        "item_id": f"taught-{number:012x}",
        "label": label,
        "category": category,
        "taught_at": AT,
        "revision": revision,
        "looks": len(seeds),
        "negative": False,
    }
    pictures = {f"look-{n}.jpg": jpeg(seed) for n, seed in enumerate(seeds)}
    return f"taught-{number:012x}.zip", zipped(**{"item.json": item | changes} | pictures)


def unknown(number=1, *, seed=9, category="carton", top=(("c1", "Corn flakes", 0.5),), **changes):
    """The upload of an unknown object, and its name."""
    record = {
        "schema": 1,
        "id": f"unknown-{number:012x}",
        "site": "shop",
        "device": "said-by-the-device",
        "camera": "door",
        "track_id": number,
        "captured_at": AT,
        "dwell_s": 2.0,
        "reason": "unknown_item",
        "category": category,
        "category_score": 0.9,
        "top": [{"item": item, "label": label, "score": score} for item, label, score in top],
        "bundle": "b",
        "gallery": "g",
        "box_rel": [0, 0, 1, 1],
        "box_px": [0, 0, 96, 96],
        "looks": 3,
    }
    packed = zipped(**{"object.json": record | changes, "crop.jpg": jpeg(seed)})
    return f"unknown-{number:012x}.zip", packed


def put(inbox, device, upload):
    """Store an upload as the server does; return its path."""
    name, data = upload
    (inbox / device).mkdir(parents=True, exist_ok=True)
    path = inbox / device / name
    path.write_bytes(data)
    return path
