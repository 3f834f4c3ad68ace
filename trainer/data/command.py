"""The command `edge-train data`: examine a data set and write its card."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dataset_formats.decode import read_picture
from dataset_formats.layouts import read_listing
from dataset_formats.notices import printable
from dataset_formats.records import Layout
from edge.durable import write_durably
from edge.errors import CaptureError, TrainError
from edge.imaging.contact_sheet import Card, contact_sheet
from edge.imaging.image import encode_image
from edge.types import Image
from trainer.data.data_card import CARD_FILE, make_card, shared_folder, summary, to_json, to_markdown
from trainer.data.dataset import samples_of
from trainer.data.examine import examine_listing
from trainer.recipe_effects import IDLE_IN_SPLIT
from trainer.recipe_parts import Split


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
    """Examine a data set and write its data card.

    Args:
        path: a data set of any layout.
        out: folder for data_card.json, data_card.md and sheets of duplicate pairs; None: write nothing.
        root: see dataset_formats.layouts.read_listing.
        layout: None: detect it.
        split: how to split the pictures; None: as the data set does.
        model: run folder of a classifier or embedder that finds more duplicates; None: use the hash only.
        least: cosine from which the model treats two pictures as the same.

    Returns:
        the numbers of the card.

    Raises:
        DataError: the data set cannot be read.
        TrainError: it has no picture, or the model is a detector.
    """
    started = time.monotonic()
    listing = read_listing(path, root, layout, published=split is not None and split.how == "published")
    rows, found = examine_listing(listing, path.resolve().name, split)
    if not rows:
        raise TrainError(f"{path}: holds no picture of layout {listing.layout}")
    card = make_card(rows, found)
    card["pictures_per_s"] = round(len(rows) / (time.monotonic() - started), 1)
    base = shared_folder(rows)
    if model is not None:
        from trainer.data.embedding_duplicates import find_embedding_duplicates

        card["embedding_duplicates"] = find_embedding_duplicates(samples_of(listing, split), model, least, base)
    if out is not None:
        _write(out, card, Path(base))
    return summary(card) | {"pictures_per_s": card["pictures_per_s"], "out": None if out is None else str(out)}


def new_split(how: str | None, options: dict[str, Any]) -> Split | None:
    """Return the split that the options of `edge-train data` ask for; None: the data set's own.

    Raises:
        TrainError: an option is out of range, or has no effect on this split.
    """
    given = [key for key, value in options.items() if value != Split.model_fields[key].default]
    useless = options if how is None else IDLE_IN_SPLIT.get(how, ())
    if idle := [key for key in given if key in useless]:
        raise TrainError(f"--{idle[0]} has no effect {f'with --split {how}' if how else 'without --split'}")
    try:
        return None if how is None else Split.model_validate(options | {"how": how})
    except ValidationError as error:
        first = error.errors()[0]
        raise TrainError(f"--{first['loc'][0]}: {first['msg']}, found {first['input']!r}") from error


def _write(out: Path, card: dict[str, Any], base: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_durably(out / CARD_FILE, to_json(card))
    write_durably(out / "data_card.md", to_markdown(card))
    for kind in ("duplicates", "embedding_duplicates"):
        sheet = pair_sheet(card.get(kind, {}).get("first", []), base)
        if sheet is not None:
            write_durably(out / f"{kind}.png", encode_image(sheet, ".png"))


def pair_sheet(pairs: Sequence[dict[str, Any]], base: Path, most: int = 60) -> Image | None:
    """Draw pairs side by side: red if their names differ, grey if only their splits do; None without pairs."""
    cards = []
    for pair in pairs[:most]:
        try:
            first, second = (read_picture(base / pair[key])[0] for key in ("a", "b"))
        except CaptureError:
            continue
        colour = False if pair["contradicts"] else None if pair["leak"] else True
        cards.append(Card(first, second, _tail(pair["a"]), f"{pair['near']}: {_tail(pair['b'])}", colour))
    return contact_sheet(cards, []) if cards else None


def _tail(path: str) -> str:
    return printable(path[-32:])
