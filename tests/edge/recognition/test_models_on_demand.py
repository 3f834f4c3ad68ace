"""The pipeline while embedders are loaded in the background, cannot be loaded, or do not fit into memory together."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from edge.config.schema import CameraConfig, RecognitionConfig
from edge.engine_store.engine_store import EngineStore
from edge.errors import EngineError, NotLoadedError
from edge.inference.engine_choice import Resolved
from edge.inference.stages import Classifier, Detector, Embedder, Stages
from edge.manifest.embedder import OpenSet
from edge.recognition.engine_states import engine_states, engine_totals
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.pipeline import Pipeline
from edge.recognition.recognise_image import extract_features, recognise_image
from edge.telemetry.timing import Timings
from edge.types import Hit
from tests.fakes_engine import (
    SIZE,
    FakeCounts,
    FixedIndex,
    ManualClock,
    ScriptedEngine,
    classifier_model,
    detector_model,
    embedder_model,
    frame_at,
    one_box_map,
)

GREY = np.full((SIZE, SIZE, 3), 128, np.uint8)
NAMES = ("carton", "tyre")


class Bench:
    """A pipeline whose two embedders are in a store that holds one of them; a test runs the background."""

    def __init__(self, *, classifier: bool = True, pacing: str = "real_time", budget: int = 1) -> None:
        self.odds = [0.99, 0.01]
        self.broken: set[str] = set()
        self.background: list = []
        self.now_s = 0.0
        self.counts, clock = FakeCounts(), ManualClock()
        self.store = EngineStore(
            budget,
            FakeCounts(),
            clock=lambda: self.now_s,
            heap=lambda: None,
            start_thread=self.background.append,
        )
        embedders = {
            name: Embedder(
                embedder_model(categories=[name], space_id=str(i) * 64),
                self.store.add(
                    f"embedder {name}", name, lambda name=name: self.open(name), where=name, file_bytes=1, kind=name
                ),
            )
            for i, name in enumerate(NAMES)
        }
        odds = ScriptedEngine(lambda batch: [np.tile(np.log(self.odds), (len(batch), 1))])
        stages = Stages(
            Detector(detector_model(), ScriptedEngine(lambda _: one_box_map((16.0, 16.0, 48.0, 48.0)))),
            Classifier(classifier_model(), odds) if classifier else None,
            embedders,
            store=self.store,
        )
        indexes = {name: FixedIndex([Hit(f"{name} 1", f"A {name}", 0.9), Hit("2", "B", 0.4)]) for name in NAMES}
        rules = {name: OpenSet(min_margin=0.05) for name in NAMES}
        spaces = {} if classifier else {str(i) * 64: FixedIndex([Hit(n, n, 0.9)]) for i, n in enumerate(NAMES)}
        self.models = LoadedModels("b", "g", stages, indexes, rules, spaces=spaces)
        recognition = RecognitionConfig(min_object_px=8, look_interval_s=0.0, min_looks=1)
        camera = CameraConfig(source="rtsp://door", pacing=pacing)
        self.pipeline = Pipeline(self.models, {"door": camera}, recognition, self.counts, clock)

    def open(self, name: str) -> ScriptedEngine:
        if name in self.broken:
            raise EngineError(f"{name}.onnx: damaged")
        return ScriptedEngine(lambda batch: [np.tile([1, 0, 0, 0], (len(batch), 1))])

    def show(self, frames: int = 1) -> list:
        """Process frames a tenth of a second apart; return their events."""
        events = []
        for _ in range(frames):
            self.now_s += 0.1
            events += self.pipeline.process(frame_at(self.now_s)).events
        return events

    def run_background(self) -> None:
        while self.background:
            self.background.pop()()


def labels(events) -> list:
    return [event.decision.match.label if event.decision.match else event.decision.reason for event in events]


def test_track_waits_while_its_model_is_loaded_and_is_named_then():
    bench = Bench()
    assert bench.show(5) == []
    waited = bench.counts.total["looks_shed camera=door reason=loading"]
    assert waited > 0
    bench.run_background()
    assert labels(bench.show(1)) == ["A carton"]
    assert bench.counts.total["looks_shed camera=door reason=loading"] == waited


def test_camera_that_drops_no_frame_waits_for_the_model():
    bench = Bench(pacing="every_frame")
    assert labels(bench.show(3)) == ["A carton"]
    assert bench.background == []


def test_object_of_two_categories_is_named_though_only_one_model_fits():
    bench = Bench()
    bench.odds = [0.6, 0.4]
    events: list = []
    loaders: list[threading.Thread] = []
    for _ in range(100):
        events += bench.show()
        loaders += [threading.Thread(target=target) for target in bench.background]
        bench.background.clear()
        for loader in loaders[-1:]:
            if loader.ident is None:
                loader.start()
        if events:
            break
        with bench.store._changed:
            bench.store._changed.wait(0.1)  # until one is loaded
    assert labels(events) == ["A carton"]
    for loader in loaders:
        loader.join(60)
    assert [one.loads for one in bench.store.memory()] == [1, 1]
    assert [one.status for one in bench.store.memory()].count("loaded") == 1


def test_category_whose_model_cannot_be_loaded_fails_alone():
    bench = Bench()
    bench.broken.add("carton")
    bench.show(2)
    bench.run_background()
    event, *_ = bench.show(6)
    assert (event.decision.category.name, event.decision.match, event.decision.reason) == (
        "carton", None, "not_looked_at",
    )  # fmt: skip
    bench.odds = [0.001, 0.999]
    bench.pipeline.end_tracks("door")
    bench.show(4)
    bench.run_background()
    assert labels(bench.show(3)) == ["A tyre"]


def test_object_is_named_once_its_model_can_be_loaded_again():
    bench = Bench()
    bench.broken.add("carton")
    bench.show(2)
    bench.run_background()
    assert labels(bench.show(4)) == ["not_looked_at"]
    bench.broken.clear()
    events = []
    for _ in range(20):
        bench.now_s += 1.0
        events += bench.show()
        bench.run_background()
    assert labels(events)[-1] == "A carton"


def test_without_a_classifier_the_other_category_is_searched():
    bench = Bench(classifier=False, pacing="every_frame")
    bench.broken.add("carton")
    assert labels(bench.show(4)) == ["A tyre"]


@pytest.mark.parametrize("classifier", [True, False])
def test_picture_is_searched_in_what_can_be_loaded(classifier):
    bench = Bench(classifier=classifier)
    bench.odds = [0.4, 0.6]
    bench.broken.add("carton")
    assert extract_features(bench.models, GREY, Timings()).vectors.keys() == {"tyre"}
    assert recognise_image(bench.models, GREY, 8, Timings()).match.label == "A tyre"


def test_picture_of_a_category_that_cannot_be_loaded_is_an_error():
    bench = Bench()
    bench.broken.add("carton")
    with pytest.raises(NotLoadedError, match=r"embedder carton: carton\.onnx: damaged"):
        recognise_image(bench.models, GREY, 8, Timings())
    bench.broken.add("tyre")
    nothing = replace(bench.models, stages=replace(bench.models.stages, classifier=None))
    with pytest.raises(NotLoadedError):
        extract_features(nothing, GREY, Timings())


def test_health_tells_totals_and_the_engines_that_matter():
    bench = Bench(budget=7)
    bench.broken.add("tyre")
    bench.models.stages.embedders["carton"].embed(GREY, [(0.0, 0.0, 9.0, 9.0)], Timings())
    with pytest.raises(NotLoadedError):
        bench.models.stages.embedders["tyre"].embed(GREY, [(0.0, 0.0, 9.0, 9.0)], Timings())
    totals = engine_totals(bench.models.stages)
    assert (totals.loaded, totals.engines) == (1, 2)
    many = {f"embedder {i}": Resolved("onnxruntime", "fp32", "") for i in range(100)}
    many |= {f"embedder {name}": Resolved("onnxruntime", "fp32", "") for name in NAMES}
    states = engine_states(replace(bench.models.stages, engines=many))
    assert len(states) == 64
    assert (states["embedder tyre"].status, states["embedder tyre"].error) == ("failed", "tyre.onnx: damaged")
    assert (states["embedder carton"].status, states["embedder carton"].loads) == ("loaded", 1)
