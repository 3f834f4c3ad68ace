"""Search in files: pictures, videos, and the ways to name a query."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from edge.cli import main
from edge.errors import CaptureError
from edge.finder.find_in_file import QueryFile, find, parse_queries, read_query
from edge.finder.finder import Finder
from edge.imaging.image import encode_image, read_image
from tests.demo_bundles import demo_manifest, write_variant
from tests.edge.finder.finder_samples import BLUE, RED, cell_colours, colour_finder, finder_model, scene_with
from tests.fakes_engine import ScriptedEngine


@pytest.fixture
def red(tmp_path):
    """A red square on white: the query."""
    picture = np.full((40, 40, 3), 255, np.uint8)
    picture[8:32, 8:32] = RED
    return write(tmp_path / "red.png", picture)


def write(path, picture):
    path.write_bytes(encode_image(picture, ".png"))
    return path


def test_picture_gives_boxes_heat_map_and_highlighted_picture(tmp_path, red):
    scene = write(tmp_path / "scene.png", scene_with((BLUE, 0, 0, 16), (RED, 24, 16, 40)))
    result = find(colour_finder(), [QueryFile(red)], scene, tmp_path / "out")
    (one,) = result["found"]
    assert one["box_px"] == pytest.approx([24, 16, 64, 56], abs=4)
    assert one["score"] > 0.6
    lit, heat = read_image(tmp_path / "out/found.png"), read_image(tmp_path / "out/heat.png")
    assert lit[45, 40].tolist() == list(RED)
    assert lit[4, 4].max() < 70  # the blue one is dimmed
    assert heat[40, 44].min() > 200
    assert heat[4, 4].max() == 0


def test_video_gives_boxes_of_every_frame_and_a_sheet(tmp_path, red):
    video = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 64))
    for number in range(4):
        squares = [(RED, 24, 24, 24)] if number >= 2 else []
        video.write(np.ascontiguousarray(scene_with(*squares)[..., ::-1]))
    video.release()
    result = find(colour_finder(), [QueryFile(red)], tmp_path / "v.mp4", tmp_path / "out")
    assert [len(frame["found"]) for frame in result["frames"]] == [0, 0, 1, 1]
    assert [frame["frame"] for frame in result["frames"]] == [0, 1, 2, 3]
    assert read_image(tmp_path / "out/found.png").shape[1] > 64


def test_query_may_have_a_box_or_a_mask(tmp_path, red):
    mask = np.zeros((40, 40, 3), np.uint8)
    mask[10:20, 10:30] = 255
    write(tmp_path / "mask.png", mask)
    boxed, masked, plain = parse_queries([f"{red}@10,10,20,30", f"{red}@{tmp_path / 'mask.png'}", str(red)])
    assert read_query(boxed)[1].sum() == 10 * 20
    assert read_query(masked)[1].sum() == 20 * 10
    assert read_query(plain)[1].sum() == 24 * 24


@pytest.mark.parametrize(
    ("name", "message"),
    [("red.png@1,2,3", "'1,2,3' is not a box; give x0,y0,x1,y1"), ("red.png@a,b,c,d", "'a,b,c,d' is not a box")],
)
def test_malformed_box_is_rejected(name, message):
    with pytest.raises(CaptureError, match=message):
        parse_queries([name])


def test_mask_of_another_size_is_rejected(tmp_path, red):
    write(tmp_path / "mask.png", np.full((10, 10, 3), 255, np.uint8))
    with pytest.raises(
        CaptureError, match="the mask has 10x10 pixels, 100 of them white; give one of the picture's size"
    ):
        read_query(QueryFile(red, mask=tmp_path / "mask.png"))


def test_missing_scene_is_rejected(tmp_path, red):
    with pytest.raises(CaptureError, match=r"gone\.mp4: there is no such file; give a picture or a video"):
        find(colour_finder(), [QueryFile(red)], tmp_path / "gone.mp4", tmp_path)


def test_bundle_without_a_finder_is_rejected(tmp_path, capsys):
    bundle = write_variant(tmp_path / "shop", demo_manifest() | {"finder": None})
    assert main(["find", "red.png", "scene.png", "--bundle", str(bundle)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"edge: {bundle}: holds no finder; train one with edge-train finder -c configs/train/")
    assert said.endswith(f"add it with edge-quantize pack --base {bundle} --finder RUN\n")


@pytest.mark.parametrize(("query", "scene", "at"), [
    ("18.png", "scene-01.jpg", (293, 127)), ("31.png", "scene-00.jpg", (189, 33)),
])  # fmt: skip
def test_demo_bundle_finds_an_item_in_a_scene(tmp_path, capsys, query, scene, at):
    probes = "demo/bundle/probes"
    assert main(["find", f"{probes}/{query}", f"{probes}/{scene}", "--bundle", "demo/bundle", "-o", str(tmp_path)]) == 0
    x0, y0, x1, y1 = json.loads(capsys.readouterr().out)["found"][0]["box_px"]
    assert x0 < at[0] < x1
    assert y0 < at[1] < y1


def test_found_object_takes_the_label_of_known_pictures(tmp_path, red):
    for label, colour in (("cherry", RED), ("plum", BLUE)):
        (tmp_path / "known" / label).mkdir(parents=True)
        write(tmp_path / "known" / label / "one.png", scene_with((colour, 8, 8, 40)))
    scene = write(tmp_path / "scene.png", scene_with((BLUE, 0, 0, 16), (RED, 24, 16, 40)))
    (one,) = find(colour_finder(), [QueryFile(red)], scene, tmp_path / "out", tmp_path / "known")["found"]
    assert (one["label"], one["label_similarity"] > 0.9) == ("cherry", True)


def test_known_things_may_lie_in_categories_with_masks(tmp_path, red, caplog):
    """As cut-outs for a finder do; a damaged picture is named and skipped."""
    folder = tmp_path / "known/fruit/cherry"
    folder.mkdir(parents=True)
    write(folder / "one.png", scene_with((BLUE, 0, 0, 64), (RED, 8, 8, 40)))
    write(folder / "one.mask.png", scene_with(((255, 255, 255), 8, 8, 40), size=64) // 255 * 255)
    (folder / "two.jpg").write_bytes(b"no picture")
    scene = write(tmp_path / "scene.png", scene_with((RED, 24, 16, 40)))
    (one,) = find(colour_finder(), [QueryFile(red)], scene, tmp_path / "out", tmp_path / "known")["found"]
    assert (one["label"], one["label_similarity"] > 0.9) == ("cherry", True)
    assert "two.jpg" in caplog.text


def test_known_folder_of_damaged_pictures_is_rejected(tmp_path, red):
    (tmp_path / "known/cherry").mkdir(parents=True)
    (tmp_path / "known/cherry/one.jpg").write_bytes(b"no picture")
    with pytest.raises(CaptureError, match=r"cherry/one\.jpg"):
        find(colour_finder(), [QueryFile(red)], red, tmp_path / "out", tmp_path / "known")


def test_labels_cost_no_further_run_of_the_trunk(tmp_path, red):
    (tmp_path / "known/cherry").mkdir(parents=True)
    write(tmp_path / "known/cherry/one.png", scene_with((RED, 8, 8, 40)))
    scene = write(tmp_path / "scene.png", scene_with((RED, 24, 16, 40)))
    runs = []
    for known in (None, tmp_path / "known"):
        trunk = ScriptedEngine(cell_colours)
        finder = Finder(finder_model(), trunk, colour_finder()._conversion)
        assert find(finder, [QueryFile(red)], scene, tmp_path / "out", known)["found"]
        runs.append(len(trunk.batch_sizes))
    assert runs[1] == runs[0] + 1  # for the known picture itself


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_opaque_is_the_object(tmp_path, dtype):
    most = np.iinfo(dtype).max
    picture = np.zeros((40, 40, 4), dtype)
    picture[..., :3] = np.random.default_rng(0).integers(0, most, (40, 40, 3))  # no plain background
    picture[8:32, 10:30, 3] = most
    cv2.imwrite(str(tmp_path / "mug.png"), picture)
    assert read_query(QueryFile(tmp_path / "mug.png"))[1].sum() == 24 * 20
    picture[..., 3] = most
    cv2.imwrite(str(tmp_path / "mug.png"), picture)
    assert read_query(QueryFile(tmp_path / "mug.png"))[1].sum() == 40 * 40


def test_folder_without_labels_is_rejected(tmp_path, red):
    with pytest.raises(CaptureError, match="holds no pictures in folders of labels; give LABEL/PICTURE"):
        find(colour_finder(), [QueryFile(red)], red, tmp_path / "out", tmp_path)
