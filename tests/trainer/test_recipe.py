"""Recipes: typed values, and errors that name file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import TrainError
from trainer.recipe import load_recipe

SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "train").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_load(path):
    published_embedders = {"hdcl", "mffg", "scda"}
    assert load_recipe(path).kind in ("embedder" if path.stem in published_embedders else path.stem)


def test_every_kind_has_a_shipped_recipe():
    assert {"detector", "classifier", "embedder", "localiser", "finder"} <= {path.stem for path in SHIPPED}


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: classifier\ndata: {index: a.csv}\nwdith: 3", r"recipe.yaml: wdith: Extra inputs"),
        ("kind: classifier\ndata: {index: a.csv}\noptimiser: {lr: -1}", r"recipe.yaml: optimiser.lr: .*found -1"),
        ("kind: classifier", r"recipe.yaml: data: Field required"),
        ("kind: poet", r"recipe.yaml: .*'poet'"),
        ("kind: finder\nshape: {kernal: 3}", r"recipe.yaml: shape.kernal: Extra inputs"),
        ("kind: embedder\ndata: {index: a.csv}\nheads: [local, outline]", r"heads are .*give class once"),
        (
            "kind: embedder\ndata: {index: a.csv}\nheads: [class, class]",
            r"give class once, and each other head at most once",
        ),
        ("kind: embedder\ndata: {index: a.csv}\ndim: 64\nshorter_dims: [16, 64]", r"\[64\] are not less than dim 64"),
        ("kind: embedder\ndata: {index: a.csv}\nhdcl_hardest: 1", r"hdcl_hardest: .*greater than or equal to 2"),
        ("kind: embedder\ndata: {index: a.csv}\npeer: triplet", r"peer: no longer a recipe key; write `loss:`"),
        ("kind: embedder\ndata: {index: a.csv}\ndim: 0\nheads: [class, local]", r"dim 0 has no projection"),
        ("kind: embedder\ndata: {index: a.csv}\nloss: triplet\npairs: 1", r"loss triplet replaces.*remove pairs"),
        ("kind: embedder\ndata: {index: a.csv}\nanchor: 0\ndecorrelation: 0.1", r"anchor 0 trains without the softmax"),
        ("kind: embedder\ndata: {index: a.csv}\nanchor: 0\nhdcl_from: 0", r"anchor 0 trains without the softmax"),
        ("kind: embedder\ndata: {index: a.csv}\nmargin: 0.2", r"margin: loss softmax has none"),
        ("- a list", r"holds a list; write keys"),
        ("kind: [", r"recipe.yaml: not valid YAML"),
    ],
)
def test_errors_name_file_and_key(tmp_path, text, message):
    with pytest.raises(TrainError, match=message):
        load_recipe(write(tmp_path, text))


def test_overrides_replace_nested_values(tmp_path):
    path = write(tmp_path, "kind: embedder\ndata: {index: a.csv}")
    recipe = load_recipe(path, ["optimiser.epochs=3", "heads=[class]", "data.categories=[jar]"])
    assert (recipe.optimiser.epochs, recipe.heads, recipe.data.categories) == (3, ["class"], ["jar"])
    with pytest.raises(TrainError, match="write it as key=value"):
        load_recipe(path, ["epochs"])
