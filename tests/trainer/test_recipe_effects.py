"""Each rule is shown by two trainings, with and without its keys: the networks are the same to the last bit."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from dataset_formats.records import Sample
from tests.trainer.tasks.test_finder import finder_recipe
from tests.trainer.toy import (
    classifier_recipe,
    detector_recipe,
    embedder_recipe,
    localiser_recipe,
    optimiser,
    write_crops,
    write_masks,
    write_scenes,
)
from trainer.data.split import resplit
from trainer.models.networks import load_model
from trainer.recipe_effects import idle_keys, rules_of
from trainer.recipe_parts import Split
from trainer.tasks.classifier import train_classifier
from trainer.tasks.detector import train_detector
from trainer.tasks.embedder import train_embedders
from trainer.tasks.finder import train_finder
from trainer.tasks.localiser import train_localiser

pytestmark = pytest.mark.usefixtures("one_thread")

WRITTEN = {  # values that would show
    "optimiser.momentum": 0.5,
    "optimiser.patience": 1,
    "optimiser.decay": 0.1,
    "optimiser.warmup": 0.7,
    "optimiser.watch": "loss",
    "optimiser.batch": 6,
    "optimiser.trunk_lr": 0.1,
    "augment.mixup": 1.0,
    "augment.shift": 0.4,
    "augment.stretch": 0.4,
    "augment.rotate_deg": 90.0,
    "augment.perspective": 0.3,
    "input.resize": "stretch",
    "input.grey": True,
    "input.train_width": 64,
    "input.train_height": 64,
    "hcl_hardest": 3,
    "auxiliary_grid": 2,
    "hdcl_hardest": 3,
    "each": {"red": {"epochs": 3}},
    "mode": "literal",
    "pair_ramp": (0.5, 0.9),
    "blocks": 2,
    "neighbourhood": 3,
    "classes_per_batch": 2,
    "images_per_class": 3,
    "scale": 5.0,
    "label_smoothing": 0.3,
    "dropout": 0.4,
    "centre_lr": 7.0,
    "world.root": "nowhere",
    "world.splits": ["train"],
    "world.backgrounds": "nowhere",
    "world.without": ["tear"],
    "world.rendered": 0.5,
    "world.per_item": 1,
    "edge_band": 2,
}
embedder = partial(embedder_recipe, epochs=1, pair_ramp=(0.3, 0.6), batches_per_epoch=3)  # so that pairs ramp in
CASES = {
    "softmax": (partial(embedder, heads=["class"], pairs=0.0), write_crops, train_embedders),
    "triplet": (
        partial(
            embedder, heads=["class"], pairs=0.0, loss="triplet", optimiser=optimiser(1) | {"schedule": "constant"}
        ),
        write_crops,
        train_embedders,
    ),
    "three heads": (partial(embedder, hdcl_from=0.0), write_crops, train_embedders),
    "pairs alone": (partial(embedder, heads=["class", "local"], anchor=0.0), write_crops, train_embedders),
    "classifier": (partial(classifier_recipe, epochs=1, auxiliary_items=False), write_crops, train_classifier),
    "hard classifier": (
        partial(classifier_recipe, epochs=1, hcl_from=0.0, optimiser=optimiser(1) | {"name": "sgd"}),
        write_crops,
        train_classifier,
    ),
    "detector": (partial(detector_recipe, epochs=1), write_scenes, train_detector),
    "localiser": (partial(localiser_recipe, epochs=1), write_masks, train_localiser),
    "finder": (lambda _: finder_recipe(loss="l2"), lambda folder: folder, train_finder),
}


def written(recipe):
    """Return the recipe with other values of the keys that its rules say do nothing, and these keys."""
    keys = [key for rule in rules_of(recipe) if not rule.holds(recipe) for key in rule.keys]
    tree = recipe.model_dump()
    for key in keys:
        *parents, last = key.split(".")
        part = tree
        for parent in parents:
            part = part[parent]
        part[last] = WRITTEN[key]
    return type(recipe).model_validate(tree), keys


@pytest.mark.parametrize("case", CASES)
def test_keys_without_effect_change_no_weight(tmp_path, case):
    make, write, train = CASES[case]
    recipe = make(write(tmp_path / "data"))
    other, keys = written(recipe)
    assert sorted(idle_keys(other)) == sorted(set(keys))
    networks = []
    for name, one in ("plain", recipe), ("written", other):
        train(one, tmp_path / name)
        networks.append(load_model(tmp_path / name)[0].state_dict())
    plain, same = networks
    assert plain.keys() == same.keys()
    assert [name for name in plain if not torch.equal(plain[name], same[name])] == []


def test_every_rule_is_shown_by_a_case():
    recipes = [make(Path("data")) for make, _, _ in CASES.values()]
    rules = [rule for recipe in recipes for rule in rules_of(recipe)]
    shown = [rule for recipe in recipes for rule in rules_of(recipe) if not rule.holds(recipe)]
    assert [rule.keys for rule in rules if rule not in shown] == []


def test_keys_of_a_split_without_effect_change_no_split():
    samples = [Sample(Path(f"{item}-{n}"), "train", "jar", f"jar-{item}") for item in range(6) for n in range(3)]
    twins = {str(one.path): "0-0" for one in samples}
    for how in "published", "class_disjoint":
        plain = Split(how=how, val=0.3)
        further = {"together": True} | ({"test": 0.3, "of": ["test"]} if how == "published" else {})
        recipe = classifier_recipe(Path("a"), data={"index": "a", "split": {"how": how} | further})
        assert idle_keys(recipe).keys() == {f"data.split.{key}" for key in further}
        assert resplit(samples, plain) == resplit(samples, plain.model_copy(update=further), twins)
