"""Write synthetic data sets: scenes with boxes, crops of each item, and a catalogue.

    scenes/00000.jpg ..             whole pictures
    scenes.json                     COCO detection; images carry `split`, annotations `item_id` and `visible_fraction`
    crops/CATEGORY/ITEM/000.jpg     what a detector would cut out
    catalogue/CATEGORY/ITEM/0.png   pictures on white, from which a gallery is made
    index.csv                       path,split,category,item; split is train, val, test, catalogue or invented; invented
                                    items are for training and in no gallery

Every file depends only on the seed and its own name, so the number of processes changes nothing.
"""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from trainer.synthetic.crop import crop
from trainer.synthetic.items import CATEGORIES, Item, catalogue, invent_items
from trainer.synthetic.render import catalogue_picture
from trainer.synthetic.scene import scene

log = logging.getLogger(__name__)

_SCENES, _CROPS, _CATALOGUE = 1, 2, 3  # streams of random numbers
_BATCH = 25


@dataclass(frozen=True, slots=True)
class _Job:
    """A batch of files of one kind."""

    out: Path
    seed: int
    kind: int
    names: tuple[int, ...]  # numbers of scenes, crops or catalogue pictures
    items: tuple[Item, ...]
    item: Item | None = None
    place: int = -1  # number of the item, which its random numbers depend on
    size_px: tuple[int, int] = (320, 192)


def write_dataset(
    out: Path,
    seed: int,
    scenes: int = 2000,
    crops_per_item: int = 60,
    catalogue_pictures: int = 6,
    *,
    invented_items: int = 0,
    items: Sequence[Item] | None = None,
    categories: Collection[str] | None = None,
    size_px: tuple[int, int] = (320, 192),
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a data set; return the path of its index.

    Args:
        out: folder to write to, made if missing.
        seed: the same seed gives the same files.
        scenes: number of whole pictures; one of ten is for validation and one for test.
        crops_per_item: training crops of each item; a quarter of that number each for validation and for test.
        catalogue_pictures: number of catalogue pictures of each item.
        invented_items: number of invented items of each category, each with a quarter of the training crops.
        items: which items; None: all.
        categories: write crops and catalogue pictures of these only; they look the same as without this choice, and
            scenes show every item. None: all.
        size_px: width and height of scenes.
        workers: number of processes; 1 uses this process; None: one for each core.
        progress: whether to show a progress bar.
    """
    chosen = tuple(catalogue() if items is None else items)
    jobs = list(_jobs(Path(out), seed, chosen, (scenes, crops_per_item, catalogue_pictures), size_px))
    jobs = [job for job in jobs if categories is None or job.item is None or job.item.category in categories]
    known = catalogue()
    for number, item in enumerate(invent_items(seed, invented_items)):
        names = tuple(range(max(1, crops_per_item // 4)))
        jobs.append(_Job(Path(out), seed, _CROPS, names, known, item, len(known) + number))
    total = sum(len(job.names) for job in jobs)
    results: list[tuple[_Job, list[list[dict[str, object]]]]] = []
    with tqdm(total=total, desc="synthetic data", unit="picture", disable=not progress) as bar:
        for job, found in _done(jobs, workers or os.cpu_count() or 1):
            results.append((job, found))
            bar.update(len(job.names))
    _write_scenes(Path(out), [pair for pair in results if pair[0].kind == _SCENES], size_px)
    index = _write_index(Path(out), [job for job, _ in results])
    log.info("wrote %s pictures to %s", total, out)
    return index


def _jobs(
    out: Path, seed: int, items: tuple[Item, ...], counts: tuple[int, int, int], size_px: tuple[int, int]
) -> Iterator[_Job]:
    scenes, crops, catalogue_pictures = counts
    for start in range(0, scenes, _BATCH):
        yield _Job(out, seed, _SCENES, tuple(range(start, min(scenes, start + _BATCH))), items, size_px=size_px)
    held_out = max(1, crops // 4) if crops else 0
    known = catalogue()
    for item in items:
        if crops:
            yield _Job(out, seed, _CROPS, tuple(range(crops + 2 * held_out)), items, item, known.index(item))
        if catalogue_pictures:
            yield _Job(out, seed, _CATALOGUE, tuple(range(catalogue_pictures)), items, item, known.index(item))


def _done(jobs: Sequence[_Job], workers: int) -> Iterator[tuple[_Job, list[list[dict[str, object]]]]]:
    if workers == 1:
        for job in jobs:
            yield job, _work(job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from zip(jobs, pool.map(_work, jobs), strict=True)


def _work(job: _Job) -> list[list[dict[str, object]]]:
    """Write the files of a job; return the objects of each scene."""
    if job.kind == _SCENES:
        return [_scene_file(job, number) for number in job.names]
    if job.item is None:
        raise ValueError("a job for crops or catalogue pictures names no item")
    for number in job.names:
        rng = np.random.default_rng([job.seed, job.kind, job.place, number])
        if job.kind == _CROPS:
            _save(job.out / _crop_path(job.item, number), crop(job.item, job.items, rng, int(rng.integers(150, 177))))
        else:
            _save(job.out / _catalogue_path(job.item, number), catalogue_picture(job.item, rng)[0])
    return []


def _scene_file(job: _Job, number: int) -> list[dict[str, object]]:
    rng = np.random.default_rng([job.seed, job.kind, number])
    picture = scene(rng, job.items, *job.size_px, count=int(rng.integers(1, 7)))
    _save(job.out / _scene_path(number), picture.image_rgb)
    return [
        {
            "category_id": CATEGORIES.index(one.category) + 1,
            "item_id": one.item_id,
            "bbox": [one.box_px[0], one.box_px[1], one.box_px[2] - one.box_px[0], one.box_px[3] - one.box_px[1]],
            "area": int(np.count_nonzero(one.mask)),
            "iscrowd": 0,
            "visible_fraction": round(one.visible_fraction, 4),
        }
        for one in picture.objects
    ]


def _scene_path(number: int) -> str:
    return f"scenes/{number:05d}.jpg"


def _crop_path(item: Item, number: int) -> str:
    return f"crops/{item.category}/{item.item_id}/{number:03d}.jpg"


def _catalogue_path(item: Item, number: int) -> str:
    return f"catalogue/{item.category}/{item.item_id}/{number}.png"


def _save(path: Path, image_rgb: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix == ".jpg" else []
    done, data = cv2.imencode(path.suffix, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"{path}: cannot encode an image of shape {image_rgb.shape}")
    path.write_bytes(data.tobytes())


def _split(number: int, train: int, held_out: int) -> str:
    return "train" if number < train else "val" if number < train + held_out else "test"


def _write_scenes(
    out: Path, results: Sequence[tuple[_Job, list[list[dict[str, object]]]]], size_px: tuple[int, int]
) -> None:
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for job, scenes in results:
        for number, objects in zip(job.names, scenes, strict=True):
            split = {8: "val", 9: "test"}.get(number % 10, "train")
            images.append(
                {
                    "id": number,
                    "file_name": _scene_path(number),
                    "width": size_px[0],
                    "height": size_px[1],
                    "split": split,
                }
            )
            annotations += [
                {"id": len(annotations) + offset + 1, "image_id": number, **one} for offset, one in enumerate(objects)
            ]
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(CATEGORIES)]
    table = {"images": images, "annotations": annotations, "categories": categories}
    out.mkdir(parents=True, exist_ok=True)
    (out / "scenes.json").write_text(json.dumps(table, separators=(",", ":")) + "\n", encoding="utf-8")


def _write_index(out: Path, jobs: Sequence[_Job]) -> Path:
    path = out / "index.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "split", "category", "item", "label"])
        for job in jobs:
            if job.item is None:
                continue
            held_out = max(1, len(job.names) // 6)
            is_known = job.item in catalogue()
            for number in job.names:
                if job.kind == _CATALOGUE:
                    row = (_catalogue_path(job.item, number), "catalogue")
                else:
                    split = _split(number, len(job.names) - 2 * held_out, held_out) if is_known else "invented"
                    row = (_crop_path(job.item, number), split)
                writer.writerow([*row, job.item.category, job.item.item_id, job.item.label])
    return path
