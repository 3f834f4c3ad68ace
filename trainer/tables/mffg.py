"""The heads of MFFG (US 12,386,883, see NOTICE): three as published, smaller variants, and the default beside them.

The patent prints no numbers: its losses are those of `trainer.losses.embedding_losses.pair_losses`. `literal` trains on
them alone, from published weights. `guarded` adds a cosine softmax for each head and negatives for the outline head.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.file_names import file_name
from trainer.tables.table import Measures, Request, Table
from trainer.tables.trained_vectors import embed, own_splits, recipe_of, train_once, write_index

if TYPE_CHECKING:
    from trainer.embedder_recipe import EmbedderRecipe

PIXELS, EPOCHS = 224, 20
_LARGE_PX = 160  # inputs from here on have the published 7 blocks of region confusion
HEADS = {"heads": ["class", "local", "outline"], "dim": 128, "width": 128, "images_per_class": 4}
LITERAL = HEADS | {"mode": "literal", "anchor": 0.0, "pairs": 1.0}
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
    large = (request.pixels or PIXELS) >= _LARGE_PX
    blocks = {"blocks": 7, "neighbourhood": 2} if large else {"blocks": 4, "neighbourhood": 1}
    return recipe_of(request, index, seed, PIXELS, EPOCHS, blocks | changes if changes else {})


def _measure(request: Request, method: str, seed: int, _folder: Path) -> Measures:
    from trainer.tables.retrieval_measures import retrieval_measures

    trained, heads = CUT.get(method, (method, ()))
    splits = own_splits(request)
    # Index and run are in a folder that the rows of this training share: whichever is first, its training can go on.
    folder = request.runs / f"trained-{file_name(trained)}-{seed}"
    run = folder / "run"
    train_once(mffg_recipe(request, write_index({"train": splits["train"]}, folder), seed, TRAINED[trained]), run)
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
