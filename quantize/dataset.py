"""The data sets that quantize uses, of any layout, and the choice of pictures for each purpose."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dataset_formats.layouts import read_listing
from dataset_formats.listings import annotated_pictures, single_objects
from dataset_formats.notices import printable, report
from dataset_formats.records import Listing
from dataset_formats.splits import find_split
from edge.errors import QuantizeError
from quantize.network_spec import Spec
from quantize.pictures import PictureCheck, Sample, Scene, in_turns, of_splits, shuffled

log = logging.getLogger(__name__)

CATALOGUE = "catalogue"
_TRAIN = "train"
_EXAMPLES = 5  # records that a summary names


@dataclass(frozen=True, slots=True)
class Splits:
    """The splits to use, as a person asked for them; None: the default."""

    calibration: str | None = None  # default: train
    held_out: str | None = None  # default: val
    gallery: Sequence[str] | None = None  # default: catalogue, or train in a data set without it
    plain: Sequence[str] = (CATALOGUE,)  # pictures of one object on a plain background


def read_samples(
    path: Path, root: Path | None = None, plain: Collection[str] = (CATALOGUE,)
) -> tuple[list[Sample], Listing]:
    """List the crops of a data set of any layout; every box of a scene is one.

    Args:
        path: file or folder.
        root: folder of the paths in an index or COCO JSON; None: as the reader finds it.
        plain: splits whose pictures show one object on a plain background.

    Raises:
        DataError: the data set cannot be read.
        QuantizeError: it holds no picture of an object.
    """
    listing = read_listing(path, root)
    samples = _samples(listing, _base(path, root), plain)
    if not samples:
        raise QuantizeError(
            f"{path}: holds no picture of an object; give an index.csv, folders category/item, or boxes"
        )
    return samples, listing


def _samples(listing: Listing, base: Path, plain: Collection[str], *, cut_to_box: bool = False) -> list[Sample]:
    samples = []
    for one in single_objects(listing, cut_to_box=cut_to_box):
        name = _name(one.path, base)
        if one.box_px is not None:
            name += f" {','.join(f'{side:g}' for side in one.box_px)}"
        is_plain = one.box_px is None and one.split in plain
        samples.append(Sample(one.path, name, one.split, one.category, one.item, is_plain, one.box_px))
    return samples


def read_scenes(path: Path, root: Path | None = None) -> tuple[list[Scene], Listing]:
    """List the whole pictures with boxes of a data set of any layout that has boxes.

    Args:
        path: file or folder.
        root: folder of the file names in COCO JSON; None: as the reader finds it.

    Raises:
        DataError: the data set cannot be read, or has no boxes.
        QuantizeError: it holds no picture.
    """
    listing = read_listing(path, root, boxed=True)
    base = _base(path, root)
    scenes = [
        Scene(
            one.path,
            _name(one.path, base),
            one.split,
            np.asarray([box.box_px for box in one.boxes], np.float32).reshape(-1, 4),
        )
        for one in annotated_pictures(listing)
    ]
    if not scenes:
        raise QuantizeError(f"{path}: holds no picture; give a data set with boxes")
    return scenes, listing


def _base(path: Path, root: Path | None) -> Path:
    return (root or (path if path.is_dir() else path.parent)).absolute()


def _name(path: Path, base: Path) -> str:
    """Return a picture's path as the data set writes it, whatever folder of this machine it is in."""
    name = str(path if path.is_absolute() else path.absolute())
    for folder in (base, base.parent):
        start = f"{folder}/" if folder != folder.parent else "/"
        if name.startswith(start):
            return name[len(start) :]
    return name


@dataclass(frozen=True, slots=True)
class Data:
    """The pictures that calibration, comparison, galleries and probes use."""

    samples: list[Sample]
    scenes: list[Scene]
    calibration_split: str = _TRAIN
    held_out_split: str = "val"
    gallery_splits: tuple[str, ...] = (CATALOGUE,)
    calibration_images: int = 200
    held_out_images: int = 1000
    scene_crops: list[Sample] = field(default_factory=list)  # objects of the scenes, for models without samples
    listings: dict[str, Listing] = field(default_factory=dict)  # what was read, by command-line option
    check: PictureCheck = field(default_factory=PictureCheck)

    def crops_for(self, spec: Spec) -> list[Sample]:
        """Return the crops that a network is for: of the index; if it has none, the objects of the scenes."""
        own = [s for s in self.samples if spec.kind != "embedder" or s.category in spec.categories]
        if own or spec.kind == "localiser":
            return own or self.scene_crops
        known = spec.labels if spec.kind == "classifier" else spec.categories
        return [s for s in self.scene_crops if s.category in known]

    def categories(self) -> list[str]:
        """Return the categories of all crops."""
        return sorted({sample.category for sample in self.samples or self.scene_crops})

    def calibration_crops(self, spec: Spec) -> list[Sample]:
        """Return the calibration crops, evenly over the categories.

        Raises:
            QuantizeError: none of them can be read.
        """
        crops = in_turns(of_splits(self.crops_for(spec), {self.calibration_split}))
        return self.check.first(crops, self.calibration_images, f"pictures of split {self.calibration_split!r}")

    def held_out_crops(self, spec: Spec) -> list[Sample]:
        """Return the crops that neither training nor calibration used.

        Raises:
            QuantizeError: none of them can be read.
        """
        crops = in_turns(of_splits(self.crops_for(spec), {self.held_out_split}))
        return self.check.first(crops, self.held_out_images, f"pictures of split {self.held_out_split!r}")

    def has_held_out(self, spec: Spec) -> bool:
        """Return whether there are pictures to compare the forms of a network on."""
        if spec.kind in {"detector", "finder"}:
            return bool(self.scenes_for(self.held_out_split))
        return any(sample.split == self.held_out_split for sample in self.crops_for(spec))

    def gallery_crops(self, spec: Spec) -> list[Sample]:
        """Return the reference crops of the embedder's categories.

        Raises:
            QuantizeError: none of them can be read.
        """
        crops = of_splits(self.crops_for(spec), self.gallery_splits)
        return self.check.first(crops, len(crops), f"pictures of the splits {', '.join(self.gallery_splits)}")

    def probe_crops(self, categories: Collection[str], count: int) -> list[Sample]:
        """Return held-out crops of these categories: of the index; if it has none, objects of the scenes."""
        for samples in (self.samples, self.scene_crops):
            held_out = [s for s in of_splits(samples, {self.held_out_split}) if s.category in categories]
            if held_out:
                return self.check.first(in_turns(held_out), count, f"pictures of split {self.held_out_split!r}")
        return []

    def spare_probe_crops(self, categories: Collection[str], count: int) -> list[Sample]:
        """Return gallery crops of these categories, photos before catalogue pictures."""
        crops = of_splits(self.samples or self.scene_crops, self.gallery_splits)
        chosen = sorted(in_turns([s for s in crops if s.category in categories]), key=lambda sample: sample.plain)
        return self.check.first(chosen, count, f"pictures of the splits {', '.join(self.gallery_splits)}")

    def scenes_for(self, split: str) -> list[Scene]:
        """Return the scenes of a split; without splits in the file, the first calibrate and the rest are held out.

        Raises:
            QuantizeError: none of them can be read.
        """
        calibrates = split == self.calibration_split
        count = self.calibration_images if calibrates else self.held_out_images
        if any(scene.split for scene in self.scenes):
            chosen = shuffled(scene for scene in self.scenes if scene.split == split)
        else:
            ordered = shuffled(self.scenes)
            cut = min(self.calibration_images, len(ordered) // 2)
            chosen = ordered[:cut] if calibrates else ordered[cut:]
        return self.check.first(chosen, count, f"scenes of split {split!r}")

    def splits(self, kind: str) -> str:
        """Return the splits that there are for a kind of network, for messages."""
        there = {one.split for one in (self.scenes if kind == "detector" else self.samples or self.scene_crops)}
        return ", ".join(sorted(filter(None, there))) or "none"

    def summary(self) -> dict[str, Any]:
        """Return what was left out and noticed, with counts and examples, as the manifest stores it."""
        lists = {name: (one.left_out, one.noticed) for name, one in self.listings.items()}
        lists["pictures"] = (list(self.check.left_out), [])
        return {
            name: {
                "left_out": len(left_out),
                "noticed": len(noticed),
                "examples": [printable(text) for text in (*left_out[:_EXAMPLES], *noticed[:_EXAMPLES])],
            }
            for name, (left_out, noticed) in lists.items()
        }

    def unreadable(self) -> list[str]:
        """Return a line about the chosen pictures that could not be used; none if all could."""
        why = list(self.check.left_out)
        more = f", and {len(why) - _EXAMPLES} more" if len(why) > _EXAMPLES else ""
        return [f"pictures: left out {len(why)}: {'; '.join(why[:_EXAMPLES])}{more}"] if why else []


def read_data(
    index: Path | None,
    scenes: Path | None,
    root: Path | None = None,
    splits: Splits | None = None,
    calibration_images: int = 200,
    held_out_images: int = 1000,
) -> Data:
    """Read the data sets of a command, and log what was left out and noticed.

    Args:
        index: data set of crops.
        scenes: data set of whole pictures with boxes.
        root: folder of the paths in an index or COCO JSON; None: as the reader finds it.
        splits: which splits to use for what.
        calibration_images: most pictures to calibrate on.
        held_out_images: most pictures to compare on.

    Raises:
        DataError: a data set cannot be read.
        QuantizeError: a data set holds no picture, or lacks a split that was asked for.
    """
    splits = splits or Splits()
    listings: dict[str, Listing] = {}
    samples: list[Sample] = []
    frames: list[Scene] = []
    scene_crops: list[Sample] = []
    if index is not None:
        samples, listings["index"] = read_samples(index, root, splits.plain)
    if scenes is not None:
        frames, listings["scenes"] = read_scenes(scenes, root)
        scene_crops = _samples(listings["scenes"], _base(scenes, root), (), cut_to_box=True)
    for option, source in (("index", index), ("scenes", scenes)):
        for line in report(listings[option], source) if option in listings else []:
            log.warning("%s", line)
    crops = {sample.split for sample in samples or scene_crops}
    there = crops | {scene.split for scene in frames}
    held_out = _asked_for(splits.held_out, there, "--held-out-split") or "val"
    gallery = tuple(_asked_for(one, there, "--gallery-splits") or "" for one in splits.gallery or ())
    if not gallery:
        gallery = (CATALOGUE,) if CATALOGUE in crops or not samples else (_TRAIN,)
        if gallery != (CATALOGUE,):
            log.warning("there is no split %r; the gallery is split %r (--gallery-splits)", CATALOGUE, _TRAIN)
    if held_out in gallery:
        log.warning(
            "split %r is held out and in the gallery, so each picture finds itself: accuracy and thresholds mean "
            "nothing; give another --held-out-split or --gallery-splits",
            held_out,
        )
    return Data(
        samples,
        frames,
        _asked_for(splits.calibration, there, "--calibration-split") or _TRAIN,
        held_out,
        gallery,
        calibration_images,
        held_out_images,
        scene_crops,
        listings,
    )


def _asked_for(split: str | None, there: Collection[str], option: str) -> str | None:
    """Return the split that a person asked for, as the data sets name it; None if nobody asked.

    Raises:
        QuantizeError: the data sets have splits, but not this one.
    """
    if split is None:
        return None
    if (name := find_split(split, there)) is not None:
        return name
    named = sorted(filter(None, there))
    if not named:  # data sets without splits: nothing contradicts the name
        return split.strip()
    raise QuantizeError(f"{option} {split}: there is no such split; there are {', '.join(named)}")
