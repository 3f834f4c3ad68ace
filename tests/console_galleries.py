"""A small signed repository whose gallery the console curates, made once and copied for each test."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np

from edge.gallery.generation import write_gallery_index
from edge.gallery.writer import GalleryWriter
from edge.manifest.embedder import Head
from gallery_sync.repository.items.edit import list_items
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.publish import publish
from gallery_sync.repository.published import read_published
from tests.console_samples import Client, running_console
from tests.fleet_bundles import CATEGORY, DIM, ITEMS, SIDE, SPACE, picture, write_bundle
from tests.projection_model import project
from tests.sync_samples import development_keys

ITEM_VECTORS = 3


def _noisy(number: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(1000 * number + seed).integers(-20, 20, (SIDE, SIDE, 3))
    return np.clip(picture(number).astype(int) + noise, 0, 255).astype(np.uint8)


@functools.cache
def _made_once() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="finesight-console-gallery-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    bundle = write_bundle(folder / "bundle", 1)
    with GalleryWriter(folder / "gallery", CATEGORY, SPACE, [Head(name="class", dim=DIM)]) as writer:
        for number in range(ITEMS):
            rows = project(np.stack([_noisy(number, seed) for seed in range(ITEM_VECTORS)]), DIM)
            writer.add(f"item-{number}", f"Item {number}", rows, thumbnail=_jpeg(number) if number else None)
    write_gallery_index(folder / "gallery", "2026-01-01T00:00:00Z")
    keys = development_keys(folder / "repo.keys")
    now = datetime.now(timezone.utc)
    SignedMetadata.create(folder / "repo", "shop", "online", keys, now)
    publish(folder / "repo", keys, now, bundle_folder=bundle, gallery_folder=folder / "gallery")
    return folder


def _jpeg(number: int) -> bytes:
    return bytes(cv2.imencode(".jpg", picture(number)[..., ::-1])[1])


def make_repository(folder: Path) -> Path:
    """Copy the repository and its keys, and return it."""
    made = _made_once()
    for name in ("repo", "repo.keys"):
        shutil.copytree(made / name, folder / name)
    return folder / "repo"


@contextmanager
def curating(folder: Path, *, keys: bool = True) -> Iterator[Client]:
    """Run a console on a repository of its own, with the gallery read."""
    repo = make_repository(folder)
    with running_console(folder / "data", repository=repo, keys=folder / "repo.keys" if keys else None) as client:
        read_gallery(client)
        yield client


def read_gallery(client: Client) -> None:
    """Wait until the console has read the newest gallery."""
    client.send("POST", "/api/v1/gallery/refresh")
    task = client.services.tasks.wait("gallery/index", 60.0)
    assert task is not None
    assert task.state == "done", task.says


def draft(client: Client, kind: str, item: str, **more: object) -> int:
    """Draft a change, and return its id."""
    reply = client.send("POST", f"/api/v1/gallery/drafts/{kind}", {"category": CATEGORY, "item": item, **more})
    assert reply.status == 200, reply.text
    return int(reply.json["drafts"][0])


def publish_all(client: Client, **more: object) -> str:
    """Publish every change that waits, and return what the console says."""
    plan = client.get("/api/v1/gallery/drafts").json
    body = {"version": plan["version"], "drafts": [one["id"] for one in plan["drafts"]], **more}
    reply = client.send("POST", "/api/v1/gallery/publish", body)
    assert reply.status == 200, reply.text
    task = client.services.tasks.wait("gallery/publish", 60.0)
    assert task is not None
    return f"{task.state}: {task.says}"


def add_pictures(client: Client, item: str, label: str, *numbers: int) -> int:
    """Draft uploaded pictures, and wait until they are embedded; pictures of one number look alike."""
    files = {f"{number}-{place}.png": png(number, place) for place, number in enumerate(numbers)}
    reply = client.upload("/api/v1/gallery/drafts/add", files, category=CATEGORY, item=item, label=label)
    assert reply.status == 200, reply.text
    client.services.tasks.wait("gallery/embed", 60.0)
    return int(reply.json["drafts"][0])


def png(number: int, seed: int) -> bytes:
    """Return a picture of noise as a file; those of one number look alike."""
    large = cv2.resize(_noisy(number, 100 + seed), (SIDE * 4, SIDE * 4), interpolation=cv2.INTER_NEAREST)
    return bytes(cv2.imencode(".png", large[..., ::-1])[1])


def devices_see(repo: Path) -> dict[str, str]:
    """Return the label of each item of the newest signed gallery, by id."""
    found = list_items(read_published(repo, SignedMetadata.open(repo)))
    return {str(one["item"]): str(one["label"]) for one in found}
