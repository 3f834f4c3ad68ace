"""The command `edge-train`: recipes in, run folders out, one line for an error."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.trainer.toy import classifier_recipe, embedder_recipe, write_crops
from trainer.cli import main
from trainer.models.networks import load_model


def write_recipe(path, recipe) -> str:
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True)))
    return str(path)


def test_train_and_evaluate_from_the_command_line(tmp_path, capsys):
    index = write_crops(tmp_path / "data")
    coarse = write_recipe(tmp_path / "coarse.yaml", classifier_recipe(index, epochs=1))
    fine = write_recipe(
        tmp_path / "fine.yaml", embedder_recipe(index, epochs=1, one_per_category=True, heads=["class"])
    )
    assert main(["classifier", "-c", coarse, "-o", str(tmp_path / "c"), "--set", "width=8"]) == 0
    assert load_model(tmp_path / "c")[1].width == 8
    assert main(["embedder", "-c", fine, "-o", str(tmp_path / "e")]) == 0
    capsys.readouterr()
    command = ["evaluate", "--classifier", str(tmp_path / "c"), "--data", str(index), "--gallery", "train"]
    embedders = [word for name in ("red", "blue") for word in ("--embedder", str(tmp_path / "e" / name))]
    assert main([*command, *embedders, "-o", str(tmp_path / "report.json")]) == 0
    report = json.loads(capsys.readouterr().out)
    table = report["columns"]["runs, FP32"]
    assert {"red", "blue"} == set(table["categories"])
    written = json.loads((tmp_path / "report.json").read_text())
    assert written.pop("answers")
    assert report == written
    assert table["end_to_end"]["top_1"]["count"] == 8


def test_shrink_from_the_command_line(tmp_path, capsys):
    recipe = embedder_recipe(write_crops(tmp_path / "data"), epochs=1, shorter_dims=[4])
    assert main(["embedder", "-c", write_recipe(tmp_path / "r.yaml", recipe), "-o", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    command = ["shrink", str(tmp_path / "run"), "--heads", "class,outline", "--dim", "4", "-o", str(tmp_path / "cut")]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["heads"] == {"class": 4, "outline": 4}
    assert load_model(tmp_path / "cut")[1].categories == ["blue", "red"]
    assert main([*command[:2], "--dim", "5", "-o", str(tmp_path / "cut")]) == 1
    assert "dim is 5, expected one of" in capsys.readouterr().err


def test_error_is_one_line_and_exit_code_1(tmp_path, capsys):
    assert main(["detector", "-c", str(tmp_path / "absent.yaml"), "-o", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "absent.yaml: cannot read" in error


def test_recipe_of_another_kind_is_rejected(tmp_path, capsys):
    path = write_recipe(tmp_path / "r.yaml", classifier_recipe(tmp_path / "index.csv"))
    assert main(["embedder", "-c", path, "-o", str(tmp_path / "run")]) == 1
    assert "kind is 'classifier', expected 'embedder'" in capsys.readouterr().err


def test_usage_mistake_is_exit_code_2(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["paint"])
    assert "usage" in capsys.readouterr().err


def test_help_needs_no_training_libraries():
    import subprocess
    import sys

    code = "import sys; from trainer import cli; cli.build_parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
