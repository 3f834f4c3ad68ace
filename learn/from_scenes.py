"""`edge-train learn --from-scenes`: from whole pictures with boxes to a folder that a device starts from.

The order is that of US 12,386,883, claim 6: people's boxes train a detector until it converges; *that detector* cuts
the objects out; its crops train the coarse classifier, and for each category an embedder. Then: pack, embed, judge.
Killed, the same command goes on where it was, see `learn.scene_steps`.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dataset_formats.records import Sample
from edge.durable import write_durably
from edge.types import Box
from learn.crops import BOXES_FILE
from learn.device_folder import CAMERA, install_pair, write_configurations
from learn.judge import listed_answers
from learn.networks import recall_of
from learn.page import headline, render_page
from learn.photos import write_index
from learn.plan import Photos, advice, many
from learn.scene_judge import SceneVerdict, judge_scenes
from learn.scene_networks import MadeEmbedder
from learn.scene_set import SceneSet, read_scenes
from learn.scene_steps import (
    CROPS,
    SCENES,
    Shop,
    count_scenes,
    crops_report,
    cut_the_crops,
    pack_the_bundle,
    plan_shop,
    told,
    train_the_classifier,
    train_the_detector,
    train_the_embedders,
)
from learn.steps import (
    INDEX,
    PAGE,
    REPORT,
    WORK,
    LearnOptions,
    embed,
    left_out_of,
    notes_about,
    progress,
    say,
    say_how_to_start,
)
from trainer.catalogue.items import item_id_of
from trainer.disk_errors import report_disk_errors
from trainer.loop.training_loop import keep_freed_memory
from trainer.models.published_weights import choose_weights


def learn_from_scenes(options: LearnOptions) -> dict[str, Any]:
    """Run all steps; print what happens.

    Returns:
        the report, as it is stored in report.json.

    Raises:
        DataError, TrainError: the scenes cannot be used, or the detector finds nothing.
        QuantizeError, BundleError, GalleryError, EngineError: a step failed.
    """
    started = time.monotonic()
    keep_freed_memory()
    with report_disk_errors(f"{options.out}: cannot write"):
        report = _learn(options)
        report["minutes"] = round((time.monotonic() - started) / 60, 1)
        write_durably(options.out / REPORT, json.dumps(report, indent=1, ensure_ascii=False).encode("utf-8"))
    return report


def _learn(options: LearnOptions) -> dict[str, Any]:
    weights, work = choose_weights(options.weights), options.out / WORK
    work.mkdir(parents=True, exist_ok=True)
    scenes = read_scenes(options.photos, options.root, work / SCENES, progress, options.names)
    counts = count_scenes(scenes)
    say(f"{many(counts.pictures, 'picture')} to learn from, with {many(counts.boxes, 'box', 'boxes')}; {weights.told}")
    for line in (*left_out_of(scenes.left_out, "picture"), *scenes.noticed):
        say(line)
    shop = plan_shop(options, weights, scenes)
    report = {
        "scenes": _scenes_report(scenes),
        "weights": weights.told,
        "plan": asdict(shop.plan),
        "detector": train_the_detector(shop),
    }
    samples = cut_the_crops(shop)
    report["crops"] = crops_report(shop)
    if scenes.naming == "unnamed":
        return {**report, "next": _say_how_to_name(shop)}
    if scenes.naming == "one_level":
        say("the boxes have one name each, so these are items of one category; --names FILE gives them categories")
    return {**report, **_recognise(shop, samples)}


def _scenes_report(scenes: SceneSet) -> dict[str, Any]:
    splits = [one.split for one in scenes.pictures]
    return {
        "train": splits.count("train"),
        "val": splits.count("val"),
        "boxes": len(scenes.boxes),
        "naming": scenes.naming,
        "untouched_test_pictures": scenes.untouched,
        "left_out": len(scenes.left_out),
        "left_out_why": scenes.left_out,
    }


def _say_how_to_name(shop: Shop) -> str:
    """Say how to go on where the boxes have no names."""
    line = (
        f"all boxes have the same name, so there is nothing to tell apart yet. The detector is {shop.detector}, and "
        f"the objects that it cut out are in {shop.work / CROPS / CROPS}. Sort them into folders category/item, then "
        "run: "
        f"edge-train learn FOLDER -o {shop.options.out} --detector {shop.detector}"
    )
    say(line)
    return line


def _recognise(shop: Shop, samples: list[Sample]) -> dict[str, Any]:
    """Train what names objects, pack, embed, judge, and install; return the rest of the report."""
    options, scenes = shop.options, shop.scenes
    write_index(samples, shop.work / INDEX)
    learned = [sample for sample in samples if sample.split == "train"]
    classifier = train_the_classifier(shop, samples)
    embedders = train_the_embedders(shop, learned, by_category=classifier is not None)
    bundle, warnings = pack_the_bundle(shop, classifier, embedders)
    gallery = embed(bundle, samples, shop.work / "gallery")
    judged = gallery if len(learned) == len(samples) else embed(bundle, learned, shop.work / "judged")
    held_out = [one for one in scenes.pictures if one.split == "val"]
    found = judge_scenes(bundle, judged, progress(held_out, "asking"), _crop_of(shop))
    install_pair(options.out, bundle, gallery)
    kept = write_configurations(options.out, options.shown_name, options.camera, detects=True)
    _write_page(shop, samples, found, embedders)
    say(headline(found.verdict))
    say(f"{found.all_right} of {many(found.pictures, 'picture')} that were held out are right in every object")
    say_how_to_start(options.out, kept, CAMERA)
    return {
        "classifier": None if classifier is None else told(classifier),
        "embedders": [
            {"categories": one.categories, "how": one.how, "plan": asdict(one.plan), "nearest": recall_of(one.run)}
            for one in embedders
        ],
        "verdict": found.verdict.as_json(),
        "pictures": {"held_out": found.pictures, "all_right": found.all_right},
        "answers": listed_answers(found.verdict, _places(scenes, found)),
        "warnings": list(warnings),
    }


def _crop_of(shop: Shop) -> dict[tuple[Path, int], Path]:
    """Return the picture that was cut out of each scene for each true box, by its number."""
    numbers = {(str(one.path), _told(box.box_px)): n for one in shop.scenes.pictures for n, box in enumerate(one.boxes)}
    folder, sides = shop.work / CROPS, ("true_x0", "true_y0", "true_x1", "true_y1")
    with (folder / BOXES_FILE).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["crop"]]
    found = {(row["scene"], tuple(row[side] for side in sides)): folder / row["crop"] for row in rows}
    return {(Path(key[0]), number): found[key] for key, number in numbers.items() if key in found}


def _told(box_px: Box) -> tuple[str, ...]:
    """Return the sides of a box as the list of boxes writes them."""
    return tuple(f"{side:.1f}" for side in box_px)


def _places(scenes: SceneSet, found: SceneVerdict) -> dict[str, tuple[Path, Box | None]]:
    """Return for each shown picture the scene as people know it, and where in its copy the object is."""
    return {name: (scenes.sources.get(scene.name, scene), box) for name, (scene, box) in found.places.items()}


def _write_page(shop: Shop, samples: Sequence[Sample], found: SceneVerdict, embedders: Sequence[MadeEmbedder]) -> None:
    labels = shop.scenes.labels
    labelled = [replace(one, label=labels.get((one.category, one.item), "")) for one in samples]
    shown = {item_id_of(one.item): one for one in reversed(labelled) if one.split == "train"}
    how = "; ".join(f"{', '.join(one.categories)}: {one.how}" for one in embedders)
    given = shop.options.detector
    detector = "A detector was trained on the boxes, and" if given is None else f"The detector {given.name}"
    text = f"{detector} cut the objects out. {how}. {shop.weights.told}."
    notes = [
        *notes_about(shop.work / "bundle"),
        *left_out_of(shop.scenes.left_out, "picture"),
        *left_out_of(found.verdict.unreadable, "held-out picture"),
    ]
    name = shop.options.shown_name
    page = render_page(name, Photos.of(labelled), found.verdict, text, advice(labelled), shown, notes)
    write_durably(shop.options.out / PAGE, page.encode("utf-8"))
