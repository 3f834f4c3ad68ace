"""Retrieval without training: SCDA's comparison of aggregations, and its variants, by its protocol.

Wei et al., IEEE TIP 2017: each picture of the test split is searched among those of the training split, and top-1 and
top-5 mAP are the means of the average precision at the hits among the 1 and 5 nearest. The paper's network is VGG-16
with ImageNet weights (`--backbone vgg16 --weights hub`) on pictures of up to 700 pixels; here they are stretched to
448 x 448.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.models.free_methods import FreeMethod
from trainer.tables.retrieval_measures import retrieval_measures
from trainer.tables.table import Measures, Request, Table
from trainer.tables.trained_vectors import embed, network_input, own_splits, write_index

if TYPE_CHECKING:
    from trainer.embedder_recipe import EmbedderRecipe

_PIXELS = 448
_WHITENED = 512  # numbers of SCDA_flip+ with SVD and whitening; fewer where there are fewer pictures
_TOP = {"top-1 mAP": "mAP@1 per hits", "top-5 mAP": "mAP@5 per hits"}
_METHODS: dict[str, FreeMethod] = {
    "all cells: avgPool": "average",
    "all cells: maxPool": "max",
    "all cells: avg&maxPool": "average_max",
    "selected: avgPool": "scda_average",
    "selected: maxPool": "scda_max",
    "SCDA (selected: avg&maxPool)": "scda",
    "SCDA+": "scda+",
    "SCDA_flip+": "scda_flip+",
    "SCDA_flip+ whitened": "scda_flip+",
}


def _methods(_: Request) -> Sequence[str]:
    return list(_METHODS)


def _measure(request: Request, method: str, seed: int, folder: Path) -> Measures:
    """Return the measures of one method; its run folder is made in `folder`.

    Raises:
        TrainError: weights or data are missing, or the backbone has no second map.
    """
    from trainer.tasks.free_embedder import make_free_embedders

    splits = own_splits(request)
    dim = min(_WHITENED, len(splits["train"]) // 2) if method.endswith("whitened") else None
    make_free_embedders(_recipe(request, write_index(splits, folder), seed), _METHODS[method], folder / "run", dim)
    queries, items = embed(folder / "run", splits["test"])
    gallery, gallery_items = embed(folder / "run", splits["train"])
    measures = retrieval_measures(queries, items, gallery, gallery_items)
    own = {column: measures[name] for column, name in _TOP.items()}
    return own | {"dim": float(queries.shape[1])} | measures


def _recipe(request: Request, index: Path, seed: int) -> EmbedderRecipe:
    from trainer.embedder_recipe import EmbedderRecipe

    # VGG's whole network has fully-connected layers of 400 MB, which no map needs.
    strides = [16, 32] if request.backbone.startswith("vgg") else None
    keys: dict[str, Any] = {
        "kind": "embedder",
        "seed": seed,
        "data": {"index": index, "val_splits": [], "gallery_splits": []},
        "input": network_input(request, _PIXELS),
        "backbone": {"name": request.backbone, "pretrained": request.weights, "strides": strides},
    }
    return EmbedderRecipe.model_validate(keys)


SCDA = Table(
    "scda",
    "Fine-grained image analysis (ICME 2019 tutorial), SCDA: pooling methods (D1) and variants (D2)",
    "Aggregations of a published network's maps, without training; tests searched among the training pictures.",
    "pictures of single objects with the splits train, and test or val",
    (*_TOP, "dim", "R@1", "mAP@5 per possible"),
    _methods,
    _measure,
    seeded=False,
)
