"""A console with crops to review: patches of plain colours, and models that know three of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from console.models.looks import Look
from console.review.review import Review
from console.sets.crops import NewBox, set_boxes
from console.sets.pictures import add_picture
from console.sets.sets import create_set
from console.settings import Settings
from console.web.serve import ConsoleServer, Listen, close_services, open_services
from edge.errors import ConsoleError
from edge.imaging.image import encode_image
from edge.types import Category, Hit
from tests.console_samples import TOKEN, Client, Reply

SIDE = 48  # pixels of a patch
COLOURS = {"red": (230, 30, 30), "green": (30, 230, 30), "blue": (30, 30, 230)}
NEW = {"yellow": (220, 220, 20), "violet": (200, 20, 220)}  # no gallery has these


class ColourModels:
    """Sees the mean colour of a picture; its gallery has red, green and blue."""

    def __init__(self) -> None:
        self.looked = 0

    def look(self, image_rgb: Any, choice_id: str = "", category: str | None = None) -> Look:
        self.looked += 1
        vector = _unit(image_rgb.reshape(-1, 3).mean(axis=0))
        cosines = {name: float(vector @ _unit(rgb)) for name, rgb in COLOURS.items()}
        hits = tuple(Hit(name, name.title(), cosines[name]) for name in sorted(cosines, key=lambda n: -cosines[n]))
        return Look((Category("colour", 0.9),), {"colour": vector}, {"colour": "rgb"}, {"colour": hits})

    def choice(self, choice_id: str = "") -> Any:
        raise ConsoleError("missing", "no gallery")

    def choices(self) -> list[Any]:
        return []

    def thumbnail(self, choice_id: str, category: str, item: str) -> bytes | None:
        rgb = COLOURS.get(item)
        return rgb and encode_image(np.full((SIDE, SIDE, 3), rgb, np.uint8), ".png")


@contextmanager
def reviewing(folder: Path) -> Iterator[Client]:
    """Run a console whose models see colours."""
    services = open_services(Settings(folder / "data"), TOKEN)
    models = ColourModels()
    services = replace(services, models=models, review=Review(services.database, models, services.tasks))
    try:
        with ConsoleServer(services, Listen(port=0)) as server:
            yield Client(server.url, services)
    finally:
        close_services(services)


def patch_set(client: Client, folder: Path, pictures: Sequence[Sequence[str]], name: str = "") -> int:
    """Make a set of pictures, each with patches of colours beside each other; `red*2` is a copy of `red*2` elsewhere.

    The text before `*` is the colour; the same text is the same patch, and others differ in brightness and pattern.
    """
    name = f"{folder.name[:40]} {name or 'patches'}"
    folder = folder / (name.partition(" ")[2])
    folder.mkdir(parents=True, exist_ok=True)
    services = client.services
    with services.database.write() as connection:
        set_id = create_set(connection, services.clock(), "tester", name, "folder", folder)
        for number, patches in enumerate(pictures):
            path = folder / f"{'abcdefghijklmnopqrstuvwxyz'[number % 26] * (1 + number // 26)}.png"
            path.write_bytes(encode_image(np.concatenate([_patch(one) for one in patches], axis=1), ".png"))
            picture = add_picture(connection, services.clock(), set_id, path.name, path, whole=False)
            boxes = [NewBox(None, (SIDE * i, 0, SIDE * (i + 1), SIDE)) for i in range(len(patches))]
            set_boxes(connection, picture, 1, boxes, "confirmed")
    return set_id


def propose(client: Client, set_id: int) -> None:
    """Let the models look at all crops of a set, and wait for it."""
    key = client.send("POST", f"/api/v1/review/{set_id}/propose", {}).json["key"]
    task = client.services.tasks.wait(key, 60.0)
    assert task is not None, "the task is gone"
    assert task.state == "done", task.says


def crops(client: Client, set_id: int, query: str = "") -> list[dict[str, Any]]:
    """Return the crops of a page."""
    reply = client.get(f"/api/v1/review/{set_id}/crops?limit=200&{query}")
    assert reply.status == 200, reply.text
    return reply.json["crops"]


def decide(client: Client, set_id: int, decision: str, seen: Sequence[dict[str, Any]], **named: Any) -> Reply:
    """Send one decision about crops as they were seen."""
    body = {"id": decision, "crops": [{"id": one["id"], "version": one["version"]} for one in seen], **named}
    return client.send("POST", f"/api/v1/review/{set_id}/decisions", {"decisions": [body]})


def outcome(reply: Reply) -> dict[str, Any]:
    """Return what became of the one decision of a request."""
    assert reply.status == 200, reply.text
    return reply.json["outcomes"][0]


def _patch(text: str) -> np.ndarray:
    rng = np.random.default_rng(list(text.encode()))
    colour = np.array({**COLOURS, **NEW}[text.partition("*")[0]], np.float32)
    blocks = rng.uniform(0.4, 1.0, (6, 6, 1)).repeat(SIDE // 6, axis=0).repeat(SIDE // 6, axis=1)
    return np.clip(colour * blocks, 0, 255).astype(np.uint8)


def _unit(rgb: Any) -> np.ndarray:
    vector = np.asarray(rgb, np.float32)
    return vector / np.linalg.norm(vector)
