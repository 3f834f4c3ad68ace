"""Frames in, events out, with scripted engines."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from edge.config.schema import CameraConfig, LineConfig, RecognitionConfig, ZoneConfig
from edge.errors import EngineError
from edge.finder.taught_search import TaughtQuery
from edge.inference.stages import Classifier, Detector, Embedder, Localiser, Stages
from edge.manifest.embedder import Head, OpenSet, SilhouetteRule
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.pipeline import Pipeline
from edge.silhouettes.rerank import silhouettes_for
from edge.types import Hit
from tests.edge.finder.finder_samples import RED, colour_finder, query_for, scene_with
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
    localiser_model,
    no_box_map,
    one_box_map,
)

NEAR = [Hit("c1", "Oat flakes", 0.9), Hit("c2", "Corn flakes", 0.4)]
OTHER = [Hit("c2", "Corn flakes", 0.9), Hit("c1", "Oat flakes", 0.4)]
FAR = [Hit("c1", "Oat flakes", 0.2)]
RECOGNITION = {
    "min_looks": 3, "max_looks": 6, "look_interval_s": 0.0, "recheck_s": 1.0, "min_object_px": 8, "track_gap_s": 0.5,
}  # fmt: skip
BOX = (16.0, 16.0, 48.0, 48.0)


class Bench:
    """A pipeline of one camera with fake parts that a test can change."""

    def __init__(self, *, camera=None, classifier=True, indexes=None, **recognition):
        self.detector_output = one_box_map(BOX)
        self.odds = (99.0, 1.0)
        self.detector = ScriptedEngine(lambda _: self.detector_output)
        self.classifier = ScriptedEngine(lambda batch: [np.tile(np.log(self.odds), (len(batch), 1))])
        self.embedder = ScriptedEngine(lambda batch: [np.tile([1, 0, 0, 0], (len(batch), 1))])
        self.index = FixedIndex(NEAR)
        stages = Stages(
            Detector(detector_model(), self.detector),
            Classifier(classifier_model(), self.classifier) if classifier else None,
            {"carton": Embedder(embedder_model(), self.embedder)},
        )
        indexes = {"carton": self.index} if indexes is None else indexes
        models = LoadedModels("bundle-1", "gallery-1", stages, indexes, {"carton": OpenSet(min_margin=0.05)})
        self.counts, self.clock = FakeCounts(), ManualClock()
        camera = CameraConfig(source="rtsp://door", **(camera or {}))
        recognition = RecognitionConfig(**RECOGNITION | recognition)
        self.pipeline = Pipeline(models, {"door": camera}, recognition, self.counts, self.clock)
        self.now_s = 0.0

    def show(self, frames=1, image_rgb=None):
        """Process frames a tenth of a second apart; return their events."""
        events = []
        for _ in range(frames):
            self.now_s += 0.1
            self.clock.now_ns = round((self.now_s + 0.025) * 1e9)
            events += self.pipeline.process(frame_at(self.now_s, image_rgb)).events
        return events

    def show_nothing(self):
        self.detector_output = no_box_map()
        return self.show(8)


def kinds(events):
    return [(event.type, event.track_id) for event in events]


def test_object_makes_exactly_one_new_event():
    bench = Bench()
    events = bench.show(30)
    assert kinds(events) == [("new", 1)]
    (event,) = events
    assert event.decision.match.item_id == "c1"
    assert event.decision.category.name == "carton"
    assert event.box_rel == pytest.approx((0.25, 0.25, 0.75, 0.75))
    assert (event.bundle, event.gallery, event.camera) == ("bundle-1", "gallery-1", "door")
    assert event.captured_at == pytest.approx(0.2)  # the second frame: two detections confirm a track
    assert event.latency_ms["capture_to_decision"] == 25.0
    assert {"detect", "classify", "embed", "search"} <= set(event.latency_ms)


def test_confident_object_is_embedded_once_then_rechecked():
    bench = Bench()
    bench.show(30)  # 2.9 s after the first embedding; rechecked soon, and then every second
    assert len(bench.embedder.batch_sizes) == 5


def test_wrong_match_of_a_part_is_corrected_when_the_whole_shows():
    bench = Bench()
    bench.index.hits = OTHER
    bench.detector_output = one_box_map((16.0, 16.0, 32.0, 48.0))
    (event,) = bench.show(20)
    assert event.decision.match.item_id == "c2"
    bench.index.hits, bench.detector_output = NEAR, one_box_map(BOX)
    (event,) = bench.show(2)
    assert (event.type, event.decision.match.item_id) == ("update", "c1")


def test_objects_in_view_are_embedded_again_after_a_swap():
    bench = Bench()
    bench.show(5)
    following = replace(bench.pipeline.models, gallery_id="gallery-2", indexes={"carton": FixedIndex(OTHER)})
    bench.pipeline.swap_models(following)
    (event,) = bench.show(1)
    assert (event.type, event.decision.match.item_id, event.gallery) == ("update", "c2", "gallery-2")


def test_classifier_with_a_share_in_the_vector_runs_once_per_crop():
    bench = Bench()
    stages = bench.pipeline.models.stages
    engine = ScriptedEngine(lambda batch: [np.tile(np.log([9.0, 1.0]), (len(batch), 1)), np.ones((len(batch), 2))])
    classifier = Classifier(classifier_model(descriptor_dim=2), engine)
    heads = [Head(name="class", dim=4), Head(name="classifier", dim=2)]
    joint = Embedder(embedder_model(heads=heads, classifier_share=0.5), bench.embedder, classifier=classifier)
    changed = replace(stages, classifier=classifier, embedders={"carton": joint})
    bench.pipeline.swap_models(replace(bench.pipeline.models, stages=changed))
    bench.show(3)
    assert engine.batch_sizes == bench.embedder.batch_sizes
    np.testing.assert_allclose(bench.index.queries[0], [np.sqrt(0.5), 0, 0, 0, 0.5, 0.5], atol=1e-6)


def test_one_detection_does_not_confirm_a_track():
    bench = Bench()
    bench.show()
    assert bench.show_nothing() == []
    assert bench.counts.total == {"tracks_unannounced camera=door reason=not_looked_at": 1}


def test_object_ends_once():
    bench = Bench()
    bench.show(5)
    events = bench.show_nothing()
    assert kinds(events) == [("end", 1)]
    assert events[0].decision.match.item_id == "c1"
    assert events[0].captured_at == pytest.approx(0.5)  # when it was last seen
    assert bench.show(10) == []


def test_changed_match_is_one_update_and_the_end_repeats_it():
    bench = Bench()
    bench.show(5)
    bench.index.hits = OTHER
    events = bench.show(20)
    assert kinds(events) == [("update", 1)]
    assert events[0].decision.match.item_id == "c2"
    assert [event.decision.match.item_id for event in bench.show_nothing()] == ["c2"]


def test_same_match_with_another_score_is_no_update():
    bench = Bench()
    bench.show(5)
    bench.index.hits = [Hit("c1", "Oat flakes", 0.95)]
    assert bench.show(20) == []


def test_unknown_object_is_published_after_enough_embeddings():
    bench = Bench()
    bench.index.hits = FAR
    assert bench.show(3) == []  # two embeddings
    events = bench.show()
    assert kinds(events) == [("new", 1)]
    assert (events[0].decision.match, events[0].decision.reason) == (None, "unknown_item")


def test_brief_unknown_track_is_counted_but_not_published():
    bench = Bench()
    bench.index.hits = FAR
    bench.show(2)
    assert bench.show_nothing() == []
    assert bench.counts.total == {"tracks_unannounced camera=door reason=too_brief": 1}


def test_identity_survives_unknown_decisions_but_not_another_match():
    bench = Bench()
    assert kinds(bench.show(6)) == [("new", 1)]
    bench.index.hits = FAR
    assert bench.show(60) == []
    bench.index.hits = OTHER
    assert kinds(bench.show(60)) == [("update", 1)]


def test_unlikely_category_is_unknown_category_and_searches_nothing():
    bench = Bench()
    bench.odds = (1.0, 1.01)
    bench.pipeline.models.stages.classifier.model = classifier_model(threshold=2.6)
    assert bench.show(10)[0].decision.reason == "unknown_category"
    assert bench.embedder.batch_sizes == []


def test_two_close_categories_are_both_searched():
    bench = Bench()
    bench.odds = (1.0, 1.5)  # tyre, which has no gallery, is likelier
    (event,) = bench.show(10)
    assert event.decision.category.name == "carton"
    assert event.decision.match.item_id == "c1"


def test_missing_gallery_is_gallery_empty():
    bench = Bench(indexes={})
    assert [event.decision.reason for event in bench.show(10)] == ["gallery_empty"]
    assert bench.embedder.batch_sizes == []


def test_empty_gallery_is_gallery_empty():
    bench = Bench()
    bench.index.hits = []
    assert [event.decision.reason for event in bench.show(10)] == ["gallery_empty"]


def test_without_a_classifier_the_only_category_is_searched():
    (event,) = Bench(classifier=False).show(5)
    assert (event.decision.category.name, event.decision.category.score) == ("carton", 1.0)


@pytest.mark.parametrize(
    ("label", "category", "item"), [("object", "tyre", "t1"), ("car", "tyre", "t1"), ("carton", "carton", "c1")]
)
def test_label_or_nearest_item_names_the_category_without_a_classifier(label, category, item):
    bench = Bench(classifier=False)
    embedder = Embedder(embedder_model(categories=["carton", "tyre"]), bench.embedder)
    tyres = FixedIndex([Hit("t1", "Winter tyre", 0.95)])
    models = replace(
        bench.pipeline.models,
        stages=Stages(
            Detector(detector_model(labels=[label]), bench.detector), None, dict.fromkeys(("carton", "tyre"), embedder)
        ),
        indexes={"carton": bench.index, "tyre": tyres},
        spaces={embedder.model.space_id: FixedIndex([Hit("t1", "tyre", 0.95), Hit("c1", "carton", 0.9)])},
    )
    bench.pipeline.swap_models(models)
    (event,) = bench.show(5)
    assert (event.decision.category.name, event.decision.match.item_id) == (category, item)
    assert set(bench.embedder.batch_sizes) == {1}  # once for both categories
    assert bool(tyres.queries) == (category == "tyre")


def test_vectors_are_fused_before_the_search():
    bench = Bench()
    bench.index.hits = FAR
    turns = iter([[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]])
    bench.embedder.answer = lambda _: [[next(turns)]]
    bench.show(4)
    assert bench.index.queries[1] == pytest.approx([0.7071, 0.7071, 0, 0], abs=1e-4)
    assert bench.index.queries[2] == pytest.approx([0.4472, 0.8944, 0, 0], abs=1e-4)


def test_object_too_small_is_shed_and_counted():
    bench = Bench(min_object_px=33)
    assert bench.show(5) == []
    assert bench.counts.total == {"looks_shed camera=door reason=too_small": 5}
    assert bench.embedder.batch_sizes == []


def test_crops_of_one_category_share_a_batch():
    bench = Bench()
    maps = [one_box_map((4.0, y, 28.0, y + 20.0))[0] for y in (4.0, 36.0)]
    merged = maps[0].copy()
    merged[:, :, 5:] = maps[1][:, :, 5:]
    bench.detector_output = [merged]
    events = bench.show(12)
    assert kinds(events) == [("new", 1), ("new", 2)]
    assert bench.embedder.batch_sizes[0] == 2


def test_end_tracks_ends_every_track_once():
    bench = Bench()
    bench.show(5)
    assert kinds(bench.pipeline.end_tracks("door")) == [("end", 1)]
    assert bench.pipeline.end_tracks("door") == []
    assert kinds(bench.show(5)) == [("new", 2)]


def test_tracked_objects_carry_the_published_decision():
    bench = Bench()
    results = [bench.pipeline.process(frame_at(n / 10)) for n in range(3)]
    assert [result.objects[0].decision is not None for result in results] == [False, True, True]
    assert [result.embedded for result in results] == [0, 1, 1]
    assert [dict(result.looks) for result in results] == [{}, {1: 1.0}, {1: 1.0}]


@pytest.mark.parametrize("part", ["detector", "classifier", "embedder"])
def test_failing_model_leaves_the_pipeline_usable(part):
    bench = Bench()
    bench.show()
    getattr(bench, part).broken = True
    for _ in range(3):
        with pytest.raises(EngineError):
            bench.show()
    getattr(bench, part).broken = False
    assert kinds(bench.show(5)) == [("new", 1)]
    assert kinds(bench.show_nothing()) == [("end", 1)]


def test_end_in_a_failed_frame_comes_with_the_next():
    bench = Bench()
    bench.show(5)
    bench.detector_output = one_box_map((2.0, 4.0, 12.0, 14.0))  # the old object is gone, another appears
    bench.show()
    bench.embedder.broken = True
    for _ in range(6):
        with pytest.raises(EngineError):
            bench.show()
    bench.embedder.broken = False
    assert ("end", 1) in kinds(bench.show())


def test_object_seen_only_in_failed_frames_makes_no_event():
    bench = Bench()
    bench.show()
    bench.embedder.broken = True
    with pytest.raises(EngineError):
        bench.show()
    assert bench.show_nothing() == []


def test_whole_frame_is_one_object_without_a_detector():
    bench = Bench(camera={"framing": "whole_frame"})
    (event,) = bench.show(5)
    assert event.box_rel == (0, 0, 1, 1)
    assert bench.detector.batch_sizes == []
    changed = np.full((SIZE, SIZE, 3), 10, np.uint8)
    bench.index.hits = OTHER
    assert kinds(bench.show(5, changed)) == [("end", 1), ("new", 2)]


def test_cameras_do_not_share_tracks():
    bench = Bench()
    models = bench.pipeline.models
    cameras = {name: CameraConfig(source=f"rtsp://{name}") for name in ("door", "till")}
    pipeline = Pipeline(models, cameras, RecognitionConfig(**RECOGNITION), bench.counts, bench.clock)
    frames = [frame_at(n / 10, None, camera) for n in range(4) for camera in cameras]
    events = [event for frame in frames for event in pipeline.process(frame).events]
    assert [(event.camera, event.type, event.track_id) for event in events] == [("door", "new", 1), ("till", "new", 1)]
    assert [event.camera for event in pipeline.end_tracks("till")] == ["till"]


def test_batched_detection_gives_the_same_events_as_single_frames():
    bench = Bench()
    bench.detector.answer = lambda batch: [np.concatenate([one_box_map(BOX)[0]] * len(batch))]
    stages = replace(bench.pipeline.models.stages, detector=Detector(detector_model(), bench.detector, batch_size=3))
    models = replace(bench.pipeline.models, stages=stages)
    cameras = {
        "door": CameraConfig(source="rtsp://door"),
        "till": CameraConfig(source="rtsp://till"),
        "kiosk": CameraConfig(source="rtsp://kiosk", framing="whole_frame"),
    }
    pipeline = Pipeline(models, cameras, RecognitionConfig(**RECOGNITION), bench.counts, bench.clock)
    events = []
    for n in range(4):
        frames = [frame_at(n / 10, None, camera) for camera in cameras]
        detected = pipeline.detect(frames)
        for frame, detections in zip(frames, detected, strict=True):
            events += pipeline.process(frame, detections).events
    assert pipeline.detector_batch_size == 3
    assert bench.detector.batch_sizes == [2] * 4  # a kiosk's whole frame is the object
    assert sorted((event.camera, event.type, event.track_id) for event in events) == [
        ("door", "new", 1), ("kiosk", "new", 1), ("till", "new", 1),
    ]  # fmt: skip


def test_frames_of_one_batch_share_its_time():
    bench = Bench()
    bench.detector.answer = lambda batch: [np.concatenate([no_box_map()[0]] * len(batch))]
    stages = replace(bench.pipeline.models.stages, detector=Detector(detector_model(), bench.detector, batch_size=2))
    models = replace(bench.pipeline.models, stages=stages)
    cameras = {name: CameraConfig(source=f"rtsp://{name}") for name in ("door", "till")}
    pipeline = Pipeline(models, cameras, RecognitionConfig(**RECOGNITION), bench.counts, bench.clock)
    door, till = pipeline.detect([frame_at(0, None, "door"), frame_at(0, None, "till")])
    assert door.timings.stages_ms == till.timings.stages_ms
    assert set(door.timings.stages_ms) == {"preprocess", "detect", "postprocess"}


def test_no_frame_is_kept_alive():
    bench = Bench()
    image_rgb = np.full((SIZE, SIZE, 3), 128, np.uint8)
    kept = weakref.ref(image_rgb)
    bench.show(5, image_rgb)
    del image_rgb
    gc.collect()
    assert kept() is None


def test_event_ids_differ():
    bench = Bench()
    events = bench.show(5) + bench.show_nothing()
    assert len({event.event_id for event in events}) == 2


LOWER = ZoneConfig(polygon=((0, 0.5), (1, 0.5), (1, 1), (0, 1)))


def test_object_outside_the_zones_is_neither_embedded_nor_published():
    upper = ZoneConfig(polygon=((0, 0), (1, 0), (1, 0.5), (0, 0.5)))
    bench = Bench(camera={"zones": {"upper": upper}})
    assert bench.show(5) + bench.show_nothing() == []
    assert bench.embedder.batch_sizes == []
    assert bench.counts.total == {
        "looks_shed camera=door reason=outside_zones": 4,
        "tracks_unannounced camera=door reason=outside_zones": 1,
    }


def test_object_in_an_excluded_zone_is_not_updated_until_its_end():
    left = ZoneConfig(polygon=((0, 0), (0.4, 0), (0.4, 1), (0, 1)), kind="exclude")
    bench = Bench(camera={"zones": {"left": left}})
    assert kinds(bench.show(5)) == [("new", 1)]
    bench.index.hits, bench.detector_output = OTHER, one_box_map((4.0, 16.0, 36.0, 48.0))
    assert bench.show(30) == []
    (end,) = bench.show_nothing()
    assert (end.type, end.decision.match.item_id) == ("end", "c1")


def test_zone_is_published_after_its_dwell_time():
    bench = Bench(camera={"zones": {"lower": LOWER.model_copy(update={"dwell_s": 1.0})}})
    new, update = bench.show(30)
    assert (new.type, new.zones) == ("new", ())
    assert (update.type, update.zones) == ("update", ("lower",))
    assert update.captured_at - new.captured_at == pytest.approx(1.0)
    assert bench.show_nothing()[0].zones == ("lower",)


def test_line_crossing_is_counted_and_published():
    bench = Bench(camera={"lines": {"gate": LineConfig.model_validate({"from": (0.45, 1), "to": (0.45, 0)})}})
    bench.detector_output = one_box_map((4.0, 16.0, 36.0, 48.0))
    bench.show(5)
    bench.detector_output = one_box_map(BOX)
    bench.show(5)
    assert bench.counts.total["line_crossings camera=door direction=left_to_right line=gate"] == 1
    (end,) = bench.show_nothing()
    assert [(one.line, one.direction) for one in end.crossings] == [("gate", "left_to_right")]


class GatedBench(Bench):
    """A camera whose detector runs when something moves."""

    def __init__(self, **more):
        super().__init__(camera={"motion": {"sweep_s": 2.0}}, **more)

    @property
    def detector_runs(self):
        return len(self.detector.batch_sizes)


def test_detector_only_sweeps_a_still_scene():
    bench = GatedBench()
    bench.detector_output = no_box_map()
    bench.show(60)  # 6 s
    assert bench.detector_runs == 3
    assert bench.counts.total == {"frames_gated camera=door": 57}


def test_motion_runs_the_detector_at_once():
    bench = GatedBench()
    bench.detector_output = no_box_map()
    bench.show(5)
    bench.detector_output = one_box_map(BOX)
    moved = np.full((SIZE, SIZE, 3), 128, np.uint8)
    moved[16:48, 16:48] = 200
    assert kinds(bench.show(2, moved)) == [("new", 1)]


def test_unsettled_object_keeps_the_detector_running():
    bench = GatedBench(max_looks=6)
    bench.index.hits = FAR
    bench.show(7)  # confirmed in the second frame, then six embeddings
    assert (bench.detector_runs, len(bench.embedder.batch_sizes)) == (7, 6)
    bench.show(5)
    assert bench.detector_runs == 7


def test_settled_object_at_rest_is_rechecked_without_the_detector():
    bench = GatedBench()
    assert kinds(bench.show(18)) == [("new", 1)]
    assert bench.detector_runs == 2
    assert len(bench.embedder.batch_sizes) > 2
    bench.index.hits = OTHER
    assert kinds(bench.show(30)) == [("update", 1)]


def test_object_missed_by_a_sweep_keeps_the_detector_running_to_its_end():
    bench = GatedBench()
    bench.show(10)
    bench.detector_output = no_box_map()
    assert kinds(bench.show(30)) == [("end", 1)]
    detector_runs = bench.detector_runs
    bench.show(5)
    assert bench.detector_runs == detector_runs


def test_failed_detector_runs_again():
    bench = GatedBench()
    bench.detector.broken = True
    with pytest.raises(EngineError):
        bench.show()
    bench.detector.broken = False
    assert kinds(bench.show(3)) == [("new", 1)]


def test_budget_is_kept_and_shed_embeddings_are_counted():
    bench = Bench(looks_per_s=2.0, max_looks=100)
    bench.index.hits = FAR  # never settled: due in every frame
    bench.show(100)
    embedded = len(bench.embedder.batch_sizes)
    assert embedded == pytest.approx(2.0 * 10, abs=2)
    assert bench.counts.total == {"looks_shed camera=door reason=budget": 99 - embedded}


def test_cameras_share_one_budget():
    bench = Bench()
    cameras = {name: CameraConfig(source=f"rtsp://{name}") for name in ("door", "till")}
    recognition = RecognitionConfig(**RECOGNITION | {"looks_per_s": 1.0})
    pipeline = Pipeline(bench.pipeline.models, cameras, recognition, bench.counts, bench.clock)
    frames = [frame_at(n / 10, None, camera) for n in range(4) for camera in cameras]
    assert sum(pipeline.process(frame).embedded for frame in frames) == 1


def test_blurred_crop_waits_for_a_sharper_one_under_a_budget():
    bench = Bench(looks_per_s=100.0)
    bench.index.hits = FAR
    sharp = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    bench.show(2, sharp)
    assert len(bench.embedder.batch_sizes) == 1
    bench.show(5, np.full_like(sharp, 128))
    assert len(bench.embedder.batch_sizes) == 1
    assert bench.counts.total == {"looks_shed camera=door reason=poor_sight": 5}
    bench.show(1, sharp)
    assert len(bench.embedder.batch_sizes) == 2


def test_departed_unknown_object_gets_a_historical_update():
    bench = Bench()
    bench.index.hits = FAR
    bench.show(10)
    (end,) = bench.show_nothing()
    assert bench.pipeline.reidentify() == []
    bench.pipeline.swap_models(
        replace(bench.pipeline.models, gallery_id="gallery-2", indexes={"carton": FixedIndex(NEAR)})
    )
    (update,) = bench.pipeline.reidentify()
    assert (update.type, update.track_id, update.historical) == ("update", 1, True)
    assert (update.decision.match.item_id, update.gallery) == ("c1", "gallery-2")
    assert (update.captured_at, update.box_rel) == (end.captured_at, end.box_rel)
    assert bench.pipeline.reidentify() == []


def test_object_that_left_before_its_first_new_search_is_reidentified():
    bench = Bench()
    bench.index.hits = FAR
    bench.show(10)
    bench.pipeline.swap_models(
        replace(bench.pipeline.models, gallery_id="gallery-2", indexes={"carton": FixedIndex(NEAR)})
    )
    assert kinds(bench.show_nothing()) == [("end", 1)]
    assert [event.decision.match.item_id for event in bench.pipeline.reidentify()] == ["c1"]


def test_object_in_view_is_updated_live_and_not_reidentified():
    bench = Bench()
    bench.index.hits = FAR
    bench.show(10)
    bench.pipeline.swap_models(
        replace(bench.pipeline.models, gallery_id="gallery-2", indexes={"carton": FixedIndex(NEAR)})
    )
    (update,) = bench.show(5)
    assert (update.type, update.historical) == ("update", False)
    bench.show_nothing()
    assert bench.pipeline.reidentify() == []


@pytest.mark.parametrize("bench", [Bench, GatedBench])
def test_change_of_resolution_keeps_the_objects(bench):
    bench = bench()
    assert kinds(bench.show(10)) == [("new", 1)]
    assert bench.show(10, np.full((2 * SIZE, 2 * SIZE, 3), 128, np.uint8)) == []
    (end,) = bench.show_nothing()
    assert (end.track_id, end.box_rel) == (1, pytest.approx((0.25, 0.25, 0.75, 0.75)))


def next_bench(bench, changed, **options):
    """Return another bench, whose pipeline takes over."""
    following = Bench(**options)
    following.now_s = bench.now_s
    following.pipeline.take_over(bench.pipeline, changed)
    return following


def test_tracks_continue_in_the_next_pipeline():
    bench = Bench()
    bench.show(5)
    following = next_bench(bench, changed=())
    assert following.show(5) == []  # neither ended nor published again
    assert kinds(following.show_nothing()) == [("end", 1)]


def test_changed_camera_starts_without_tracks_and_continues_ids():
    bench = Bench()
    bench.show(5)
    assert kinds(bench.pipeline.end_tracks("door")) == [("end", 1)]
    assert kinds(next_bench(bench, changed=("door",), camera={"framing": "whole_frame"}).show(8)) == [("new", 2)]


class SilhouetteBench(Bench):
    """A bench with a localiser that finds a square, which is the silhouette of the second item."""

    def __init__(self, weight):
        super().__init__()
        self.shown = np.full((1, 1, SIZE // 2, SIZE // 2), 8.0)
        self.localiser = ScriptedEngine(lambda batch: [np.repeat(self.shown, len(batch), axis=0)])
        square, bar = np.ones((64, 64), bool), np.zeros((64, 64), bool)
        bar[:8] = True
        rule, rows = SilhouetteRule(weight=weight), {"c1": np.packbits(bar)[None], "c2": np.packbits(square)[None]}
        models = self.pipeline.models
        stages = replace(models.stages, localiser=Localiser(localiser_model(), self.localiser))
        silhouettes = {"carton": silhouettes_for(rule, rows)} if rule.counts else {}
        self.pipeline.swap_models(replace(models, stages=stages, silhouettes=silhouettes))


def test_silhouette_that_counts_decides_and_is_timed_and_counted():
    bench = SilhouetteBench(weight=0.6)
    (event,) = bench.show(4)
    assert event.decision.match.item_id == "c2"
    assert event.decision.match.score == pytest.approx(0.4 * 0.4 + 0.6)
    assert "localise" in event.latency_ms
    assert bench.counts.total["outlines camera=door"] == len(bench.localiser.batch_sizes) > 0


def test_localiser_does_not_run_where_no_silhouette_counts():
    bench = SilhouetteBench(weight=0.0)
    (event,) = bench.show(4)
    assert (event.decision.match.item_id, bench.localiser.batch_sizes) == ("c1", [])
    assert "localise" not in event.latency_ms


def test_without_a_silhouette_the_vector_decides_and_a_miss_is_counted():
    bench = SilhouetteBench(weight=0.6)
    bench.shown -= 20.0
    (event,) = bench.show(4)
    assert event.decision.match.item_id == "c1"
    assert bench.counts.total["outlines_missed camera=door"] == len(bench.localiser.batch_sizes) > 0
    assert bench.counts.total["outlines camera=door"] == 0


def taught_bench(**recognition):
    """Return a bench whose detector finds nothing, with a red taught item."""
    bench = Bench(**recognition)
    bench.detector_output = no_box_map()
    finder = colour_finder()
    taught_queries = (TaughtQuery("taught-0", (query_for(finder, RED),)),)
    bench.pipeline.swap_models(replace(bench.pipeline.models, finder=finder, taught_queries=taught_queries))
    return bench


def test_taught_item_missed_by_the_detector_is_published_with_seek():
    scene = scene_with((RED, 16, 16, 32))
    bench = taught_bench(seek={"every_s": 0.2})
    (event,) = bench.show(20, scene)
    assert event.type == "new"
    assert event.box_rel == pytest.approx((0.25, 0.25, 0.75, 0.75), abs=0.08)
    assert bench.counts.total["frames_sought camera=door"] == bench.counts.total["boxes_sought camera=door"] == 10
    assert taught_bench().show(20, scene) == []


def test_taught_item_found_by_the_detector_is_not_tracked_twice():
    bench = taught_bench(seek={"every_s": 0.1})
    bench.detector_output = one_box_map(BOX)
    assert kinds(bench.show(20, scene_with((RED, 16, 16, 32)))) == [("new", 1)]
    assert bench.counts.total["boxes_sought camera=door"] == 0
