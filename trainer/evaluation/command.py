"""`edge-train evaluate`: every column on the same pictures, written as JSON, Markdown and one HTML page."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edge.config.schema import EngineConfig
from edge.errors import CaptureError, EngineError, TrainError
from edge.imaging.image import read_image, set_threads
from edge.types import Image
from trainer.evaluation.evaluate_models import Column, Question, assess, assess_detector, confusions, put
from trainer.evaluation.model_chain import Recogniser, Reference, embedded, of_bundle, of_runs, open_peer, stored
from trainer.evaluation.report_markdown import as_markdown
from trainer.evaluation.report_page import Cloud, Confusion, as_page

_WORST = 12
_CLOUDS = 6


def run_evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Judge, write, and give the report.

    Raises:
        TrainError: nothing to judge, or data or models are missing.
        FinesightError: a bundle, gallery or picture is unusable.
    """
    set_threads(1)
    question, columns = None, []
    if args.data is not None:
        question = put(args.data, args.root, args.query, args.gallery, share=args.left_out, seed=args.seed)
        columns = _columns(args, question)
    report: dict[str, Any] = {
        "about": _about(args, question),
        "columns": {column.recogniser.name: column.table for column in columns},
        "checkout": _checkout(args) if args.checkout else {},
    }
    if args.detector is not None and args.scenes is not None:
        report["detector"] = assess_detector(args.detector, args.scenes, args.root, args.query)
    if not (columns or report["checkout"] or report.get("detector")):
        raise TrainError(
            "found nothing to examine, expected --data with models, --checkout, or --detector with --scenes"
        )
    if args.out is not None:
        _write(args, report, columns, question)
    return report


def _columns(args: argparse.Namespace, question: Question) -> list[Column]:
    """Every column; a bundle's other forms and the peers ask the same pictures."""
    columns = []
    for recogniser, gallery in _recognisers(args, question):
        references = gallery or embedded(recogniser, question.gallery, args.plain.split(","))
        columns.append(assess(recogniser, references, question))
    return columns


def _recognisers(args: argparse.Namespace, question: Question) -> list[tuple[Recogniser, Mapping[str, Reference]]]:
    categories = sorted({sample.category for sample in question.gallery})
    listed: list[tuple[Recogniser, Mapping[str, Reference]]] = []
    if args.bundle is not None:
        for precision in ("int8", "fp32"):
            try:
                recogniser = of_bundle(f"bundle, {precision.upper()}", args.bundle, precision)
            except EngineError:
                continue  # it does not hold this form of every model
            held = stored(recogniser, args.bundle, args.bundle_gallery) if args.bundle_gallery else {}
            listed.append((recogniser, held))
        if not listed:
            recogniser = of_bundle("bundle, as shipped", args.bundle)
            held = stored(recogniser, args.bundle, args.bundle_gallery) if args.bundle_gallery else {}
            listed.append((recogniser, held))
    if args.embedder:
        listed.append((of_runs("runs, FP32", args.classifier, args.embedder), {}))
    if not listed:
        raise TrainError("found --data without models, expected --bundle or --embedder")
    for peer in args.peer:
        name, equals, where = peer.partition("=")
        if not equals:
            raise TrainError(f"--peer {peer}: found no '=', expected NAME=WHERE")
        listed.append((open_peer(name, where, categories), {}))
    return listed


def _checkout(args: argparse.Namespace) -> dict[str, Any]:
    from trainer.evaluation.checkout_scenes import judge_bundle, left_out_of

    if args.bundle is None or args.bundle_gallery is None:
        raise TrainError("found --checkout without --bundle and --bundle-gallery, expected both")
    left = left_out_of(args.bundle, args.bundle_gallery, args.left_out, args.seed)
    tables: dict[str, Any] = {}
    for precision in ("int8", "fp32"):
        try:
            engine = EngineConfig(backend="onnxruntime", precision=precision)
            tables[precision.upper()] = judge_bundle(
                args.bundle, args.bundle_gallery, args.checkout, args.seed, left, engine
            )
        except EngineError:
            continue  # as above
    return tables or {
        "as shipped": judge_bundle(
            args.bundle, args.bundle_gallery, args.checkout, args.seed, left, EngineConfig(backend="onnxruntime")
        )
    }


def _about(args: argparse.Namespace, question: Question | None) -> dict[str, Any]:
    peers = f" (peers: {args.gallery})" if args.peer else ""
    named = args.bundle or (args.embedder[0] if args.embedder else args.detector)
    return {
        "name": named.name if named else "nothing",
        "data": str((args.data or args.scenes or Path("rendered scenes")).name),
        "query": args.query,
        "gallery": f"the bundle's gallery{peers}" if args.bundle_gallery else args.gallery,
        "images": len(question.queries) if question else 0,
        "unreadable": len(question.skipped) if question else 0,
        "items": len({sample.item for sample in question.gallery}) if question else 0,
        "items_left_out": len(question.left_out) if question else 0,
        "left_out": sorted(question.left_out) if question else [],
        "seed": args.seed,
        "machine": machine(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def machine() -> str:
    """The processor and its cores, for the record."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def _write(args: argparse.Namespace, report: dict[str, Any], columns: list[Column], question: Question | None) -> None:
    out: Path = args.out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    worst = confusions(columns[0].closed)[:_WORST] if columns else []
    out.with_suffix(".md").write_text(as_markdown(report, worst), encoding="utf-8")
    shown = [_confusion(columns[0], question, *pair) for pair in worst] if question else []
    clouds = _clouds(columns[0]) if columns else []
    out.with_suffix(".html").write_text(as_page(report, shown, clouds), encoding="utf-8")


def _confusion(column: Column, question: Question, shown: str, nearest: str, times: int) -> Confusion:
    pairs = zip(question.queries, column.closed, strict=True)
    query = next(sample for sample, said in pairs if said.shown == shown and said.nearest == nearest)
    reference = next(r for r in column.heard.references.values() if nearest in r.items)
    return Confusion(shown, nearest, times, _picture_of(query.path), reference.picture(nearest))


def _picture_of(path: Path) -> Image | None:
    try:
        return read_image(path)
    except CaptureError:
        return None


def _clouds(column: Column) -> list[Cloud]:
    """The categories with the most mistakes, then those with the most items."""
    heard = column.heard
    found = []
    for category, vectors in heard.vectors.items():
        rows = [i for i in vectors if heard.queries[i].category == category]
        items = [heard.queries[i].item for i in rows]
        if len(set(items)) < 2:
            continue
        right = [column.closed[i].nearest == column.closed[i].shown for i in rows]
        found.append(((right.count(False), len(set(items))), category, rows, items, right))
    chosen = sorted(found, key=lambda one: one[0], reverse=True)[:_CLOUDS]
    return [
        Cloud(name, np.stack([heard.vectors[name][i] for i in rows]), items, right)
        for _, name, rows, items, right in chosen
    ]
