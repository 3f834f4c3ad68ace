"""The ways to make a vector of a trunk's maps without any training, by name. Imports no training library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FreeMethod = Literal["average", "max", "average_max", "scda_average", "scda_max", "scda", "scda+", "scda_flip+"]


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How the cells of a map become a vector."""

    selected: bool  # only the cells of the object, by its mask; else all cells
    average: bool = True
    largest: bool = True
    shallow: bool = False  # of the map before the last, too
    flipped: bool = False  # of the mirrored picture, too


# Table 3 of SCDA compares average, maximum and both, each of the selected cells; both together are SCDA. The first
# three are what it is better than.
AGGREGATIONS: dict[FreeMethod, Aggregation] = {
    "average": Aggregation(selected=False, largest=False),
    "max": Aggregation(selected=False, average=False),
    "average_max": Aggregation(selected=False),
    "scda_average": Aggregation(selected=True, largest=False),
    "scda_max": Aggregation(selected=True, average=False),
    "scda": Aggregation(selected=True),
    "scda+": Aggregation(selected=True, shallow=True),
    "scda_flip+": Aggregation(selected=True, shallow=True, flipped=True),
}
