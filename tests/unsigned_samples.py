"""Repositories as finesight published them before signatures, written by heart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from edge.gallery.generation import read_gallery


def put_object(repo: Path, data: bytes) -> dict[str, Any]:
    """Store an object and return its reference."""
    sha256 = hashlib.sha256(data).hexdigest()
    path = repo / "objects" / sha256[:2] / sha256
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"sha256": sha256, "size": len(data)}


def publish_unsigned(
    repo: Path, bundle: Path, gallery_folder: Path, sequence: int, line: str = "demo", rollback_to: int | None = None
) -> None:
    """Publish a bundle and a gallery as an unsigned release."""
    manifest = (bundle / "bundle.json").read_bytes()
    tree = json.loads(manifest)
    for file in tree["files"]:
        put_object(repo, (bundle / file["path"]).read_bytes())
    head = {
        "schema": 1,
        "line": line,
        "bundle_id": tree["bundle_id"],
        "sequence": tree["sequence"],
        "manifest": put_object(repo, manifest),
    }
    gallery = read_gallery(gallery_folder)
    heads = {}
    for category, entry in gallery.categories.items():
        about = {
            "schema": 1,
            "line": line,
            "category": category,
            "space_id": entry.space_id,
            "heads": [one.model_dump() for one in entry.heads],
            "sequence": 1,
            "base": put_object(repo, gallery.path(category).read_bytes()),
            "items": entry.items,
            "vectors": entry.vectors,
        }
        heads[category] = put_object(repo, json.dumps(about).encode())
    release: dict[str, Any] = {
        "schema": 1,
        "line": line,
        "sequence": sequence,
        "created_at": f"2026-01-{sequence:02}T00:00:00Z",
        "bundle": put_object(repo, json.dumps(head).encode()),
        "gallery": {"generation": gallery.generation, "created_at": gallery.created_at, "heads": heads},
    }
    if rollback_to is not None:
        release["rollback_to"] = rollback_to
    data = json.dumps({"signed": release}).encode()
    (repo / "releases").mkdir(exist_ok=True)
    (repo / "releases" / f"{sequence}.json").write_bytes(data)
    (repo / "release.json").write_bytes(data)
