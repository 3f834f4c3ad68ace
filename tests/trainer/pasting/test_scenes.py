"""Expansion: pasted scenes whose truth is exact, checkout levels, and files that the trainings read."""

from __future__ import annotations

import csv
import json
from collections import Counter

import numpy as np
import pytest

from dataset_formats.coco.rle import decode_rle
from edge.errors import TrainError
from edge.imaging.image import encode_image, read_image
from tests.trainer.toy import write_scenes
from trainer.cli import main
from trainer.data.dataset import read_samples, read_scenes
from trainer.data.pictures import load_pictures
from trainer.pasting.background import drawn_background, drawn_counter, photo_backgrounds
from trainer.pasting.checkout_scene import LEVELS
from trainer.pasting.cutouts import Cutout
from trainer.pasting.distort import DistortionProbabilities
from trainer.pasting.paste import Composer, SceneLayout
from trainer.pasting.scenes import SceneGenerator, expand

PLAIN = DistortionProbabilities(**dict.fromkeys(DistortionProbabilities.__dataclass_fields__, 0.0))
COLOURS = {"lime": (40, 220, 40), "plum": (160, 30, 160), "sky": (40, 90, 230)}


def square(item: str, size: int = 40) -> Cutout:
    picture = np.full((size, size, 4), 255, np.uint8)
    picture[..., :3] = COLOURS.get(item, (200, 120, 20))
    return Cutout(picture, "fruit" if item != "sky" else "air", item, item.title())


def grey(rng, width, height):
    return np.full((height, width, 3), 128, np.uint8)


def generator(**changes) -> SceneGenerator:
    cutouts = tuple(square(item) for item in COLOURS)
    return SceneGenerator(cutouts, drawn_background, **{"layout": SceneLayout(160, 120)} | changes)


def files_of(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_masks_and_boxes_match_the_pasted_colour():
    layout = SceneLayout(160, 120, (1, 1), (0.4, 0.5), clutter=0, fit=0.0)
    found = SceneGenerator((square("lime"),), grey, layout, PLAIN).scene(3, 0)
    (one,) = found.objects
    green = (found.image_rgb[..., 1].astype(int) - found.image_rgb[..., 0]) > 100
    assert (one.mask == green).mean() > 0.999
    y, x = np.nonzero(green)
    assert np.abs(np.subtract(one.box_px, (x.min(), y.min(), x.max() + 1, y.max() + 1))).max() <= 1


def test_covering_object_lowers_the_visible_fraction():
    composer = Composer(grey(None, 60, 60), np.random.default_rng(0), SceneLayout(60, 60, least_visible=0.0), PLAIN)
    composer.paste(square("lime"), 60)
    composer.paste(square("plum"), 30)
    lime, plum = composer.finish().objects
    assert plum.visible_fraction == pytest.approx(1.0)
    assert lime.visible_fraction == pytest.approx(1 - plum.mask.sum() / 3600, abs=0.01)
    assert not (lime.mask & plum.mask).any()


def test_objects_are_placed_where_they_hide_little():
    layout = SceneLayout(200, 200, (4, 4), (0.3, 0.3), clutter=0, least_visible=0.9)
    shown = [
        one.visible_fraction
        for number in range(12)
        for one in SceneGenerator((square("lime"),), grey, layout, PLAIN).scene(0, number).objects
    ]
    assert np.mean(np.array(shown) > 0.85) > 0.9


def test_same_seed_gives_the_same_bytes_for_any_worker_count(tmp_path):
    expand(generator(), tmp_path / "a", 3, seed=4)
    expand(generator(), tmp_path / "b", 3, seed=4, workers=2)
    expand(generator(), tmp_path / "c", 3, seed=5)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert files_of(tmp_path / "a") != files_of(tmp_path / "c")


def test_training_reads_the_written_scenes(tmp_path):
    done = expand(generator(), tmp_path, 20)
    scenes, names = read_scenes(done.scenes, None, ["train"], class_agnostic=False)
    assert len(scenes) == 18
    assert names == ["sky", "lime", "plum"]
    boxed = read_samples(done.scenes)
    assert {(s.category, s.item) for s in boxed} == {("fruit", "lime"), ("fruit", "plum"), ("air", "sky")}
    samples = read_samples(done.index)
    assert Counter(s.split for s in samples)["catalogue"] == 3
    assert {(s.category, s.item, s.label) for s in samples} == {
        ("fruit", "lime", "Lime"),
        ("fruit", "plum", "Plum"),
        ("air", "sky", "Sky"),
    }
    assert not load_pictures(samples, None).skipped
    tree = json.loads(done.scenes.read_text())
    for one in tree["annotations"]:
        mask = decode_rle(one["segmentation"])
        assert mask.sum() == one["area"]
        x, y, wide, high = one["bbox"]
        assert mask[y : y + high, x : x + wide].sum() == one["area"]
    assert read_image(tmp_path / "sheet.png").shape[1] > 1000


@pytest.mark.parametrize("name", ["easy", "medium", "hard"])
def test_checkout_has_the_kinds_and_pieces_of_its_level(name, tmp_path):
    cutouts = tuple(Cutout(square("x").picture, "goods", f"item-{number}", "") for number in range(12))
    made = SceneGenerator(cutouts, drawn_counter, SceneLayout(320, 240), PLAIN, name)
    tree = json.loads(expand(made, tmp_path, 6).scenes.read_text())
    level = LEVELS[name]
    for image in tree["images"]:
        listed = Counter(one["item_id"] for one in tree["annotations"] if one["image_id"] == image["id"])
        assert image["level"] == name
        assert image["counts"] == dict(listed)
        assert level.kinds[0] - 1 <= len(listed) <= level.kinds[1]
        assert 0.7 * level.pieces[0] <= sum(listed.values()) <= level.pieces[1]


def test_levels_have_the_averages_of_rpc():
    for name, kinds, pieces in (("easy", 3.81, 7.15), ("medium", 6.27, 12.30), ("hard", 8.87, 17.35)):
        assert np.mean(LEVELS[name].kinds) == pytest.approx(kinds, abs=0.3)
        assert np.mean(LEVELS[name].pieces) == pytest.approx(pieces, abs=0.3)


def test_labelled_photos_are_listed_among_the_scenes(tmp_path):
    real = write_scenes(tmp_path / "real", 3)
    done = expand(generator(), tmp_path / "out", 10, real=real, real_times=2)
    scenes, names = read_scenes(done.scenes, None, ["train"], class_agnostic=False)
    assert len(scenes) == 9 + 3 * 2
    assert names == ["sky", "lime", "plum", "box"]
    assert sum(scene.path.parent == (tmp_path / "real").resolve() for scene in scenes) == 6
    assert not load_pictures(scenes, None).skipped


def test_photo_keeps_its_mask_item_and_split(tmp_path):
    real = write_scenes(tmp_path / "real", 2)
    tree = json.loads(real.read_text())
    tree["annotations"][0] |= {"item_id": "red", "segmentation": [[1, 1, 9, 1, 9, 9]], "visible_fraction": 0.5}
    tree["images"][1]["split"] = "val"
    real.write_text(json.dumps(tree))
    written = json.loads(expand(generator(), tmp_path / "out", 1, real=real, real_times=3).scenes.read_text())
    assert [one.get("split") for one in written["images"][1:]] == ["train"] * 3 + ["val"]
    photo = next(one for one in written["annotations"] if one["image_id"] == written["images"][1]["id"])
    assert (photo["item_id"], photo["segmentation"]) == ("red", [[1, 1, 9, 1, 9, 9]])
    assert photo["visible_fraction"] == 0.5


def test_unreadable_background_photos_are_skipped_and_named(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_image(np.full((50, 80, 3), 77, np.uint8), ".png"))
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    background, skipped = photo_backgrounds(tmp_path)
    assert len(skipped) == 1
    assert "b.jpg" in skipped[0]
    assert (background(np.random.default_rng(0), 32, 24) == np.full((24, 32, 3), 77)).all()
    (tmp_path / "a.png").unlink()
    with pytest.raises(TrainError, match="holds no readable photo"):
        photo_backgrounds(tmp_path)


def test_expand_command_counts_results_and_skipped(tmp_path, capsys):
    for name in ("lime", "plum"):
        folder = tmp_path / "in/fruit" / name
        folder.mkdir(parents=True)
        image = np.full((60, 60, 3), 255, np.uint8)
        image[15:45, 15:45] = COLOURS[name]
        (folder / "0.png").write_bytes(encode_image(image, ".png"))
    (tmp_path / "in/fruit/plum/1.png").write_bytes(b"")
    command = ["expand", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--scenes", "3", "--size", "96x96"]
    assert main([*command, "--without", "tear,pillar_box"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["cutouts"], summary["skipped"], summary["images"]) == (2, 1, 3)
    rows = list(csv.DictReader((tmp_path / "out/index.csv").read_text().splitlines()))
    assert summary["crops"] == sum(row["path"].startswith("crops/") for row in rows) > 0


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--size", "96", "--size 96: give two numbers"),
        ("--share", "0.9-0.2", "the smaller one first"),
        ("--without", "rain", "'rain' is unknown"),
    ],
)
def test_wrong_option_gives_one_line(tmp_path, capsys, option, value, said):
    folder = tmp_path / "in/a/b"
    folder.mkdir(parents=True)
    image = np.full((40, 40, 3), 255, np.uint8)
    image[10:30, 10:30] = 0
    (folder / "0.png").write_bytes(encode_image(image, ".png"))
    assert main(["expand", str(tmp_path / "in"), "-o", str(tmp_path / "out"), option, value]) == 1
    assert said in capsys.readouterr().err
