"""The tables of HDCL (Neurocomputing 2021): losses compared, the number of hardest classes, and HCL for recognition.

Settings that the paper prints: ResNet50 with ImageNet weights, the vector is the concatenated maximum and average of
its last map, SGD with momentum 0.9, rate 0.001, weight decay 5e-6, crop 280, batch 60, 100 epochs, lambda 0.1, alpha
100. What it does not print is chosen here: a constant rate, batch norms that train, crops of 77 to 100 % of the area
and mirroring. The centres have unit length and start at the means of their items.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.tables.table import Measures, Request, Table
from trainer.tables.trained_vectors import class_disjoint, embed, network_input, own_splits, train_once, write_index

if TYPE_CHECKING:
    from trainer.embedder_recipe import EmbedderRecipe
    from trainer.recipe import ClassifierRecipe

PIXELS = 280
_AUGMENT = {
    "scale": (0.875, 1.0), "shift": 0.0625, "stretch": 0.0, "rotate_deg": 0.0, "perspective": 0.0, "flip": True,
    "colour": 0.0, "blur": 0.0, "noise": 0.0, "erase": 0.0,
}  # fmt: skip
_SGD = {
    "name": "sgd", "momentum": 0.9, "nesterov": False, "lr": 1e-3, "schedule": "constant", "ema": None, "clip": 1e6,
}  # fmt: skip
# Of the retrieval tables; the optimiser's epochs stand apart, because a request may change them.
SETTINGS: dict[str, Any] = {
    "augment": _AUGMENT,
    "heads": ["class"],
    "dim": 0,
    "pool": "max_average",
    "scale": 100.0,
    "label_smoothing": 0.0,
    "dropout": 0.0,
    "classes_per_batch": 15,  # of losses that compare the pictures of a batch
    "images_per_class": 4,
}
OPTIMISER = _SGD | {"batch": 60, "weight_decay": 5e-6}
EPOCHS, RECOGNITION_EPOCHS = 100, 400
WARM_UP = 0.1  # share of the training with the plain softmax; the paper says "the first few epochs"

LOSSES: dict[str, dict[str, Any]] = {
    "softmax": {},
    "DGCRL": {"decorrelation": 0.1},
    "HCL": {"hdcl_from": 0.0, "hdcl_hardest": 2},
    "HDCL": {"hdcl_from": 0.0, "hdcl_hardest": 2, "decorrelation": 0.1},
    "CRL": {"loss": "crl"},
    "triplet": {"loss": "triplet"},
    "contrastive": {"loss": "contrastive"},
    "proxy anchor": {"loss": "proxy_anchor"},
}
# Lambda stays 0.1: what the paper calls 100 (CE) and 98 (CE) has the numbers of its DGCRL.
HARDEST: dict[str, dict[str, Any]] = {
    "all classes (DGCRL)": LOSSES["DGCRL"],
    "10": LOSSES["HDCL"] | {"hdcl_hardest": 10},
    "5": LOSSES["HDCL"] | {"hdcl_hardest": 5},
    "2": LOSSES["HDCL"],
}
RECOGNITION: dict[str, dict[str, Any]] = {
    "softmax": {},
    "HCL": {"hcl_from": 0.0},
    "HCL after warm-up": {"hcl_from": WARM_UP},
}


def retrieval_recipe(request: Request, index: Path, seed: int, changes: dict[str, Any]) -> EmbedderRecipe:
    """Return the recipe of a row of the retrieval tables."""
    from trainer.embedder_recipe import EmbedderRecipe
    from trainer.model_setup import feature_dim

    own = {"kind": "embedder", "seed": seed, "data": {"index": index, "val_splits": [], "gallery_splits": []}}
    recipe = EmbedderRecipe.model_validate(own | SETTINGS | _shared(request, OPTIMISER, EPOCHS) | changes)
    # The numbers of a centre start at about one. With this factor a centre turns as if it were of unit length.
    return recipe.model_copy(update={"centre_lr": float(feature_dim(recipe))})


def recognition_recipe(request: Request, index: Path, seed: int, changes: dict[str, Any]) -> ClassifierRecipe:
    """Return the recipe of a row of the recognition table: one fully-connected layer on the pooled trunk."""
    from trainer.recipe import ClassifierRecipe

    own = {
        "kind": "classifier",
        "seed": seed,
        "data": {"index": index, "val_splits": ["val"], "gallery_splits": []},
        "augment": _AUGMENT,
        "width": 0,
        "dropout": 0.0,
        "auxiliary_items": False,
        "auxiliary_grid": 1,
        "label_smoothing": 0.0,
    }
    optimiser = _SGD | {"batch": 32, "weight_decay": 5e-4}
    return ClassifierRecipe.model_validate(own | _shared(request, optimiser, RECOGNITION_EPOCHS) | changes)


def _shared(request: Request, optimiser: dict[str, Any], epochs: int) -> dict[str, Any]:
    length = request.epochs or epochs
    return {
        "input": network_input(request, PIXELS),
        "backbone": {"name": request.backbone, "pretrained": request.weights, "freeze_bn": False},
        "optimiser": optimiser | {"epochs": length, "evaluate_every": length},
    }


def _measure_retrieval(request: Request, changes: dict[str, Any], seed: int, folder: Path) -> Measures:
    from trainer.tables.retrieval_measures import retrieval_measures

    splits = class_disjoint(request)
    recipe = retrieval_recipe(request, write_index({"train": splits["train"]}, folder), seed, changes)
    train_once(recipe, folder / "run")
    return retrieval_measures(*embed(folder / "run", splits["test"]))


def _measure_recognition(request: Request, method: str, seed: int, folder: Path) -> Measures:
    from trainer.loop.training_loop import keep_freed_memory
    from trainer.tasks.classifier import train_classifier

    splits = own_splits(request)
    index = write_index({"train": splits["train"], "val": splits["test"]}, folder, as_category=True)
    keep_freed_memory()
    card = train_classifier(recognition_recipe(request, index, seed, RECOGNITION[method]), folder / "run")
    return {"top-1": card.metrics["accuracy"]}


_RECALLS = tuple(f"R@{k}" for k in (1, 2, 4, 8, 16, 32))
_DATA = "pictures of four classes or more, two or more of each; CUB, Cars and others are split as published"

HDCL_RETRIEVAL = Table(
    "hdcl-retrieval",
    "HDCL (Neurocomputing 2021), Tables 2 to 5",
    "Losses compared on classes that no training saw, each test picture searched among all others.",
    _DATA,
    (*_RECALLS, "P@10", "mAP@10 per hits", "mAP@10 per possible", "MAP@R"),
    lambda _: tuple(LOSSES),
    lambda request, method, seed, folder: _measure_retrieval(request, LOSSES[method], seed, folder),
)
HDCL_HARDEST = Table(
    "hdcl-hardest",
    "HDCL (Neurocomputing 2021), Table 6",
    "The number of hardest classes in the softmax, on classes that no training saw.",
    _DATA,
    (*_RECALLS, "P@1", "P@5", "P@10", "mAP@1 per hits", "mAP@5 per hits", "mAP@10 per hits"),
    lambda _: tuple(HARDEST),
    lambda request, method, seed, folder: _measure_retrieval(request, HARDEST[method], seed, folder),
)
HDCL_RECOGNITION = Table(
    "hdcl-recognition",
    "HDCL (Neurocomputing 2021), Table 7",
    "Softmax and HCL as the loss of a classifier of all classes, and HCL after a plain softmax (section 5.3).",
    "pictures of single objects with the splits train, and test or val",
    ("top-1",),
    lambda _: tuple(RECOGNITION),
    _measure_recognition,
)
