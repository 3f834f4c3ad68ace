"""Searching objects that have left again in another gallery."""

from dataclasses import replace

import numpy as np
import pytest

from edge.inference.stages import Embedder, Localiser, Stages
from edge.manifest.embedder import OpenSet, SilhouetteRule
from edge.recognition.camera_tracks import Observation, TrackState
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.reidentify import Reidentifier
from edge.recognition.track_features import TrackFeatures
from edge.silhouettes.rerank import silhouettes_for
from edge.types import Category, Decision, Hit, Match
from tests.fakes_engine import FixedIndex, ScriptedEngine, embedder_model, localiser_model

SPACE = "0" * 64
UNKNOWN = Decision(Category("carton", 1.0), None, "unknown_item")
KNOWN = Decision(Category("carton", 1.0), Match("c1", "Oat flakes", 0.9, 0.5, 0.99), None)
HITS = [Hit("c1", "Oat flakes", 0.9), Hit("c2", "Corn flakes", 0.4)]
OBSERVATION = Observation("door", 1_700_000_000.0, 1, "arrival", None, (0.1, 0.1, 0.2, 0.2), (640, 480))


def state():
    return TrackState(OBSERVATION, OBSERVATION.captured_at)


def models(gallery="new", hits=HITS, space=SPACE):
    embedder = Embedder(embedder_model(space_id=space), ScriptedEngine(lambda _: []))
    stages = Stages(None, None, {"carton": embedder})
    return LoadedModels("bundle", gallery, stages, {"carton": FixedIndex(hits)}, {"carton": OpenSet(min_margin=0.05)})


def features_of_two_crops():
    """Features of two crops of a carton, searched in the gallery named old."""
    features = TrackFeatures(categories=(Category("carton", 1.0),), gallery_id="old")
    features.add_vector(SPACE, np.array([1, 0, 0, 0], np.float32), 1.0)
    features.add_vector(SPACE, np.array([0, 1, 0, 0], np.float32), 1.0)
    return features


def reidentifier(*decisions, max_objects=10, max_age_s=100.0):
    """Objects that left a second after each other, numbered from 1."""
    departed_objects = Reidentifier(max_objects, max_age_s)
    for track_id, decision in enumerate(decisions, 1):
        departed_objects.add(
            track_id,
            state(),
            features_of_two_crops(),
            decision,
            float(track_id),
        )
    return departed_objects


def test_unknown_object_is_found_in_a_gallery_that_holds_it():
    departed_objects, new_models = reidentifier(UNKNOWN), models()
    departed_objects.queue_all()
    (departed,) = departed_objects.search(new_models, 5.0, 4)
    assert (departed.track_id, departed.decision.match.item_id, departed.state.observation) == (1, "c1", OBSERVATION)
    assert new_models.indexes["carton"].queries[0] == pytest.approx([0.7071, 0.7071, 0, 0], abs=1e-4)
    assert departed_objects.search(new_models, 6.0, 4) == []


@pytest.mark.parametrize("hits", [HITS, [Hit("c2", "Corn flakes", 0.1)], []], ids=["same", "far", "empty"])
def test_identity_is_neither_repeated_nor_withdrawn(hits):
    assert reidentifier(KNOWN).search(models("new", hits), 5.0, 4) == []


def test_another_identity_replaces_one():
    (departed,) = reidentifier(KNOWN).search(models("new", [Hit("c2", "Corn flakes", 0.95), HITS[1]]), 5.0, 4)
    assert departed.decision.match.item_id == "c2"


def test_object_of_no_category_is_searched_in_all():
    departed_objects, features = Reidentifier(10, 100.0), features_of_two_crops()
    features.categories = None
    departed_objects.add(1, state(), features, UNKNOWN, 1.0)
    departed_objects.queue_all()
    spaces = {SPACE: FixedIndex([Hit("c1", "carton", 0.9)])}
    (departed,) = departed_objects.search(replace(models(), spaces=spaces), 5.0, 4)
    assert departed.decision.match.item_id == "c1"


def test_vector_is_not_searched_in_a_gallery_of_another_space():
    departed_objects, new_models = reidentifier(UNKNOWN), models(space="1" * 64)
    departed_objects.queue_all()
    assert departed_objects.search(new_models, 5.0, 4) == []
    assert new_models.indexes["carton"].queries == []


def test_object_searched_in_an_older_gallery_is_queued_when_it_leaves():
    assert len(reidentifier(UNKNOWN).search(models(), 5.0, 4)) == 1


def test_object_already_searched_in_this_gallery_is_not_searched_again():
    new_models = models("old")
    assert reidentifier(UNKNOWN).search(new_models, 5.0, 4) == []
    assert new_models.indexes["carton"].queries == []


def test_few_objects_are_searched_at_a_time_newest_first():
    departed_objects, new_models = reidentifier(*[UNKNOWN] * 5), models()
    departed_objects.queue_all()
    found = [[one.track_id for one in departed_objects.search(new_models, 9.0, 2)] for _ in range(4)]
    assert found == [[5, 4], [3, 2], [1], []]


def test_oldest_objects_are_dropped_by_count_and_by_age():
    assert len(reidentifier(*[UNKNOWN] * 5, max_objects=3)) == 3
    departed_objects = reidentifier(*[UNKNOWN] * 5, max_age_s=10.0)
    assert [departed.track_id for departed in departed_objects.search(models(), 13.5, 9)] == [5, 4]


def test_nothing_is_kept_when_switched_off_or_not_embedded():
    assert len(reidentifier(UNKNOWN, max_objects=0)) == 0
    departed_objects = Reidentifier(10, 100.0)
    departed_objects.add(1, state(), TrackFeatures(), UNKNOWN, 0.0)
    assert len(departed_objects) == 0


def test_silhouette_decides_in_the_new_gallery_too():
    square, bar = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    square[16:48, 16:48], bar[28:36] = True, True
    features = features_of_two_crops()
    features.add_silhouette(np.packbits(square), 1.0)
    departed_objects = Reidentifier(10, 100.0)
    departed_objects.add(1, state(), features, UNKNOWN, 1.0)
    stages = replace(models().stages, localiser=Localiser(localiser_model(), ScriptedEngine(lambda _: [])))
    rows = {"c1": np.packbits(bar)[None], "c2": np.packbits(square)[None]}
    silhouettes = {"carton": silhouettes_for(SilhouetteRule(weight=0.8), rows)}
    departed_objects.queue_all()
    (departed,) = departed_objects.search(replace(models(), stages=stages, silhouettes=silhouettes), 5.0, 4)
    assert departed.decision.match.item_id == "c2"
