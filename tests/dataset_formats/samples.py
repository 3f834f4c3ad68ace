"""Small data sets in every layout, with pictures that are clearly different."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import scipy.io

from edge.imaging.image import encode_image

VOC = (
    "<annotation><filename>{name}.JPG</filename><size><width>48</width><height>32</height></size>{objects}</annotation>"
)
OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
_FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class")


def picture(path: Path, seed: int = 0, width: int = 48, height: int = 32) -> Path:
    """Write a picture of soft blobs; another seed is another picture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 128.0)
    for _ in range(6):
        centre, size = rng.uniform((0, 0), (width, height)), rng.uniform(4, 14)
        image += rng.uniform(-120, 120, 3) * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / size**2)[..., None]
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = ".jpg" if path.suffix.lower() in (".jpg", ".jpeg") else ".png"
    path.write_bytes(encode_image(np.clip(image, 0, 255).astype(np.uint8), suffix, 95))
    return path


def folders(root: Path, names: list[str], per_item: int = 5) -> Path:
    """A picture folder for each name; a name may have a slash."""
    for i, name in enumerate(names):
        for number in range(per_item):
            picture(root / name / f"{number}.png", 100 * i + number)
    return root


def coco(images: list[dict], annotations: list[dict], names: dict[int, tuple[str, str | None]]) -> str:
    categories = [
        {"id": number, "name": name} | ({} if meta is None else {"supercategory": meta})
        for number, (name, meta) in names.items()
    ]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def voc(path: Path, *objects: tuple) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(VOC.format(name=path.stem, objects="".join(OBJECT.format(*one) for one in objects)))


def cub(root: Path, classes: int = 102) -> Path:
    """One picture of each class, all alike; every second one is for training."""
    data = picture(root / "images/001.Bird_1/a.jpg").read_bytes()
    tables: dict[str, list[str]] = {
        name: [] for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes", "classes")
    }
    for number in range(1, classes + 1):
        name = f"{number:03d}.Bird_{number}"
        (root / "images" / name).mkdir(exist_ok=True)
        (root / "images" / name / "a.jpg").write_bytes(data)
        tables["images"].append(f"{number} {name}/a.jpg")
        tables["image_class_labels"].append(f"{number} {number}")
        tables["train_test_split"].append(f"{number} {number % 2}")
        tables["bounding_boxes"].append(f"{number} 4.0 2.0 20.0 10.0")
        tables["classes"].append(f"{number} {name}")
    for name, lines in tables.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def cars_table(rows: list[tuple], last: str, flag: str | None = None) -> np.ndarray:
    """A struct array as MATLAB has it: x1, y1, x2, y2, class, file, and perhaps whether it is a test picture."""
    names = [*_FIELDS, last] + ([flag] if flag else [])
    table = np.zeros((1, len(rows)), [(name, object) for name in names])
    for i, row in enumerate(rows):
        table[0, i] = tuple(row)
    return table


def class_names(count: int) -> np.ndarray:
    names = np.empty((1, count), object)
    names[0] = [f"Make Model {number}" for number in range(1, count + 1)]
    return names


def sop(root: Path, train: list[str], test: list[str]) -> Path:
    """Rows `image_id class_id super_class_id path`, with a picture for each path that is given."""
    for split, rows in (("train", train), ("test", test)):
        for row in rows:
            if row.split()[3:]:
                picture(root / row.split()[3])
        (root / f"Ebay_{split}.txt").write_text("\n".join(["image_id class_id super_class_id path", *rows]) + "\n")
    return root


def cars_merged(root: Path, classes: int = 100) -> Path:
    rows = [(2, 3, 20, 30, n, f"car_ims/{n:06d}.jpg", n % 2) for n in range(1, classes + 1)]
    data = picture(root / "car_ims/000001.jpg").read_bytes()
    for row in rows:
        (root / row[5]).write_bytes(data)
    table = cars_table(rows, "relative_im_path", "test")
    scipy.io.savemat(root / "cars_annos.mat", {"annotations": table, "class_names": class_names(classes)})
    return root


def cars_devkit(root: Path) -> Path:
    """The devkit, with pictures in folders nested in folders of their own name."""
    (root / "devkit").mkdir(parents=True)
    scipy.io.savemat(root / "devkit/cars_meta.mat", {"class_names": class_names(3)})
    for split, name in (("train", "cars_train_annos"), ("test", "cars_test_annos_withlabels")):
        rows = [(1, 1, 20, 30, number, f"{number:05d}.jpg") for number in (1, 2, 3)]
        scipy.io.savemat(root / "devkit" / f"{name}.mat", {"annotations": cars_table(rows, "fname")})
        for number in (1, 2, 3):
            picture(root / f"cars_{split}" / f"cars_{split}" / f"{number:05d}.jpg", number)
    return root
