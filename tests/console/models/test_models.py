"""What the console can recognise with, and what its models see."""

from __future__ import annotations

import json
import shutil

import pytest

from console.models.models import Models
from console.settings import Settings
from edge.bundle.layout import slot_folder
from edge.errors import ConsoleError
from edge.imaging import image
from edge.shipped.examples import shipped
from tests.console.models.small_pair import copy_pair, make_device, picture

DEMO = shipped("demo")
PROBES = json.loads((DEMO / "bundle" / "bundle.json").read_text())["probes"]


def probe(number: int = 0):
    """Return the picture of a probe, its category and item."""
    one = PROBES[number]
    return image.read_image(DEMO / "bundle" / one["path"]), one["category"], one["item_id"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return Models(Settings(tmp_path_factory.mktemp("console"), is_demo=True))


def test_look_finds_the_item_of_a_picture(demo):
    shown, category, item = probe()
    look = demo.look(shown)
    assert look.categories[0].name == category
    assert look.hits[category][0].item_id == item
    assert abs(float(look.vectors[category] @ look.vectors[category]) - 1.0) < 1e-3
    assert look.spaces[category] == demo.load().models.space_ids[category]


def test_known_category_runs_its_embedder_alone(demo):
    shown, category, item = probe(1)
    look = demo.look(shown, category=category)
    assert list(look.vectors) == [category]
    assert look.categories == ()
    assert look.hits[category][0].item_id == item


def test_general_category_stands_in_for_one_that_the_bundle_lacks(demo):
    shown, _, _ = probe()
    look = demo.look(shown, category="playing card")
    assert list(look.vectors) == [demo.load().general_category]
    assert look.hits == {}


def test_thumbnail_of_an_item_and_of_none(demo):
    _, category, item = probe()
    assert demo.thumbnail("", category, item)[:3] == b"\xff\xd8\xff"
    for wrong in ("nothing", "../../etc/passwd", "\x00", "\ud800", "x" * 5000):
        assert demo.thumbnail("", category, wrong) is None
        assert demo.thumbnail("", wrong, item) is None
    assert demo.thumbnail("nowhere", category, item) is None


def test_without_any_pair_the_error_says_what_to_do(tmp_path):
    models = Models(Settings(tmp_path))
    assert models.choices() == []
    with pytest.raises(ConsoleError, match="start with --device or --repo, or train one") as caught:
        models.load()
    assert caught.value.reason == "missing"


def test_device_comes_before_runs_and_the_demo(tmp_path):
    state = make_device(tmp_path / "state")
    settings = Settings(tmp_path / "data", device=state, is_demo=True)
    run = settings.runs / "7-cards"
    copy_pair(run / "work" / "bundle", run / "work" / "gallery")
    (settings.runs / "8-unfinished" / "work" / "bundle").mkdir(parents=True)
    models = Models(settings)
    assert [one.id for one in models.choices()] == ["device", "run/7-cards", "demo"]
    assert models.choice().bundle == slot_folder(state, "a")
    assert models.choice("run/7-cards").gallery == run / "work" / "gallery"
    for wrong in (
        "run/9",
        "run/8-unfinished",
        "run/..",
        "run/../runs/7-cards",
        "run/",
        "run/\0",
        "run/\ud800",
        "\ud800",
    ):
        with pytest.raises(ConsoleError, match="no such bundle any more"):
            models.choice(wrong)


def test_run_with_a_state_folder_is_listed(tmp_path):
    settings = Settings(tmp_path)
    make_device(settings.runs / "3" / "state")
    assert [one.id for one in Models(settings).choices()] == ["run/3"]


def test_damaged_gallery_is_one_clear_error_and_others_work(tmp_path):
    state = make_device(tmp_path / "state")
    models = Models(Settings(tmp_path / "data", device=state, is_demo=True))
    store = next(models.choice("device").gallery.glob("*.sqlite"))
    store.write_bytes(store.read_bytes()[:5000])
    with pytest.raises(ConsoleError, match=r"cannot be loaded.*choose another one"):
        models.look(picture(0), "device")
    assert models.look(probe()[0], "demo").hits


def test_replaced_bundle_is_loaded_again(tmp_path):
    state = make_device(tmp_path / "state")
    models = Models(Settings(tmp_path / "data", device=state))
    before = models.load()
    assert models.load() is before
    manifest = slot_folder(state, "a") / "bundle.json"
    fields = json.loads(manifest.read_text()) | {"bundle_id": "small-2"}
    manifest.with_suffix(".new").write_text(json.dumps(fields))
    manifest.with_suffix(".new").replace(manifest)
    assert models.load().models.bundle_id == "small-2"
    assert before.models.bundle_id == "small-1"


def test_two_pairs_are_loaded_at_most(tmp_path):
    state = make_device(tmp_path / "state")
    settings = Settings(tmp_path / "data", device=state)
    for run in ("1", "2"):
        copy_pair(settings.runs / run / "bundle", settings.runs / run / "gallery")
    models = Models(settings)
    first = models.load("device")
    models.load("run/1")
    assert models.load("device") is first
    models.load("run/2")
    assert models.load("device") is first
    assert len(models._loaded) == 2


def test_what_fails_while_files_are_replaced_is_done_with_the_new_ones(tmp_path):
    state = make_device(tmp_path / "state")
    models = Models(Settings(tmp_path / "data", device=state))
    used = []

    def act(pair):
        used.append(pair)
        if len(used) == 1:
            manifest = slot_folder(state, "a") / "bundle.json"
            manifest.rename(manifest.with_suffix(".old"))
            shutil.copyfile(manifest.with_suffix(".old"), manifest)
            raise ConsoleError("missing", "a file is gone")
        return pair

    assert models.run("", act) is used[1] is not used[0]
