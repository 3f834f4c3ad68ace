"""The command `edge-train data`: examine a data set and write its card."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from edge.durable import write_durably
from edge.errors import TrainError
from edge.imaging.image import encode_image
from trainer.data.card import CARD_FILE, make_card, shared_folder, summary
from trainer.data.card_page import pair_sheet, to_markdown
from trainer.data.dataset import samples_of
from trainer.data.examine import examine_listing
from trainer.data.formats import read_listing
from trainer.recipe import Split
from trainer.sample import Layout


def describe_data(
    path: Path,
    out: Path | None,
    *,
    root: Path | None = None,
    layout: Layout | None = None,
    split: Split | None = None,
    model: Path | None = None,
    least: float = 0.97,
) -> dict[str, Any]:
    """Examine a data set.

    Args:
        path: of any layout.
        out: folder for data_card.json, data_card.md and pictures of pairs; None: nothing is written.
        root: see trainer.data.formats.read_listing.
        layout: None: found out.
        split: None: as the data set has it.
        model: run folder of a classifier or embedder that compares pictures as well; None: the hash alone.
        least: cosine from which it takes two for the same.

    Returns:
        the card's numbers.

    Raises:
        TrainError: nothing is found, or the model is none that compares.
    """
    started = time.monotonic()
    listing = read_listing(path, root, layout, published=split is not None and split.how == "published")
    rows, found = examine_listing(listing, path.resolve().name, split)
    if not rows:
        raise TrainError(f"{path}: found no picture, expected some of layout {listing.layout}")
    card = make_card(rows, found)
    card["pictures_per_s"] = round(len(rows) / (time.monotonic() - started), 1)
    base = shared_folder(rows)
    if model is not None:
        from trainer.data.embedding_duplicates import alike_to_model

        card["embedding_duplicates"] = alike_to_model(samples_of(listing, split), model, least, base)
    if out is not None:
        _write(out, card, Path(base))
    return summary(card) | {"pictures_per_s": card["pictures_per_s"], "out": None if out is None else str(out)}


def _write(out: Path, card: dict[str, Any], base: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_durably(out / CARD_FILE, json.dumps(card, indent=1, ensure_ascii=False).encode())
    write_durably(out / "data_card.md", to_markdown(card).encode())
    for kind in ("duplicates", "embedding_duplicates"):
        sheet = pair_sheet(card.get(kind, {}).get("first", []), base)
        if sheet is not None:
            write_durably(out / f"{kind}.png", encode_image(sheet, ".png"))
