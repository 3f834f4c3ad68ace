"""Times of the stages of one frame."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings:
    """Milliseconds by stage, for one frame; a stage that runs several times adds up.

    Frames of one batch share its time equally, so sums over frames are time spent.
    """

    __slots__ = ("stages_ms",)

    def __init__(self) -> None:
        self.stages_ms: dict[str, float] = {}

    def add_share(self, of: Timings, frames: int) -> None:
        """Add one share of the time of a batch of `frames` frames."""
        for name, ms in of.stages_ms.items():
            self.stages_ms[name] = self.stages_ms.get(name, 0.0) + ms / frames

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the time inside the `with` block."""
        started_ns = time.perf_counter_ns()
        try:
            yield
        finally:
            self.stages_ms[name] = self.stages_ms.get(name, 0.0) + (time.perf_counter_ns() - started_ns) / 1e6


ENGINE_STAGES = ("detect", "classify", "localise", "embed")  # time spent inside inference engines
