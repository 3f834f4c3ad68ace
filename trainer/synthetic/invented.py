"""Items that no gallery has: parts and colours of a category's items, put together anew.

An embedder that learns from the items of its gallery alone draws whatever it is shown to one of them. These are more of
the same kind to learn from, and others of them stand for what nobody has seen yet.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from edge.errors import TrainError
from trainer.synthetic.items import CATEGORIES, Item, catalogue

Look = tuple[object, ...]
_MOST = 200  # of each category; cartons, the poorest, have 742 looks besides their own


def invented(seed: int, per_category: int, taken: Collection[Item] = ()) -> list[Item]:
    """New items, category by category, none of which looks like one of the catalogue.

    Args:
        seed: the same seed invents the same items.
        per_category: how many of each.
        taken: other items that none of them may look like.

    Raises:
        TrainError: more are asked for than can surely be put together.
    """
    if not 0 <= per_category <= _MOST:
        raise TrainError(f"invented: found {per_category} items of each category, expected 0 to {_MOST}")
    looks = {look_of(item) for item in (*catalogue(), *taken)}
    made: list[Item] = []
    for place, category in enumerate(CATEGORIES):
        listed = [item for item in catalogue() if item.category == category]
        rng = np.random.default_rng([seed, place])
        number = 0
        while number < per_category:
            body, closure, graphic, layout, colours = (listed[int(k)] for k in rng.integers(len(listed), size=5))
            item = replace(
                body,
                item_id=f"{category}-invented-{seed}-{number:02d}",
                label=f"Invented {category} {number}",
                detail=closure.detail,
                graphic=graphic.graphic,
                layout=layout.layout,
                palette=colours.palette,
            )
            if look_of(item) not in looks:
                looks.add(look_of(item))
                made.append(item)
                number += 1
    return made


def look_of(item: Item) -> Look:
    """What tells an item from others, without its name."""
    return item.category, item.palette, item.outline, item.detail, item.graphic, item.layout
