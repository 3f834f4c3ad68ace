"""How a finder compares a query with a scene: several scales of the one with several of the other."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class FinderShape(BaseModel):
    """The scales, grids and levels; in a recipe, and in the manifest of a bundle."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    stride: Annotated[int, Field(ge=1)] = 8  # input pixels per cell of the representation
    map_stride: Annotated[int, Field(ge=1)] = 4  # input pixels per cell of the guide and of the heat map
    query_px: list[Annotated[int, Field(ge=16)]] = [32, 48, 80, 112]  # longer sides at which a query is represented
    kernel: Annotated[int, Field(ge=1)] = 3  # cells along each axis of a query's kernel
    reach: Annotated[int, Field(ge=0)] = 1  # scales that a query's scale is searched in beside its own, to either side
    parts: Annotated[int, Field(ge=0)] = 5  # along each axis, single cells of a query that are searched, too; 0: none
    paint: bool = True  # one more map for each scene scale: the query's outline wherever it was found
    # Of the heat map, low to high: what is connected at one of them is looked at again, see edge.finder.verify
    levels: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)] = [0.3, 0.36, 0.43, 0.5, 0.6]
    look_cells: Annotated[int, Field(ge=1)] = 5  # along each axis, of query and part when they are compared then

    @property
    def verify_scale(self) -> int:
        """The place in `query_px` of the size at which parts are compared: the last but one, for several at a time."""
        return max(0, len(self.query_px) - 2)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every query scale with every scene scale that it is searched in."""
        count = len(self.query_px)
        return [(q, s) for q in range(count) for s in range(count) if abs(q - s) <= self.reach]

    @property
    def maps(self) -> int:
        """Heat maps of one query before they are converted into one."""
        return len(self.pairs) + (len(self.query_px) if self.paint else 0) + (2 if self.parts else 0)
