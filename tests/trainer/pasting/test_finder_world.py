"""The worlds of a finder that is trained on the user's own cut-outs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from edge.errors import TrainError
from edge.imaging.image import encode_cutout
from tests.trainer.toy import BACKBONE, optimiser
from trainer.cli import main
from trainer.pasting import finder_world
from trainer.pasting.background import drawn_background
from trainer.pasting.distort import DistortionProbabilities
from trainer.pasting.finder_world import compose_scenes, make_worlds, query_pictures, read_items
from trainer.pasting.paste import SceneLayout
from trainer.recipe import FinderRecipe

COLOURS = {"fruit/cherry": (200, 20, 20), "fruit/plum": (40, 20, 200), "tool/saw": (20, 180, 20)}
DISTORTIONS = ["affine", "tear", "lens_blur", "motion_blur", "lighting", "transparency", "segments"]
FRAME = ["noise", "pillar_box", "resolution", "exposure"]


@pytest.fixture
def things(tmp_path):
    """Two RGBA pictures of each of three things: a coloured rectangle."""
    for name, colour in COLOURS.items():
        folder = tmp_path / "things" / name
        folder.mkdir(parents=True)
        for number in range(2):
            picture = np.zeros((60, 50 + 10 * number, 4), np.uint8)
            picture[10:50, 10:40] = (*colour, 255)
            (folder / f"{number}.png").write_bytes(encode_cutout(picture))
    return tmp_path / "things"


def recipe(things, **world) -> FinderRecipe:
    fields = {"cutouts": things, "scenes": 6, "val_scenes": 2, "looks": 2} | world
    return FinderRecipe(
        kind="finder",
        world=fields,
        shape={"query_px": [32, 48], "parts": 3},
        backbone=BACKBONE | {"strides": [4, 8, 16]},
        input={"width": 160, "height": 96},
        channels=8,
        guide=4,
        width=4,
        optimiser=optimiser(1, 3),
    )


def test_masks_cover_the_things_and_every_scene_can_be_searched(things, tmp_path):
    train, val = make_worlds(recipe(things, without=DISTORTIONS + FRAME), tmp_path / "run")
    assert (len(train.scenes), len(val.scenes)) == (6, 2)
    assert set(train.cutouts) == set(COLOURS)
    for scene in [*train.scenes, *val.scenes]:
        assert scene.searchable_items
        for number, item in enumerate(scene.items, start=1):
            inside = scene.image_rgb[scene.owner == number].astype(int)
            assert inside.mean(axis=0).argmax() == np.argmax(COLOURS[item])


@pytest.mark.parametrize("name", DISTORTIONS + FRAME)
def test_each_listed_distortion_reaches_the_scenes(things, name):
    given = read_items(recipe(things).world)
    layout = SceneLayout(160, 96, (2, 2), (0.5, 0.6), clutter=0)
    none = DistortionProbabilities().without(DISTORTIONS + FRAME)
    scenes = [
        compose_scenes(given, drawn_background, layout, probabilities, 1, 4)[0].image_rgb
        for probabilities in (none, none, replace(none, **{name: 1.0}))
    ]
    assert np.array_equal(scenes[0], scenes[1])
    assert not np.array_equal(scenes[0], scenes[2])


def test_held_out_things_are_in_no_scene_and_no_query(things, tmp_path):
    worlds = make_worlds(recipe(things, held_out=["plum"]), tmp_path / "run")
    for world in worlds:
        assert set(world.cutouts) == {"fruit/cherry", "tool/saw"}
        assert {item for scene in world.scenes for item in scene.items} <= set(world.cutouts)


@pytest.mark.parametrize(
    ("held_out", "message"),
    [(["plumm"], r"\['plumm'\] are neither items nor categories"), (["fruit"], "cut-outs of 1 items are left")],
)
def test_useless_held_out_names_are_rejected(things, held_out, message):
    with pytest.raises(TrainError, match=message):
        read_items(recipe(things, held_out=held_out).world)


def test_a_world_without_own_scenes_is_rejected(things, tmp_path):
    with pytest.raises(TrainError, match=r"world.rendered is 1: that leaves no scene for your own things"):
        make_worlds(recipe(things, rendered=1.0), tmp_path / "run")


def test_queries_are_as_many_as_asked_for_and_keep_their_colour(things):
    pictures = query_pictures(read_items(recipe(things).world), 3, 0)
    for name, views in pictures.items():
        assert len(views) == 3
        for view in views:
            assert view[view[..., 3] > 250][:, :3].mean(axis=0).argmax() == np.argmax(COLOURS[name])


def test_scenes_are_cached_until_a_picture_changes(things, tmp_path, monkeypatch):
    given = recipe(things)
    before = make_worlds(given, tmp_path / "run")[0].scenes
    real, calls = finder_world.compose_scenes, []
    monkeypatch.setattr(finder_world, "compose_scenes", lambda *args: calls.append(args) or real(*args))
    again = make_worlds(given, tmp_path / "run")[0].scenes
    assert calls == []
    assert all(np.array_equal(a.image_rgb, b.image_rgb) for a, b in zip(before, again, strict=True))
    (things / "tool/saw/1.png").write_bytes((things / "fruit/plum/1.png").read_bytes())
    make_worlds(given, tmp_path / "run")
    assert len(calls) == 2


def test_rendered_share_of_the_scenes_is_added(things, tmp_path, monkeypatch):
    def rendered(given, folder):
        assert (given.world.scenes, given.world.val_scenes, folder.name) == (2, 1, "rendered")
        stand_in = recipe(things, scenes=2, val_scenes=1, held_out=["fruit/cherry"], seed=5)
        return make_worlds(stand_in, folder)

    monkeypatch.setattr(finder_world, "render_worlds", rendered)
    train, val = make_worlds(recipe(things, held_out=["saw"], rendered=1 / 3), tmp_path / "run")
    assert (len(train.scenes), len(val.scenes)) == (6, 2)
    assert set(train.cutouts) == set(COLOURS)
    assert {number for places in train.occurrences.values() for number, _ in places} - set(range(4))


def test_command_trains_on_things(things, tmp_path, capsys):
    given = recipe(things, scenes=3, val_scenes=1).model_dump(mode="json", exclude_none=True)
    (tmp_path / "recipe.yaml").write_text(json.dumps(given))
    assert main(["finder", "-c", str(tmp_path / "recipe.yaml"), "-o", str(tmp_path / "run")]) == 0
    assert "map50" in json.loads(capsys.readouterr().out)["metrics"]["finder"]
    card = json.loads((tmp_path / "run/model.json").read_text())
    assert card["data"]["source"] == "cut-outs"
    assert card["data"]["items"] == sorted(COLOURS)
