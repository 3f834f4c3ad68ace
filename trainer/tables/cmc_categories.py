"""The table `cmc-categories`: the coarse classifier of CMC 2023 (second source), Table 2 and its measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import TrainError
from trainer.tables.table import Measures, Request, Table

if TYPE_CHECKING:
    from trainer.models.networks import ModelCard
    from trainer.recipe import ClassifierRecipe

# The published networks, by the names of timm.
NETWORKS = {
    "EfficientNetV2-L": "tf_efficientnetv2_l",
    "MobileNetV2": "mobilenetv2_100",
    "ResNet101V2": "resnetv2_101",
}
_PIXELS, _EPOCHS = 224, 200


def _rows(request: Request) -> Sequence[str]:
    """Return the published networks, and the one of --backbone if it is another."""
    own = [] if request.backbone in NETWORKS.values() else [request.backbone]
    return [*NETWORKS, *own]


def cmc_recipe(request: Request, network: str, seed: int) -> ClassifierRecipe:
    """Return the published head, augmentation and schedule, as in configs/train/published-classifier.yaml.

    Dense 1024, dropout, Dense 512, softmax; SGD with Nesterov momentum; the rate halves after five epochs without a
    better loss, and training stops after ten; rotation, mirroring and zoom of grey pictures.
    """
    from trainer.recipe import ClassifierRecipe

    pixels = request.pixels or _PIXELS
    still = dict.fromkeys(("shift", "stretch", "perspective", "colour", "blur", "noise", "erase"), 0.0)
    schedule = {"schedule": "plateau", "watch": "loss_val", "patience": 5, "decay": 0.5, "stop_after": 10}
    return ClassifierRecipe.model_validate(
        {
            "kind": "classifier",
            "seed": seed,
            "data": {"index": request.data, "root": request.root, "layout": request.layout},
            "input": {"width": pixels, "height": pixels, "grey": True},
            "backbone": {"name": network, "pretrained": request.weights},
            "width": 1024,
            "further_widths": [512],
            "dropout": 0.5,
            "auxiliary_items": False,
            "auxiliary_grid": 1,
            "label_smoothing": 0.0,
            "augment": {"scale": [0.8, 1.2], "rotate_deg": 15.0, "flip": True} | still,
            "optimiser": {
                "name": "sgd",
                "momentum": 0.9,
                "epochs": request.epochs or _EPOCHS,
                "batch": 32,
                "lr": 1e-3,
                "weight_decay": 0.0,
                "ema": None,
                "evaluate_every": 1,
            }
            | schedule,
        }
    )


def _measure(request: Request, method: str, seed: int, folder: Path) -> Measures:
    """Train one network, and measure it on the split `test`, else on `val`.

    Raises:
        TrainError: weights or data are missing, or training failed.
    """
    from trainer.data.dataset import read_samples
    from trainer.models.published_weights import PACKAGE
    from trainer.tasks.classifier import train_classifier

    if method in NETWORKS and request.weights == PACKAGE:
        raise TrainError(
            f"{method}: no package has its weights; give --weights hub, or --methods with another row, such as "
            f"{request.backbone}"
        )
    if not any(one.split == "val" for one in read_samples(request.data, request.root, layout=request.layout)):
        raise TrainError(f"{request.data}: has no pictures of the split val, by which the published schedule stops")
    card = train_classifier(cmc_recipe(request, NETWORKS.get(method, method), seed), folder / "classifier")
    return _tested(request, folder / "classifier", card)


def _tested(request: Request, run: Path, card: ModelCard) -> Measures:
    from trainer.data.crops import predict
    from trainer.data.dataset import choose, read_samples
    from trainer.data.pictures import load_canvases
    from trainer.metrics import mean_over_classes, per_class
    from trainer.models.networks import load_model

    listed = read_samples(request.data, request.root, layout=request.layout)
    split = "test" if any(sample.split == "test" for sample in listed) else "val"
    samples, canvases, _ = load_canvases(choose(listed, [split], card.labels), card.preprocess)
    if not samples:
        raise TrainError(f"{request.data}: no picture of the splits test or val can be read; add some")
    module, _ = load_model(run)
    named = [card.labels[i] for i in predict(module, canvases, card.preprocess).argmax(axis=1)]
    true = [sample.category for sample in samples]
    means = mean_over_classes(per_class(named, true))
    return {
        "accuracy": sum(a == b for a, b in zip(named, true, strict=True)) / len(true),
        "precision": means["precision"],
        "recall": means["recall"],
        "F1": means["f1"],
        "accuracy of one category": means["accuracy"],
        "million parameters": sum(one.numel() for one in module.parameters()) / 1e6,
        "pictures": float(len(true)),
    }


CMC_CATEGORIES = Table(
    name="cmc-categories",
    source="Second source (CMC 2023), Table 2",
    what="The category of a picture: three networks with the published head and schedule, on grey pictures.",
    data="pictures of single objects by category, with the splits train, val and, if there is one, test",
    columns=("accuracy", "precision", "recall", "F1", "accuracy of one category", "million parameters"),
    methods=_rows,
    measure=_measure,
)
