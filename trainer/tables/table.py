"""What a table of a source is: its methods, and how one of them is measured with one seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset_formats.records import Layout

Measures = dict[str, float]  # by column; shares as 0..1


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for."""

    data: Path  # data set
    out: Path  # folder of the table
    root: Path | None = None  # folder of the paths in a CSV or COCO JSON; None: its own
    layout: Layout | None = None  # None: detected
    weights: str = "package"  # published weights, as in Backbone.pretrained
    backbone: str = "tf_efficientnet_lite0"  # a timm name
    pixels: int | None = None  # width and height of the input; None: as published
    epochs: int | None = None  # None: as published

    @property
    def runs(self) -> Path:
        """Folder of the training runs."""
        return self.out / "runs"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a source.

    `measure(request, method, seed, folder)` trains what it needs into `folder`, which is its own, and returns the
    method's measures. A table whose methods draw nothing at random has `seeded` False and is measured once.
    """

    name: str  # as given on the command line
    source: str  # the source and its table, for people
    what: str  # one line: what it compares, on what
    data: str  # one line: the data it needs
    columns: Sequence[str]  # of the report, in order; others that are measured stand only in its JSON
    methods: Callable[[Request], Sequence[str]]  # rows, in order
    measure: Callable[[Request, str, int, Path], Measures]
    seeded: bool = True
