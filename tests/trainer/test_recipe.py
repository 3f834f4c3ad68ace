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
        ("kind: embedder\ndata: {index: a.csv}\npairs: 1\npair_ramp: [0.6, 0.3]", r"pair_ramp: found \[0.6, 0.3\]"),
        ("- a list", r"holds a list; write keys"),
        ("kind: [", r"recipe.yaml: not valid YAML"),
    ],
)
def test_errors_name_file_and_key(tmp_path, text, message):
    with pytest.raises(TrainError, match=message):
        load_recipe(write(tmp_path, text))


CROPS = "data: {index: a.csv}"


@pytest.mark.parametrize(
    ("kind", "text", "idle"),
    [
        ("embedder", f"{CROPS}\nhdcl_hardest: 4", "hdcl_hardest has no effect without hdcl_from"),
        ("embedder", f"{CROPS}\neach: {{jar: {{epochs: 3}}}}", "each has no effect without one_per_category"),
        ("embedder", f"{CROPS}\nmode: literal", "mode has no effect without pairs"),
        ("embedder", f"{CROPS}\nmode: literal\npairs: 1", "mode has no effect without pairs and the head outline"),
        ("embedder", f"{CROPS}\naugment: {{mixup: 0.5}}", "augment.mixup has no effect outside a classifier"),
        ("embedder", "data: {index: a, split: {how: published, test: 0.3}}", "data.split.test has no effect"),
        ("classifier", f"{CROPS}\nhcl_hardest: 2", "hcl_hardest has no effect without hcl_from"),
        (
            "detector",
            "scenes: {train: a}\ninput: {resize: stretch}",
            "input.resize has no effect in training on whole scenes",
        ),
        ("localiser", f"{CROPS}\ninput: {{grey: true}}", "input.grey has no effect in a localiser"),
        ("finder", "world: {rendered: 0.5, without: [tear]}", "world.without and world.rendered have no effect"),
        ("finder", "input: {grey: true}", "input.grey has no effect in a finder"),
        ("finder", "loss: l2\nedge_band: 2", "edge_band has no effect without loss double_margin"),
    ],
)
def test_a_method_without_effect_is_an_error(tmp_path, kind, text, idle):
    with pytest.raises(TrainError, match=idle):
        load_recipe(write(tmp_path, f"kind: {kind}\n{text}"))


@pytest.mark.parametrize(
    ("kind", "text", "idle"),
    [
        ("embedder", f"{CROPS}\nblocks: 7\nneighbourhood: 2", "blocks and neighbourhood have no effect"),
        ("embedder", f"{CROPS}\nimages_per_class: 8", "images_per_class has no effect without pairs"),
        ("embedder", f"{CROPS}\nloss: triplet\noptimiser: {{batch: 16}}", "optimiser.batch has no effect"),
        (
            "embedder",
            f"{CROPS}\nanchor: 0\npairs: 1\npair_ramp: [0, 1]",
            "pair_ramp has no effect without pairs beside",
        ),
        ("embedder", f"{CROPS}\nloss: crl\nscale: 30", "scale has no effect without the softmax"),
        ("embedder", f"{CROPS}\nloss: contrastive\ncentre_lr: 1", "centre_lr has no effect"),
        ("embedder", f"{CROPS}\noptimiser: {{momentum: 0.5}}", "optimiser.momentum has no effect without name sgd"),
        ("classifier", f"{CROPS}\noptimiser: {{watch: accuracy}}", "optimiser.watch has no effect without stop_after"),
        (
            "detector",
            "scenes: {train: a}\naugment: {rotate_deg: 20}",
            "augment.rotate_deg has no effect in training on whole",
        ),
        ("localiser", f"{CROPS}\noptimiser: {{trunk_lr: 0.1}}", "optimiser.trunk_lr has no effect without a backbone"),
    ],
)
def test_a_size_without_effect_is_a_warning(tmp_path, caplog, kind, text, idle):
    assert load_recipe(write(tmp_path, f"kind: {kind}\n{text}")).kind == kind
    assert idle in caplog.text


def test_a_key_that_is_off_or_works_is_no_error(tmp_path):
    """What `--set` switches off may leave its other keys in the file."""
    hard = write(tmp_path, f"kind: embedder\n{CROPS}\nhdcl_from: 0.5\nhdcl_hardest: 2")
    assert load_recipe(hard).hdcl_hardest == 2
    assert load_recipe(hard, ["hdcl_from=1", "augment.mixup=0"]).hdcl_from == 1
    with pytest.raises(TrainError, match="hdcl_hardest has no effect"):
        load_recipe(hard, ["hdcl_from=1", "hdcl_hardest=3"])
    triplet = ["hdcl_from=1", "hdcl_hardest=null", "loss=triplet", "label_smoothing=0", "optimiser.batch=56"]
    assert load_recipe(hard, triplet).optimiser.batch == 14 * 4


def test_errors_of_several_keys_are_one_sentence(tmp_path):
    with pytest.raises(TrainError) as raised:
        load_recipe(write(tmp_path, f"kind: embedder\n{CROPS}\nmargin: 0.2"))
    assert str(raised.value).endswith("recipe.yaml: margin: loss softmax has none; remove it, or choose another loss")


def test_overrides_replace_nested_values(tmp_path):
    path = write(tmp_path, "kind: embedder\ndata: {index: a.csv}")
    recipe = load_recipe(path, ["optimiser.epochs=3", "heads=[class]", "data.categories=[jar]"])
    assert (recipe.optimiser.epochs, recipe.heads, recipe.data.categories) == (3, ["class"], ["jar"])
    with pytest.raises(TrainError, match="write it as key=value"):
        load_recipe(path, ["epochs"])
