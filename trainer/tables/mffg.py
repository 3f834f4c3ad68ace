"""The heads of MFFG (US 12,386,883, see NOTICE): three as published, smaller variants, and the default beside them.

The patent prints no numbers: its losses are those of `trainer.losses.embedding_losses.pair_losses`. `literal` trains on
them alone, from published weights. `guarded` adds a cosine softmax for each head and negatives for the outline head.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.file_names import distinct_file_names
from trainer.tables.table import Measures, Request, Table
from trainer.tables.trained_vectors import embed, network_input, own_splits, train_once, write_index

if TYPE_CHECKING:
    from trainer.recipe import EmbedderRecipe

PIXELS, EPOCHS = 224, 20
_LARGE_PX = 160  # inputs from here on have the published 7 blocks of region confusion
HEADS = {"heads": ["class", "local", "outline"], "dim": 128, "width": 128, "images_per_class": 4}
LITERAL = HEADS | {"mode": "literal", "anchor": 0.0, "pairs": 1.0, "pair_ramp": (0.0, 0.0)}
GUARDED = HEADS | {"mode": "guarded", "anchor": 1.0, "pairs": 0.5}
TRAINED: dict[str, dict[str, Any]] = {
    "default": {},
    "literal": LITERAL,
    "literal with softmax": LITERAL | {"anchor": 1.0, "pairs": 0.5},
    "guarded": GUARDED,
    "guarded summed": GUARDED | {"joint": "sum"},
}
# Variants for devices with few resources, cut from the three heads that were trained together.
CUT = {
    "literal class+local": ("literal", ("class", "local")),
    "literal class+outline": ("literal", ("class", "outline")),
    "guarded class+local": ("guarded", ("class", "local")),
    "guarded class+outline": ("guarded", ("class", "outline")),
}


def mffg_recipe(request: Request, index: Path, seed: int, changes: dict[str, Any]) -> EmbedderRecipe:
    """Return the recipe of a training; the default's own settings where `changes` has no others."""
    from trainer.recipe import EmbedderRecipe

    shown = network_input(request, PIXELS)
    blocks = {"blocks": 7, "neighbourhood": 2} if shown["width"] >= _LARGE_PX else {"blocks": 4, "neighbourhood": 1}
    length = request.epochs or EPOCHS
    shared = {
        "kind": "embedder",
        "seed": seed,
        "data": {"index": index, "val_splits": [], "gallery_splits": []},
        "input": shown,
        "backbone": {"name": request.backbone, "pretrained": request.weights},
        "optimiser": {"epochs": length, "evaluate_every": length},
    }
    return EmbedderRecipe.model_validate(shared | (blocks if changes else {}) | changes)


def _measure(request: Request, method: str, seed: int, folder: Path) -> Measures:
    from trainer.tables.retrieval_measures import retrieval_measures

    trained, heads = CUT.get(method, (method, ()))
    splits = own_splits(request)
    run = request.out / "trained" / f"{distinct_file_names(list(TRAINED))[trained]}-{seed}"
    index = write_index({"train": splits["train"]}, folder)
    train_once(mffg_recipe(request, index, seed, TRAINED[trained]), run)
    gallery, gallery_items = embed(run, splits["train"], heads)
    queries, items = embed(run, splits["test"], heads)
    found = retrieval_measures(queries, items, gallery, gallery_items)
    return found | {"numbers": float(queries.shape[1])}


MFFG_HEADS = Table(
    "mffg-heads",
    "US 12,386,883 B2, claims 1 and 8",
    "Three heads as published (literal), with a softmax (guarded), their smaller variants, and the default recipe.",
    "pictures of single objects with the splits train, and test or val; items of two pictures or more",
    ("R@1", "R@4", "P@10", "MAP@R", "numbers"),
    lambda _: (*TRAINED, *CUT),
    _measure,
)
