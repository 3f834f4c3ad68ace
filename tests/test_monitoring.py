"""The Grafana board and the alert rules use metrics and labels that a device has."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest
import yaml

from edge.types import CameraState
from scripts import make_reference

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "packaging/monitoring"
BOARD = json.loads((FOLDER / "grafana-devices.json").read_text(encoding="utf-8"))
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
EXPRESSIONS = {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in BOARD["panels"] for target in panel["targets"]
}
EXPRESSIONS |= {rule["alert"]: rule["expr"] for rule in RULES}
PROMETHEUS_ADDS = {"instance", "job", "le"}


@functools.cache
def known_metrics() -> dict[str, set[str]]:
    """Names and labels from the reference page, which is made from the code and tested to be current."""
    rows = re.findall(r"^\| `(finesight_\w+)` \| ([^|]*) \|", make_reference.metrics(), flags=re.MULTILINE)
    known = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    return known | {"finesight_stage_seconds_bucket": known["finesight_stage_seconds"], "up": set()}


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_expression_uses_metrics_and_labels_that_exist(expression):
    known = known_metrics()
    names = set(re.findall(r"\bfinesight_\w+|\bup\b", expression))
    assert names
    assert names <= known.keys()
    labels = {label for name in names for label in known[name]} | PROMETHEUS_ADDS
    used = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression))
    used |= {one.strip() for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for one in group.split(",")}
    assert used <= labels


def test_expressions_name_camera_states_that_exist():
    named = {
        state
        for one in EXPRESSIONS.values()
        for found in re.findall(r'state[=!]~?"([^"]*)"', one)
        for state in found.split("|")
    }
    assert named <= set(CameraState.__args__)
    assert {"stalled", "offline", "frozen"} <= named


def test_a_new_counter_raises_its_alert():
    """increase() does not see the first count of a counter that did not exist before."""
    rare = {"FinesightEventsLost", "FinesightEventsRefused", "FinesightBundleRefused", "FinesightDiskErrors"}
    assert all(re.search(r"unless \S+ offset", EXPRESSIONS[name]) for name in rare)


def test_every_rule_says_what_to_do():
    assert all(rule["annotations"].keys() == {"summary", "description"} for rule in RULES)
    assert {rule["labels"]["severity"] for rule in RULES} == {"critical", "warning", "info"}
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_page_lists_every_alert():
    page = (ROOT / "docs/how-to/monitor.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(Finesight\w+)`", page)) == {rule["alert"] for rule in RULES}


def test_panels_do_not_overlap():
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
