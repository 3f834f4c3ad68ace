"""Training scenes for the table `rpc-checkout`: the single products of RPC as they are, and pasted into scenes.

`Single` trains on the exemplars themselves. `Syn` pastes their cut-outs on a counter, turned and scaled, and nothing
else. `Render-free` pastes them with light, shadows, blur and a camera. RPC makes its `Render` from Syn by a CycleGAN
that it trains on checkout photos without labels; here, no network renders.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dataset_formats.coco.reader import write_coco
from dataset_formats.coco.rle import encode_rle
from dataset_formats.decode import read_picture
from dataset_formats.layouts import read_listing
from dataset_formats.listings import annotated_pictures
from dataset_formats.records import AnnotatedPicture, Annotation, NamedBox
from edge.errors import TrainError
from edge.imaging.image import encode_image
from trainer.pasting.background import drawn_counter
from trainer.pasting.checkout_scene import LEVELS, LevelName
from trainer.pasting.cutouts import LEAST_BOX_AGREEMENT, Cutout, read_cutouts
from trainer.pasting.distort import DistortionProbabilities
from trainer.pasting.mask_sources import box_agreement, grabcut
from trainer.pasting.paste import SceneLayout
from trainer.pasting.scenes import SceneGenerator
from trainer.synthetic.scene import SceneObject
from trainer.tables.table import Request

log = logging.getLogger(__name__)
VIEWS = 24  # most exemplars of a product that are used
SCENES = 20  # pasted scenes for each product
_VAL_EVERY = 10  # one picture in this many is for validation
_UNREAL = ["tear", "transparency", "segments", "pillar_box"]  # distortions that no counter shows
_OF_FRAME = ["tear", "lens_blur", "motion_blur", "lighting", "transparency", "segments", "noise", "pillar_box"]
_PLAIN = [*_OF_FRAME, "resolution", "exposure"]


@dataclass(frozen=True, slots=True)
class Exemplars:
    """Pictures of single products."""

    pictures: list[AnnotatedPicture]  # one box each
    names: list[str]  # products


def read_exemplars(request: Request) -> Exemplars:
    """List the exemplars: pictures of the split `train` with one box, at most VIEWS of each product.

    Raises:
        DataError: the data set cannot be read.
        TrainError: it has no such picture.
    """
    listing = read_listing(request.data, request.root, request.layout, boxed=True)
    by_product: dict[str, list[AnnotatedPicture]] = defaultdict(list)
    for one in annotated_pictures(listing):
        if one.split == "train" and len(one.boxes) == 1:
            by_product[one.boxes[0].item].append(one)
    if not by_product:
        raise TrainError(
            f"{request.data}: holds no exemplars; the split train needs pictures of one product with one box, as in RPC"
        )
    chosen = []
    for product in sorted(by_product):
        views = sorted(by_product[product], key=lambda one: str(one.path))
        places = np.unique(np.linspace(0, len(views) - 1, min(VIEWS, len(views))).round().astype(int))
        chosen += [views[place] for place in places]
    return Exemplars(chosen, sorted(by_product))


def write_training_scenes(request: Request, parts: Sequence[str], seed: int, folder: Path) -> Path:
    """Write the training pictures of a method as COCO JSON; one in ten is for validation.

    Args:
        request: data and settings.
        parts: any of Single, Syn and Render-free; pasted ones share the number of scenes equally.
        seed: of the pasted scenes.
        folder: folder to write to.

    Returns:
        the JSON.

    Raises:
        DataError, TrainError: there are no exemplars, or none can be cut out.
    """
    exemplars = read_exemplars(request)
    pictures: list[Annotation] = []
    if "Single" in parts:
        pictures += [Annotation(str(one.path), (_outlined(one.boxes[0], None),)) for one in exemplars.pictures]
    pasted = [part for part in parts if part != "Single"]
    if pasted:
        cutouts = _cutouts(request, exemplars)
        count = SCENES * len(exemplars.names) // len(pasted)
        for part in pasted:
            pictures += _paste(part, cutouts, count, scene_px(request), seed, folder)
    every = min(_VAL_EVERY, len(pictures))  # so that few pictures have one for validation, too
    listed = [
        replace(one, split="val" if number % every == every - 1 else "train") for number, one in enumerate(pictures)
    ]
    write_coco(listed, exemplars.names, folder / "scenes.json")
    return folder / "scenes.json"


def scene_px(request: Request) -> int:
    """Return width and height of a pasted scene, half as large again as the detector's input."""
    return round(1.5 * (request.pixels or PIXELS))


PIXELS = 416  # width and height of the detector's input


def _cutouts(request: Request, exemplars: Exemplars) -> tuple[Cutout, ...]:
    """Cut the products out by GrabCut, once for the whole table."""
    file = request.runs / "cutouts.json"
    if not file.is_file():
        masked = list(_masked(exemplars))
        if not masked:
            raise TrainError(f"{request.data}: no exemplar can be cut out of its box; see the log")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_coco(masked, exemplars.names, file)
    return tuple(read_cutouts(file).found)


def _masked(exemplars: Exemplars) -> Iterator[Annotation]:
    skipped = 0
    for one in exemplars.pictures:
        (box,) = one.boxes
        mask = grabcut(read_picture(one.path)[0], box.box_px)
        if mask is not None and box_agreement(mask, box.box_px) >= LEAST_BOX_AGREEMENT:
            yield Annotation(str(one.path), (_outlined(box, encode_rle(mask)),))
        else:
            skipped += 1
    if skipped:
        log.warning(
            "%s of %s exemplars are not cut out: no clear object in their box", skipped, len(exemplars.pictures)
        )


def _outlined(box: NamedBox, outline: object) -> NamedBox:
    return replace(box, outline=outline)


def _paste(
    part: str, cutouts: tuple[Cutout, ...], count: int, size_px: int, seed: int, folder: Path
) -> Iterator[Annotation]:
    """Write scenes, the levels of clutter in turn."""
    plain = part == "Syn"
    probabilities = DistortionProbabilities().without(_PLAIN if plain else _UNREAL)
    layout = SceneLayout(size_px, size_px, fit=0.0 if plain else 0.7, shadows=not plain)
    levels: tuple[LevelName, ...] = tuple(LEVELS)
    (folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        level = levels[number % len(levels)]
        scene = SceneGenerator(cutouts, drawn_counter, layout, probabilities, level).scene(seed, number)
        path = folder / part / f"{number:05d}.jpg"
        path.write_bytes(encode_image(scene.image_rgb, ".jpg", 92))
        yield Annotation(str(path.resolve()), tuple(_named(one) for one in scene.objects), level=level)


def _named(one: SceneObject) -> NamedBox:
    x0, y0, x1, y1 = (float(side) for side in one.box_px)
    return NamedBox((x0, y0, x1, y1), one.item_id, one.category, visible=one.visible_fraction)
