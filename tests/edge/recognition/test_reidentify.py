"""Objects that left are searched again when a gallery comes."""

from dataclasses import replace

import numpy as np
import pytest

from edge.gallery.rerank import silhouettes_for
from edge.inference.stages import Embedder, Localiser, Stages
from edge.manifest import OpenSet, SilhouetteRule
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.reidentify import Reidentifier
from edge.recognition.scene import Observation, TrackState
from edge.recognition.track_evidence import TrackFeatures
from edge.types import Category, Decision, Hit, Match
from tests.fakes_engine import FixedIndex, ScriptedEngine, embedder_model, localiser_model

SPACE = "0" * 64
UNKNOWN = Decision(Category("carton", 1.0), None, "unknown_item")
KNOWN = Decision(Category("carton", 1.0), Match("c1", "Oat flakes", 0.9, 0.5, 0.99), None)
HITS = [Hit("c1", "Oat flakes", 0.9), Hit("c2", "Corn flakes", 0.4)]
MOMENT = Observation("door", 1_700_000_000.0, 1, "arrival", None, (0.1, 0.1, 0.2, 0.2))


def models(gallery="new", hits=HITS, space=SPACE):
    embedder = Embedder(embedder_model(space_id=space), ScriptedEngine(lambda _: []))
    stages = Stages(None, None, {"carton": embedder})
    return LoadedModels("bundle", gallery, stages, {"carton": FixedIndex(hits)}, {"carton": OpenSet(min_margin=0.05)})


def seen():
    """Evidence of two looks at a carton, searched in the gallery named old."""
    evidence = TrackFeatures(spaces={"carton": SPACE}, categories=(Category("carton", 1.0),), searched_in="old")
    evidence.add_vector("carton", np.array([1, 0, 0, 0], np.float32), 1.0)
    evidence.add_vector("carton", np.array([0, 1, 0, 0], np.float32), 1.0)
    return evidence


def a_recall(*told, most=10, max_age_s=100.0):
    """Objects that left a second after each other, numbered from 1."""
    recall = Reidentifier(most, max_age_s)
    for track_id, decision in enumerate(told, 1):
        recall.remember(track_id, TrackState(MOMENT), seen(), decision, float(track_id))
    return recall


def test_an_unknown_object_is_found_by_a_gallery_that_holds_it():
    recall, answers = a_recall(UNKNOWN), models()
    recall.expect()
    (memory,) = recall.search(answers, 5.0, 4)
    assert (memory.track_id, memory.told.match.item_id, memory.record.moment) == (1, "c1", MOMENT)
    assert answers.indexes["carton"].queries[0] == pytest.approx([0.7071, 0.7071, 0, 0], abs=1e-4)
    assert recall.search(answers, 6.0, 4) == []


@pytest.mark.parametrize("hits", [HITS, [Hit("c2", "Corn flakes", 0.1)], []], ids=["same", "doubt", "empty"])
def test_an_identity_is_neither_repeated_nor_taken_back(hits):
    assert a_recall(KNOWN).search(models("new", hits), 5.0, 4) == []


def test_another_identity_replaces_one():
    (memory,) = a_recall(KNOWN).search(models("new", [Hit("c2", "Corn flakes", 0.95), HITS[1]]), 5.0, 4)
    assert memory.told.match.item_id == "c2"


def test_a_vector_is_not_searched_in_a_gallery_of_another_space():
    recall, answers = a_recall(UNKNOWN), models(space="1" * 64)
    recall.expect()
    assert recall.search(answers, 5.0, 4) == []
    assert answers.indexes["carton"].queries == []


def test_what_left_before_its_look_by_the_new_gallery_is_searched_without_being_asked_for():
    assert len(a_recall(UNKNOWN).search(models(), 5.0, 4)) == 1


def test_what_was_searched_in_this_gallery_already_is_not_searched_again():
    answers = models("old")
    assert a_recall(UNKNOWN).search(answers, 5.0, 4) == []
    assert answers.indexes["carton"].queries == []


def test_a_few_at_a_time_the_newest_first():
    recall, answers = a_recall(*[UNKNOWN] * 5), models()
    recall.expect()
    assert [[m.track_id for m in recall.search(answers, 9.0, 2)] for _ in range(4)] == [[5, 4], [3, 2], [1], []]


def test_the_oldest_are_forgotten_by_count_and_by_age():
    assert len(a_recall(*[UNKNOWN] * 5, most=3)) == 3
    recall = a_recall(*[UNKNOWN] * 5, max_age_s=10.0)
    assert [memory.track_id for memory in recall.search(models(), 13.5, 9)] == [5, 4]


def test_nothing_is_kept_when_that_is_switched_off_or_nothing_was_embedded():
    assert len(a_recall(UNKNOWN, most=0)) == 0
    recall = Reidentifier(10, 100.0)
    recall.remember(1, TrackState(MOMENT), TrackFeatures(), UNKNOWN, 0.0)
    assert len(recall) == 0


def test_the_outline_that_was_seen_decides_in_the_new_gallery_too():
    square, bar = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    square[16:48, 16:48], bar[28:36] = True, True
    evidence = seen()
    evidence.add_outline(np.packbits(square), 1.0)
    recall = Reidentifier(10, 100.0)
    recall.remember(1, TrackState(MOMENT), evidence, UNKNOWN, 1.0)
    stages = replace(models().stages, localiser=Localiser(localiser_model(), ScriptedEngine(lambda _: [])))
    rows = {"c1": np.packbits(bar)[None], "c2": np.packbits(square)[None]}
    silhouettes = {"carton": silhouettes_for(SilhouetteRule(weight=0.8), rows)}
    recall.expect()
    (memory,) = recall.search(replace(models(), stages=stages, silhouettes=silhouettes), 5.0, 4)
    assert memory.told.match.item_id == "c2"
