"""The data card: its counts, and the faults that it names."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge.errors import TrainError
from edge.imaging.image import encode_image, read_image
from tests.dataset_formats import samples as layouts
from tests.dataset_formats.samples import picture
from tests.trainer.toy import (
    classifier_recipe,
    detector_recipe,
    embedder_recipe,
    write_crops,
    write_index,
    write_scenes,
)
from trainer.cli import main
from trainer.data.command import pair_sheet
from trainer.data.data_card import Findings, Row, alike_names, make_card, shared_folder, to_json, to_markdown
from trainer.data.duplicates import perceptual_hash
from trainer.recipe_parts import Split
from trainer.tasks.classifier import train_classifier
from trainer.tasks.detector import train_detector
from trainer.tasks.embedder import train_embedders


def faulty(root):
    """A set with a leak, a contradiction, a copy, a broken file, a scarce class and two names of one class."""
    rows = []
    for i, (item, split) in enumerate([("Red Plum", "train")] * 4 + [("red-plum", "train")] * 2 + [("fig", "train")]):
        picture(root / f"{i}.png", i)
        rows.append((f"{i}.png", split, "jar", item))
    for source, name, split, item in (
        ("0", "leak", "val", "Red Plum"),
        ("1", "lie", "train", "fig"),
        ("2", "copy", "train", "Red Plum"),
    ):
        shutil.copy(root / f"{source}.png", root / f"{name}.png")
        rows.append((f"{name}.png", split, "jar", item))
    (root / "broken.png").write_bytes((root / "3.png").read_bytes()[:200])
    rows.append(("broken.png", "train", "jar", "date"))
    write_index(root, rows)
    return root


def test_card_of_a_faulty_data_set_names_every_fault(tmp_path, capsys):
    root = tmp_path / "set"
    root.mkdir()
    assert main(["data", str(faulty(root)), "-o", str(tmp_path / "out")]) == 0
    printed = json.loads(capsys.readouterr().out)
    card = json.loads((tmp_path / "out/data_card.json").read_text())
    assert card["splits"]["train"] == {"pictures": 10, "objects": 10, "categories": 1, "items": 4}
    assert card["balance"]["train"]["items"] == {"jar/date": 1, "jar/fig": 2, "jar/red-plum": 2, "jar/Red Plum": 5}
    assert ["jar/date"] == card["one_picture"] == printed["one_picture"]
    assert card["alike_names"] == [["Red Plum", "red-plum"]]
    assert 1 == card["unreadable"]["count"] == printed["unreadable"]
    assert "broken.png" in card["unreadable"]["first"][0]
    pairs = {(p["a"], p["b"]): p for p in card["duplicates"]["first"]}
    assert {("0.png", "leak.png"), ("1.png", "lie.png"), ("2.png", "copy.png")} == set(pairs)
    assert card["duplicates"]["leaks"] == {"train | val": 1}
    assert tuple(card["duplicates"][key] for key in ("same_file", "contradictions", "groups")) == (3, 1, 3)
    assert pairs["1.png", "lie.png"]["contradicts"]
    page = (tmp_path / "out/data_card.md").read_text()
    assert "* 0.png = leak.png (same file) **leak**" in page
    assert "* Red Plum, red-plum" in page
    assert (tmp_path / "out/duplicates.png").stat().st_size > 1000


def test_card_lists_what_was_read_left_out_and_noticed(tmp_path, capsys):
    root = tmp_path / "set"
    for number in range(2):
        picture(root / f"{number}.png", number)
    rows = [("0.png", "train", "jar", "plum"), ("1.png", "train", "jar", "fig"), ("1.png", "train", "jar", "fig")]
    write_index(root, [*rows, *((f"gone-{number}.png", "val", "jar", "fig") for number in range(30))])
    assert main(["data", str(root), "-o", str(tmp_path / "out")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {key: printed[key] for key in ("read", "left_out", "noticed")} == {"read": 2, "left_out": 30, "noticed": 1}
    card = json.loads((tmp_path / "out/data_card.json").read_text())
    assert card["read"]["first"] == ["0.png: train: jar/plum", "1.png: train: jar/fig"]
    assert card["left_out"]["first"][29].startswith("index.csv: line 34: gone-29.png: not found in ")
    assert card["noticed"]["first"] == ["index.csv: rows that repeat another; read once: 1 (line 4)"]
    page = (tmp_path / "out/data_card.md").read_text()
    for title in ("## Read: 2", "## Left out by the reader: 30", "* … and 10 more", "## Noticed by the reader: 1"):
        assert title in page


def test_base_folder_is_removed_at_the_start_of_a_name_only(tmp_path):
    base = f"{tmp_path}/"
    rows = [Row(tmp_path / f"copy{tmp_path}/{name}.png", "train", ()) for name in "ab"]
    found = Findings("set", noticed=[f"{base}x.csv: {base}y.csv"])
    card = make_card([*rows, Row(tmp_path / "c.png", "train", ())], found)
    assert card["noticed"]["first"] == [f"x.csv: {base}y.csv"]


def test_relative_and_absolute_paths_share_no_folder():
    rows = [Row(Path("/data/a.png"), "train", ()), Row(Path("data/a.png"), "train", ())]
    assert shared_folder(rows) == ""
    assert shared_folder(rows[:1]) == "/data/"
    assert shared_folder([Row(Path("/a.png"), "train", ())]) == "/"
    assert shared_folder([Row(Path("a.png"), "train", ())]) == ""


def test_pair_whose_name_is_not_utf_8_can_be_drawn(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    picture(tmp_path / name)
    pair = {"a": name, "b": name, "near": "same file", "contradicts": False, "leak": True}
    assert pair_sheet([pair], tmp_path) is not None


def test_names_that_are_not_utf_8_or_have_line_ends_can_be_written():
    odd = os.fsdecode(b"caf\xe9")
    rows = [Row(Path(f"/data/{odd}.png"), "train", (("jar", odd),), perceptual_hash(np.zeros((9, 9, 3), np.uint8)))]
    card = make_card(rows, Findings("set", left_out=[f"{odd}: gone"], noticed=["one\nline"]))
    assert json.loads(to_json(card))["read"]["first"] == [f"{odd}.png: train: jar/{odd}"]
    page = to_markdown(card).decode()
    assert "* caf\\udce9: gone" in page
    assert "* one line" in page


def test_boxes_and_sizes_that_do_not_fit_are_counted(tmp_path, capsys):
    picture(tmp_path / "a.jpg")
    layouts.voc(tmp_path / "a.xml", ("ace", 4, 2, 24, 12), ("king", 40, 20, 90, 90), ("ten", 60, 2, 70, 12))
    picture(tmp_path / "b.jpg", 1, width=32, height=48)
    layouts.voc(tmp_path / "b.xml", ("ace", 4, 2, 24, 12))
    assert main(["data", str(tmp_path), "--layout", "voc", "-o", str(tmp_path / "out")]) == 0
    card = json.loads((tmp_path / "out/data_card.json").read_text())
    assert card["boxes_outside"]["first"] == ["a.jpg: king 40 20 90 90 in 48x32"]
    assert card["boxes_empty"]["first"] == ["a.jpg: ten 60 2 70 12 in 48x32"]
    assert card["oddities"] == {"of another size than annotated": {"count": 1, "first": ["b.jpg"]}}
    assert card["true_boxes"]
    assert card["splits"]["train"]["objects"] == 4


def test_names_that_differ_in_case_or_spacing_are_alike():
    assert alike_names(
        ["Golden Delicious", "golden_delicious", "golden-delicious", "Kiwi", "kiwi ", "Kiwano", "Kiwi"]
    ) == [["Golden Delicious", "golden-delicious", "golden_delicious"], ["Kiwi", "kiwi "]]


def test_data_command_previews_a_new_split(tmp_path, capsys):
    layouts.folders(tmp_path, ["jar/a", "jar/b", "jar/c", "jar/d"], 3)
    assert main(["data", str(tmp_path), "--split", "class_disjoint", "--val", "0.25"]) == 0
    assert {k: v["items"] for k, v in json.loads(capsys.readouterr().out)["splits"].items()} == {"train": 3, "val": 1}
    assert main(["data", str(tmp_path), "--split", "published"]) == 1
    assert "only cub, cars, sop, dogs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--test", "0.2"], "--test has no effect without --split"),
        (["--split", "published", "--test", "0.2"], "--test has no effect with --split published"),
        (["--split", "class_disjoint", "--together"], "--together has no effect with --split class_disjoint"),
        (["--split", "stratified", "--val", "1.5"], "--val: Input should be less than 1, found 1.5"),
    ],
)
def test_options_of_a_split_that_do_nothing_are_errors(tmp_path, capsys, options, message):
    assert main(["data", str(tmp_path), *options]) == 1
    assert message in capsys.readouterr().err


def test_together_keeps_near_duplicates_in_one_split(tmp_path, capsys):
    for number in range(12):  # two items, six bursts of five shots each
        for shot in range(5):
            path = tmp_path / f"jar/{'ab'[number % 2]}/{number}-{shot}.png"
            image = read_image(picture(path, number))
            path.write_bytes(encode_image(image[shot // 3 :], ".png"))
    printed = []
    for more in ([], ["--together"]):
        assert main(["data", str(tmp_path), "--split", "stratified", "--val", "0.34", *more]) == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert printed[0]["duplicates"]["leaks"]["train | val"] > 20
    assert printed[1]["duplicates"]["leaks"] == {}
    assert printed[1]["duplicates"]["groups"] == 12
    assert printed[1]["splits"]["val"]["pictures"] == 20


def test_training_writes_a_card_and_a_model_finds_duplicates(tmp_path, capsys, caplog):
    index = write_crops(tmp_path / "data")
    shutil.copy(tmp_path / "data/red-0-0.png", tmp_path / "data/red-0-5.png")  # of train and val
    train_classifier(classifier_recipe(index, epochs=1), tmp_path / "c")
    card = json.loads((tmp_path / "c/data_card.json").read_text())
    assert {split: counts["pictures"] for split, counts in card["splits"].items()} == {"train": 16, "val": 8}
    assert {"train | val"} == set(card["duplicates"]["leaks"])
    assert "near duplicates" in caplog.text
    train_embedders(embedder_recipe(index, epochs=1, heads=["class"], one_per_category=True), tmp_path / "e")
    assert (
        {"jar"}
        != {"red/red-0", "red/red-1"}
        == set(json.loads((tmp_path / "e/red/data_card.json").read_text())["balance"]["train"]["items"])
    )
    train_detector(detector_recipe(write_scenes(tmp_path / "scenes"), epochs=1), tmp_path / "d")
    assert json.loads((tmp_path / "d/data_card.json").read_text())["true_boxes"]
    capsys.readouterr()
    for model in ("c", "e/red"):
        assert main(["data", str(index), "--model", str(tmp_path / model), "--least", "0.9999"]) == 0
        pairs = json.loads(capsys.readouterr().out)["embedding_duplicates"]
        assert pairs["leaks"]["train | val"] >= 1
    assert main(["data", str(index), "--model", str(tmp_path / "d")]) == 1
    assert "this is a detector; give the run folder of a classifier or embedder" in capsys.readouterr().err


def test_file_in_two_splits_or_with_two_names_is_listed(tmp_path, capsys):
    picture(tmp_path / "a.png")
    rows = [("a.png", "train", "jar", "plum"), ("a.png", "val", "jar", "plum"), ("a.png", "train", "jar", "pear")]
    write_index(tmp_path, rows)
    assert main(["data", str(tmp_path)]) == 0
    pairs = json.loads(capsys.readouterr().out)["duplicates"]
    assert (pairs["pairs"], pairs["leaks"], pairs["contradictions"]) == (3, {"train | val": 2}, 2)


def test_recipe_trains_on_boxes_of_any_layout(tmp_path):
    for split in ("train", "val"):
        for number in range(4):
            picture(tmp_path / split / f"{number}.jpg", number + 9 * (split == "val"), 96, 64)
            layouts.voc(tmp_path / split / f"{number}.xml", (("ace", "king")[number % 2], 8, 8, 60, 50))
    recipe = detector_recipe(tmp_path, epochs=1)
    recipe = recipe.model_copy(update={"scenes": recipe.scenes.model_copy(update={"class_agnostic": False})})
    assert train_detector(recipe, tmp_path / "d").labels == ["ace", "king"]
    recipe = embedder_recipe(tmp_path, epochs=1, heads=["class"])
    assert train_embedders(recipe, tmp_path / "e")[0].categories == ["object"]
    assert json.loads((tmp_path / "e/data_card.json").read_text())["true_boxes"]


def test_class_disjoint_validation_is_matched_within_itself(tmp_path):
    layouts.folders(tmp_path / "set", [f"jar/{name}" for name in "abcdef"], 4)
    recipe = embedder_recipe(tmp_path / "set", heads=["class"])
    recipe = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"split": Split(how="class_disjoint", val=0.34)})}
    )
    card = train_embedders(recipe, tmp_path / "run")[0]
    assert (card.data["items"], card.data["train"], card.data["val"]) == (4, 16, 8)
    assert card.metrics["recall_1_val"] * 8 in range(9)
    assert "recall_1_train" not in card.metrics


def test_embedder_names_the_item_with_too_few_pictures(tmp_path):
    layouts.folders(tmp_path, ["jar/plum", "jar/pear"], 3)
    layouts.folders(tmp_path, ["jar/lone"], 1)
    with pytest.raises(
        TrainError, match=r"too few pictures of lone \(1\); each needs at least 2, because training uses pairs"
    ):
        train_embedders(embedder_recipe(tmp_path), tmp_path / "run")
