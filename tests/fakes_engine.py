"""Fakes of what the pipeline uses (engines, an index, counters, a clock), and small values for tests."""

from __future__ import annotations

from collections import Counter

import numpy as np

from edge.errors import EngineError
from edge.manifest.embedder import EmbedderModel, Head
from edge.manifest.model import Preprocess
from edge.manifest.stages import ClassifierModel, DetectorModel, LocaliserModel
from edge.types import Box, Frame, Hit

SIZE = 64  # pixels of every model input
SPEC = Preprocess(width=SIZE, height=SIZE, resize="letterbox")


class ScriptedEngine:
    """Returns what `answer` makes of a batch; raises while `broken`; records the batch sizes."""

    def __init__(self, answer) -> None:
        self.where = "scripted.onnx"
        self.inputs, self.outputs = [("image",)], [("out",)]
        self.library = "scripted 1"
        self.answer = answer
        self.broken = False
        self.batch_sizes: list[int] = []

    def run(self, batch):
        self.batch_sizes.append(len(batch))
        if self.broken:
            raise self.broken if isinstance(self.broken, EngineError) else EngineError("scripted engine: broken")
        return [np.asarray(output, np.float32) for output in self.answer(batch)]


class FixedIndex:
    """Answers every query with the same hits, which a test can replace; records the queries."""

    def __init__(self, hits: list[Hit]) -> None:
        self.hits = hits
        self.queries: list[np.ndarray] = []

    def search(self, queries, k):
        self.queries.extend(queries)
        return [self.hits[:k] for _ in queries]


class FakeCounts:
    """Counts by name and labels."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1, **labels: str) -> None:
        self.total[" ".join([name, *(f"{key}={value}" for key, value in sorted(labels.items()))])] += amount


class ManualClock:
    """A monotonic clock in nanoseconds that a test sets."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def one_box_map(box_in: Box, score: float = 0.9, cells: int = 8) -> list[np.ndarray]:
    """The output of an `ltrb` detector of stride 8 that sees one box, in input pixels."""
    level = np.zeros((1, 5, cells, cells), np.float32)
    level[0, 4] = -20.0
    x0, y0, x1, y1 = box_in
    x, y = int((x0 + x1) / 2 // 8), int((y0 + y1) / 2 // 8)
    centre_x, centre_y = (x + 0.5) * 8, (y + 0.5) * 8
    level[0, :4, y, x] = np.array([centre_x - x0, centre_y - y0, x1 - centre_x, y1 - centre_y]) / 8
    level[0, 4, y, x] = np.log(score / (1 - score))
    return [level]


def no_box_map() -> list[np.ndarray]:
    """The output of the same detector that sees nothing."""
    level = np.zeros((1, 5, 8, 8), np.float32)
    level[0, 4] = -20.0
    return [level]


_FILE = {"files": {"fp32": "model.onnx"}, "ship": "fp32", "input_name": "image", "preprocess": SPEC}


def detector_model(**changes) -> DetectorModel:
    """A class-agnostic detector of stride 8."""
    levels = [8] if changes.get("decoder") == "yolox" else changes.get("strides", [8])
    fields = {
        "output_names": [f"s{stride}" for stride in levels],
        "decoder": "ltrb",
        "strides": [8],
        "labels": ["object"],
        "score_threshold": 0.3,
    }
    return DetectorModel.model_validate({**_FILE, **fields, **changes})


def classifier_model(**changes) -> ClassifierModel:
    """A classifier of cartons and tyres."""
    names = ["logits", "descriptor"] if changes.get("descriptor_dim") else ["logits"]
    return ClassifierModel.model_validate(
        {**_FILE, "output_names": names, "labels": ["carton", "tyre"], "max_batch": 2, **changes}
    )


def embedder_model(**changes) -> EmbedderModel:
    """An embedder of cartons into four dimensions."""
    fields = {"output_names": ["vector"], "categories": ["carton"], "heads": [Head(name="class", dim=4)]}
    return EmbedderModel.model_validate({**_FILE, **fields, "space_id": "0" * 64, "max_batch": 2, **changes})


def localiser_model(**changes) -> LocaliserModel:
    """A localiser of masks half as large as its input."""
    return LocaliserModel.model_validate({**_FILE, "output_names": ["mask"], "max_batch": 2, **changes})


def frame_at(seconds: float, image_rgb: np.ndarray | None = None, camera: str = "door") -> Frame:
    """A frame captured at a time, grey unless told otherwise."""
    grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
    return Frame(
        camera, round(seconds * 10), grey if image_rgb is None else image_rgb, round(seconds * 1e9), seconds, "file"
    )
