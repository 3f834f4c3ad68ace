"""The synthetic items: the items of each category, and invented items beside them.

Within a family, items share colours and differ in one thing: a local detail (graphic, layout, cap, grille, wheel) or
the outline. So neither colour alone nor the overall shape tells neighbours apart.

Invented items combine parts and colours of a category's items, and no gallery has them. An embedder that trains only on
the items of its gallery assigns every object to one of them. So some invented items are additional training items, and
others represent unknown objects.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from edge.errors import TrainError

Rgb = tuple[int, int, int]
Appearance = tuple[object, ...]  # the properties that distinguish an item, without its name

CATEGORIES = ("bottle", "jar", "carton", "can", "car")
_MOST = 200  # invented items of each category; cartons have the fewest, 742 besides their own


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of one family."""

    body: Rgb  # glass, contents, cardboard, metal or paint
    label: Rgb  # label ground
    ink: Rgb  # graphic and text
    accent: Rgb  # bands, closures, second colour of a graphic


@dataclass(frozen=True, slots=True)
class Item:
    """One item: the exact product or vehicle to be recognised."""

    item_id: str  # bottle-03
    category: str  # one of CATEGORIES
    label: str  # for people: "Aurora Cola zero"
    palette: Palette
    outline: str  # silhouette: shoulder and neck, belly, gable or brick, can height, roof line
    detail: str  # closure of a package, grille of a car
    graphic: str  # motif of a label, headlight of a car
    layout: str  # composition of a label, wheel of a car
    text: str = ""  # short brand word of a label


_COLA = Palette((52, 24, 18), (196, 28, 38), (250, 246, 238), (236, 190, 70))
_WATER = Palette((176, 214, 232), (244, 248, 252), (24, 82, 168), (70, 160, 214))
_ALE = Palette((28, 82, 46), (240, 230, 200), (122, 30, 30), (198, 152, 60))
_JAM = Palette((150, 18, 34), (250, 242, 224), (178, 24, 44), (60, 122, 58))
_HONEY = Palette((214, 138, 24), (252, 240, 196), (112, 64, 18), (226, 168, 40))
_PICKLE = Palette((112, 132, 52), (246, 246, 232), (34, 92, 52), (206, 188, 78))
_MILK = Palette((246, 247, 248), (246, 247, 248), (26, 76, 156), (96, 172, 226))
_JUICE = Palette((246, 150, 28), (250, 160, 36), (255, 252, 240), (206, 60, 24))
_TEA = Palette((224, 232, 212), (222, 232, 208), (30, 104, 74), (122, 172, 62))
_SODA = Palette((32, 66, 156), (34, 72, 168), (244, 246, 250), (216, 40, 52))
_ENERGY = Palette((26, 28, 32), (28, 30, 34), (140, 224, 44), (206, 212, 218))
_SOUP = Palette((196, 198, 200), (206, 40, 36), (252, 246, 232), (228, 180, 72))
_RED = Palette((186, 26, 34), (186, 26, 34), (30, 32, 36), (220, 224, 228))
_SILVER = Palette((176, 182, 190), (176, 182, 190), (34, 36, 40), (228, 232, 236))
_BLUE = Palette((34, 74, 142), (34, 74, 142), (28, 30, 34), (216, 220, 226))

# Rows are: label, palette, outline, detail, graphic, layout, text.
_ROWS: dict[str, tuple[tuple[str, Palette, str, str, str, str, str], ...]] = {
    "bottle": (
        ("Aurora Cola", _COLA, "contour", "screw", "star", "band", "AURORA"),
        ("Aurora Cola zero", _COLA, "contour", "screw", "ring", "band", "AURORA"),
        ("Aurora Cola citrus", _COLA, "contour", "screw", "leaf", "band", "AURORA"),
        ("Aurora Cola swirl", _COLA, "contour", "screw", "star", "diagonal", "AURORA"),
        ("Aurora Cola crown cap", _COLA, "contour", "crown", "star", "band", "AURORA"),
        ("Fjord water", _WATER, "sloped", "screw", "mountain", "waves", "FJORD"),
        ("Fjord water square", _WATER, "shouldered", "screw", "mountain", "waves", "FJORD"),
        ("Fjord water slim neck", _WATER, "long_neck", "screw", "mountain", "waves", "FJORD"),
        ("Fjord water sport", _WATER, "sloped", "sport", "mountain", "waves", "FJORD"),
        ("Fjord water drop", _WATER, "sloped", "screw", "drop", "waves", "FJORD"),
        ("Brenn ale", _ALE, "long_neck", "crown", "crown", "oval", "BRENN"),
        ("Brenn wheat ale", _ALE, "long_neck", "crown", "wheat", "oval", "BRENN"),
        ("Brenn harbour ale", _ALE, "long_neck", "crown", "anchor", "oval", "BRENN"),
        ("Brenn stubby", _ALE, "stubby", "crown", "crown", "oval", "BRENN"),
    ),
    "jar": (
        ("Hedgerow strawberry", _JAM, "belly", "cloth", "strawberry", "arch", "JAM"),
        ("Hedgerow cherry", _JAM, "belly", "cloth", "cherry", "arch", "JAM"),
        ("Hedgerow plum", _JAM, "belly", "cloth", "heart", "arch", "JAM"),
        ("Hedgerow rose", _JAM, "belly", "cloth", "flower", "arch", "JAM"),
        ("Hedgerow strawberry deli", _JAM, "belly", "plain", "strawberry", "arch", "JAM"),
        ("Amber honey", _HONEY, "straight", "plain", "bee", "band", "HONEY"),
        ("Amber honey belly", _HONEY, "belly", "plain", "bee", "band", "HONEY"),
        ("Amber honey hive", _HONEY, "hive", "plain", "bee", "band", "HONEY"),
        ("Amber honey tall", _HONEY, "tall", "plain", "bee", "band", "HONEY"),
        ("Amber honey meadow", _HONEY, "straight", "plain", "flower", "band", "HONEY"),
        ("Orchard gherkins", _PICKLE, "tall", "ribbed", "leaf", "stripes", "DILL"),
        ("Orchard gherkins clip", _PICKLE, "tall", "clip", "leaf", "stripes", "DILL"),
        ("Orchard gherkins dots", _PICKLE, "tall", "dotted", "leaf", "stripes", "DILL"),
        ("Orchard sunny gherkins", _PICKLE, "tall", "ribbed", "sun", "stripes", "DILL"),
    ),
    "carton": (
        ("Dale milk", _MILK, "gable", "fold", "drop", "waves", "MILK"),
        ("Dale milk meadow", _MILK, "gable", "fold", "flower", "waves", "MILK"),
        ("Dale milk herd", _MILK, "gable", "fold", "drop", "spots", "MILK"),
        ("Dale milk morning", _MILK, "gable", "fold", "sun", "waves", "MILK"),
        ("Dale milk screw cap", _MILK, "gable", "cap", "drop", "waves", "MILK"),
        ("Grove juice", _JUICE, "brick", "fold", "slice", "rays", "GROVE"),
        ("Grove juice apple", _JUICE, "brick", "fold", "apple", "rays", "GROVE"),
        ("Grove juice palm", _JUICE, "brick", "fold", "leaf", "rays", "GROVE"),
        ("Grove juice straw", _JUICE, "brick", "straw", "slice", "rays", "GROVE"),
        ("Grove juice fresh", _JUICE, "gable", "fold", "slice", "rays", "GROVE"),
        ("Kiri tea", _TEA, "gable", "cap", "leaf", "oval", "KIRI"),
        ("Kiri tea slim", _TEA, "slim", "cap", "leaf", "oval", "KIRI"),
        ("Kiri tea moon", _TEA, "gable", "cap", "moon", "oval", "KIRI"),
        ("Kiri tea block", _TEA, "brick", "fold", "leaf", "oval", "KIRI"),
    ),
    "can": (
        ("Pop cola", _SODA, "standard", "pull", "star", "diagonal", "POP"),
        ("Pop cola heart", _SODA, "standard", "pull", "heart", "diagonal", "POP"),
        ("Pop cola sun", _SODA, "standard", "pull", "sun", "diagonal", "POP"),
        ("Pop cola wave", _SODA, "standard", "pull", "star", "waves", "POP"),
        ("Pop cola sleek", _SODA, "sleek", "pull", "star", "diagonal", "POP"),
        ("Volt energy", _ENERGY, "sleek", "pull", "bolt", "split", "VOLT"),
        ("Volt energy claw", _ENERGY, "sleek", "pull", "claw", "split", "VOLT"),
        ("Volt energy crown", _ENERGY, "sleek", "pull", "crown", "split", "VOLT"),
        ("Volt energy chevron", _ENERGY, "sleek", "pull", "bolt", "chevrons", "VOLT"),
        ("Volt energy half", _ENERGY, "standard", "pull", "bolt", "split", "VOLT"),
        ("Nonna tomato soup", _SOUP, "tin", "flat", "apple", "band", "SOUP"),
        ("Nonna fish soup", _SOUP, "tin", "flat", "fish", "band", "SOUP"),
        ("Nonna wheat soup", _SOUP, "tin", "flat", "wheat", "band", "SOUP"),
        ("Nonna tomato tin", _SOUP, "low_tin", "flat", "apple", "band", "SOUP"),
    ),
    "car": (
        ("Merle hatch", _RED, "hatch", "bars", "slim", "five", ""),
        ("Merle hatch oval", _RED, "hatch", "oval", "slim", "five", ""),
        ("Merle hatch E", _RED, "hatch", "closed", "slim", "five", ""),
        ("Merle hatch retro", _RED, "hatch", "bars", "round", "five", ""),
        ("Merle hatch city", _RED, "hatch", "bars", "slim", "disc", ""),
        ("Corvid saloon", _SILVER, "saloon", "kidney", "slim", "multi", ""),
        ("Corvid estate", _SILVER, "estate", "kidney", "slim", "multi", ""),
        ("Corvid coupe", _SILVER, "coupe", "kidney", "slim", "multi", ""),
        ("Corvid saloon tall grille", _SILVER, "saloon", "upright", "slim", "multi", ""),
        ("Corvid saloon turbine", _SILVER, "saloon", "kidney", "slim", "turbine", ""),
        ("Terra", _BLUE, "offroad", "slots", "round", "steel", ""),
        ("Terra van", _BLUE, "van", "slots", "round", "steel", ""),
        ("Terra pickup", _BLUE, "pickup", "slots", "round", "steel", ""),
        ("Terra square light", _BLUE, "offroad", "slots", "square", "steel", ""),
    ),
}


@cache
def catalogue() -> tuple[Item, ...]:
    """Return all items, category by category, in a fixed order."""
    return tuple(
        Item(f"{category}-{number:02d}", category, *row)
        for category in CATEGORIES
        for number, row in enumerate(_ROWS[category])
    )


def invent_items(seed: int, per_category: int, taken: Collection[Item] = ()) -> list[Item]:
    """Return new items, category by category, none of which looks like an item of the catalogue.

    Args:
        seed: the same seed invents the same items.
        per_category: number of items of each category.
        taken: other items that no new item may look like.

    Raises:
        TrainError: per_category is larger than the number of combinations.
    """
    if not 0 <= per_category <= _MOST:
        raise TrainError(f"invented: found {per_category} items of each category, expected 0 to {_MOST}")
    appearances = {appearance_of(item) for item in (*catalogue(), *taken)}
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
            if appearance_of(item) not in appearances:
                appearances.add(appearance_of(item))
                made.append(item)
                number += 1
    return made


def appearance_of(item: Item) -> Appearance:
    """Return what distinguishes an item from others, without its name."""
    return item.category, item.palette, item.outline, item.detail, item.graphic, item.layout
