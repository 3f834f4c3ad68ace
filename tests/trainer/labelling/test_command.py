"""The labelling loop as a person runs it: propose, edit, import, train, propose again."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from edge.errors import TrainError
from tests.trainer.toy import detector_recipe, write_scenes
from trainer.cli import main
from trainer.labelling import command as label_command
from trainer.models.networks import load_model
from trainer.tasks.detector import train_detector


@pytest.fixture
def pictures(tmp_path):
    """Twelve pictures, and the JSON of their true boxes."""
    truth = write_scenes(tmp_path / "pictures")
    tree = json.loads(truth.read_text())
    for image in tree["images"]:
        image["file_name"] = f"pictures/{image['file_name']}"
    truth.unlink()
    (tmp_path / "truth.json").write_text(json.dumps(tree))
    return tmp_path / "truth.json"


def run(capsys, *arguments) -> dict:
    code = main(["label", *map(str, arguments)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


def test_propose_edit_train_and_propose_again(tmp_path, pictures, capsys):
    folder, out = tmp_path / "pictures", tmp_path / "labels"
    (folder / "broken.png").write_bytes(b"no picture")
    report = run(capsys, folder, "-o", out, "--batch", 5)
    assert (report["pictures"], report["unreadable"], report["waiting"], report["to_edit"]) == (12, 1, 12, 5)
    assert report["boxes"] >= 10
    assert (out / "sheet-000.jpg").stat().st_size > 10_000
    edited = json.loads((out / "next.json").read_text())
    truth = json.loads(pictures.read_text())
    boxes = {
        str(image["id"]): entry["bbox"] for image, entry in zip(truth["images"], truth["annotations"], strict=True)
    }
    edited["annotations"] = [
        {
            "image_id": image["id"],
            "category_id": 1,
            "bbox": boxes[image["file_name"].split("/")[-1].removesuffix(".png")],
        }
        for image in edited["images"]
    ]
    (tmp_path / "edited.json").write_text(json.dumps(edited))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(detector_recipe(pictures, epochs=2).model_dump(mode="json", exclude_none=True)))
    report = run(capsys, folder, "-o", out, "--import", tmp_path / "edited.json", "--train", recipe, "--batch", 3)
    assert report["edits"]["pictures"] == 5
    assert report["edits"]["untouched"] >= 4
    assert (report["confirmed"], report["pictures"], report["waiting"], report["to_edit"]) == (5, 7, 7, 3)
    assert (out / "detector-5/model.json").is_file()
    labels = json.loads((out / "labels.json").read_text())
    human = {image["id"] for image in labels["images"] if image["state"] == "human"}
    assert {entry["source"] for entry in labels["annotations"] if entry["image_id"] in human} == {"human"}
    assert {image["split"] for image in labels["images"]} == {"train", "val", "unlabelled"}
    still = ["--set", "optimiser.lr=1.0e-12", "--set", "optimiser.weight_decay=0.0", "--set", "optimiser.epochs=1"]
    run(capsys, "-o", out, "--import", out / "next.json", "--train", recipe, "--detector", out / "detector-5", *still)
    first, second = (load_model(out / f"detector-{count}")[0] for count in (5, 8))
    torch.testing.assert_close(list(second.parameters()), list(first.parameters()))


def test_only_a_detector_trained_here_on_enough_pictures_acts_alone(tmp_path, pictures, capsys, monkeypatch):
    folder, out = tmp_path / "pictures", tmp_path / "labels"
    train_detector(detector_recipe(pictures, epochs=1), tmp_path / "elsewhere")
    train_detector(detector_recipe(pictures, epochs=1), out / "detector-12")
    used_cues = []
    propose = label_command.propose_all
    monkeypatch.setattr(
        label_command, "propose_all", lambda *given: used_cues.append(given[2].use_cues) or propose(*given)
    )
    for enough, run_folder in ((24, tmp_path / "elsewhere"), (24, out / "detector-12"), (25, out / "detector-12")):
        monkeypatch.setattr(label_command, "DETECTOR_ALONE_FROM", enough)
        run(capsys, folder, "-o", out, "--detector", run_folder)
    assert used_cues == [True, False, True]


def test_subfolders_are_classes_and_labels_may_lie_among_them(tmp_path, capsys):
    for name in ("red", "blue"):
        write_scenes(tmp_path / "all" / name, 2)
    out = tmp_path / "all/labels"
    for _ in range(2):  # its own contact sheets are not pictures to label
        assert run(capsys, tmp_path / "all", "-o", out)["pictures"] == 4
    labels = json.loads((out / "labels.json").read_text())
    assert {entry["name"] for entry in labels["categories"]} == {"blue", "object", "red"}
    assert {image["file_name"].split("/")[1] for image in labels["images"]} == {"red", "blue"}


def test_detector_of_another_architecture_is_rejected_as_start(tmp_path, pictures):
    recipe = detector_recipe(pictures, epochs=1)
    train_detector(recipe, tmp_path / "run")
    other = recipe.model_copy(update={"width": 24, "init_from": tmp_path / "run"})
    with pytest.raises(TrainError, match="differs from the recipe in width"):
        train_detector(other, tmp_path / "other")


def test_training_needs_confirmed_pictures(tmp_path, pictures, capsys):
    assert main(["label", "-o", str(tmp_path / "labels"), "--train", "r.yaml"]) == 1
    assert "0 pictures are confirmed; training needs at least five" in capsys.readouterr().err
    assert main(["label", str(tmp_path / "labels"), "-o", str(tmp_path / "labels")]) == 1
    assert "holds no picture" in capsys.readouterr().err
