"""The table `rpc-checkout`: RPC's baselines (Wei et al. 2019; fourth source), by level of clutter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.durable import write_durably
from edge.errors import TrainError
from trainer.tables.table import Measures, Request, Table

if TYPE_CHECKING:
    from trainer.class_metrics import LabelledBoxes
    from trainer.data.detection_sample import DetectionSample
    from trainer.models.networks import ModelCard
    from trainer.recipe import DetectorRecipe

MODES = {
    "Single": ("Single",),
    "Syn": ("Syn",),
    "Render-free": ("Render-free",),
    "Syn+Render-free": ("Syn", "Render-free"),
}
LEVELS = ("easy", "medium", "hard", "averaged")
_EPOCHS = 60


def _rows(request: Request) -> Sequence[str]:  # noqa: ARG001
    return [f"{mode} {level}" for mode in MODES for level in LEVELS]


def rpc_recipe(request: Request, scenes: Path, seed: int) -> DetectorRecipe:
    """Return the recipe of the detector, whose labels are the products."""
    from trainer.recipe import DetectorRecipe
    from trainer.tables.rpc_scenes import PIXELS

    pixels, epochs = request.pixels or PIXELS, request.epochs or _EPOCHS
    return DetectorRecipe.model_validate(
        {
            "kind": "detector",
            "seed": seed,
            "scenes": {"train": scenes, "class_agnostic": False},
            "input": {"width": pixels, "height": pixels, "crop_margin": 0.0},
            "backbone": {"name": request.backbone, "pretrained": request.weights, "strides": [8, 16, 32]},
            "augment": {"scale": [0.75, 1.3], "flip": False, "rotate_deg": 0.0, "erase": 0.0},
            "optimiser": {"epochs": epochs, "batch": 16, "lr": 2e-3, "trunk_lr": 0.5, "evaluate_every": epochs},
        }
    )


def _measure(request: Request, method: str, seed: int, folder: Path) -> Measures:  # noqa: ARG001 shared by levels
    """Train the detector of a mode once, and return the measures of one level.

    Raises:
        TrainError: the data set lacks exemplars or scenes of this level, or training failed.
    """
    mode, _, level = method.rpartition(" ")
    trained = request.runs / f"trained-{mode}-{seed}"
    file = trained / "levels.json"
    if not file.is_file():
        write_durably(file, json.dumps(_all_levels(request, mode, seed, trained)).encode())
    levels: dict[str, Measures] = json.loads(file.read_text())
    if level not in levels:
        raise TrainError(
            f"{request.data}: no test scene has the level {level}; leave its rows out, such as by "
            f"--methods '{','.join(f'{mode} averaged' for mode in MODES)}'"
        )
    return levels[level]


def _all_levels(request: Request, mode: str, seed: int, folder: Path) -> dict[str, Measures]:
    from trainer.class_metrics import best_count_threshold
    from trainer.data.dataset import read_scenes
    from trainer.models.networks import load_model
    from trainer.tables.rpc_scenes import write_training_scenes
    from trainer.tasks.detector import train_detector
    from trainer.tasks.detector_labels import detect_in_scenes

    folder.mkdir(parents=True, exist_ok=True)
    run = folder / "detector"
    if not (run / "model.json").is_file():
        train_detector(rpc_recipe(request, write_training_scenes(request, MODES[mode], seed, folder), seed), run)
    module, card = load_model(run)
    listed, names = read_scenes(
        request.data, request.root, ["val", "test"], layout=request.layout, class_agnostic=False, least_visible=0.25
    )
    checkout = {split: [one for one in listed if one.split == split] for split in ("val", "test")}
    if not checkout["test"]:
        raise TrainError(f"{request.data}: has no split test with checkout scenes")
    if checkout["val"]:
        found, truths, _ = detect_in_scenes(module, card, checkout["val"], names)
    else:  # as the training scenes are made
        own, own_names = read_scenes(folder / "scenes.json", None, ["val"], class_agnostic=False)
        found, truths, _ = detect_in_scenes(module, card, own, own_names)
    threshold = best_count_threshold(found, truths, len(card.labels))
    found, truths, kept = detect_in_scenes(module, card, checkout["test"], names)
    return _by_level(found, truths, kept, card, threshold)


def _by_level(
    found: list[LabelledBoxes],
    truths: list[LabelledBoxes],
    scenes: list[DetectionSample],
    card: ModelCard,
    threshold: float,
) -> dict[str, Measures]:
    """Return the measures of each level that the scenes have, and of all scenes as `averaged`."""
    measured = {}
    for level in (*dict.fromkeys(one.level for one in scenes if one.level), "averaged"):
        rows = [i for i, one in enumerate(scenes) if level in (one.level, "averaged")]
        measured[level] = _measures([found[i] for i in rows], [truths[i] for i in rows], card, threshold)
    return measured


def _measures(found: list[LabelledBoxes], truths: list[LabelledBoxes], card: ModelCard, threshold: float) -> Measures:
    from trainer.class_metrics import counts_of, map_by_label, mean_over_labels
    from trainer.evaluation.checkout_measures import checkout_measures

    labels = len(card.labels)
    listed = counts_of([one.at_least(threshold) for one in found], labels)
    lists = checkout_measures(listed, counts_of(truths, labels))
    boxes = mean_over_labels(map_by_label(found, truths, card.labels))
    return {
        "cAcc": lists["cAcc"]["mean"],
        "ACD": lists["ACD"]["mean"],
        "mCCD": lists["mCCD"],
        "mCIoU": lists["mCIoU"],
        "mAP50": boxes["item_map50"],
        "mmAP": boxes["item_map50_95"],
        "threshold": threshold,
        "scenes": float(len(found)),
    }


RPC_CHECKOUT = Table(
    name="rpc-checkout",
    source="Fourth source, RPC (Wei et al. 2019), Table 3",
    what="Shopping lists of checkout photos by a detector that saw single products only, by level of clutter.",
    data="RPC, or COCO shaped like it: exemplars in split train, scenes with a level in val and test",
    columns=("cAcc", "ACD", "mCCD", "mCIoU", "mAP50", "mmAP"),
    methods=_rows,
    measure=_measure,
)
