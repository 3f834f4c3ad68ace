"""The command-line tool `edge-train`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from typing import TYPE_CHECKING

from edge.errors import FinesightError, TrainError
from edge.extras import install_command, install_hint
from trainer.catalogue.command import run_embed, run_seal
from trainer.inbox.command import run_inbox
from trainer.options import build_parser
from trainer.pasting.command import run_expand
from trainer.pasting.self_tuning.command import run_self_tune
from trainer.tables.command import run_table

if TYPE_CHECKING:
    from trainer.embedder_recipe import EmbedderRecipe
    from trainer.models.networks import ModelCard
    from trainer.recipe import AnyRecipe

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Run the command. Return 0 on success, 1 on an error (one line, no traceback), 2 on wrong usage."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s"
    )
    try:
        if result := _run(args):  # only rank 0 has a result
            print(json.dumps(result, indent=1))
    except FinesightError as error:
        print(f"edge-train: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (hint := install_hint(error, "trainer")) is None:
            raise
        if args.command == "learn":  # it needs more than the extra that brings this package
            hint = f"{hint.partition('; run: ')[0]}; run: {install_command('learn')}"
        print(f"edge-train: {hint}", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace) -> dict[str, object]:
    commands = {
        "learn": _learn,
        "crops": _crops,
        "synthesize": _synthesize,
        "data": _data,
        "embed": run_embed,
        "seal": run_seal,
        "shrink": _shrink,
        "cutout": _cutout,
        "evaluate": _evaluate,
        "find": _find,
        "expand": run_expand,
        "label": _label,
        "inbox": run_inbox,
        "self-tune": run_self_tune,
        "table": run_table,
    }
    return commands.get(args.command, _train)(args)


def _train(args: argparse.Namespace) -> dict[str, object]:
    from trainer.distributed import is_rank0, process_group
    from trainer.embedder_recipe import EmbedderRecipe
    from trainer.loop.training_loop import keep_freed_memory
    from trainer.model_setup import require_learned
    from trainer.quick import shortened
    from trainer.recipe import load_recipe
    from trainer.tasks.finetune import finetune_recipe

    keep_freed_memory()
    recipe = load_recipe(args.config, args.set)
    if recipe.kind != args.command:
        raise TrainError(f"{args.config}: kind is {recipe.kind!r}, expected {args.command!r}")
    if isinstance(recipe, EmbedderRecipe):
        recipe = finetune_recipe(recipe, args.base, args.categories.split(",") if args.categories else None)
    if args.quick:
        recipe = shortened(recipe)
    with process_group(os.environ):
        cards = _train_networks(args, recipe)
        if not is_rank0():
            return {}
    for card in cards:
        require_learned(card)
    metrics = {", ".join(card.categories) or card.kind: card.metrics for card in cards}
    return {"out": str(args.out), "metrics": metrics, "skipped": cards[0].data["skipped"]}


def _train_networks(args: argparse.Namespace, recipe: AnyRecipe) -> list[ModelCard]:
    from trainer.pasting.finder_world import make_worlds
    from trainer.recipe import ClassifierRecipe, DetectorRecipe, FinderRecipe, LocaliserRecipe
    from trainer.tasks.classifier import train_classifier
    from trainer.tasks.detector import train_detector
    from trainer.tasks.finder import train_finder
    from trainer.tasks.localiser import train_localiser

    if isinstance(recipe, DetectorRecipe):
        return [train_detector(recipe, args.out)]
    if isinstance(recipe, ClassifierRecipe):
        return [train_classifier(recipe, args.out)]
    if isinstance(recipe, LocaliserRecipe):
        return [train_localiser(recipe, args.out)]
    if isinstance(recipe, FinderRecipe):
        return [train_finder(recipe, args.out, make_worlds(recipe, args.out))]
    return _train_embedders(args, recipe)


def _train_embedders(args: argparse.Namespace, recipe: EmbedderRecipe) -> list[ModelCard]:
    from trainer.tasks.embedder import train_embedders
    from trainer.tasks.free_embedder import make_free_embedders

    if args.free is None:
        if args.dim is not None:
            raise TrainError("--dim goes with --free; set the key dim of the recipe instead")
        return train_embedders(recipe, args.out)
    if args.base is not None:
        raise TrainError("--free trains nothing, so that --base has no use; give one of them")
    return make_free_embedders(recipe, args.free, args.out, args.dim)


def _learn(args: argparse.Namespace) -> dict[str, object]:
    from learn.command import run_learn

    run_learn(args)
    return {}


def _crops(args: argparse.Namespace) -> dict[str, object]:
    from learn.command import run_crops

    return run_crops(args)


def _cutout(args: argparse.Namespace) -> dict[str, object]:
    from trainer.pasting.cutout_command import write_cutouts

    failed = write_cutouts(args.localiser, args.pictures, args.out)
    return {"out": str(args.out), "cut_out": len(args.pictures) - len(failed), "failed": failed}


def _label(args: argparse.Namespace) -> dict[str, object]:
    from trainer.labelling.command import run_label

    return run_label(args)


def _evaluate(args: argparse.Namespace) -> dict[str, object]:
    from trainer.evaluation.command import run_evaluate

    return run_evaluate(args)


def _data(args: argparse.Namespace) -> dict[str, object]:
    from trainer.data.command import describe_data, new_split

    split = new_split(args.split, {"val": args.val, "test": args.test, "seed": args.seed, "together": args.together})
    return describe_data(
        args.path, args.out, root=args.root, layout=args.layout, split=split, model=args.model, least=args.least
    )


def _synthesize(args: argparse.Namespace) -> dict[str, object]:
    from trainer.synthetic.items import CATEGORIES, catalogue
    from trainer.synthetic.stream import write_stream
    from trainer.synthetic.write_dataset import write_dataset
    from trainer.synthetic.write_masked import write_masked

    if args.stream:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        return {"stream": str(args.out), "truth": str(write_stream(args.out, args.seed, catalogue()))}
    if args.masks:
        masked = write_masked(args.out, args.seed, args.scenes, args.crops_per_item, args.looks_per_item)
        return {"index": str(masked)}
    if args.vehicles:
        from trainer.synthetic.write_vehicles import write_vehicles

        return {"folder": str(write_vehicles(args.out, args.seed, args.vehicles, args.crops_per_item))}
    counts = (args.scenes, args.crops_per_item, args.looks_per_item)
    categories = args.categories.split(",") if args.categories else None
    if unknown := set(categories or ()).difference(CATEGORIES):
        raise TrainError(f"--categories: {min(unknown)!r} is none of {', '.join(CATEGORIES)}")
    index = write_dataset(args.out, args.seed, *counts, invented_items=args.invented, categories=categories)
    return {"index": str(index), "scenes": str(args.out / "scenes.json")}


def _find(args: argparse.Namespace) -> dict[str, object]:
    from edge.finder.find_in_file import find, parse_queries
    from trainer.tasks.finder_torch import load_finder

    return find(load_finder(args.model), parse_queries(args.query), args.scene, args.out, args.known)


def _shrink(args: argparse.Namespace) -> dict[str, object]:
    from trainer.tasks.shrink_embedder import shrink_embedder

    card = shrink_embedder(args.run, args.out, args.heads.split(",") if args.heads else None, args.dim)
    return {"out": str(args.out), "heads": {head.name: head.dim for head in card.vector_parts}}


if __name__ == "__main__":
    sys.exit(main())
