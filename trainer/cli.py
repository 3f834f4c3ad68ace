"""The command `edge-train`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import get_args

from edge.errors import FinesightError, TrainError
from trainer.evaluate_options import add_evaluate
from trainer.expand_command import add_expand, run_expand, run_self_tune
from trainer.sample import Layout


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-train", description="Make data, train models, judge them, embed galleries"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log state changes to stderr")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    synthesize = commands.add_parser("synthesize", help="write a synthetic data set, or a stream with its truth")
    synthesize.add_argument("-o", "--out", type=Path, required=True, help="folder to write, or with --stream the .mp4")
    synthesize.add_argument("--stream", action="store_true", help="write a video and, beside it, its truth")
    synthesize.add_argument("--masks", action="store_true", help="write crops with true masks, for the localiser")
    synthesize.add_argument("--seed", type=int, default=0)
    synthesize.add_argument("--scenes", type=int, default=2000, help="whole pictures with boxes")
    synthesize.add_argument("--crops-per-item", type=int, default=60, help="training crops of each item")
    synthesize.add_argument("--looks-per-item", type=int, default=6, help="catalogue pictures of each item")
    data = commands.add_parser("data", help="examine a data set and write its card")
    data.add_argument("path", type=Path, help="file or folder of any layout")
    data.add_argument("--layout", choices=get_args(Layout), help="default: found out")
    data.add_argument("--root", type=Path, help="of the paths in an index or COCO JSON; default: as found")
    data.add_argument("--split", choices=["stratified", "class_disjoint", "published"], help="default: as it has them")
    data.add_argument("--val", type=float, default=0.2, help="fraction that --split holds out to validate")
    data.add_argument("--test", type=float, default=0.0, help="fraction that --split holds out to test")
    data.add_argument("--seed", type=int, default=0, help="of --split")
    data.add_argument("--together", action="store_true", help="--split keeps pictures that look the same together")
    data.add_argument("--model", type=Path, help="run folder of a classifier or embedder that looks for duplicates too")
    data.add_argument("--least", type=float, default=0.97, help="cosine from which the model takes two for the same")
    data.add_argument("-o", "--out", type=Path, help="folder for the card: JSON, Markdown and pictures of pairs")
    for name, what in (
        ("detector", "train the detector"),
        ("classifier", "train the coarse classifier"),
        ("embedder", "train fine-grained embedders"),
        ("localiser", "train the localiser, which finds the object in a crop"),
    ):
        train = commands.add_parser(name, help=what)
        train.add_argument("-c", "--config", type=Path, required=True, help="recipe, YAML")
        train.add_argument("-o", "--out", type=Path, required=True, help="run folder; goes on from its checkpoint")
        train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key")
        train.add_argument("--quick", action="store_true", help="fewer epochs, smaller training crops: to try out")
        if name == "embedder":
            train.add_argument("--base", type=Path, help="trained run, or folder of runs by category, to start from")
            train.add_argument("--categories", help="train an embedder for each of these alone; comma between several")
    embed = commands.add_parser("embed", help="embed catalogue pictures into the gallery of a bundle")
    embed.add_argument("--bundle", type=Path, required=True, help="bundle folder")
    embed.add_argument("--data", type=Path, required=True, help="index.csv or folder of category/item/picture")
    embed.add_argument("--root", type=Path, help="of the paths in the index; default: its folder")
    embed.add_argument("--split", default="catalogue", help="of the pictures to embed; comma between several")
    embed.add_argument(
        "--negative", help="split of pictures of what must not be named: where one is the nearest, nothing is"
    )
    embed.add_argument("--per-item", type=int, help="use at most so many pictures of an item")
    embed.add_argument("-o", "--out", type=Path, required=True, help="folder of the gallery generation")
    shrink = commands.add_parser("shrink", help="cut a smaller embedder out of a trained one")
    shrink.add_argument("run", type=Path, help="run folder of the whole embedder")
    shrink.add_argument("--heads", help="to keep, comma between several; all when absent")
    shrink.add_argument("--dim", type=int, help="of each head: one of the recipe's shorter_dims")
    shrink.add_argument("-o", "--out", type=Path, required=True, help="run folder to write")
    cutout = commands.add_parser("cutout", help="cut the object out of catalogue pictures: RGBA, and on white")
    cutout.add_argument("--localiser", type=Path, required=True, help="run folder")
    cutout.add_argument("-o", "--out", type=Path, required=True, help="folder to write to")
    cutout.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="of one object each")
    add_evaluate(commands)
    add_expand(commands)
    _add_label(commands.add_parser("label", help="propose boxes, take edited ones back, train on them, propose anew"))
    return parser


def _add_label(label: argparse.ArgumentParser) -> None:
    label.add_argument("pictures", type=Path, nargs="?", help="folder; with sub-folders, each is a class")
    label.add_argument("-o", "--out", type=Path, required=True, help="label folder: labels, edits, queue, sheets")
    label.add_argument("--import", dest="edited", type=Path, help="edited boxes: COCO, VOC or Label Studio")
    label.add_argument("--train", type=Path, metavar="RECIPE", help="train a detector on what people confirmed")
    label.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key")
    label.add_argument("--detector", type=Path, help="run folder; its boxes lead; --train goes on from it")
    label.add_argument("--model", type=Path, help="weights or run folder that tell what a class has in common (DDT)")
    label.add_argument("--backbone", default="mobilenetv2_100", help="whose weights those are")
    label.add_argument("--input-mean", type=float, help="mean and deviation of their input; default: as published")
    label.add_argument("--batch", type=int, default=20, help="pictures to edit next, written to next.json")
    label.add_argument("--threshold", type=float, help="score that a proposal needs")
    label.add_argument("--count", type=int, help="objects in a picture, at most")
    label.add_argument("--area", type=float, nargs=2, metavar=("LEAST", "MOST"), help="of a box, share of the picture")
    label.add_argument(
        "--aspect", type=float, nargs=2, metavar=("LEAST", "MOST"), help="width of a box over its height"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 1 an error of ours in one line, 2 usage."""
    args = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s"
    )
    try:
        if answer := _run(args):  # of several processes the first one answers
            print(json.dumps(answer, indent=1))
    except FinesightError as error:
        print(f"edge-train: {error}", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace) -> dict[str, object]:
    runs = {
        "synthesize": _synthesize,
        "data": _data,
        "embed": _embed,
        "shrink": _shrink,
        "cutout": _cutout,
        "evaluate": _evaluate,
        "expand": run_expand,
        "label": _label,
        "self-tune": run_self_tune,
    }
    return runs.get(args.command, _train)(args)


def _train(args: argparse.Namespace) -> dict[str, object]:
    from trainer.classifier import train_classifier
    from trainer.detector import train_detector
    from trainer.distributed import is_first, joined
    from trainer.embedder import train_embedders
    from trainer.finetune import of_customer
    from trainer.localiser import train_localiser
    from trainer.memory import keep_freed_memory
    from trainer.quick import quickened
    from trainer.recipe import ClassifierRecipe, DetectorRecipe, EmbedderRecipe, LocaliserRecipe, load_recipe

    keep_freed_memory()
    recipe = load_recipe(args.config, args.set)
    if recipe.kind != args.command:
        raise TrainError(f"{args.config}: kind is {recipe.kind!r}, expected {args.command!r}")
    if isinstance(recipe, EmbedderRecipe):
        recipe = of_customer(recipe, args.base, args.categories.split(",") if args.categories else None)
    if args.quick:
        recipe = quickened(recipe)
    with joined(os.environ):
        if isinstance(recipe, DetectorRecipe):
            cards = [train_detector(recipe, args.out)]
        elif isinstance(recipe, ClassifierRecipe):
            cards = [train_classifier(recipe, args.out)]
        elif isinstance(recipe, LocaliserRecipe):
            cards = [train_localiser(recipe, args.out)]
        else:
            cards = train_embedders(recipe, args.out)
        if not is_first():
            return {}
    named = {", ".join(card.categories) or card.kind: card.metrics for card in cards}
    return {"out": str(args.out), "metrics": named, "skipped": cards[0].data["skipped"]}


def _cutout(args: argparse.Namespace) -> dict[str, object]:
    from trainer.cutout import write_cutouts

    failed = write_cutouts(args.localiser, args.pictures, args.out)
    return {"out": str(args.out), "cut_out": len(args.pictures) - len(failed), "failed": failed}


def _label(args: argparse.Namespace) -> dict[str, object]:
    from trainer.label_command import run_label

    return run_label(args)


def _evaluate(args: argparse.Namespace) -> dict[str, object]:
    from trainer.evaluate_command import run_evaluate

    return run_evaluate(args)


def _data(args: argparse.Namespace) -> dict[str, object]:
    from trainer.data_command import describe_data
    from trainer.recipe import Split

    how = {"how": args.split, "val": args.val, "test": args.test, "seed": args.seed, "together": args.together}
    split = Split.model_validate(how) if args.split else None
    return describe_data(
        args.path, args.out, root=args.root, layout=args.layout, split=split, model=args.model, least=args.least
    )


def _synthesize(args: argparse.Namespace) -> dict[str, object]:
    from trainer.synthetic.dataset import write_dataset
    from trainer.synthetic.items import catalogue
    from trainer.synthetic.masked import write_masked
    from trainer.synthetic.stream import write_stream

    if args.stream:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        return {"stream": str(args.out), "truth": str(write_stream(args.out, args.seed, catalogue()))}
    if args.masks:
        masked = write_masked(args.out, args.seed, args.scenes, args.crops_per_item, args.looks_per_item)
        return {"index": str(masked)}
    index = write_dataset(args.out, args.seed, args.scenes, args.crops_per_item, args.looks_per_item)
    return {"index": str(index), "scenes": str(args.out / "scenes.json")}


def _embed(args: argparse.Namespace) -> dict[str, object]:
    from trainer.data import choose, read_samples
    from trainer.embed_gallery import embed_gallery

    listed = read_samples(args.data, args.root)
    negatives = [args.negative] if args.negative else []
    samples = [sample for split in [*args.split.split(","), *negatives] for sample in choose(listed, [split])]
    if not samples:
        raise TrainError(f"{args.data}: found no picture of split {args.split!r}, expected some")
    done = embed_gallery(args.bundle, samples, args.out, negatives=negatives, per_item=args.per_item)
    return {
        "out": str(args.out),
        "generation": done.gallery.generation,
        "items": done.gallery.items,
        "pictures": done.pictures,
        "skipped": len(done.skipped),
    }


def _shrink(args: argparse.Namespace) -> dict[str, object]:
    from trainer.variant import cut_embedder

    card = cut_embedder(args.run, args.out, args.heads.split(",") if args.heads else None, args.dim)
    return {"out": str(args.out), "heads": {head.name: head.dim for head in card.vector_parts}}


if __name__ == "__main__":
    sys.exit(main())
