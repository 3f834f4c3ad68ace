"""The metrics of a device as Prometheus reads them. The only module that imports prometheus_client."""

from __future__ import annotations

from collections.abc import Iterable
from math import isinf
from typing import Protocol, get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from edge.telemetry.counters import COUNTER_HELP, Counters
from edge.telemetry.health_report import HealthReport, RuntimeState
from edge.telemetry.timing import StageTimer
from edge.types import CameraState

READY: frozenset[RuntimeState] = frozenset({"running", "degraded"})
_PREFIX = "finesight"


class Device(Protocol):
    """The part of a running device that the server threads use."""

    counters: Counters
    timer: StageTimer

    def report(self) -> HealthReport:
        """Return its current state."""

    def loop_age_s(self) -> float:
        """Return the seconds since the last iteration of its frame loop."""


class MetricsPage:
    """Renders `/metrics`: the process, and a device once there is one."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    def render(self, device: Device | None) -> bytes:
        """Return the page; without a device, of the process alone."""
        text = generate_latest(self._process)
        return text if device is None else text + generate_latest(_Families(device))


class _Families(Collector):
    """The device's counters, stage times and state as Prometheus families."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def collect(self) -> Iterable[Metric]:
        """Return every metric family with its current values."""
        yield from _counts(self._device.counters)
        stages = HistogramMetricFamily(f"{_PREFIX}_stage_seconds", "Seconds that each stage takes.", labels=["stage"])
        for stage, histogram in self._device.timer.histograms().items():
            buckets = [("+Inf" if isinf(bound_s) else str(bound_s), runs) for bound_s, runs in histogram.cumulative]
            stages.add_metric([stage], buckets, histogram.sum_s)
        yield stages
        yield from _gauges(self._device.report())


def _counts(counters: Counters) -> Iterable[Metric]:
    families: dict[str, Metric] = {}
    for name, labels, count in counters.items():
        full = f"{_PREFIX}_{name}"
        family = families.setdefault(name, Metric(full, COUNTER_HELP.get(name, name), "counter"))
        family.add_sample(f"{full}_total", dict(labels), count)
    return families.values()


def _gauges(report: HealthReport) -> Iterable[Metric]:
    totals = report.engine_totals
    for name, text, value in (
        ("ready", "1 while the device recognises.", report.state in READY),
        ("uptime_seconds", "Seconds since the start.", report.uptime_s),
        ("outbox_events", "Messages that wait for the broker.", report.outbox_events),
        ("outbox_bytes", "Approximate bytes of the messages that wait.", report.outbox_bytes),
        ("mqtt_connected", "1 while connected to the broker.", report.mqtt_connected),
    ):
        family = GaugeMetricFamily(f"{_PREFIX}_{name}", text)
        family.add_metric([], float(value))
        yield family
    for name, text, measured in (
        ("gallery_age_seconds", "Seconds since the gallery was created.", report.gallery_age_s),
        (
            "gallery_drift",
            "Drift of the confidence of decisions since the gallery became active, 0..1.",
            report.gallery_drift,
        ),
        ("engines_building", "Engines of the GPU that are not built yet.", float(report.engines_building)),
        ("engines_left_seconds", "Seconds until the engines of the GPU are built, where known.", report.engines_left_s),
        ("gpu_fallback", "1 while the CPU runs models that the GPU should.", float(report.gpu_fallback is not None)),
        ("gallery_stale", "1 while the gallery should be updated.", float(bool(report.gallery_stale))),
        ("engines_loaded", "Engines in memory.", None if totals is None else float(totals.loaded)),
        ("engines_memory_bytes", "Memory of the engines.", None if totals is None else totals.memory_mib * 2**20),
        (
            "engines_memory_limit_bytes",
            "Memory that the engines may use (engine.memory_mib).",
            None if totals is None or totals.budget_mib is None else totals.budget_mib * 2**20,
        ),
    ):
        if measured is not None:
            family = GaugeMetricFamily(f"{_PREFIX}_{name}", text)
            family.add_metric([], measured)
            yield family
    degrees = GaugeMetricFamily(f"{_PREFIX}_temperature_celsius", "Temperature by sensor.", labels=["sensor"])
    for sensor, celsius in report.temperatures_c.items():
        degrees.add_metric([sensor], celsius)
    yield degrees
    if report.throttling is not None:
        slowed = GaugeMetricFamily(f"{_PREFIX}_throttling", "1 while the device is slowed down to keep cool.")
        slowed.add_metric([], float(report.throttling))
        yield slowed
    offsets = GaugeMetricFamily(
        f"{_PREFIX}_camera_clock_offset_seconds",
        "Clock of the camera minus the device's, for cameras that send their time.",
        labels=["camera"],
    )
    for camera, offset_s in report.clock_offsets_s.items():
        offsets.add_metric([camera], offset_s)
    yield offsets
    cameras = GaugeMetricFamily(
        f"{_PREFIX}_camera_state", "1 for the state a camera is in.", labels=["camera", "state"]
    )
    for camera, now in report.cameras.items():
        for state in get_args(CameraState):
            cameras.add_metric([camera, state], float(state == now))
    yield cameras
    in_view = GaugeMetricFamily(f"{_PREFIX}_objects_in_view", "Objects in view of a camera.", labels=["camera"])
    for camera, objects in report.in_view.items():
        in_view.add_metric([camera], objects)
    yield in_view
    yield from _engines(report)
    yield from _updates(report)
    info = GaugeMetricFamily(f"{_PREFIX}_info", "Versions; the value is always 1.", labels=list(report.versions))
    info.add_metric(list(report.versions.values()), 1.0)
    yield info


def _engines(report: HealthReport) -> Iterable[Metric]:
    engines = GaugeMetricFamily(
        f"{_PREFIX}_engine_info",
        "The engine and form that run a model; the value is always 1.",
        labels=["model", "engine", "form"],
    )
    engine_ms = GaugeMetricFamily(
        f"{_PREFIX}_engine_milliseconds",
        "One run of a model, as measured when its engine was chosen.",
        labels=["model"],
    )
    engine_bytes = GaugeMetricFamily(
        f"{_PREFIX}_engine_bytes",
        "Memory of the loaded engine that runs a model; models may share one.",
        labels=["model"],
    )
    for model, engine in report.engines.items():
        engines.add_metric([model, engine.engine, engine.form], 1.0)
        if engine.ms is not None:
            engine_ms.add_metric([model], engine.ms)
        if engine.status == "loaded" and engine.memory_mib is not None:
            engine_bytes.add_metric([model], engine.memory_mib * 2**20)
    yield engines
    yield engine_ms
    yield engine_bytes


def _updates(report: HealthReport) -> Iterable[Metric]:
    """Return what serves by release, the state of the update agent, and the taught items."""
    release, update, taught = report.release, report.update, report.taught
    on_trial = GaugeMetricFamily(f"{_PREFIX}_on_trial", "1 while the bundle and gallery that serve are on trial.")
    on_trial.add_metric([], float(report.trial is not None))
    yield on_trial
    if release is not None:
        sequence = GaugeMetricFamily(f"{_PREFIX}_release_sequence", "The release that serves.", labels=["line"])
        sequence.add_metric([release.line], release.sequence)
        yield sequence
        if release.gallery_sequence is not None:
            galleries = GaugeMetricFamily(
                f"{_PREFIX}_release_gallery_sequence", "The galleries of the release that serves.", labels=["line"]
            )
            galleries.add_metric([release.line], release.gallery_sequence)
            yield galleries
    if update is not None:
        state = GaugeMetricFamily(
            f"{_PREFIX}_update_state", "1 for the state that the update agent is in.", labels=["state"]
        )
        state.add_metric([update.state], 1.0)
        yield state
        for name, text, value in (
            (
                "metadata_expiry_seconds",
                "Seconds until the metadata of the repository expires; negative: nothing new is installed.",
                None if update.expires_at is None else update.expires_at - report.at,
            ),
            (
                "metadata_half_life",
                "1 once half of the life of the repository's metadata is over: refresh the repository.",
                None if update.warn_at is None else float(report.at >= update.warn_at),
            ),
            ("update_report_age_seconds", "Seconds since the update agent reported.", _age_s(report)),
        ):
            if value is not None:
                family = GaugeMetricFamily(f"{_PREFIX}_{name}", text)
                family.add_metric([], value)
                yield family
    if taught is not None:
        items = GaugeMetricFamily(
            f"{_PREFIX}_taught_items",
            "Items taught on this device that are searched, retired, waiting or unusable.",
            labels=["state"],
        )
        for name in ("searched", "retired", "waiting", "unusable"):
            items.add_metric([name], getattr(taught, name))
        yield items
    if (unknowns := report.unknowns) is not None:
        for name, text, value in (
            ("unknowns_waiting", "Pictures of unknown objects that wait for the server.", float(unknowns.files)),
            ("unknowns_bytes", "Bytes of the pictures of unknown objects that wait.", float(unknowns.bytes)),
        ):
            family = GaugeMetricFamily(f"{_PREFIX}_{name}", text)
            family.add_metric([], value)
            yield family


def _age_s(report: HealthReport) -> float | None:
    if report.update is None or report.update.written_at is None:
        return None
    return max(0.0, report.at - report.update.written_at)
