"""Write rendered vehicles that several cameras see, in the form of VeRi-776, to try re-identification and attributes.

    image_train/0001_c001_00000000_0.jpg   vehicle, camera, number; half of the vehicles are for training
    image_query, image_test                the others: a picture of each vehicle by each camera, and all of them
    name_{train,query,test}.txt            the lists of VeRi
    {train,test}_label.xml                 colour and type by VeRi's numbers
    index.csv                              path,split,category,item,camera, and attribute:make, :model, :colour, :type

Each camera has a place, a side and a light of its own. A vehicle differs from others of its model by its colour, lamps
and wheels. Every file depends only on the seed and its own name.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.imaging.image import encode_image
from trainer.synthetic.background import backdrop
from trainer.synthetic.camera import photograph
from trainer.synthetic.items import Item, Palette, Rgb, catalogue
from trainer.synthetic.render import sprite, stamp
from trainer.synthetic.scene import contact_shadow
from trainer.synthetic.shading import Light
from trainer.synthetic.solid import View

Bytes = NDArray[np.uint8]
_PICTURES, _CAMERAS, _VEHICLES = 21, 22, 23  # streams of random numbers
# Name, VeRi's number, paint.
_COLOURS: tuple[tuple[str, int, Rgb], ...] = (
    ("yellow", 1, (228, 190, 40)),
    ("green", 3, (44, 110, 62)),
    ("red", 5, (186, 26, 34)),
    ("blue", 6, (34, 74, 142)),
    ("white", 7, (236, 238, 240)),
    ("black", 10, (32, 34, 38)),
)
_TYPES = {"saloon": ("sedan", 1), "offroad": ("suv", 2), "van": ("van", 3), "hatch": ("hatchback", 4),
          "pickup": ("pickup", 6), "estate": ("estate", 9)}  # fmt: skip
_MAKES = {
    "bars": "Merle",
    "oval": "Ovalis",
    "closed": "Volta",
    "kidney": "Corvid",
    "upright": "Regent",
    "slots": "Terra",
}
_LIGHTS, _WHEELS = ("slim", "round", "square"), ("five", "disc", "multi", "turbine", "steel")
_LONGEST_PX = 160


@dataclass(frozen=True, slots=True)
class _Camera:
    yaw: float
    pitch: float
    mirrored: bool
    side: float  # of the light
    fill: float


def write_vehicles(
    out: Path, seed: int, vehicles: int, per_camera: int, cameras: int = 4, *, progress: bool = True
) -> Path:
    """Write a data set of rendered vehicles; return its folder.

    Args:
        out: folder to write to, made if missing.
        seed: the same seed gives the same files.
        vehicles: number of vehicles, no two of which look the same.
        per_camera: pictures of each vehicle by each camera.
        cameras: number of cameras.
        progress: whether to show a progress bar.
    """
    eyes = [_camera(np.random.default_rng([seed, _CAMERAS, number]), number) for number in range(cameras)]
    rows: list[dict[str, str]] = []
    with tqdm(total=vehicles * cameras * per_camera, desc="vehicles", unit="picture", disable=not progress) as bar:
        for number, (item, colour) in enumerate(_fleet(seed, vehicles)):
            for camera, eye in enumerate(eyes):
                for take in range(per_camera):
                    rng = np.random.default_rng([seed, _PICTURES, number, camera, take])
                    place = np.random.default_rng([seed, _CAMERAS, camera, take % 2])
                    data = encode_image(_view(item, eye, rng, place), ".jpg", 90)
                    name = f"{number + 1:04d}_c{camera + 1:03d}_{take:08d}_0.jpg"
                    splits = _splits(number, vehicles, take)
                    rows += [_save(out, split, name, data, item, colour) for split in splits]
                    bar.update()
    _write_lists(out, rows)
    return out


def _splits(number: int, vehicles: int, take: int) -> Sequence[str]:
    if number < (vehicles + 1) // 2:
        return ("train",)
    return ("gallery", "query") if take == 0 else ("gallery",)


def _fleet(seed: int, count: int) -> list[tuple[Item, int]]:
    """Return vehicles and the place of each one's colour in `_COLOURS`, no two alike."""
    rng = np.random.default_rng([seed, _VEHICLES])
    base = next(item for item in catalogue() if item.category == "car")
    choices: tuple[Sequence[str], ...] = (list(_TYPES), list(_MAKES), _LIGHTS, _WHEELS)
    sizes = (*map(len, choices), len(_COLOURS))
    chosen = rng.choice(int(np.prod(sizes)), count, replace=False)
    fleet = []
    for number, place in enumerate(chosen):
        *parts, colour = (int(i) for i in np.unravel_index(int(place), sizes))
        outline, detail, graphic, layout = (one[i] for one, i in zip(choices, parts, strict=True))
        paint = _COLOURS[colour][2]
        palette = Palette(paint, paint, (30, 32, 36), (220, 224, 228))
        item = replace(
            base,
            item_id=f"{number + 1:04d}",
            label=f"{_MAKES[detail]} {outline}",
            palette=palette,
            outline=outline,
            detail=detail,
            graphic=graphic,
            layout=layout,
        )
        fleet.append((item, colour))
    return fleet


def _camera(rng: np.random.Generator, number: int) -> _Camera:
    side = float(rng.uniform(0.3, 0.9)) * (1 if number % 3 else -1)
    yaw = float(np.linspace(0.5, 1.02, 4)[number % 4])
    return _Camera(yaw, float(rng.uniform(0.01, 0.05)), bool(number % 2), side, float(rng.uniform(0.2, 0.9)))


def _view(item: Item, eye: _Camera, rng: np.random.Generator, place: np.random.Generator) -> Bytes:
    """Render a vehicle as one camera sees it, cut out with a detector's margin."""
    light = Light(eye.side, eye.fill, float(rng.uniform(0.5, 1.2)))
    view = View(eye.yaw + float(rng.normal(0, 0.03)), eye.pitch + float(rng.uniform(0, 0.02)), light)
    picture = sprite(item, view, float(rng.uniform(60, 100)), (float(rng.normal(0, 0.03)), 1.0, 0.0))
    if eye.mirrored:
        picture = np.ascontiguousarray(picture[:, ::-1])
    high, wide = picture.shape[:2]
    up, left = (round(side * rng.uniform(0.05, 0.18)) for side in (high, wide))
    size = wide + left + round(wide * rng.uniform(0.05, 0.18)), high + up + round(high * rng.uniform(0.05, 0.15))
    image_rgb, _ = backdrop(place, "road", *size)
    contact_shadow(image_rgb, left, left + wide, up + high, float(rng.uniform(0.4, 0.8)))
    stamp(image_rgb, picture, left, up)
    scale = _LONGEST_PX / max(image_rgb.shape[:2])
    image_rgb = np.asarray(cv2.resize(image_rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return photograph(image_rgb, rng)


_FOLDERS = {"train": "image_train", "query": "image_query", "gallery": "image_test"}


def _save(out: Path, split: str, name: str, data: bytes, item: Item, colour: int) -> dict[str, str]:
    path = out / _FOLDERS[split] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    kind, kind_id = _TYPES[item.outline]
    make = _MAKES[item.detail]
    return {
        "path": f"{_FOLDERS[split]}/{name}",
        "split": split,
        "category": "vehicle",
        "item": item.item_id,
        "camera": name.split("_")[1],
        "attribute:colour": _COLOURS[colour][0],
        "attribute:make": make,
        "attribute:model": f"{make} {kind}",
        "attribute:type": kind,
        "name": name,
        "colorID": str(_COLOURS[colour][1]),
        "typeID": str(kind_id),
    }


def _write_lists(out: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write VeRi's lists and tables, and the index."""
    for split, name in ("train", "train"), ("query", "query"), ("gallery", "test"):
        names = [row["name"] for row in rows if row["split"] == split]
        (out / f"name_{name}.txt").write_text("".join(f"{one}\n" for one in names), encoding="ascii")
        if split == "query":
            continue
        items = "".join(
            f'<Item imageName="{row["name"]}" vehicleID="{row["item"]}" cameraID="{row["camera"]}" '
            f'colorID="{row["colorID"]}" typeID="{row["typeID"]}" />\n'
            for row in rows
            if row["split"] == split
        )
        root = "TrainingImages" if name == "train" else "TestImages"
        text = f'<?xml version="1.0" encoding="gb2312"?>\n<{root} Version="1.0">\n<Items>\n{items}</Items>\n</{root}>\n'
        (out / f"{name}_label.xml").write_text(text, encoding="ascii")
    columns = [name for name in rows[0] if name not in ("name", "colorID", "typeID")]
    with (out / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
