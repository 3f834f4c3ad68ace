"""The command `edge-train`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from edge.errors import FinesightError, TrainError
from edge.find_command import add_find_arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-train", description="Make data, train models, judge them, embed galleries"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log state changes to stderr")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    synthesize = commands.add_parser("synthesize", help="write a synthetic data set, or a stream with its truth")
    synthesize.add_argument("-o", "--out", type=Path, required=True, help="folder to write, or with --stream the .mp4")
    synthesize.add_argument("--stream", action="store_true", help="write a video and, beside it, its truth")
    synthesize.add_argument("--seed", type=int, default=0)
    synthesize.add_argument("--scenes", type=int, default=2000, help="whole pictures with boxes")
    synthesize.add_argument("--crops-per-item", type=int, default=60, help="training crops of each item")
    synthesize.add_argument("--looks-per-item", type=int, default=6, help="catalogue pictures of each item")
    for name, what in (
        ("detector", "train the detector"),
        ("classifier", "train the coarse classifier"),
        ("embedder", "train fine-grained embedders"),
        ("finder", "train the search for the object of a query picture"),
    ):
        train = commands.add_parser(name, help=what)
        train.add_argument("-c", "--config", type=Path, required=True, help="recipe, YAML")
        train.add_argument("-o", "--out", type=Path, required=True, help="run folder; goes on from its checkpoint")
        train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key")
    embed = commands.add_parser("embed", help="embed catalogue pictures into the gallery of a bundle")
    embed.add_argument("--bundle", type=Path, required=True, help="bundle folder")
    embed.add_argument("--data", type=Path, required=True, help="index.csv or folder of category/item/picture")
    embed.add_argument("--root", type=Path, help="of the paths in the index; default: its folder")
    embed.add_argument("--split", default="catalogue", help="of the pictures to embed; comma between several")
    embed.add_argument("--per-item", type=int, help="use at most so many pictures of an item")
    embed.add_argument("-o", "--out", type=Path, required=True, help="folder of the gallery generation")
    evaluate = commands.add_parser("evaluate", help="examine trained models on held-out pictures")
    evaluate.add_argument("--classifier", type=Path, help="run folder")
    evaluate.add_argument("--embedder", type=Path, action="append", default=[], help="run folder; may be repeated")
    evaluate.add_argument("--data", type=Path, help="index.csv or folder of category/item/picture")
    evaluate.add_argument("--root", type=Path, help="of the paths in the index or scenes; default: their folder")
    evaluate.add_argument("--detector", type=Path, help="run folder")
    evaluate.add_argument("--scenes", type=Path, help="COCO JSON, for the detector")
    evaluate.add_argument("--query", default="val", help="split of the pictures to recognise")
    evaluate.add_argument("--gallery", default="catalogue", help="split of the pictures to recognise them by")
    evaluate.add_argument("-o", "--out", type=Path, help="also write the report here, JSON")
    find = commands.add_parser("find", help="find the object of a query picture in a picture or video")
    find.add_argument("--model", type=Path, required=True, help="run folder of a finder")
    add_find_arguments(find)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 1 an error of ours in one line, 2 usage."""
    args = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s"
    )
    try:
        print(json.dumps(_run(args), indent=1))
    except FinesightError as error:
        print(f"edge-train: {error}", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace) -> dict[str, object]:
    if args.command == "synthesize":
        return _synthesize(args)
    if args.command == "embed":
        return _embed(args)
    if args.command == "evaluate":
        return _evaluate(args)
    if args.command == "find":
        return _find(args)
    return _train(args)


def _train(args: argparse.Namespace) -> dict[str, object]:
    from trainer.classifier import train_classifier
    from trainer.detector import train_detector
    from trainer.embedder import train_embedders
    from trainer.finder import train_finder
    from trainer.memory import keep_freed_memory
    from trainer.recipe import ClassifierRecipe, DetectorRecipe, FinderRecipe, load_recipe

    keep_freed_memory()
    recipe = load_recipe(args.config, args.set)
    if recipe.kind != args.command:
        raise TrainError(f"{args.config}: kind is {recipe.kind!r}, expected {args.command!r}")
    if isinstance(recipe, DetectorRecipe):
        cards = [train_detector(recipe, args.out)]
    elif isinstance(recipe, ClassifierRecipe):
        cards = [train_classifier(recipe, args.out)]
    elif isinstance(recipe, FinderRecipe):
        cards = [train_finder(recipe, args.out)]
    else:
        cards = train_embedders(recipe, args.out)
    named = {", ".join(card.categories) or card.kind: card.metrics for card in cards}
    return {"out": str(args.out), "metrics": named, "skipped": cards[0].data["skipped"]}


def _synthesize(args: argparse.Namespace) -> dict[str, object]:
    from trainer.synthetic.dataset import write_dataset
    from trainer.synthetic.items import catalogue
    from trainer.synthetic.stream import write_stream

    if args.stream:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        return {"stream": str(args.out), "truth": str(write_stream(args.out, args.seed, catalogue()))}
    index = write_dataset(args.out, args.seed, args.scenes, args.crops_per_item, args.looks_per_item)
    return {"index": str(index), "scenes": str(args.out / "scenes.json")}


def _embed(args: argparse.Namespace) -> dict[str, object]:
    from trainer.data import choose, read_samples
    from trainer.embed_gallery import embed_gallery

    listed = read_samples(args.data, args.root)
    samples = [sample for split in args.split.split(",") for sample in choose(listed, [split])]
    if not samples:
        raise TrainError(f"{args.data}: found no picture of split {args.split!r}, expected some")
    done = embed_gallery(args.bundle, samples, args.out, per_item=args.per_item)
    return {
        "out": str(args.out),
        "generation": done.gallery.generation,
        "items": done.gallery.items,
        "pictures": done.pictures,
        "skipped": len(done.skipped),
    }


def _find(args: argparse.Namespace) -> dict[str, object]:
    from edge.find import find, parse_queries
    from trainer.finder_run import load_finder

    return find(load_finder(args.model), parse_queries(args.query), args.scene, args.out)


def _evaluate(args: argparse.Namespace) -> dict[str, object]:
    from trainer.assessment import assess, assess_detector

    report: dict[str, object] = {}
    if args.data is not None:
        report |= assess(args.classifier, args.embedder, args.data, args.root, args.query, args.gallery)
    if args.detector is not None and args.scenes is not None:
        report["detector"] = assess_detector(args.detector, args.scenes, args.root, args.query)
    if not report:
        raise TrainError("found nothing to examine, expected --data with models, or --detector with --scenes")
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=1))
    return report


if __name__ == "__main__":
    sys.exit(main())
