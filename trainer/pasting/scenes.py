"""Expansion of a data set: write scenes pasted from cut-outs, in the form that training reads.

    scenes/00000.jpg ..          whole pictures
    scenes.json                  COCO; categories as in RPC: an item, with its meta-category as `supercategory`;
                                 each object has box, mask (`segmentation`, run lengths), `item_id`, `visible_fraction`;
                                 each image has `split`, and a checkout also `level` and `counts` by item;
                                 a photo that is listed again for more weight is `repeated`
    crops/CATEGORY/ITEM/*.jpg    each object as a detector would cut it out
    catalogue/CATEGORY/ITEM/*.png  each cut-out on white
    index.csv                    path,split,category,item,label of crops and catalogue
    sheet.png                    some scenes with their boxes, for people

Every scene depends only on the seed and its own number, so the number of processes changes nothing.
"""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dataset_formats.coco.reader import annotation_record, image_record, read_coco
from dataset_formats.coco.rle import encode_rle
from dataset_formats.notices import report
from dataset_formats.records import Annotation
from edge.imaging.image import draw_box, encode_image, read_image, resize, set_threads
from trainer.contact_sheet import tile
from trainer.pasting.background import Background
from trainer.pasting.checkout_scene import LEVELS, LevelName, checkout_scene
from trainer.pasting.cutouts import Cutout
from trainer.pasting.distort import DistortionProbabilities
from trainer.pasting.paste import SceneLayout, paste_scene
from trainer.synthetic.crop import cut
from trainer.synthetic.render import stamp
from trainer.synthetic.scene import Scene, SceneObject

log = logging.getLogger(__name__)

SCENES_FILE, INDEX_FILE, SHEET_FILE = "scenes.json", "index.csv", "sheet.png"
_VAL_EVERY = 10  # one scene in this many is for validation
_LEAST_CROP = 0.7  # smallest visible fraction of an object whose crop is written, as in trainer.synthetic.crop
_CROP_PX = 256  # longest side of a crop
_ON_SHEET = 24


@dataclass(frozen=True, slots=True)
class SceneGenerator:
    """Makes scenes from cut-outs, backgrounds and a layout."""

    cutouts: tuple[Cutout, ...]
    background: Background
    layout: SceneLayout = field(default_factory=SceneLayout)
    probabilities: DistortionProbabilities = field(default_factory=DistortionProbabilities)
    checkout: LevelName | None = None

    def by_item(self) -> list[list[Cutout]]:
        """Return the cut-outs of each item, in the order of their names."""
        items: dict[tuple[str, str], list[Cutout]] = {}
        for one in self.cutouts:
            items.setdefault((one.category, one.item), []).append(one)
        return [items[key] for key in sorted(items)]

    def scene(self, seed: int, number: int) -> Scene:
        """Make one scene; the same seed and number give the same one."""
        rng = np.random.default_rng([seed, number])
        items = self.by_item()
        if self.checkout is None:
            return paste_scene(rng, items, self.background, self.layout, self.probabilities)
        return checkout_scene(rng, items, self.background, self.layout, self.probabilities, LEVELS[self.checkout])


@dataclass(frozen=True, slots=True)
class Expansion:
    """What was written."""

    scenes: Path  # COCO JSON
    index: Path  # CSV
    images: int
    objects: int
    crops: int


def expand(
    generator: SceneGenerator,
    out: Path,
    scenes: int,
    seed: int = 0,
    *,
    real: Path | None = None,
    real_root: Path | None = None,
    real_times: int = 1,
    workers: int = 1,
) -> Expansion:
    """Write a data set of pasted scenes.

    Args:
        generator: makes the scenes.
        out: folder to write to, made if missing.
        scenes: number of scenes; every tenth is for validation.
        seed: the same seed gives the same bytes.
        real: COCO JSON of photos with boxes, listed in the written JSON, too, with their own category names.
        real_root: folder of its file names; None: where the photos are.
        real_times: how often to list each photo of its split `train`, to give a few photos more weight.
        workers: number of processes; 1 uses this process.

    Raises:
        DataError: `real` cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    job = partial(_write_scene, generator, out, seed)
    results = list(tqdm(_results(job, scenes, workers), total=scenes, desc="pasted scenes", unit="scene"))
    tree = _coco([entry for entry, _ in results], generator)
    if real is not None:
        _add_real(tree, real, real_root, real_times)
    (out / SCENES_FILE).write_text(json.dumps(tree, separators=(",", ":")) + "\n", encoding="utf-8")
    rows = [row for _, crops in results for row in crops] + _write_catalogue(generator.cutouts, out)
    _write_index(out / INDEX_FILE, rows, generator.cutouts)
    (out / SHEET_FILE).write_bytes(encode_image(sheet(out, tree), ".png"))
    listed = len(tree["annotations"])
    log.info("wrote %s scenes with %s objects to %s", scenes, listed, out)
    crops = sum(len(crops) for _, crops in results)
    return Expansion(out / SCENES_FILE, out / INDEX_FILE, len(tree["images"]), listed, crops)


Written = tuple[dict[str, Any], list[tuple[str, str, str, str]]]  # an image with its objects, and rows of the index


def _results(job: partial[Written], scenes: int, workers: int) -> Iterator[Written]:
    if workers <= 1:
        yield from map(job, range(scenes))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=set_threads, initargs=(1,)) as pool:
        yield from pool.map(job, range(scenes), chunksize=max(1, scenes // (4 * workers)))


def _write_scene(generator: SceneGenerator, out: Path, seed: int, number: int) -> Written:
    scene = generator.scene(seed, number)
    split = "val" if number % _VAL_EVERY == _VAL_EVERY - 1 else "train"
    name = f"scenes/{number:05d}.jpg"
    _save(out / name, scene.image_rgb)
    height, width = scene.image_rgb.shape[:2]
    image: dict[str, Any] = {"file_name": name, "width": width, "height": height, "split": split}
    if generator.checkout is not None:
        counts = Counter(one.item_id for one in scene.objects)
        image |= {"level": generator.checkout, "counts": dict(sorted(counts.items()))}
    rng = np.random.default_rng([seed, number, 1])
    rows = []
    for place, one in enumerate(scene.objects):
        if one.visible_fraction < _LEAST_CROP:
            continue
        path = f"crops/{_safe(one.category)}/{_safe(one.item_id)}/{number:05d}-{place}.jpg"
        longest = min(_CROP_PX, round(1.2 * max(np.subtract(one.box_px[2:], one.box_px[:2]))))
        _save(out / path, cut(scene.image_rgb, one, rng, longest)[0])
        rows.append((path, split, one.category, one.item_id))
    return {"image": image, "objects": [_annotation(one) for one in scene.objects]}, rows


def _annotation(one: SceneObject) -> dict[str, Any]:
    x0, y0, x1, y1 = one.box_px
    return {
        "category": one.category,
        "item_id": one.item_id,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(np.count_nonzero(one.mask)),
        "iscrowd": 0,
        "visible_fraction": round(one.visible_fraction, 4),
        "segmentation": encode_rle(one.mask),
    }


def _coco(entries: Sequence[dict[str, Any]], generator: SceneGenerator) -> dict[str, Any]:
    """Return the COCO tree, with numbered images, objects and categories."""
    pairs = sorted({(one.category, one.item) for one in generator.cutouts})
    identity = {pair: number for number, pair in enumerate(pairs, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, entry in enumerate(entries):
        images.append({"id": number, **entry["image"]})
        for one in entry["objects"]:
            kind = one["category"], one["item_id"]
            shared = {key: value for key, value in one.items() if key != "category"}
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": identity[kind], **shared}
            )
    categories = [{"id": number, "name": item, "supercategory": meta} for (meta, item), number in identity.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _add_real(tree: dict[str, Any], real: Path, root: Path | None, times: int) -> None:
    """Add photos with their boxes to the tree; their file names become absolute."""
    listing = read_coco(real, root, outlines=True)
    for line in report(listing, real):
        log.warning("%s", line)
    identity = {(entry["supercategory"], entry["name"]): entry["id"] for entry in tree["categories"]}
    for photo in listing.scenes:
        kinds = [identity.setdefault((box.category, box.item), len(identity) + 1) for box in photo.boxes]
        split = photo.split or "train"
        name = str(photo.path.resolve())
        about = image_record(Annotation(name, photo.boxes, split, photo.level, photo.declared_size_px))
        for copy in range(times if split == "train" else 1):
            number = len(tree["images"])
            tree["images"].append({"id": number} | about | ({"repeated": 1} if copy else {}))
            for kind, box in zip(kinds, photo.boxes, strict=True):
                place = {"id": len(tree["annotations"]) + 1, "image_id": number, "category_id": kind}
                tree["annotations"].append(place | annotation_record(box))
    tree["categories"] = [
        {"id": number, "name": item, "supercategory": meta} for (meta, item), number in identity.items()
    ]


def _write_catalogue(cutouts: Sequence[Cutout], out: Path) -> list[tuple[str, str, str, str]]:
    rows = []
    seen: Counter[tuple[str, str]] = Counter()
    for one in cutouts:
        path = f"catalogue/{_safe(one.category)}/{_safe(one.item)}/{seen[one.category, one.item]}.png"
        seen[one.category, one.item] += 1
        high, wide = one.picture.shape[:2]
        room = max(8, max(high, wide) // 12)
        image = np.full((high + 2 * room, wide + 2 * room, 3), 255, np.uint8)
        stamp(image, one.picture, room, room)
        _save(out / path, image)
        rows.append((path, "catalogue", one.category, one.item))
    return rows


def _write_index(path: Path, rows: Sequence[tuple[str, str, str, str]], cutouts: Sequence[Cutout]) -> None:
    labels = {(one.category, one.item): one.label for one in cutouts}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "split", "category", "item", "label"])
        writer.writerows([*row, labels.get((row[2], row[3]), "")] for row in rows)


def sheet(out: Path, tree: dict[str, Any], columns: int = 4, cell_px: int = 320) -> NDArray[np.uint8]:
    """Draw some scenes of a written data set on one page, every other one with its boxes."""
    cells = []
    for image in [image for image in tree["images"] if image["file_name"].startswith("scenes/")][:_ON_SHEET]:
        picture = read_image(out / image["file_name"])
        if image["id"] % 2:
            for one in (one for one in tree["annotations"] if one["image_id"] == image["id"]):
                x, y, wide, high = one["bbox"]
                draw_box(picture, (x, y, x + wide, y + high), (255, 230, 0))
        cells.append(resize(picture, cell_px, round(cell_px * picture.shape[0] / picture.shape[1]), "area"))
    return tile(cells, columns) if cells else np.full((8, 8, 3), 255, np.uint8)


def _save(path: Path, image_rgb: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(image_rgb, ".png" if path.suffix == ".png" else ".jpg", 92))


def _safe(name: str) -> str:
    """Return a name that is safe for a folder."""
    return "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in name).strip(". ") or "_"
