"""What was taught, searched beside the gallery."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pytest

from edge.gallery.rerank import silhouettes_for
from edge.imaging.image import encode_image
from edge.imaging.silhouette import SIZE as OUTLINE_SIZE
from edge.imaging.silhouette import cells
from edge.inference.stages import Localiser
from edge.kiosk.taught_embeddings import unpack
from edge.kiosk.taught_items import TaughtItems, WithTaught
from edge.kiosk.taught_store import TaughtStore
from edge.manifest import SilhouetteRule
from edge.recognition.recognise_image import recognise_image
from edge.telemetry.timing import Timings
from edge.types import Hit
from tests.edge.finder.finder_samples import colour_finder, scene_with
from tests.edge.kiosk.kiosk_samples import FAR, direction, jpeg, scripted_models
from tests.fakes_engine import FakeCounts, FixedIndex, ScriptedEngine, localiser_model
from tests.power_cut import PowerCut

AT = "2026-01-01T00:00:00Z"
RED = np.full((64, 64, 3), (200, 20, 20), np.uint8)


class Shelf:
    """An overlay and everything around it."""

    def __init__(self, folder):
        self.held: set[str] = set()
        self.folder = folder
        self.counts = FakeCounts()
        self.start()

    def start(self):
        """As after a restart."""
        self.store = TaughtStore(self.folder, 10)
        self.overlay = TaughtItems(self.store, lambda _generation, _category, item: item in self.held, self.counts)

    def embedded_by(self, models):
        """How many pictures the embedder of a pair is shown when it is dressed, and what bits are searched then."""
        engine = models.stages.embedders["carton"]._engine
        before = len(engine.batch_sizes)
        rows = self.overlay.over(models).indexes["carton"].taught._unit_rows
        return len(engine.batch_sizes) - before, rows.tobytes()

    def made(self, item):
        """What is kept of a thing."""
        data = self.store.made(item)
        return {} if data is None else unpack(data, "made")

    def teach(self, label="Red thing", category=None, colour=(200, 20, 20)):
        return self.store.keep(label, category, [jpeg(*colour)], AT)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


def unknown_models(**changes):
    return scripted_models(indexes={"carton": FixedIndex(FAR)}, **changes)


def test_what_was_taught_is_found_at_once_and_what_was_not_is_not(shelf):
    assert recognise_image(unknown_models(), RED, 8, Timings()).match is None
    item = shelf.teach()
    shelf.teach("Blue thing", colour=(20, 20, 200))
    decision = recognise_image(shelf.overlay.over(unknown_models()), RED, 8, Timings())
    assert (decision.match.item_id, decision.match.label) == (item.item_id, "Red thing")
    assert decision.match.score > 0.99
    assert {hit.label for hit in decision.top} == {"Red thing", "Blue thing", "Oat flakes"}


def test_nearest_of_gallery_and_overlay_come_best_first():
    both = WithTaught(FixedIndex([Hit("a", "A", 0.9), Hit("b", "B", 0.1)]), FixedIndex([Hit("t", "T", 0.5)]))
    assert [hit.item_id for hit in both.search(np.zeros((1, 4), np.float32), 2)[0]] == ["a", "t"]


def test_a_category_without_a_gallery_is_searched_once_something_was_taught(shelf):
    shelf.teach()
    dressed = shelf.overlay.over(scripted_models(indexes={}))
    assert recognise_image(dressed, RED, 8, Timings()).match.label == "Red thing"


def test_a_category_that_was_named_is_searched_however_unlikely(shelf):
    item = shelf.teach(category="carton")
    dressed = shelf.overlay.over(unknown_models(odds=(1.0, 99.0)))
    (hits,) = dressed.indexes["carton"].search(direction(RED[None])[0], 1)
    assert hits[0].item_id == item.item_id


def test_what_is_forgotten_is_not_found_when_it_is_dressed_anew(shelf):
    item = shelf.teach()
    dressed = shelf.overlay.over(unknown_models())
    shelf.store.forget(item.item_id)
    assert recognise_image(shelf.overlay.over(dressed), RED, 8, Timings()).match is None


def test_pictures_are_embedded_once_for_a_bundle_and_anew_for_the_next(shelf):
    """The next bundle's space is another: the same picture, another vector of another length."""
    shelf.teach()
    first = unknown_models()
    engine = first.stages.embedders["carton"]._engine
    shelf.overlay.over(shelf.overlay.over(first))
    assert engine.batch_sizes == [1] * 6  # as it is, and in five other views

    def wide(batch):
        rows = direction(batch)[0]
        return [np.concatenate([rows[:, ::-1], np.zeros((len(rows), 4), np.float32)], axis=1)]

    head = [{"name": "class", "dim": 8}]
    second = unknown_models(bundle="bundle-2", embed=wide, heads=head, space_id="1" * 64)
    assert recognise_image(shelf.overlay.over(second), RED, 8, Timings()).match.label == "Red thing"
    shelf.overlay.over(first)
    assert engine.batch_sizes == [1] * 6  # as it is, and in five other views


def test_a_thing_retires_when_the_gallery_brings_its_id_and_returns_with_a_roll_back(shelf):
    item = shelf.teach()
    shelf.held.add(item.item_id)
    dressed = shelf.overlay.over(unknown_models(gallery="gallery-2"))
    assert recognise_image(dressed, RED, 8, Timings()).match is None
    assert shelf.overlay.retired == {item.item_id: "same_id"}
    shelf.overlay.over(dressed)
    assert shelf.counts.total["taught_retired reason=same_id"] == 1
    shelf.held.clear()
    assert recognise_image(shelf.overlay.over(unknown_models()), RED, 8, Timings()).match.item_id == item.item_id


@pytest.mark.parametrize(
    ("label", "score", "retires"), [("red THING", 0.8, True), ("red THING", 0.6, False), ("Red jam", 0.99, False)]
)
def test_a_thing_retires_for_an_item_of_its_name_that_is_near_enough(shelf, label, score, retires):
    item = shelf.teach()
    shelf.overlay.over(scripted_models(indexes={"carton": FixedIndex([Hit("c9", label, score)])}))
    assert (item.item_id in shelf.overlay.retired) == retires


def test_a_picture_that_cannot_be_used_is_counted_and_the_others_are_searched(shelf):
    shelf.store.keep("Broken", None, [b"no picture"], AT)
    shelf.teach()
    dressed = shelf.overlay.over(unknown_models())
    assert recognise_image(dressed, RED, 8, Timings()).match.label == "Red thing"
    assert shelf.counts.total["taught_unusable"] == 1


def test_a_pair_with_a_finder_looks_for_what_was_taught_by_its_newest_pictures(shelf):
    """JPEG and scaling leave the colour near enough for the finder of colours."""
    shelf.teach()
    item = shelf.teach(colour=(20, 20, 200))
    shelf.teach(colour=(20, 200, 20))
    (one,) = shelf.overlay.over(replace(unknown_models(), finder=colour_finder())).taught_queries
    assert (one.item_id, len(one.queries)) == (item.item_id, 2)
    finder = colour_finder()
    view = finder.scene_features(scene_with(((20, 20, 200), 16, 16, 24)), Timings())
    assert finder.heat_map(view, one.queries[:1], Timings())[6:9, 6:9].min() > 0.9
    assert finder.heat_map(view, one.queries[1:], Timings()).max() < 0.5
    assert shelf.overlay.over(unknown_models()).taught_queries == ()


def keeping(fingerprint="one", **changes):
    """A pair whose numbers may be kept."""
    return unknown_models(fingerprint=fingerprint, **changes)


def test_a_restart_embeds_nothing_anew_and_searches_the_same_bits(shelf):
    item, _ = shelf.teach(), shelf.teach("Blue thing", colour=(20, 20, 200))
    _, bits = shelf.embedded_by(unknown_models())
    shelf.start()
    assert shelf.embedded_by(keeping()) == (12, bits)
    assert {numbers.shape for numbers in shelf.made(item).values()} == {(2,), (6, 4)}
    shelf.start()
    models = keeping()
    assert shelf.embedded_by(models) == (0, bits)
    assert models.stages.classifier._engine.batch_sizes == []
    assert recognise_image(shelf.overlay.over(models), RED, 8, Timings()).match.label == "Red thing"


def test_a_lesson_embeds_only_the_new_pictures(shelf):
    shelf.teach()
    models = keeping()
    assert shelf.embedded_by(models)[0] == 6
    shelf.teach(colour=(160, 20, 20))
    count, bits = shelf.embedded_by(models)
    assert count == 6
    shelf.start()
    assert shelf.embedded_by(unknown_models()) == (12, bits)


def test_the_classifiers_answer_is_kept_and_what_people_named_is_embedded_beside_it(shelf):
    item = shelf.teach()
    unlikely = keeping(odds=(1.0, 99.0))
    shelf.overlay.over(unlikely)
    (kept,) = shelf.made(item).values()
    assert kept.tolist() == pytest.approx([0.01, 0.99])
    shelf.start()
    assert shelf.overlay.over(scripted_models(fingerprint="one", indexes={})).indexes == {}  # would itself say 9 to 1
    shelf.teach(category="carton")
    assert shelf.embedded_by(unlikely)[0] == 12
    assert unlikely.stages.classifier._engine.batch_sizes == [1]


def test_another_model_form_or_space_is_embedded_anew_and_what_nobody_uses_goes(shelf):
    item = shelf.teach()
    one, two, three = keeping(), keeping("two", bundle="bundle-2"), keeping("three", bundle="bundle-3")
    for models in (one, two, one, two):
        shelf.overlay.over(models)
    assert {by for _, by in shelf.made(item) if "class" in by} == {"classifier of one", "classifier of two"}
    assert len(shelf.made(item)) == 4
    shelf.overlay.over(three)
    assert {by for _, by in shelf.made(item) if "class" in by} == {"classifier of two", "classifier of three"}
    shelf.start()
    assert shelf.embedded_by(two)[0] == 0  # and with it what only the third uses goes
    assert {by for _, by in shelf.made(item) if "class" in by} == {"classifier of two"}
    assert len(shelf.made(item)) == 2


def test_what_was_made_of_pictures_that_are_gone_goes(shelf):
    item = shelf.teach()
    shelf.overlay.over(keeping())
    before = {picture for picture, _ in shelf.made(item)}
    for shade in range(12):
        shelf.teach(colour=(20, 100 + 10 * shade, 20))
    shelf.overlay.over(keeping())
    after = {picture for picture, _ in shelf.made(item)}
    assert (len(before), len(after), before & after) == (1, 12, set())


@pytest.mark.parametrize("spoil", ["flip", "cut", "foreign", "swap"])
def test_what_is_damaged_or_foreign_is_made_anew_with_the_same_bits(shelf, spoil):
    item, other = shelf.teach(), shelf.teach("Blue thing", colour=(20, 20, 200))
    _, bits = shelf.embedded_by(keeping())
    path = shelf.folder / item.item_id / "made"
    whole = path.read_bytes()
    spoilt = {
        "flip": whole[:-1] + bytes([whole[-1] ^ 1]),
        "cut": whole[: len(whole) // 2],
        "foreign": b"finesight made 2" + whole[16:],
        "swap": (shelf.folder / other.item_id / "made").read_bytes(),  # whole, but of other pictures
    }
    path.write_bytes(spoilt[spoil])
    shelf.start()
    assert shelf.embedded_by(keeping()) == (6, bits)
    assert shelf.counts.total["taught_made_lost reason=damaged"] == (spoil != "swap")
    assert path.read_bytes() == whole


def test_a_disk_that_refuses_is_counted_and_stops_nothing(shelf, monkeypatch, caplog):
    shelf.teach(), shelf.teach("Blue thing", colour=(20, 20, 200))
    _, bits = shelf.embedded_by(unknown_models())
    with monkeypatch.context() as full:

        def refuse(_descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr(os, "fsync", refuse)
        shelf.start()
        assert shelf.embedded_by(keeping()) == (12, bits)
    assert shelf.counts.total["taught_made_lost reason=not_written"] == 2
    assert caplog.text.count("No space left on device; the next start makes it anew") == 1
    shelf.start()
    assert shelf.embedded_by(keeping()) == (12, bits)
    assert shelf.counts.total["taught_made_lost reason=not_written"] == 2


@pytest.mark.parametrize("at", range(1, 12))
def test_a_power_cut_while_what_was_made_is_written_loses_at_most_that(shelf, at):
    shelf.teach(), shelf.teach("Blue thing", colour=(20, 20, 200))
    _, bits = shelf.embedded_by(unknown_models())
    shelf.start()
    with PowerCut(at) as cut:
        assert shelf.embedded_by(keeping())[1] == bits
    assert cut.happened == (at <= 10)
    shelf.start()
    count, after = shelf.embedded_by(keeping())
    assert (count in (0, 6, 12), after) == (True, bits)
    assert shelf.counts.total["taught_made_lost reason=damaged"] == 0
    shelf.start()
    assert shelf.embedded_by(keeping()) == (0, bits)


def with_outlines(models, by_item, mode="absolute", **localiser):
    """A pair in which the outline is half the score; its localiser finds the red half of a picture."""
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


def test_a_taught_thing_competes_by_its_outline_as_an_item_of_the_gallery_does(shelf):
    item = shelf.store.keep("Half", None, [encode_image(half_red(), ".png")], AT)
    other = shelf.teach("Blue thing", colour=(20, 20, 200))  # shows no outline, keeps its cosine
    near = FixedIndex([Hit("c1", "Oat flakes", 0.9)])
    everything = {"c1": np.full((1, OUTLINE_SIZE), 255, np.uint8)}
    bare = with_outlines(scripted_models(indexes={"carton": near}), everything)
    dressed = shelf.overlay.over(bare)
    (found,) = dressed.silhouettes["carton"].taught.values()
    assert cells(found[0]).mean(axis=0).round().tolist() == [1.0] * 32 + [0.0] * 32
    assert list(dressed.silhouettes["carton"].taught) == [item.item_id]
    assert dressed.silhouettes["carton"].by_item is bare.silhouettes["carton"].by_item
    scores = {hit.item_id: hit.score for hit in recognise_image(dressed, half_red(), 8, Timings()).top}
    assert scores["c1"] == pytest.approx(0.5 * 0.9 + 0.5 * 0.5, abs=0.01)
    assert scores[item.item_id] == pytest.approx(1.0, abs=0.01)
    assert 0.7 < scores[other.item_id] < 0.9
    shelf.store.forget(item.item_id)
    assert shelf.overlay.over(dressed).silhouettes["carton"].taught == {}


def test_outlines_of_what_was_taught_are_kept_and_aligned_like_those_of_the_gallery(shelf):
    item = shelf.teach()
    outlines = {}
    for mode in ("absolute", "aligned"):
        shelf.start()
        models = with_outlines(keeping(), {"c1": np.full((1, OUTLINE_SIZE), 255, np.uint8)}, mode, fingerprint="localiser")
        outlines[mode] = shelf.overlay.over(models).silhouettes["carton"].taught[item.item_id]
    assert models.stages.localiser._engine.batch_sizes == []
    assert cells(outlines["absolute"][0]).sum() == 64 * 64
    assert cells(outlines["aligned"][0]).sum() == pytest.approx(32 * 32, rel=0.05)


def test_where_outlines_do_not_count_none_is_looked_for(shelf):
    shelf.teach()
    models = with_outlines(unknown_models(), {})
    for embedder in models.stages.embedders.values():
        embedder.model = embedder.model.model_copy(update={"outline": {"carton": SilhouetteRule(weight=0.0)}})
    shelf.overlay.over(models)
    assert models.stages.localiser._engine.batch_sizes == []
