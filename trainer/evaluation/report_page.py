"""The evaluation report as one HTML page: no network, no script, light and dark, readable on a phone."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.imaging.image import encode_image, shrink
from edge.types import Image
from trainer.evaluation.report_figures import (
    confusion_matrix,
    embedding_map,
    principal_plane,
    reliability_plot,
    risk_coverage_plot,
)
from trainer.evaluation.report_markdown import about_line
from trainer.evaluation.report_tables import (
    ABSENT,
    CATEGORY_HEADS,
    ITEM_HEADS,
    Row,
    category_rows,
    cell,
    checkout_rows,
    detector_rows,
    item_rows,
    items_of,
    list_sections,
    noticed_lines,
    summary_rows,
)

_PICTURE_PX = 160
_OF_CATEGORY = ("precision", "recall", "f1", "accuracy")


@dataclass(frozen=True, slots=True)
class Confusion:
    """An item that was confused with another."""

    true_item: str
    nearest: str
    times: int
    query_rgb: Image | None  # one of the query pictures
    reference_rgb: Image | None  # the gallery's picture of the nearest item


@dataclass(frozen=True, slots=True)
class CategoryEmbeddings:
    """The embeddings of the queries of one category."""

    category: str
    vectors: NDArray[np.float32]  # (n, dim)
    items: list[str]
    right: list[bool]


def render_page(report: Mapping[str, Any], confusions: Sequence[Confusion], maps: Sequence[CategoryEmbeddings]) -> str:
    """Render the whole page.

    Args:
        report: the report of trainer.evaluation.command.
        confusions: confusions of the first column, most frequent first.
        maps: embeddings of the first column, for the categories to draw.
    """
    about, columns = report["about"], report["columns"]
    title = f"Evaluation of {about['name']}"
    body = [f"<h1>{escape(title)}</h1>", f"<p class=about>{escape(about_line(about))}</p>"]
    if columns:
        body.append(_headline(next(iter(columns.values()))))
        table = _table(["", *columns], summary_rows(columns))
        table += "".join(f"<p>{escape(line)}</p>" for line in noticed_lines(report))
        body.append(_section("All measures", table, _SUMMARY))
        body += _first_column_sections(next(iter(columns)), next(iter(columns.values())), confusions, maps)
    body += [f"<p>{escape(line)}</p>" for line in ([] if columns else noticed_lines(report))]
    for name, levels, note in list_sections(report):
        body.append(_section(name, _table(["", *levels], checkout_rows(levels)), note))
    if report.get("detector"):
        body.append(_section("Detector", _table(["", about["query"]], detector_rows(report["detector"]))))
    if by_item := items_of(report):
        body.append(_section("Boxes of each item, the worst first", _table(["", *ITEM_HEADS], item_rows(by_item))))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{_STYLE}'
    page = "\n".join(body)
    return (
        f"<!doctype html>\n<html lang=en><head>{head}<title>{escape(title)}</title></head>\n<body><main>{page}</main>"
    )


_SUMMARY = "Brackets hold the 95 % interval. The left-out items are the same in every column."


def _first_column_sections(
    name: str, table: Mapping[str, Any], confusions: Sequence[Confusion], maps: Sequence[CategoryEmbeddings]
) -> list[str]:
    """Render the sections that show the first column only."""
    parts = []
    if confusions:
        cards = "".join(_card(one) for one in confusions)
        text = "Left the query picture, right the gallery's picture of the nearest item."
        parts.append(_section(f"Worst confusions, {name}", f"<div class=cards>{cards}</div>", text))
    if bins := table["open_world"].get("reliability"):
        error = cell(table, "open_world.expected_calibration_error", "number")
        text = (
            f"Expected calibration error {error}. A dot's area is its number of pictures; on the line, the stated "
            "probability is right."
        )
        parts.append(
            _section("Calibration of the stated probability", f"<div class=figure>{reliability_plot(bins)}</div>", text)
        )
    if points := table["open_world"].get("risk_coverage"):
        text = (
            f"Area {cell(table, 'open_world.aurc', 'number')}, lower is better. The surest answers are named first; a "
            "picture of an item that was left out is wrong wherever it is named."
        )
        figure = f"<div class=figure>{risk_coverage_plot(points)}</div>"
        parts.append(_section("Wrong names by share that is named", figure, text))
    if coarse := table.get("coarse"):
        parts += _coarse_sections(coarse)
    rows = category_rows(table["categories"])
    parts.append(_section("Items of each category", _table(CATEGORY_HEADS, rows), "Retrieval in the true category."))
    if maps:
        figures = "".join(_map(embeddings) for embeddings in maps)
        text = "Each dot is a picture and each colour an item, on the first two principal components. Ringed: wrong."
        parts.append(_section("Embedding map", f"<div class=maps>{figures}</div>", text))
    return parts


def _coarse_sections(coarse: Mapping[str, Any]) -> list[str]:
    """Render the confusion matrix and the measures of each category."""
    figure = f"<div class=wide>{confusion_matrix(coarse['confusion'])}</div>"
    rows = [
        Row(each, [*(f"{100 * one[key]:.1f} %" for key in _OF_CATEGORY), f"{one['count']:.0f}"])
        for each, one in coarse["per_class"].items()
    ]
    heads = ["", "precision", "recall", "F1", "accuracy", "pictures"]
    return [
        _section("Categories: true (rows), predicted (columns)", figure),
        _section("Each category", _table(heads, rows), "Accuracy of one category: (TP + TN) / all."),
    ]


def _headline(table: Mapping[str, Any]) -> str:
    """Render the headline numbers."""
    wanted = (
        ("item right", "end_to_end.top_1", "share"),
        ("category right", "coarse.accuracy", "share"),
        ("known identified", "open_world.identified", "share"),
        ("unknown accepted", "open_world.false_accept_rate", "share"),
        ("calibration error", "open_world.expected_calibration_error", "number"),
        ("per crop", "latency_ms.p50", "ms"),
    )
    tiles = [(title, cell(table, path, kind).partition(" [")[0]) for title, path, kind in wanted]
    rendered = "".join(f"<div><b>{text}</b><span>{title}</span></div>" for title, text in tiles if text != ABSENT)
    return f"<div class=tiles>{rendered}</div>"


def _section(title: str, content: str, text: str = "") -> str:
    paragraph = f"<p>{escape(text)}</p>" if text else ""
    return f"<section><h2>{escape(title)}</h2>{paragraph}{content}</section>"


def _table(heads: Sequence[str], rows: Sequence[Row]) -> str:
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    lines = []
    for row in rows:
        note = f"<small>{escape(row.note)}</small>" if row.note else ""
        cells = "".join(f"<td>{_cell(text)}</td>" for text in row.cells)
        lines.append(f"<tr><th>{escape(row.title)}{note}</th>{cells}</tr>")
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def _cell(text: str) -> str:
    mean, bracket, interval = text.partition(" [")
    return f"{escape(mean)}<small>{bracket.strip()}{escape(interval)}</small>" if bracket else escape(text)


def _card(one: Confusion) -> str:
    pair = "".join(
        _picture(image, name) for image, name in ((one.query_rgb, one.true_item), (one.reference_rgb, one.nearest))
    )
    times = "once" if one.times == 1 else f"{one.times} times"
    caption = f"<b>{escape(one.true_item)}</b> taken for <b>{escape(one.nearest)}</b>, {times}"
    return f"<figure><div>{pair}</div><figcaption>{caption}</figcaption></figure>"


def _picture(image_rgb: Image | None, name: str) -> str:
    if image_rgb is None:
        return "<span class=absent>no picture</span>"
    data = base64.b64encode(encode_image(shrink(image_rgb, _PICTURE_PX), ".jpg", 80)).decode()
    return f'<img alt="{escape(name)}" src="data:image/jpeg;base64,{data}">'


def _map(embeddings: CategoryEmbeddings) -> str:
    drawn = embedding_map(principal_plane(embeddings.vectors), embeddings.items, embeddings.right)
    return f"<figure>{drawn}<figcaption>{escape(embeddings.category)}</figcaption></figure>"


_STYLE = """<style>
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --paper: #fbfbf9; --card: #fff; --line: #e2e4e6;
  --good: #1f7a4d; --bad: #c0392b; --mark: #2b62c9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ec; --soft: #9aa4af; --paper: #14171a; --card: #1c2024;
  --line: #30363c; --good: #4cc38a; --bad: #ff7a6b; --mark: #7aa7ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .4rem; }
p { color: var(--soft); margin: 0 0 .9rem; max-width: 60rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem; margin-top: 1rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .7rem; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem .9rem; }
.tiles b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tiles span, small, figcaption { color: var(--soft); font-size: .82rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .6rem; border-top: 1px solid var(--line); text-align: right; vertical-align: top; }
td { white-space: nowrap; }
th:first-child { text-align: left; font-weight: 500; min-width: 9rem; position: sticky; left: 0;
  background: var(--card); }
thead th { border-top: 0; color: var(--soft); font-weight: 500; }
th small, td small { display: block; font-weight: 400; }
.cards, .maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .9rem; }
figure { margin: 0; }
.cards figure > div { display: grid; grid-template-columns: 1fr 1fr; gap: 2px; border-radius: 8px; overflow: hidden; }
.cards img, .absent { width: 100%; height: 9rem; object-fit: contain; background: #8882; }
.absent { display: grid; place-items: center; color: var(--soft); font-size: .82rem; }
figcaption { margin-top: .3rem; overflow-wrap: anywhere; }
.figure { max-width: 26rem; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); }
svg .count { fill: var(--ink); }
.grid { stroke: var(--line); fill: #8881; }
.hit { fill: var(--good); } .miss { fill: var(--bad); }
.guide { stroke: var(--soft); stroke-dasharray: 4 4; }
.curve { fill: none; stroke: var(--mark); stroke-width: 2; }
.dot { fill: var(--mark); fill-opacity: .55; }
.maps figure { border: 1px solid var(--line); border-radius: 8px; padding: .4rem; }
.ring { stroke: var(--ink); stroke-width: 2; }
</style>"""
