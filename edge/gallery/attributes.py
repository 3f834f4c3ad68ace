"""Attributes of a gallery's items, such as make, model and colour, and the vote of near items on an object's.

The metadata of an item may hold `attributes`: an object of texts, such as `{"attributes": {"colour": "red"}}`. What is
no item of the gallery still resembles some: its colour is often right where its name is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.errors import GalleryError
from edge.gallery.limits import MAX_METADATA_BYTES, parse_metadata, text_problem
from edge.gallery.store_file import open_store
from edge.strict_json import parse_plain_objects
from edge.types import Attribute, Hit

ATTRIBUTES = "attributes"  # metadata key
MAX_ATTRIBUTES = 16  # of one item; the first by name count
MAX_NAME_CHARACTERS, MAX_VALUE_CHARACTERS = 64, 256
# A hit's vote falls by a factor e with this difference of its cosine from the nearest one's. Measured: at 0.05, values
# are within 3 points as often right as at 0.01, and the confidence in those that are hard to see is half as far from
# that, though farther for colour (benchmarks/results/vehicles.json).
SHARPNESS = 0.05
_CHUNK_ROWS = 4096  # items whose metadata is parsed at once

Attributes = Mapping[str, str]  # value by name


def attributes_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes in an item's metadata, sorted by name; what is no short text is left out."""
    found = metadata.get(ATTRIBUTES)
    if not isinstance(found, dict):
        return {}
    kept = {
        name: value
        for name, value in sorted(found.items())
        if name
        and value
        and text_problem(name, MAX_NAME_CHARACTERS) is None
        and text_problem(value, MAX_VALUE_CHARACTERS) is None
    }
    return dict(list(kept.items())[:MAX_ATTRIBUTES])


def read_attributes(path: Path) -> dict[str, Attributes]:
    """Read the attributes of the live items of a store that have any, by item id; equal ones are one object in memory.

    Raises:
        GalleryError: the store is damaged.
    """
    query = "SELECT item_id, metadata FROM items WHERE deleted = 0 AND instr(metadata, ?)"
    found: dict[str, Attributes] = {}
    shared: dict[str, Attributes] = {}
    with open_store(path) as store:
        cursor = store.execute(query, (f'"{ATTRIBUTES}"',))
        while chunk := cursor.fetchmany(_CHUNK_ROWS):
            for (item_id, _), metadata in zip(chunk, _parsed(path, [text for _, text in chunk]), strict=True):
                if attributes := attributes_of(metadata):
                    found[item_id] = shared.setdefault(repr(attributes), attributes)
    return found


def _parsed(path: Path, texts: Sequence[Any]) -> Sequence[dict[str, Any]]:
    if (plain := parse_plain_objects(texts, MAX_METADATA_BYTES)) is not None:
        return plain
    try:
        return [parse_metadata(text) for text in texts]
    except ValueError as error:
        raise GalleryError(f"{path}: damaged metadata: {error}") from error


def joined(by_category: Mapping[str, Mapping[str, Attributes]]) -> dict[str, Attributes]:
    """Return the attributes of the items of all categories by item id, without those that two categories dispute."""
    found: dict[str, Attributes] = {}
    for items in by_category.values():
        for item_id, attributes in items.items():
            other = found.get(item_id, attributes)
            found[item_id] = (
                attributes if other == attributes else {k: v for k, v in attributes.items() if other.get(k, v) == v}
            )
    return found


def vote(hits: Sequence[Hit], attributes: Mapping[str, Attributes], named: str | None = None) -> tuple[Attribute, ...]:
    """Return the likeliest value of each attribute that near items have, with its share of their votes.

    An item's weight falls exponentially with its distance from the nearest hit; items without the attribute have no
    vote. The value of a named item wins whatever the others say, with the share that it has.

    Args:
        hits: nearest items, without negative ones.
        attributes: of items, by item id.
        named: id of the item that the object was recognised as; None: it is unknown.
    """
    voters = [(hit, of) for hit in hits if (of := attributes.get(hit.item_id))]
    best = max((hit.score for hit, _ in voters), default=0.0)
    names = dict.fromkeys(name for _, of in voters for name in of)
    of_match = attributes.get(named, {}) if named is not None else {}
    found = []
    for name in sorted(names):
        weights: dict[str, float] = {}
        for hit, of in voters:
            if name in of:
                weights[of[name]] = weights.get(of[name], 0.0) + math.exp((hit.score - best) / SHARPNESS)
        value = of_match.get(name) or max(weights, key=lambda one: weights[one])
        if value in weights:
            found.append(Attribute(name, value, weights[value] / sum(weights.values())))
    return tuple(found)
