"""The steps of `edge-train learn --from-scenes`: each leaves its result in `work`, and takes one that is there.

A finished step stays, a training continues from its last epoch, other steps begin again. With other scenes, names,
weights or minutes, all begins again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dataset_formats.records import Sample
from edge.errors import TrainError
from learn.crops import BOXES_FILE, INDEX_FILE, REPORT_FILE, CropOptions, cut_scenes
from learn.device_folder import clear
from learn.memory import read_memory, write_memory
from learn.networks import measure_speed
from learn.open_detector import open_detector
from learn.plan import Speed, many
from learn.scene_networks import (
    MadeEmbedder,
    Trained,
    classifier_guesses,
    classifier_recipe,
    detector_recipe,
    make_classifier,
    make_detector,
    make_embedders,
    plan_embedders,
)
from learn.scene_plan import SceneCounts, ScenePlan, make_scene_plan
from learn.scene_set import SCENES_FILE, SceneSet
from learn.steps import INDEX, MEMORY, WORK, LearnOptions, detector_key, key_of, pack, progress, say
from quantize.command import PackSources
from trainer.data.dataset import read_samples
from trainer.models.published_weights import PublishedWeights

SCENES, CROPS, DETECTOR = "scenes", "crops", "detector"  # folders


@dataclass(frozen=True, slots=True)
class Shop:
    """What all steps work on."""

    options: LearnOptions
    weights: PublishedWeights
    scenes: SceneSet
    plan: ScenePlan
    speed: Speed

    @property
    def work(self) -> Path:
        """Return the folder of the steps' results."""
        return self.options.out / WORK

    @property
    def detector(self) -> Path:
        """Return the detector: the given one, or the run folder of the one that is trained."""
        return self.options.detector or self.work / DETECTOR

    @property
    def learned_pictures(self) -> int:
        """Return the number of pictures to learn from."""
        return sum(one.split == "train" for one in self.scenes.pictures)


def count_scenes(scenes: SceneSet) -> SceneCounts:
    """Return what there is to learn from."""
    sizes = np.array([one.declared_size_px or (1, 1) for one in scenes.pictures], np.float64)
    kinds = {(box.category, box.item) for box in scenes.boxes}
    aspect = float(np.median(sizes[:, 0] / sizes[:, 1]))
    learned = sum(one.split == "train" for one in scenes.pictures)
    return SceneCounts(learned, len(scenes.boxes), len({category for category, _ in kinds}), len(kinds), aspect)


def plan_shop(options: LearnOptions, weights: PublishedWeights, scenes: SceneSet) -> Shop:
    """Make a plan, or take that of an interrupted run over these scenes; other scenes begin again."""
    work = options.out / WORK
    memory = read_memory(work / MEMORY)
    given = weights.backbone, weights.pretrained, options.minutes, detector_key(options.detector), options.detector_spec
    key = key_of(*given, scenes.pictures, scenes.labels)
    if memory.scene_plan is None or memory.speed is None or memory.scenes_from != key:
        own = [] if options.detector else [DETECTOR]  # a given detector may be the one that was trained here
        clear(*(work / name for name in (*own, CROPS, "classifier", "embedders")))
        speed = measure_speed(weights)
        plan = make_scene_plan(count_scenes(scenes), speed, options.minutes)
        write_memory(work / MEMORY, replace(memory, scenes_from=key, scene_plan=plan, speed=speed))
        return Shop(options, weights, scenes, plan, speed)
    return Shop(options, weights, scenes, memory.scene_plan, memory.speed)


def train_the_detector(shop: Shop) -> dict[str, Any]:
    """Train the detector until it converges; return what the report says of it.

    Raises:
        TrainError: the scenes are unusable, or training failed.
    """
    if shop.options.detector is not None:
        say(f"detector: {shop.options.detector}, as given")
        return {"given": shop.options.detector.name}
    plan = shop.plan
    size = f"{plan.detector_width} x {plan.detector_height}"
    epochs = many(plan.detector_epochs, "epoch")
    say(
        f"training a detector at {size} pixels until it converges, at most {epochs}"
        if plan.detector_can_converge
        else f"training a detector at {size} pixels for {epochs}: too few to converge, which takes more --minutes"
    )
    recipe = detector_recipe(plan, shop.scenes.file, shop.weights, shop.learned_pictures)
    made = make_detector(recipe, shop.detector)
    learned = made.converged and made.metrics.get("map50")
    how = "converged" if learned else "was still learning when its time was up; more --minutes may help"
    say(f"  mAP50 {made.metrics.get('map50', 0):.2f} after {many(made.epochs, 'epoch')}: it {how}")
    return told(made)


def told(made: Trained) -> dict[str, Any]:
    """Return what the report says of a trained network."""
    return {"epochs": made.epochs, "converged": made.converged, "metrics": made.metrics}


def cut_the_crops(shop: Shop) -> list[Sample]:
    """Cut the objects out by the detector; what it missed in pictures to learn from is cut out as people drew it.

    Raises:
        TrainError: there is no crop to learn from.
    """
    folder, options = shop.work / CROPS, shop.options
    if not (folder / INDEX_FILE).is_file():
        clear(folder)
        opened = open_detector(shop.detector, options.detector_spec)
        pictures = progress(shop.scenes.pictures, "cutting")
        cut_scenes(pictures, opened.detect, folder, CropOptions(add_missed=("train",)), shop.scenes.labels)
    counts = crops_report(shop)["boxes"]
    say(
        f"cut out by the detector: {counts['matched']} objects; as drawn: {counts['added']} that it missed; left: "
        f"{counts['missed']} missed, {counts['doubled']} found twice, {counts['unmatched']} that nobody drew "
        f"({folder / BOXES_FILE})"
    )
    if not counts["matched"] + counts["added"]:
        raise TrainError(f"{options.photos}: the detector finds none of the boxes; draw more boxes, or give more time")
    return read_samples(folder / INDEX_FILE)


def crops_report(shop: Shop) -> dict[str, Any]:
    """Return the report of the crops."""
    report: dict[str, Any] = json.loads((shop.work / CROPS / REPORT_FILE).read_text(encoding="utf-8"))
    return report


def train_the_classifier(shop: Shop, samples: Sequence[Sample]) -> Trained | None:
    """Train the coarse classifier; None if there is one category, or if it knows no more than a guess.

    Raises:
        TrainError: training failed.
    """
    categories = {sample.category for sample in samples}
    if len(categories) < 2 or not shop.plan.classifier_epochs:
        return None
    if all(sample.split == "train" for sample in samples):
        say(
            "no object was found in the pictures that were held out, so nothing could tell when a classifier has "
            "converged: there is none, and all items are searched together"
        )
        return None
    say(f"training a classifier of {len(categories)} categories until it converges")
    recipe = classifier_recipe(shop.plan, shop.work / INDEX, shop.weights, len(samples))
    made = make_classifier(recipe, shop.work / "classifier")
    if classifier_guesses(made, len(categories)):
        say("  it knows no more than a guess, so it is left out: all items are searched together")
        return None
    say(f"  accuracy {made.metrics['accuracy']:.0%} after {many(made.epochs, 'epoch')}")
    return made


def train_the_embedders(shop: Shop, learned: Sequence[Sample], *, by_category: bool) -> list[MadeEmbedder]:
    """Train or fit the embedder of each category; without a classifier, one of all.

    Raises:
        TrainError: training failed.
    """
    planned = plan_embedders(learned, shop.speed, shop.plan.embedder_minutes, by_category=by_category)
    for group, plan in planned:
        say(f"embedder of {', '.join(group)}: {plan.why}")
    return make_embedders(planned, shop.work / INDEX, shop.weights, shop.work / "embedders")


def pack_the_bundle(
    shop: Shop, classifier: Trained | None, embedders: Sequence[MadeEmbedder]
) -> tuple[Path, tuple[str, ...]]:
    """Pack all networks, see `learn.steps.pack`.

    Raises:
        QuantizeError, BundleError, EngineError: packing failed.
    """
    sources = PackSources(
        detector=shop.detector,
        detector_spec=shop.options.detector_spec,
        classifier=None if classifier is None else classifier.run,
        embedders=tuple(one.run for one in embedders),
    )
    made = [(one.run.parent.name, one.run.name, one.categories) for one in embedders]
    key = read_memory(shop.work / MEMORY).scenes_from, classifier is None, made
    return pack(shop.options, sources, key, shop.work / SCENES / SCENES_FILE)
