"""The evaluation report as Markdown, for a pull request or a README."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainer.evaluation.report_tables import (
    CATEGORY_HEADS,
    ITEM_HEADS,
    Row,
    category_rows,
    checkout_rows,
    detector_rows,
    item_rows,
    items_of,
    list_sections,
    noticed_lines,
    summary_rows,
)


def render_markdown(report: Mapping[str, Any], confused: Sequence[tuple[str, str, int]]) -> str:
    """Render the tables of a report.

    Args:
        report: the report of trainer.evaluation.command.
        confused: true item, item it was taken for, how often; most frequent first.
    """
    columns = report["columns"]
    lines = [f"# Evaluation: {report['about']['data']}", "", about_line(report["about"]), ""]
    if columns:
        lines += _table(["", *columns], summary_rows(columns))
        lines += ["", *(f"* {line}" for line in noticed)] if (noticed := noticed_lines(report)) else []
        first = next(iter(columns))
        lines += ["", f"## By category, {first}", ""]
        lines += _table(CATEGORY_HEADS, category_rows(columns[first]["categories"]))
        if confused:
            lines += ["", f"## Most often confused, {first}", ""]
            lines += _table(["true item", "taken for", "times"], [Row(a, [b, str(n)]) for a, b, n in confused])
    lines += [] if columns else [f"* {line}" for line in noticed_lines(report)]
    for title, levels, note in list_sections(report):
        lines += ["", f"## {title}", "", note, ""]
        lines += _table(["", *levels], checkout_rows(levels))
    if report.get("detector"):
        lines += ["", "## Detector", ""]
        lines += [f"* {row.title}: {row.cells[0]}" for row in detector_rows(report["detector"])]
    if by_item := items_of(report):
        lines += ["", "## Boxes of each item, the worst first", "", *_table(["", *ITEM_HEADS], item_rows(by_item))]
    return "\n".join(lines) + "\n"


def about_line(about: Mapping[str, Any]) -> str:
    """Describe in one sentence what was measured."""
    left = (
        f"; {about['items_left_out']} of {about['items']} items left out as unknown" if about["items_left_out"] else ""
    )
    unread = f"; {about['unreadable']} pictures could not be read" if about["unreadable"] else ""
    if about.get("queries_in_gallery"):
        left += f"; {about['protocol']}: {about['queries_in_gallery']} of the pictures are in the gallery, too"
    if not about["images"]:
        return f"Whole scenes; seed {about['seed']}; {about['machine']}; {about['date']}."
    return (
        f"{about['images']} pictures of split {about['query']} against {about['gallery']}{left}{unread}; "
        f"seed {about['seed']}; 95 % intervals by bootstrap over pictures; {about['machine']}; {about['date']}."
    )


def _table(heads: Sequence[str], rows: Iterable[Row]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        title = f"{row.title} ({row.note})" if row.note else row.title
        lines.append(f"| {' | '.join(text.replace('|', '/') for text in [title, *row.cells])} |")
    return lines
