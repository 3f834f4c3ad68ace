"""The rows of the report's tables: which measures, under which titles. Shared by the Markdown and HTML reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Table = Mapping[str, Any]
ABSENT = "n/a"


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of every column."""

    title: str
    cells: list[str]
    note: str = ""  # explains the title


# title, path in a column's table, kind, note
_MEASURES = (
    ("Category right", "coarse.accuracy", "share", "the coarse classifier's prediction"),
    ("Categories: precision", "coarse.mean_over_classes.precision", "share", "averaged over categories"),
    ("Categories: recall", "coarse.mean_over_classes.recall", "share", ""),
    ("Categories: F1", "coarse.mean_over_classes.f1", "share", ""),
    ("Categories: accuracy of one", "coarse.mean_over_classes.accuracy", "share", "(TP + TN) / all, averaged"),
    ("Item right, through the chain", "end_to_end.top_1", "share", "nearest item, predicted category, whole gallery"),
    ("Recall@1", "retrieval.recall_at_1", "share", "in the true category"),
    ("Recall@2", "retrieval.recall_at_2", "share", ""),
    ("Recall@4", "retrieval.recall_at_4", "share", ""),
    ("Recall@5", "retrieval.recall_at_5", "share", ""),
    ("Recall@8", "retrieval.recall_at_8", "share", ""),
    ("Recall@16", "retrieval.recall_at_16", "share", ""),
    ("Recall@32", "retrieval.recall_at_32", "share", ""),
    ("Precision@5", "retrieval.precision_at_5", "share", ""),
    ("mAP@5 per hit", "retrieval.map_at_5_per_hits", "share", "divided by the hits among the five"),
    ("mAP@5 per possible hit", "retrieval.map_at_5_per_possible", "share", "divided by min(R, 5)"),
    ("Precision@10", "retrieval.precision_at_10", "share", ""),
    ("mAP@10 per hit", "retrieval.map_at_10_per_hits", "share", "divided by the hits among the ten"),
    ("mAP@10 per possible hit", "retrieval.map_at_10_per_possible", "share", "divided by min(R, 10)"),
    ("MAP@R", "retrieval.map_at_r", "share", ""),
    ("R-precision", "retrieval.r_precision", "share", ""),
    ("Recall@1 among all categories", "retrieval_among_all.recall_at_1", "share", "one embedder serves them all"),
    ("MAP@R among all categories", "retrieval_among_all.map_at_r", "share", ""),
    ("Another camera: mAP", "across_cameras.map", "share", "the same vehicle by the same camera is not searched"),
    ("Another camera: mAP, trapezoid", "across_cameras.map_trapezoid", "share", "as VeRi's own code sums it"),
    ("Another camera: CMC@1", "across_cameras.cmc_1", "share", ""),
    ("Another camera: CMC@5", "across_cameras.cmc_5", "share", ""),
    ("Another camera: CMC@10", "across_cameras.cmc_10", "share", ""),
    ("Known: identified", "open_world.identified", "share", "at shipped thresholds, items left out"),
    ("Known: wrong", "open_world.at_shipped_thresholds.known.wrong", "share", ""),
    ("Known: rejected as unknown", "open_world.at_shipped_thresholds.known.unknown", "share", ""),
    ("Unknown: falsely accepted", "open_world.false_accept_rate", "share", "at shipped thresholds"),
    ("Named wrongly, of all named", "open_world.risk", "share", "at shipped thresholds, items left out"),
    ("Area under the risk-coverage curve", "open_world.aurc", "number", "AURC; lower is better"),
    ("Area above the best order, E-AURC", "open_world.excess_aurc", "number", ""),
    ("Nameable at 1 % wrong", "open_world.coverage_at_risk_0.01", "share", "of all pictures; threshold set on these"),
    ("Nameable at 5 % wrong", "open_world.coverage_at_risk_0.05", "share", ""),
    ("Identified at FAR 1 %", "open_world.identified_at_far_0.01", "share", "threshold set on these pictures"),
    ("Identified at FAR 5 %", "open_world.identified_at_far_0.05", "share", ""),
    ("Identified at FAR 10 %", "open_world.identified_at_far_0.1", "share", ""),
    ("AUROC, known against unknown", "open_world.auroc", "number", ""),
    ("Expected calibration error", "open_world.expected_calibration_error", "number", "all pictures, items left out"),
    ("One crop, median", "latency_ms.p50", "ms", "processor time to classify, embed, search"),
    ("One crop, 95th percentile", "latency_ms.p95", "ms", ""),
    ("Queries without a match", "without_a_match", "count", "no other picture of their item: in no share above"),
)
_ATTRIBUTES = (
    ("whole_gallery", "", "what near items say"),
    ("item_left_out", ", item left out", "as if the gallery did not have its item"),
)
_CHECKOUT = (
    ("Lists wholly right, cAcc", "cAcc", "share", "higher is better"),
    ("Objects wrong per picture, ACD", "ACD", "number", "lower is better"),
    ("Mean category counting distance, mCCD", "mCCD", "number", "lower is better"),
    ("Mean category IoU, mCIoU", "mCIoU", "share", ""),
    ("Boxes, mAP50", "map50", "share", "at the detector's own score threshold"),
    ("Boxes, mAP50-95", "map50_95", "share", ""),
    ("Boxes of each item, mAP50", "item_map50", "share", "boxes with the right item, averaged over items"),
    ("Boxes of each item, mmAP", "item_map50_95", "share", "averaged over items and IoU 0.5 to 0.95"),
    ("Known objects: identified", "known.identified", "share", "of the gallery's items, but for those left out"),
    ("Known objects: wrong", "known.wrong", "share", ""),
    ("Known objects: rejected as unknown", "known.unknown", "share", ""),
    ("Known objects: missed", "known.missed", "share", ""),
    ("Unknown objects: falsely accepted", "unknown.wrong", "share", ""),
    ("Scenes; objects", "scenes;objects", "counts", ""),
    ("Unreadable pictures", "unreadable", "count", ""),
)
_CATEGORY_MEASURES = (
    ("Items", "items", "count"),
    ("Pictures", "recall_at_1.count", "count"),
    ("Recall@1", "recall_at_1", "share"),
    ("MAP@R", "map_at_r", "share"),
    ("Through the chain", "top_1_through_the_chain", "share"),
)
CATEGORY_HEADS = ("", *(title for title, _, _ in _CATEGORY_MEASURES))


def summary_rows(columns: Mapping[str, Table]) -> list[Row]:
    """Return accuracy, calibration and latency of every column, without measures that no column has."""
    names = dict.fromkeys(name for column in columns.values() for name in column.get("attributes", {}))
    attributes = tuple(
        (f"Attribute {name}: right{further}", f"attributes.{name}.{key}", "share", note)
        for name in names
        for key, further, note in _ATTRIBUTES
    )
    return _rows(_MEASURES + attributes, list(columns.values()))


def noticed_lines(report: Mapping[str, Any]) -> list[str]:
    """Return what deserves a look: about the pictures, then about each column."""
    lines = list(report["about"].get("noticed", []))
    return lines + [f"{name}: {line}" for name, table in report["columns"].items() for line in table.get("noticed", [])]


def category_rows(categories: Mapping[str, Table]) -> list[Row]:
    """Return the measures of each category, under `CATEGORY_HEADS`."""
    return [
        Row(name, [cell(table, path, kind) for _, path, kind in _CATEGORY_MEASURES])
        for name, table in categories.items()
    ]


def detector_rows(measures: Mapping[str, Any]) -> list[Row]:
    """Return the measures of a detector over all its boxes."""
    return [Row(name, [f"{number:.4g}"]) for name, number in measures.items() if name != "by_item"]


def items_of(report: Mapping[str, Any]) -> Mapping[str, Table]:
    """Return the average precision by item: of the detector, or of the first column of the shop's own scenes."""
    own: Mapping[str, Any] = next(iter(report.get("own_scenes", {}).values()), {})
    found: Mapping[str, Table] = (report.get("detector") or own.get("all", {})).get("by_item", {})
    return found


ITEM_HEADS = ("objects", "mAP50", "mAP50-95")


def item_rows(by_item: Mapping[str, Table]) -> list[Row]:
    """Return the average precision of the boxes of each item, the worst first."""
    worst = sorted(by_item.items(), key=lambda pair: (pair[1]["map50_95"], pair[0]))
    return [
        Row(name, [f"{one['objects']:.0f}", _number(one["map50"], "share"), _number(one["map50_95"], "share")])
        for name, one in worst
    ]


def list_sections(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Table], str]]:
    """Return the shopping lists of a report: title, table of each level, and a note."""
    rendered = "Boxes come from the bundle's own detector; the truth is exact, because the scenes are rendered."
    own = "Boxes come from the bundle's own detector. A list is right if each item is on it as often as it is shown."
    return [
        *(
            (f"Shopping lists of rendered scenes, {name}", found, rendered)
            for name, found in report["checkout"].items()
        ),
        *((f"Shopping lists, {name}", found, own) for name, found in report.get("own_scenes", {}).items()),
    ]


def checkout_rows(levels: Mapping[str, Table]) -> list[Row]:
    """Return the checkout measures of every level of clutter."""
    return _rows(_CHECKOUT, list(levels.values()))


def cell(table: Table, path: str, kind: str) -> str:
    """Format one value, with its 95 % interval where it has one; n/a where it is missing."""
    if kind == "counts":
        return "; ".join(cell(table, part, "count") for part in path.split(";"))
    found = value(table, path)
    if found is None:
        return ABSENT
    interval = found.get("interval") if isinstance(found, Mapping) else None
    mean = found["mean"] if isinstance(found, Mapping) else found
    text = _number(mean, kind)
    if interval:
        low, high = (_number(edge, kind).removesuffix(" %") for edge in interval)
        text += f" [{low}, {high}]"
    return text


def value(table: Table, path: str) -> Any:
    """Look up a dotted path, whose keys may hold dots; None where it is missing."""
    if path in table:
        return table[path]
    head, _, rest = path.partition(".")
    return value(table[head], rest) if rest and isinstance(table.get(head), Mapping) else None


def _rows(measures: tuple[tuple[str, str, str, str], ...], tables: list[Table]) -> list[Row]:
    rows = [Row(title, [cell(t, path, kind) for t in tables], note) for title, path, kind, note in measures]
    return [row for row in rows if set(row.cells) != {ABSENT}]


def _number(number: float, kind: str) -> str:
    if kind == "share":
        return f"{100 * number:.1f} %"
    return {"ms": f"{number:.1f} ms", "count": f"{number:.0f}"}.get(kind, f"{number:.3f}")
