"""The evaluation report as Markdown and HTML."""

from __future__ import annotations

import re

import numpy as np
import pytest

from trainer.evaluation.report_figures import (
    confusion_matrix,
    embedding_map,
    principal_plane,
    reliability_plot,
    risk_coverage_plot,
)
from trainer.evaluation.report_markdown import render_markdown
from trainer.evaluation.report_page import CategoryEmbeddings, Confusion, render_page
from trainer.evaluation.report_tables import ABSENT, cell, checkout_rows, summary_rows

TABLE = {
    "coarse": {
        "accuracy": {"mean": 0.5, "interval": [0.25, 0.75], "count": 4},
        "per_class": {"red": {"precision": 1.0, "recall": 0.5, "f1": 0.667, "count": 2.0, "accuracy": 0.5}},
        "confusion": {"red": {"red": 1, "blue": 1}},
    },
    "end_to_end": {"top_1": {"mean": 0.75, "interval": [0.5, 1.0], "count": 4}},
    "retrieval": {},
    "categories": {"red": {"items": 2, "recall_at_1": {"mean": 1.0, "interval": [1.0, 1.0], "count": 2}}},
    "open_world": {
        "identified_at_far_0.05": {"mean": 0.4, "interval": [0.2, 0.6], "count": 4},
        "reliability": [{"count": 3.0, "probability": 0.9, "right": 1.0}],
    },
    "latency_ms": {"p50": 12.34, "p95": 20.0},
}
ABOUT = {
    "name": "<shop>", "data": "index.csv", "query": "val", "gallery": "catalogue", "images": 4, "unreadable": 1,
    "items": 5, "items_left_out": 1, "seed": 3, "machine": "a CPU", "date": "2026-01-02",
    "protocol": "leave-one-out", "queries_in_gallery": 3, "noticed": ["a <copy>"],
}  # fmt: skip
REPORT = {"about": ABOUT, "columns": {"ours": TABLE, "theirs": {}}, "checkout": {"INT8": {"easy": {"cAcc": 0.25}}}}


def test_cells_show_per_cent_intervals_and_absent_values():
    assert cell(TABLE, "coarse.accuracy", "share") == "50.0 % [25.0, 75.0]"
    assert cell(TABLE, "open_world.identified_at_far_0.05", "share") == "40.0 % [20.0, 60.0]"
    assert cell(TABLE, "latency_ms.p50", "ms") == "12.3 ms"
    assert cell(TABLE, "retrieval.map_at_r", "share") == ABSENT


def test_rows_that_no_column_has_are_left_out():
    rows = {row.title: row.cells for row in summary_rows(REPORT["columns"])}
    assert rows["Category right"] == ["50.0 % [25.0, 75.0]", ABSENT]
    assert "MAP@R" not in rows
    assert checkout_rows({"easy": {"cAcc": 0.25}})[0].title == "Lists wholly right, cAcc"


def test_markdown_holds_tables_and_confusions():
    text = render_markdown(REPORT, [("ale", "beer|stout", 3)])
    assert "4 pictures of split val against catalogue; 1 of 5 items left out as unknown; leave-one-out: 3 of" in text
    assert "the gallery, too; 1 pictures could not be read" in text
    assert "* a <copy>" in text
    assert "| Category right (the coarse classifier's prediction) | 50.0 % [25.0, 75.0] | n/a |" in text
    assert "| ale | beer/stout | 3 |" in text
    assert all(line.count("|") >= 3 for line in text.splitlines() if line.startswith("|"))


def test_page_loads_nothing_and_escapes_names():
    picture = np.full((400, 200, 3), 90, np.uint8)
    embeddings = CategoryEmbeddings(
        "red", np.eye(4, 8, dtype=np.float32), ["a", "a", "b", "b"], [True, True, False, True]
    )
    page = render_page(REPORT, [Confusion("a", "<b>", 2, picture, None)], [embeddings])
    assert not re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:)[a-z]", page)
    assert "<script" not in page
    assert "&lt;shop&gt;" in page
    assert "&lt;b&gt;" in page
    assert "<p>a &lt;copy&gt;</p>" in page
    assert page.count("data:image/jpeg;base64,") == 1
    assert "no picture" in page
    assert page.count('class="ring"') == 1


def test_confusion_matrix_counts_hits_and_misses():
    drawn = confusion_matrix(TABLE["coarse"]["confusion"])
    assert drawn.count('class="hit"') == 1
    assert drawn.count('class="miss"') == 1
    assert "red predicted as blue: 1 of 2" in drawn


def test_risk_coverage_curve_is_drawn_where_there_is_one():
    points = [{"coverage": 0.5, "risk": 0.0}, {"coverage": 1.0, "risk": 0.25}]
    assert risk_coverage_plot(points).count("<circle") == 2
    assert "100 % named, 25.0 % of these wrong" in risk_coverage_plot(points)
    assert "Wrong names by share that is named" not in render_page(REPORT, [], [])
    table = {**TABLE, "open_world": {**TABLE["open_world"], "risk_coverage": points, "aurc": {"mean": 0.1}}}
    page = render_page({**REPORT, "columns": {"one": table}}, [], [])
    assert "Wrong names by share that is named" in page
    assert "Area 0.100, lower is better" in page


def test_reliability_plot_has_a_dot_for_each_bin():
    assert reliability_plot(TABLE["open_world"]["reliability"] * 2).count("<circle") == 2


def test_principal_plane_separates_clusters_in_the_unit_square():
    rng = np.random.default_rng(0)
    near, far = rng.normal(0, 0.05, (20, 6)), rng.normal(0, 0.05, (20, 6)) + np.eye(1, 6)
    plane = principal_plane(np.concatenate([near, far]).astype(np.float32))
    assert plane.min() == pytest.approx(0)
    assert plane.max() == pytest.approx(1)
    assert abs(plane[:20, 0].mean() - plane[20:, 0].mean()) > 0.7


def test_principal_plane_of_one_vector_is_a_point():
    assert principal_plane(np.ones((1, 4), np.float32)).shape == (1, 2)
    assert embedding_map(np.zeros((1, 2)), ["a"], [True]).count("<circle") == 1
