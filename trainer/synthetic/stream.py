"""A video of a camera that moves along a shelf, a table and a road, with ground truth for every frame."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.synthetic.background import Kind, shelf_board, surface
from trainer.synthetic.camera import add_noise, tone_curve
from trainer.synthetic.clutter import clutter
from trainer.synthetic.items import Item
from trainer.synthetic.render import random_view, sprite, stamp
from trainer.synthetic.scene import Box, box_of, contact_shadow
from trainer.synthetic.solid import View

log = logging.getLogger(__name__)

Bytes = NDArray[np.uint8]
_LEAST_VISIBLE = 0.05  # smallest visible fraction of a listed object
_PARTS: tuple[tuple[Kind, float, float], ...] = (  # place, share of the time, speed in frame heights per second
    ("shelf", 0.4, 0.72),
    ("table", 0.28, 0.72),
    ("road", 0.32, 0.95),
)
_NEAR = 1.3  # how much faster clutter close to the camera passes by


@dataclass(frozen=True, slots=True)
class StreamObject:
    """One physical object as it appears in one frame."""

    object_id: int  # the same in all frames
    item_id: str
    category: str
    box_px: Box  # box of the visible part
    visible_fraction: float  # share of its pixels that are neither hidden nor outside the frame


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """One frame of the stream."""

    index: int
    image_rgb: Bytes
    objects: tuple[StreamObject, ...]


@dataclass(frozen=True, slots=True)
class _Standing:
    """An object of the world."""

    object_id: int
    item: Item
    x: float  # centre, in world pixels
    foot: float
    tall: float
    view: View
    roll: float
    mirrored: bool


@dataclass(frozen=True, slots=True)
class _World:
    """Everything that the camera passes."""

    panorama: Bytes
    standing: tuple[_Standing, ...]
    passing: tuple[tuple[float, Bytes], ...]  # x in world pixels and picture of things close to the camera
    stops: tuple[float, ...]  # where each part begins, and the end


def stream(
    seed: int, items: Sequence[Item], width_px: int = 640, height_px: int = 360, fps: int = 15, seconds: float = 20
) -> Iterator[StreamFrame]:
    """Yield the frames of a video of a world that the seed determines."""
    rng = np.random.default_rng([seed, 77])
    world = _world(rng, items, width_px, height_px, seconds)
    count = round(fps * seconds)
    shake = _shake(rng, count, height_px)
    path = _path(world, count, width_px)
    zoom = 1 + 0.05 * np.sin(np.arange(count) / fps * 0.9 + rng.uniform(0, 6))
    gains = [float(rng.uniform(0.92, 1.06)) for _ in range(3)]
    for index in range(count):
        camera = (float(path[index] + shake[index, 0]), float(height_px / 2 + shake[index, 1]), float(zoom[index]))
        image_rgb, objects = _frame_at(world, camera, width_px, height_px)
        speed = float(path[min(index + 1, count - 1)] - path[max(index - 1, 0)]) / 2
        reach = round(speed * 0.16 * (1 + 0.9 * np.sin(index / fps * 1.7)))
        if reach >= 2:
            image_rgb = cv2.blur(image_rgb, (reach, 1))
        image_rgb = tone_curve(image_rgb, (gains[0], gains[1], gains[2]), 1.0)
        yield StreamFrame(index, add_noise(image_rgb, rng, 1.8), objects)


def _shake(rng: np.random.Generator, count: int, height: int) -> NDArray[np.float64]:
    """Return the sway of a hand-held camera in pixels, (count, 2)."""
    raw = rng.normal(0, 1, (count + 40, 2))
    slow = cv2.GaussianBlur(raw, (1, 31), 5)
    return np.asarray((slow[20:-20] * 0.012 + cv2.GaussianBlur(raw, (1, 9), 1.2)[20:-20] * 0.0016) * height)


def _path(world: _World, count: int, width: int) -> NDArray[np.float64]:
    """Return the centre of the camera's view in each frame; its speed changes smoothly between the parts."""
    when = np.cumsum([0.0, *(share for _, share, _ in _PARTS)])
    place = np.array(world.stops) + width / 2
    place[-1] -= width
    path = np.interp(np.linspace(0, 1, count), when, place)
    pad = count // 20 * 2 + 1
    wide = np.pad(path, pad, mode="reflect", reflect_type="odd")
    return np.convolve(wide, np.full(pad, 1 / pad), mode="same")[pad:-pad]


def _world(rng: np.random.Generator, items: Sequence[Item], width: int, height: int, seconds: float) -> _World:
    packs = [item for item in items if item.category != "car"]
    cars = [item for item in items if item.category == "car"]
    stops: list[float] = [0.0]
    standing: list[_Standing] = []
    passing: list[tuple[float, Bytes]] = []
    pieces: list[Bytes] = []
    for kind, share, speed in _PARTS:
        chosen = (cars or packs) if kind == "road" else (packs or cars)
        length = round(share * seconds * speed * height) + (width if kind == _PARTS[-1][0] else 0)
        piece, foot = _strip(rng, kind, length, height)
        new = _line_up(rng, chosen, kind, (stops[-1], stops[-1] + length), foot, height, len(standing))
        standing += new
        places = np.arange(stops[-1] + 0.8 * width, stops[-1] + length - 0.2 * width, 1.15 * width)
        passing += [
            (float(x + rng.uniform(-0.2, 0.2) * width), clutter(rng, height * rng.uniform(0.2, 0.34), kind == "road"))
            for x in places
        ]
        pieces.append(piece)
        stops.append(stops[-1] + length)
    panorama = np.concatenate(pieces, axis=1)
    for stop in stops[1:-1]:
        post = slice(round(stop) - height // 24, round(stop) + height // 24)
        panorama[:, post] = (
            np.linspace(96, 150, post.stop - post.start)[None, :, None] * np.array([1.0, 0.97, 0.92])
        ).astype(np.uint8)
    return _World(panorama, tuple(standing), tuple(passing), tuple(stops))


def _strip(rng: np.random.Generator, kind: Kind, length: int, height: int) -> tuple[Bytes, float]:
    """Return the background of one part, and the row on which objects stand."""
    names = {"shelf": ("plaster", "stock"), "table": ("masonry", "plaster", "lights"), "road": ("street", "foliage")}[
        kind
    ]
    image = _endless(rng, names[int(rng.integers(len(names)))], length, height)
    if kind == "shelf":
        board = round(height * 0.84)
        shelf_board(image, board, height // 16, rng)
        shelf_board(image, round(height * 0.06), height // 16, rng)
        return image, float(board)
    top = round(height * (0.62 if kind == "table" else 0.52))
    image[top:] = _endless(rng, "wood" if kind == "table" else "asphalt", length, height - top)
    image[top : top + 3] = image[top : top + 3] // 2
    if kind == "road":
        image[top : top + height // 40] = 170
        for x in range(0, length, height):
            image[round(height * 0.94) : round(height * 0.96), x : x + height // 2] = 205
    return image, height * (0.8 if kind == "table" else 0.82)


def _endless(rng: np.random.Generator, name: str, length: int, height: int) -> Bytes:
    """Repeat a surface and its mirror image."""
    cut = surface(name, rng, 720, height, zoom=1.0)
    pair = np.concatenate([cut, cut[:, ::-1]], axis=1)
    return np.tile(pair, (1, -(-length // pair.shape[1]), 1))[:, :length].copy()


def _line_up(
    rng: np.random.Generator, items: Sequence[Item], kind: Kind, span: tuple[float, float], foot: float,
    height: int, first_id: int,
) -> list[_Standing]:  # fmt: skip
    """Stand items in a row from one end of the span to the other; some overlap."""
    standing: list[_Standing] = []
    order: list[int] = []
    edge = span[0] + 0.12 * height
    while True:
        order = order or [int(index) for index in rng.permutation(len(items))]
        item = items[order.pop()]
        car = item.category == "car"
        tall = height * (rng.uniform(0.27, 0.36) if car else rng.uniform(0.3, 0.52))
        roll = float(rng.normal(0, 0.015))
        view = replace(random_view(item, rng), bend=0.0)
        wide = sprite(item, view, 64).shape[1] / 64 * tall
        if wide > height * 0.6 and not car:
            tall, wide = tall * height * 0.6 / wide, height * 0.6
        if edge + wide > span[1] - 0.12 * height:
            return standing
        depth = 0.0 if kind == "shelf" else float(rng.uniform(-0.03, 0.08)) * height
        mirrored = car and bool(rng.random() < 0.5)
        standing.append(
            _Standing(first_id + len(standing), item, edge + wide / 2, foot + depth, tall, view, roll, mirrored)
        )
        overlap = not car and rng.random() < 0.12
        edge += wide + (-0.2 * wide if overlap else float(rng.uniform(0.1, 0.34)) * height)


def _frame_at(
    world: _World, camera: tuple[float, float, float], width: int, height: int
) -> tuple[Bytes, tuple[StreamObject, ...]]:
    """Draw what the camera (x, y, zoom) sees."""
    x, y, zoom = camera
    matrix = np.array([[zoom, 0, width / 2 - x * zoom], [0, zoom, height / 2 - y * zoom]])
    image_rgb = cv2.warpAffine(
        world.panorama, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    owner = np.full((height, width), -1, dtype=np.int32)
    areas: dict[int, tuple[_Standing, int]] = {}
    for thing in sorted(world.standing, key=lambda one: (one.foot, one.object_id)):
        middle = (thing.x - x) * zoom + width / 2
        if not -height < middle < width + height:
            continue
        picture = _draw_standing(thing, x, zoom, height)
        left, top = round(middle - picture.shape[1] / 2), round((thing.foot - y) * zoom + height / 2) - picture.shape[0]
        contact_shadow(image_rgb, left, left + picture.shape[1], top + picture.shape[0], 0.6)
        place = stamp(image_rgb, picture, left, top)
        if place is not None:
            owner[place[0], place[1]][place[2] >= 128] = thing.object_id
            areas[thing.object_id] = (thing, int(np.count_nonzero(picture[..., 3] >= 128)))
    for near_x, picture in world.passing:
        left = round((near_x - x) * zoom * _NEAR + width / 2)
        place = stamp(image_rgb, picture, left, round(height * 1.06 + (height / 2 - y) * _NEAR) - picture.shape[0])
        if place is not None:
            owner[place[0], place[1]][place[2] >= 128] = -1
    return image_rgb, tuple(_listed(owner, areas))


def _draw_standing(thing: _Standing, x: float, zoom: float, height: int) -> Bytes:
    """Draw an object as it turns while the camera passes."""
    turn = float(np.arctan2(x - thing.x, 3.0 * height))
    car = thing.item.category == "car"
    yaw = thing.view.yaw + (-turn if thing.mirrored else turn)
    yaw = float(np.clip(yaw, 0.5, 1.05) if car else np.clip(yaw, -0.58, 0.58))
    picture = sprite(thing.item, replace(thing.view, yaw=yaw), thing.tall * zoom, (thing.roll, 1.0, 0.0))
    return np.ascontiguousarray(picture[:, ::-1]) if thing.mirrored else picture


def _listed(owner: NDArray[np.int32], areas: dict[int, tuple[_Standing, int]]) -> Iterator[StreamObject]:
    for object_id, (thing, area) in sorted(areas.items()):
        mask = owner == object_id
        fraction = np.count_nonzero(mask) / max(1, area)
        if fraction >= _LEAST_VISIBLE:
            yield StreamObject(object_id, thing.item.item_id, thing.item.category, box_of(mask), round(fraction, 4))


def write_stream(
    path_mp4: Path, seed: int, items: Sequence[Item], width_px: int = 640, height_px: int = 360, fps: int = 15,
    seconds: float = 20,
) -> Path:  # fmt: skip
    """Write the stream as MPEG-4 video and its ground truth as JSON beside it; return the path of the JSON."""
    labels = {item.item_id: item.label for item in items}
    writer = cv2.VideoWriter(str(path_mp4), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width_px, height_px))
    if not writer.isOpened():
        raise OSError(f"{path_mp4}: OpenCV cannot write MPEG-4 video there")
    known: dict[int, dict[str, object]] = {}
    frames = []
    try:
        for frame in stream(seed, items, width_px, height_px, fps, seconds):
            writer.write(cv2.cvtColor(frame.image_rgb, cv2.COLOR_RGB2BGR))
            row = []
            for one in frame.objects:
                known.setdefault(
                    one.object_id,
                    {
                        "object_id": one.object_id,
                        "category": one.category,
                        "item_id": one.item_id,
                        "label": labels[one.item_id],
                    },
                )
                row.append(
                    {"object_id": one.object_id, "box_px": list(one.box_px), "visible_fraction": one.visible_fraction}
                )
            frames.append(row)
    finally:
        writer.release()
    truth = {
        "schema": 1,
        "fps": fps,
        "width": width_px,
        "height": height_px,
        "seed": seed,
        "objects": list(known.values()),
        "frames": frames,
    }
    path_json = path_mp4.with_suffix(".json")
    path_json.write_text(json.dumps(truth, separators=(",", ":")) + "\n", encoding="utf-8")
    log.info("wrote %s: %s frames, %s objects", path_mp4, len(frames), len(known))
    return path_json
