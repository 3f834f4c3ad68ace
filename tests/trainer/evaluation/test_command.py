"""Evaluation of the demo's bundle on its own probes, from the command line."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from trainer.cli import main

DEMO = Path(__file__).parents[3] / "demo"


@pytest.fixture
def index(tmp_path):
    """The bundle's golden probes as a data set, as queries and as references, and a truncated picture."""
    probes = json.loads((DEMO / "bundle/bundle.json").read_text())["probes"]
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    rows = [(tmp_path / "torn.png", "val", probes[0]["category"], probes[0]["item_id"])]
    for split in ("val", "reference"):
        rows += [(DEMO / "bundle" / probe["path"], split, probe["category"], probe["item_id"]) for probe in probes]
    with (tmp_path / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "split", "category", "item"), *rows])
    return tmp_path / "index.csv"


def test_bundle_is_evaluated_in_every_precision_beside_a_peer(index, tmp_path, capsys):
    bundle = ["--bundle", str(DEMO / "bundle"), "--bundle-gallery", str(DEMO / "gallery")]
    data = ["--data", str(index), "--gallery", "reference", "--left-out", "0.1", "--peer", f"again={DEMO / 'bundle'}"]
    assert main(["evaluate", *bundle, *data, "-o", str(tmp_path / "out/report.json")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["columns"]) == ["bundle, INT8", "bundle, FP32", "again"]
    assert report["about"]["unreadable"] == 1
    for table in report["columns"].values():
        assert table["end_to_end"]["top_1"]["mean"] == 1.0
        assert table["coarse"]["accuracy"]["mean"] == 1.0
        assert table["latency_ms"]["p50"] > 0
    opened = report["columns"]["bundle, INT8"]["open_world"]
    assert opened["known"] + opened["unknown"] == report["about"]["images"]
    assert opened["at_shipped_thresholds"]["nothing_left_out"]["identified"] > 0.9
    page = (tmp_path / "out/report.html").read_text()
    assert re.search(r"<title>Evaluation of bundle</title>", page)
    assert "| again |" in (tmp_path / "out/report.md").read_text()


def test_usage_mistakes_are_one_line_errors(index, capsys):
    assert main(["evaluate"]) == 1
    assert "nothing to evaluate" in capsys.readouterr().err
    bundle = ["--bundle", str(DEMO / "bundle"), "--bundle-gallery", str(DEMO / "gallery")]
    assert main(["evaluate", *bundle, "--data", str(index), "--gallery", "reference", "--peer", "nameless"]) == 1
    assert "write it as NAME=WHERE" in capsys.readouterr().err
    assert main(["evaluate", "--checkout", "3"]) == 1
    assert "--checkout needs --bundle" in capsys.readouterr().err
