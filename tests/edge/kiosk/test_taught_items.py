"""Taught items, searched beside the gallery."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pytest

from edge.errors import NotLoadedError
from edge.imaging.image import encode_image
from edge.inference.stages import Localiser
from edge.kiosk.taught_embeddings import unpack_cache
from edge.kiosk.taught_index import WithTaught
from edge.kiosk.taught_items import TaughtItems
from edge.kiosk.taught_store import TaughtStore
from edge.manifest.embedder import SilhouetteRule
from edge.recognition.recognise_image import recognise_image
from edge.silhouettes.rerank import silhouettes_for
from edge.silhouettes.silhouette import SIZE as SILHOUETTE_SIZE
from edge.silhouettes.silhouette import cells
from edge.telemetry.health_report import TaughtCounts
from edge.telemetry.timing import Timings
from edge.types import Hit
from tests.edge.finder.finder_samples import colour_finder, scene_with
from tests.edge.kiosk.kiosk_samples import FAR, direction, jpeg, scripted_models
from tests.fakes_engine import FakeCounts, FixedIndex, ScriptedEngine, localiser_model
from tests.power_cut import IMAGES, PowerCut

AT = "2026-01-01T00:00:00Z"
RED = np.full((64, 64, 3), (200, 20, 20), np.uint8)


class Shelf:
    """Taught items with their store and counters."""

    def __init__(self, folder):
        self.held: set[str] = set()
        self.category = "carton"  # of those
        self.folder = folder
        self.counts = FakeCounts()
        self.start()

    def start(self):
        """Restart: read the store again."""
        self.store = TaughtStore(self.folder, 10)
        self.taught_items = TaughtItems(self.store, self.held_in, self.counts)

    def held_in(self, _generation, category, item_ids):
        return frozenset(item_ids) & self.held if category == self.category else frozenset()

    def embedded_by(self, models):
        """How many pictures the embedder runs on when the items are added, and the bytes of the search index."""
        engine = models.stages.embedders["carton"]._engine
        before = len(engine.batch_sizes)
        rows = self.taught_items.add_to(models).indexes["carton"].taught.sample(1000)[0]
        return len(engine.batch_sizes) - before, rows.tobytes()

    def cache(self, item):
        """The cached embeddings of an item."""
        data = self.store.cache(item)
        return {} if data is None else unpack_cache(data, "cache")

    def teach(self, label="Red thing", category=None, colour=(200, 20, 20)):
        return self.store.save(label, category, [jpeg(*colour)], AT)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


def unknown_models(**changes):
    return scripted_models(indexes={"carton": FixedIndex(FAR)}, **changes)


def test_taught_item_is_recognised_at_once(shelf):
    assert recognise_image(unknown_models(), RED, 8, Timings()).match is None
    item = shelf.teach()
    shelf.teach("Blue thing", colour=(20, 20, 200))
    decision = recognise_image(shelf.taught_items.add_to(unknown_models()), RED, 8, Timings())
    assert (decision.match.item_id, decision.match.label) == (item.item_id, "Red thing")
    assert decision.match.score > 0.99
    assert {hit.label for hit in decision.top} == {"Red thing", "Blue thing", "Oat flakes"}


def test_hits_of_gallery_and_taught_items_are_sorted():
    both = WithTaught(FixedIndex([Hit("a", "A", 0.9), Hit("b", "B", 0.1)]), FixedIndex([Hit("t", "T", 0.5)]))
    assert [hit.item_id for hit in both.search(np.zeros((1, 4), np.float32), 2)[0]] == ["a", "t"]


def test_category_without_a_gallery_is_searched_for_taught_items(shelf):
    shelf.teach()
    models = shelf.taught_items.add_to(scripted_models(indexes={}))
    assert recognise_image(models, RED, 8, Timings()).match.label == "Red thing"


def test_named_category_is_searched_even_if_unlikely(shelf):
    item = shelf.teach(category="carton")
    models = shelf.taught_items.add_to(unknown_models(odds=(1.0, 99.0)))
    (hits,) = models.indexes["carton"].search(direction(RED[None])[0], 1)
    assert hits[0].item_id == item.item_id


def test_deleted_item_is_not_recognised(shelf):
    item = shelf.teach()
    models = shelf.taught_items.add_to(unknown_models())
    shelf.store.forget(item.item_id)
    assert recognise_image(shelf.taught_items.add_to(models), RED, 8, Timings()).match is None


def test_pictures_are_embedded_once_for_each_bundle(shelf):
    """The next bundle has another space: the same picture gives a vector of another length."""
    shelf.teach()
    first = unknown_models()
    engine = first.stages.embedders["carton"]._engine
    shelf.taught_items.add_to(shelf.taught_items.add_to(first))
    assert engine.batch_sizes == [1] * 6  # as it is, and in five other views

    def wide(batch):
        rows = direction(batch)[0]
        return [np.concatenate([rows[:, ::-1], np.zeros((len(rows), 4), np.float32)], axis=1)]

    head = [{"name": "class", "dim": 8}]
    second = unknown_models(bundle="bundle-2", embed=wide, heads=head, space_id="1" * 64)
    assert recognise_image(shelf.taught_items.add_to(second), RED, 8, Timings()).match.label == "Red thing"
    shelf.taught_items.add_to(first)
    assert engine.batch_sizes == [1] * 6  # as it is, and in five other views


def test_taught_items_follow_a_switch_to_another_space_and_are_counted(shelf):
    """Pictures are kept, so the next bundle embeds them in its own space; a rollback finds its embeddings again."""
    shelf.teach()
    shelf.teach("Blue thing", colour=(20, 20, 200))
    first = shelf.taught_items.add_to(cacheable())
    assert first.taught == TaughtCounts(items=2, searched=2, retired=0, waiting=0)

    def embed_wide(batch):
        rows = direction(batch)[0]
        return [np.concatenate([rows[:, ::-1], np.zeros((len(rows), 4), np.float32)], axis=1)]

    wide = {"embed": embed_wide, "heads": [{"name": "class", "dim": 8}], "space_id": "1" * 64}
    second = shelf.taught_items.add_to(cacheable("two", bundle="bundle-2", **wide))
    assert second.taught == TaughtCounts(items=2, searched=2, retired=0, waiting=0)
    assert second.indexes["carton"].taught.dim == 8
    assert recognise_image(second, RED, 8, Timings()).match.label == "Red thing"
    shelf.start()
    assert shelf.embedded_by(cacheable())[0] == 0
    assert len(shelf.store.items()) == 2


def test_items_of_a_model_that_is_not_loaded_wait(shelf):
    shelf.teach()

    def not_loaded(_batch):
        raise NotLoadedError("no memory")

    waiting = shelf.taught_items.add_to(unknown_models(embed=not_loaded))
    assert waiting.taught == TaughtCounts(items=1, searched=0, retired=0, waiting=1)
    assert shelf.taught_items.add_to(unknown_models()).taught.waiting == 0


def test_retired_and_unusable_items_are_counted(shelf):
    held = shelf.teach()
    shelf.held.add(held.item_id)
    shelf.store.save("Broken", None, [b"no picture"], AT)
    assert shelf.taught_items.add_to(unknown_models()).taught == TaughtCounts(2, 0, 1, 0, 1)


def test_item_retires_when_the_gallery_has_its_id_and_returns(shelf):
    item = shelf.teach()
    shelf.held.add(item.item_id)
    models = shelf.taught_items.add_to(unknown_models(gallery="gallery-2"))
    assert recognise_image(models, RED, 8, Timings()).match is None
    assert models.taught_retired == {item.item_id: "same_id"}
    shelf.taught_items.add_to(models)
    assert shelf.counts.total["taught_retired reason=same_id"] == 1
    shelf.held.clear()
    assert recognise_image(shelf.taught_items.add_to(unknown_models()), RED, 8, Timings()).match.item_id == item.item_id


def test_item_retires_in_whatever_category_the_gallery_has_it(shelf):
    """An operator may put it into another one than its pictures look like."""
    item = shelf.teach()
    shelf.held.add(item.item_id)
    shelf.category = "jar"
    assert shelf.taught_items.add_to(unknown_models()).taught_retired == {}
    both = scripted_models(indexes={"carton": FixedIndex(FAR), "jar": FixedIndex(FAR)})
    assert shelf.taught_items.add_to(both).taught_retired == {item.item_id: "same_id"}


def test_item_stays_while_the_gallery_that_lacks_it_serves(shelf):
    """The next gallery is loaded beside the one that serves, and may be refused."""
    item = shelf.teach()
    serving = shelf.taught_items.add_to(unknown_models(gallery="gallery-1"))
    shelf.held.add(item.item_id)
    following = shelf.taught_items.add_to(unknown_models(gallery="gallery-2"))
    assert recognise_image(serving, RED, 8, Timings()).match.item_id == item.item_id
    assert serving.taught_retired == {}
    assert recognise_image(following, RED, 8, Timings()).match is None


@pytest.mark.parametrize(
    ("label", "score", "retires"), [("red THING", 0.8, True), ("red THING", 0.6, False), ("Red jam", 0.99, False)]
)
def test_item_retires_for_a_near_item_of_the_same_name(shelf, label, score, retires):
    item = shelf.teach()
    models = shelf.taught_items.add_to(scripted_models(indexes={"carton": FixedIndex([Hit("c9", label, score)])}))
    assert (item.item_id in models.taught_retired) == retires


def test_unusable_picture_is_counted(shelf):
    shelf.store.save("Broken", None, [b"no picture"], AT)
    shelf.teach()
    models = shelf.taught_items.add_to(unknown_models())
    assert recognise_image(models, RED, 8, Timings()).match.label == "Red thing"
    assert shelf.counts.total["taught_unusable"] == 1


def test_finder_queries_use_the_newest_pictures(shelf):
    """JPEG and scaling change the colours too little to matter to the colour finder."""
    shelf.teach()
    item = shelf.teach(colour=(20, 20, 200))
    shelf.teach(colour=(20, 200, 20))
    (one,) = shelf.taught_items.add_to(replace(unknown_models(), finder=colour_finder())).taught_queries
    assert (one.item_id, len(one.queries)) == (item.item_id, 2)
    finder = colour_finder()
    view = finder.scene_features(scene_with(((20, 20, 200), 16, 16, 24)), Timings())
    assert finder.heat_map(view, one.queries[:1], Timings())[6:9, 6:9].min() > 0.9
    assert finder.heat_map(view, one.queries[1:], Timings()).max() < 0.5
    assert shelf.taught_items.add_to(unknown_models()).taught_queries == ()


def cacheable(fingerprint="one", **changes):
    """Models with fingerprints, so that their outputs are cached."""
    return unknown_models(fingerprint=fingerprint, **changes)


def test_restart_uses_the_cache_and_gives_the_same_bits(shelf):
    item, _ = shelf.teach(), shelf.teach("Blue thing", colour=(20, 20, 200))
    _, bits = shelf.embedded_by(unknown_models())
    shelf.start()
    assert shelf.embedded_by(cacheable()) == (12, bits)
    assert {numbers.shape for numbers in shelf.cache(item).values()} == {(2,), (6, 4)}
    shelf.start()
    models = cacheable()
    assert shelf.embedded_by(models) == (0, bits)
    assert models.stages.classifier._engine.batch_sizes == []
    assert recognise_image(shelf.taught_items.add_to(models), RED, 8, Timings()).match.label == "Red thing"


def test_teaching_again_embeds_only_new_pictures(shelf):
    shelf.teach()
    models = cacheable()
    assert shelf.embedded_by(models)[0] == 6
    shelf.teach(colour=(160, 20, 20))
    count, bits = shelf.embedded_by(models)
    assert count == 6
    shelf.start()
    assert shelf.embedded_by(unknown_models()) == (12, bits)


def test_cached_probabilities_are_used(shelf):
    item = shelf.teach()
    unlikely = cacheable(odds=(1.0, 99.0))
    shelf.taught_items.add_to(unlikely)
    (kept,) = shelf.cache(item).values()
    assert kept.tolist() == pytest.approx([0.01, 0.99])
    shelf.start()
    assert (
        shelf.taught_items.add_to(scripted_models(fingerprint="one", indexes={})).indexes == {}
    )  # this classifier would say 9 to 1
    shelf.teach(category="carton")
    assert shelf.embedded_by(unlikely)[0] == 12
    assert unlikely.stages.classifier._engine.batch_sizes == [1]


def test_cache_keeps_the_two_newest_bundles(shelf):
    item = shelf.teach()
    one, two, three = cacheable(), cacheable("two", bundle="bundle-2"), cacheable("three", bundle="bundle-3")
    for models in (one, two, one, two):
        shelf.taught_items.add_to(models)
    assert {by for _, by in shelf.cache(item) if "class" in by} == {"classifier of one", "classifier of two"}
    assert len(shelf.cache(item)) == 4
    shelf.taught_items.add_to(three)
    assert {by for _, by in shelf.cache(item) if "class" in by} == {"classifier of two", "classifier of three"}
    shelf.start()
    assert shelf.embedded_by(two)[0] == 0  # this also drops what only the third one uses
    assert {by for _, by in shelf.cache(item) if "class" in by} == {"classifier of two"}
    assert len(shelf.cache(item)) == 2


def test_cache_of_dropped_pictures_is_deleted(shelf):
    item = shelf.teach()
    shelf.taught_items.add_to(cacheable())
    before = {picture for picture, _ in shelf.cache(item)}
    for shade in range(12):
        shelf.teach(colour=(20, 100 + 10 * shade, 20))
    shelf.taught_items.add_to(cacheable())
    after = {picture for picture, _ in shelf.cache(item)}
    assert (len(before), len(after), before & after) == (1, 12, set())


@pytest.mark.parametrize("spoil", ["flip", "cut", "foreign", "swap"])
def test_damaged_cache_is_computed_again(shelf, spoil):
    item, other = shelf.teach(), shelf.teach("Blue thing", colour=(20, 20, 200))
    _, bits = shelf.embedded_by(cacheable())
    path = shelf.folder / item.item_id / "made"
    whole = path.read_bytes()
    spoilt = {
        "flip": whole[:-1] + bytes([whole[-1] ^ 1]),
        "cut": whole[: len(whole) // 2],
        "foreign": b"finesight made 2" + whole[16:],
        "swap": (shelf.folder / other.item_id / "made").read_bytes(),  # intact, but of other pictures
    }
    path.write_bytes(spoilt[spoil])
    shelf.start()
    assert shelf.embedded_by(cacheable()) == (6, bits)
    assert shelf.counts.total["taught_made_lost reason=damaged"] == (spoil != "swap")
    assert path.read_bytes() == whole


def test_full_disk_is_counted_and_logged_once(shelf, monkeypatch, caplog):
    shelf.teach(), shelf.teach("Blue thing", colour=(20, 20, 200))
    _, bits = shelf.embedded_by(unknown_models())
    with monkeypatch.context() as full:

        def refuse(_descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr(os, "fsync", refuse)
        shelf.start()
        assert shelf.embedded_by(cacheable()) == (12, bits)
    assert shelf.counts.total["taught_made_lost reason=not_written"] == 2
    assert caplog.text.count("No space left on device; the next start computes its embeddings again") == 1
    shelf.start()
    assert shelf.embedded_by(cacheable()) == (12, bits)
    assert shelf.counts.total["taught_made_lost reason=not_written"] == 2


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("at", range(1, 12))
def test_power_cut_while_writing_the_cache_loses_only_the_cache(shelf, at, image):
    shelf.teach(), shelf.teach("Blue thing", colour=(20, 20, 200))
    _, bits = shelf.embedded_by(unknown_models())
    shelf.start()
    with PowerCut(at, image) as cut:
        assert shelf.embedded_by(cacheable())[1] == bits
    assert cut.happened == (at <= 10)
    shelf.start()
    count, after = shelf.embedded_by(cacheable())
    assert (count in (0, 6, 12), after) == (True, bits)
    assert shelf.counts.total["taught_made_lost reason=damaged"] == 0
    shelf.start()
    assert shelf.embedded_by(cacheable()) == (0, bits)


def with_silhouettes(models, by_item, mode="absolute", **localiser):
    """Models in which the silhouette is half the score; the localiser finds the red part of a picture."""
    rule = SilhouetteRule(mode=mode, weight=0.5)
    (embedder,) = set(models.stages.embedders.values())
    embedder.model = embedder.model.model_copy(update={"outline": {"carton": rule}})

    def find(batch):
        return [np.where(batch[:, None, ::2, ::2, 0] > 128, 8.0, -8.0)]

    stages = replace(models.stages, localiser=Localiser(localiser_model(), ScriptedEngine(find), **localiser))
    return replace(models, stages=stages, silhouettes={"carton": silhouettes_for(rule, by_item)})


def half_red():
    picture = np.full((64, 64, 3), (20, 20, 200), np.uint8)
    picture[:, :32] = (200, 20, 20)
    return picture


def test_taught_item_is_scored_by_its_silhouette(shelf):
    item = shelf.store.save("Half", None, [encode_image(half_red(), ".png")], AT)
    other = shelf.teach("Blue thing", colour=(20, 20, 200))  # has no silhouette, keeps its cosine
    near = FixedIndex([Hit("c1", "Oat flakes", 0.9)])
    everything = {"c1": np.full((1, SILHOUETTE_SIZE), 255, np.uint8)}
    bare = with_silhouettes(scripted_models(indexes={"carton": near}), everything)
    models = shelf.taught_items.add_to(bare)
    (found,) = models.silhouettes["carton"].taught.values()
    assert cells(found[0]).mean(axis=0).round().tolist() == [1.0] * 32 + [0.0] * 32
    assert list(models.silhouettes["carton"].taught) == [item.item_id]
    assert models.silhouettes["carton"].by_item is bare.silhouettes["carton"].by_item
    scores = {hit.item_id: hit.score for hit in recognise_image(models, half_red(), 8, Timings()).top}
    assert scores["c1"] == pytest.approx(0.5 * 0.9 + 0.5 * 0.5, abs=0.01)
    assert scores[item.item_id] == pytest.approx(1.0, abs=0.01)
    assert 0.7 < scores[other.item_id] < 0.9
    shelf.store.forget(item.item_id)
    assert shelf.taught_items.add_to(models).silhouettes["carton"].taught == {}


def test_silhouettes_are_cached_unaligned_and_aligned_for_use(shelf):
    item = shelf.teach()
    silhouettes = {}
    for mode in ("absolute", "aligned"):
        shelf.start()
        models = with_silhouettes(
            cacheable(), {"c1": np.full((1, SILHOUETTE_SIZE), 255, np.uint8)}, mode, fingerprint="localiser"
        )
        silhouettes[mode] = shelf.taught_items.add_to(models).silhouettes["carton"].taught[item.item_id]
    assert models.stages.localiser._engine.batch_sizes == []
    assert cells(silhouettes["absolute"][0]).sum() == 64 * 64
    assert cells(silhouettes["aligned"][0]).sum() == pytest.approx(32 * 32, rel=0.05)


def test_localiser_does_not_run_without_silhouette_weight(shelf):
    shelf.teach()
    models = with_silhouettes(unknown_models(), {})
    for embedder in models.stages.embedders.values():
        embedder.model = embedder.model.model_copy(update={"outline": {"carton": SilhouetteRule(weight=0.0)}})
    shelf.taught_items.add_to(models)
    assert models.stages.localiser._engine.batch_sizes == []
