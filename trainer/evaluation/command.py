"""The command `edge-train evaluate`: evaluate models on the same pictures; write JSON, Markdown and one HTML page."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from dataset_formats.records import Sample
from edge.config.schema import EngineConfig
from edge.errors import CaptureError, EngineError, TrainError
from edge.imaging.image import set_threads
from edge.types import Image
from trainer.cores import machine_name
from trainer.evaluation.answers import answers_of_queries, list_answers
from trainer.evaluation.evaluate_models import Column, confusions, evaluate_chain, evaluate_detector
from trainer.evaluation.evaluation_set import EvaluationSet, load_evaluation_set
from trainer.evaluation.model_chain import (
    ModelChain,
    chain_of_bundle,
    chain_of_runs,
    embed_references,
    open_peer,
    read_images,
    read_references,
)
from trainer.evaluation.reference_gallery import ReferenceGallery
from trainer.evaluation.report_markdown import render_markdown
from trainer.evaluation.report_page import CategoryEmbeddings, Confusion, render_page

log = logging.getLogger(__name__)
_WORST_CONFUSIONS = 12
_EMBEDDING_MAPS = 6


def run_evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate, write the report, and return it.

    Raises:
        TrainError: there is nothing to evaluate, or data or models are missing.
        FinesightError: a bundle, gallery or picture cannot be used.
    """
    set_threads(1)
    evaluation_set, columns = None, []
    if args.data is not None:
        evaluation_set = load_evaluation_set(
            args.data,
            args.root,
            args.query,
            args.gallery,
            share=args.left_out,
            seed=args.seed,
            trimmed=args.plain.split(","),
        )
        columns = _columns(args, evaluation_set)
    report: dict[str, Any] = {
        "about": _about(args, evaluation_set),
        "columns": {column.chain.name: column.table for column in columns},
        "checkout": _checkout(args) if args.checkout else {},
    }
    if args.detector is not None and args.scenes is not None:
        report["detector"] = evaluate_detector(args.detector, args.scenes, args.root, args.query)
    elif args.scenes is not None:
        report["own_scenes"] = _own_scenes(args, report["about"])
    if not (columns or any(report.get(part) for part in ("checkout", "detector", "own_scenes"))):
        raise TrainError("nothing to evaluate: give --data with models, --checkout, or --scenes with a model")
    if args.out is not None:
        _write(args, report, columns, evaluation_set)
    return report


def _columns(args: argparse.Namespace, evaluation_set: EvaluationSet) -> list[Column]:
    """Evaluate every chain on the same pictures: each precision of the bundle, the runs, the peers."""
    columns = []
    for chain, gallery in _chains(args, evaluation_set):
        references = gallery or embed_references(chain, evaluation_set)
        columns.append(evaluate_chain(chain, references, evaluation_set))
    return columns


def _chains(
    args: argparse.Namespace, evaluation_set: EvaluationSet
) -> list[tuple[ModelChain, Mapping[str, ReferenceGallery]]]:
    categories = sorted({sample.category for sample in evaluation_set.gallery})
    listed: list[tuple[ModelChain, Mapping[str, ReferenceGallery]]] = []
    if args.bundle is not None:
        for precision in ("int8", "fp32"):
            try:
                chain = chain_of_bundle(f"bundle, {precision.upper()}", args.bundle, precision)
            except EngineError:
                continue  # the bundle lacks this precision of a model
            gallery = read_references(chain, args.bundle, args.bundle_gallery) if args.bundle_gallery else {}
            listed.append((chain, gallery))
        if not listed:
            chain = chain_of_bundle("bundle, as shipped", args.bundle)
            gallery = read_references(chain, args.bundle, args.bundle_gallery) if args.bundle_gallery else {}
            listed.append((chain, gallery))
    if args.embedder:
        listed.append((chain_of_runs("runs, FP32", args.classifier, args.embedder), {}))
    if not listed:
        raise TrainError("--data needs models: give --bundle or --embedder")
    for peer in args.peer:
        name, equals, where = peer.partition("=")
        if not equals:
            raise TrainError(f"--peer {peer}: write it as NAME=WHERE")
        listed.append((open_peer(name, where, categories), {}))
    return listed


def _checkout(args: argparse.Namespace) -> dict[str, Any]:
    from trainer.evaluation.checkout_scenes import choose_left_out, evaluate_checkout

    if args.bundle is None or args.bundle_gallery is None:
        raise TrainError("--checkout needs --bundle and --bundle-gallery")
    left = choose_left_out(args.bundle, args.bundle_gallery, args.left_out, args.seed)
    return _in_each_precision(
        lambda engine: evaluate_checkout(args.bundle, args.bundle_gallery, args.checkout, args.seed, left, engine)
    )


def _own_scenes(args: argparse.Namespace, about: dict[str, Any]) -> dict[str, Any]:
    """Read the shopping lists of the scenes; `about` gets what deserves a look."""
    from trainer.evaluation.own_scenes import evaluate_own_scenes, read_own_scenes

    if args.bundle is None or args.bundle_gallery is None:
        raise TrainError("--scenes needs --detector, or --bundle and --bundle-gallery to read shopping lists")
    scenes = read_own_scenes(args.bundle, args.bundle_gallery, args.scenes, args.root, args.query)
    for line in scenes.noticed:
        log.warning("%s: %s", args.scenes, line)
    about["noticed"] += scenes.noticed
    return _in_each_precision(
        lambda engine: evaluate_own_scenes(args.bundle, args.bundle_gallery, scenes, args.seed, engine)
    )


def _in_each_precision(measure: Callable[[EngineConfig], Any]) -> dict[str, Any]:
    """Measure a bundle in INT8 and in FP32, or as shipped where it holds neither for all models."""
    tables: dict[str, Any] = {}
    for precision in ("int8", "fp32"):
        try:
            tables[precision.upper()] = measure(EngineConfig(backend="onnxruntime", precision=precision))
        except EngineError:
            continue  # the bundle lacks this precision of a model
    return tables or {"as shipped": measure(EngineConfig(backend="onnxruntime"))}


def _about(args: argparse.Namespace, evaluation_set: EvaluationSet | None) -> dict[str, Any]:
    query, gallery = args.query or "val", args.gallery or "catalogue"
    if evaluation_set:
        query, gallery = ",".join(evaluation_set.query_splits), ",".join(evaluation_set.gallery_splits)
    peers = f" (peers: {gallery})" if args.peer else ""
    named = args.bundle or (args.embedder[0] if args.embedder else args.detector)
    return {
        "name": named.name if named else "nothing",
        "data": str((args.data or args.scenes or Path("rendered scenes")).name),
        "query": query,
        "gallery": f"the bundle's gallery{peers}" if args.bundle_gallery else gallery,
        "protocol": evaluation_set.protocol if evaluation_set else "",
        "queries_in_gallery": evaluation_set.own if evaluation_set else 0,
        "images": len(evaluation_set.queries) if evaluation_set else 0,
        "unreadable": len(evaluation_set.skipped) if evaluation_set else 0,
        "unreadable_gallery": len(evaluation_set.gallery_skipped) if evaluation_set else 0,
        "noticed": list(evaluation_set.noticed) if evaluation_set else [],
        "items": len({sample.item for sample in evaluation_set.gallery}) if evaluation_set else 0,
        "items_left_out": len(evaluation_set.left_out) if evaluation_set else 0,
        "left_out": sorted(evaluation_set.left_out) if evaluation_set else [],
        "seed": args.seed,
        "machine": machine_name(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def _write(
    args: argparse.Namespace, report: dict[str, Any], columns: list[Column], evaluation_set: EvaluationSet | None
) -> None:
    out: Path = args.out
    out.parent.mkdir(parents=True, exist_ok=True)
    answered = answers_of_queries(evaluation_set.queries, columns[0].closed_set) if columns and evaluation_set else ()
    _write_text(out.with_suffix(".json"), json.dumps(report | {"answers": list_answers(answered)}, indent=1) + "\n")
    worst = confusions(columns[0].closed_set)[:_WORST_CONFUSIONS] if columns else []
    _write_text(out.with_suffix(".md"), render_markdown(report, worst))
    shown = [_confusion(columns[0], evaluation_set, *pair) for pair in worst] if evaluation_set else []
    maps = _embedding_maps(columns[0]) if columns else []
    _write_text(out.with_suffix(".html"), render_page(report, shown, maps))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files that are no UTF-8


def _confusion(column: Column, evaluation_set: EvaluationSet, shown: str, nearest: str, times: int) -> Confusion:
    pairs = zip(evaluation_set.queries, column.closed_set, strict=True)
    margin = column.chain.crop_margin
    query = next(sample for sample, result in pairs if result.true_item == shown and result.nearest == nearest)
    reference = next(r for r in column.predictions.references.values() if nearest in r.names)
    return Confusion(shown, nearest, times, _read_or_none(query, evaluation_set, margin), reference.picture(nearest))


def _read_or_none(sample: Sample, evaluation_set: EvaluationSet, margin: float) -> Image | None:
    try:
        return next(read_images([sample], evaluation_set.trimmed, margin))[0]
    except CaptureError:
        return None


def _embedding_maps(column: Column) -> list[CategoryEmbeddings]:
    """Choose the categories with the most mistakes, then those with the most items."""
    predictions = column.predictions
    scored = []
    for category, vectors in predictions.vectors.items():
        rows = [i for i in vectors if predictions.queries[i].category == category]
        items = [predictions.queries[i].item for i in rows]
        if len(set(items)) < 2:
            continue
        right = [column.closed_set[i].nearest == column.closed_set[i].true_item for i in rows]
        scored.append(((right.count(False), len(set(items))), category, rows, items, right))
    chosen = sorted(scored, key=lambda one: one[0], reverse=True)[:_EMBEDDING_MAPS]
    return [
        CategoryEmbeddings(name, np.stack([predictions.vectors[name][i] for i in rows]), items, right)
        for _, name, rows, items, right in chosen
    ]
