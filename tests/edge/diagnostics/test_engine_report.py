"""What `edge bundle prove` prints, and how health shows what runs each model."""

from __future__ import annotations

import json

import pytest

from edge.bundle.prove import ProofOptions
from edge.diagnostics.engine_report import describe_choice, format_choice, prove_engines
from edge.diagnostics.metrics import MetricsPage
from edge.diagnostics.status import format_status
from edge.errors import BundleError
from edge.inference.engine_choice import EngineChoice, ModelChoice, Tried
from edge.messaging.payload import health_payload
from edge.telemetry.counters import Counters
from edge.telemetry.health_report import EngineState
from edge.telemetry.timing import StageTimer
from tests.fakes import health_report

ROWS = [
    Tried(backend="onnxruntime", form="ort-u8", ms=3.0, score_ms=3.0, evidence="8 probes passed"),
    Tried(backend="openvino", form="ort-u8", ms=1.5, score_ms=1.5, evidence="8 probes passed"),
    Tried(backend="onnxruntime", form="tensorrt-s8", problem="2 of 8 probes failed"),
]
CHOICE = EngineChoice(
    schema=1,
    bundle_id="one",
    made_at="2026-01-01T00:00:00Z",
    backend="auto",
    machine={"cpu": "ARM", "threads": "2", "gpu": ""},
    pending=["tensorrt"],
    models={
        "detector": ModelChoice(
            backend="openvino", form="ort-u8", since="2026-01-01T00:00:00Z", reason="fastest of 2", tried=ROWS
        )
    },
)
STATE = EngineState("openvino", "ort-u8", 1.5, "2026-01-01T00:00:00Z", "fastest of 2", "loaded", 3.25, 0.5, 1)


def test_table_shows_the_chosen_one_first_and_why_the_others_are_not():
    assert list(format_choice(CHOICE)) == [
        "bundle one on ARM, 2 thread(s)",
        "model     engine       form           ms  result",
        "detector  openvino     ort-u8       1.50  chosen: fastest of 2",
        "          onnxruntime  ort-u8       3.00  passed: 8 probes passed",
        "          onnxruntime  tensorrt-s8     -  out: 2 of 8 probes failed",
        "not tried: tensorrt",
    ]


def test_json_of_a_choice_is_what_the_file_holds():
    assert EngineChoice.model_validate(json.loads(json.dumps(describe_choice(CHOICE)))) == CHOICE


def test_device_without_a_bundle_says_what_to_do(tmp_path):
    with pytest.raises(BundleError, match="no bundle is active or staged; name a bundle folder, or run: edge bundle"):
        prove_engines(tmp_path, None, ProofOptions())
    with pytest.raises(BundleError, match="bundle 'nine' is not installed"):
        prove_engines(tmp_path, "nine", ProofOptions())


def test_status_shows_what_runs_each_model_and_why():
    waiting = EngineState("onnxruntime", "fp32", None, None, "the default", "not_loaded")
    report = health_report(engines={"detector": STATE, "embedder can": waiting}, choosing_engines=True)
    lines = format_status(health_payload(report).decode())
    assert "detector: openvino ort-u8, 1.50 ms (since 2026-01-01): fastest of 2" in lines
    assert "embedder can: onnxruntime fp32, not loaded: the default" in lines
    assert "engines: every engine is being tried in the background" in lines


def test_metrics_name_the_engine_of_each_model():
    class Device:
        counters, timer = Counters(), StageTimer()

        def report(self):
            return health_report(engines={"detector": STATE})

        def loop_age_s(self):
            return 0.0

    page = MetricsPage().render(Device()).decode()
    assert 'finesight_engine_info{engine="openvino",form="ort-u8",model="detector"} 1.0' in page
    assert 'finesight_engine_milliseconds{model="detector"} 1.5' in page
