"""The health report of a running device, from the state of each of its parts."""

from __future__ import annotations

import time
from dataclasses import dataclass

from edge import __version__
from edge.bundle.reprove import EngineProver
from edge.capture.cameras import Cameras
from edge.config.running_config import RunningConfig
from edge.messaging.device_publisher import DevicePublisher
from edge.messaging.outbox import Outbox
from edge.recognition.engine_states import engine_states, engine_totals
from edge.recognition.gallery_drift import GalleryDrift, age_s, staleness
from edge.recognition.gpu_engines import GpuEngines
from edge.recognition.hot_swap import ActiveModels
from edge.telemetry.agent_report import AgentReports
from edge.telemetry.counters import Counters
from edge.telemetry.health_report import HealthReport, RuntimeState, ServedRelease, WaitingUnknowns, resident_bytes
from edge.telemetry.temperature import is_throttling, read_temperatures
from edge.telemetry.timing import StageTimer


@dataclass(frozen=True, slots=True)
class HealthReporter:
    """Builds the health report of a device from its parts; use it from any thread."""

    boot_id: str
    started_ns: int  # monotonic
    running: RunningConfig
    cameras: Cameras
    publisher: DevicePublisher
    outbox: Outbox
    active_models: ActiveModels
    gallery_drift: GalleryDrift
    gpu: GpuEngines
    engine_prover: EngineProver
    agent_reports: AgentReports
    counters: Counters
    timer: StageTimer

    def report(self, state: RuntimeState, unknowns: WaitingUnknowns | None) -> HealthReport:
        """Return the state of the device now.

        Args:
            state: of the runtime; what runs with a fallback, or in safe mode, is reported as degraded.
            unknowns: pictures that wait to be uploaded; None: the device takes none.
        """
        config, safe_mode = self.running.config, self.running.safe_mode
        events, size = self.outbox.depth()
        publisher, serving = self.publisher.publisher, self.active_models.serving
        models, gpu_fallback, building = serving.models, self.gpu.fallback, self.gpu.progress
        limits, drift, release = config.gallery, self.gallery_drift.drift, serving.release
        overlay_error = self.running.overlay_problem
        wrong = (serving.fallback, gpu_fallback, overlay_error)
        is_degraded = safe_mode or any(one is not None for one in wrong)
        gallery_age_s = age_s(models.gallery_created_at, time.time())
        return HealthReport(
            site=config.site,
            device=config.device,
            boot_id=self.boot_id,
            at=time.time(),
            uptime_s=(time.monotonic_ns() - self.started_ns) / 1e9,
            state="degraded" if is_degraded and state == "running" else state,
            cameras=self.cameras.states(),
            in_view=self.publisher.objects_in_view(),
            evidence=self.cameras.reasons(),
            clock_offsets_s=self.cameras.clock_offsets_s(),
            clocks_off=self.cameras.clocks_off(),
            counters=self.counters.snapshot(),
            stages=self.timer.snapshot(),
            outbox_events=events,
            outbox_bytes=size,
            mqtt_connected=self.publisher.connected,
            mqtt_error=publisher.error if publisher else None,
            mqtt_problems=publisher.problems() if publisher else (),
            outbox_error=self.outbox.problem,
            set_aside=tuple(map(str, self.outbox.newest_set_aside())),
            resident_bytes=resident_bytes(),
            temperatures_c=read_temperatures(),
            throttling=is_throttling(),
            versions={"edge": __version__, "bundle": models.bundle_id, "gallery": models.gallery_id},
            slot=serving.pair.slot,
            release=None
            if release is None
            else ServedRelease(release.line, release.sequence, release.gallery_sequence),
            trial=serving.trial,
            taught=models.taught,
            unknowns=unknowns,
            update=self.agent_reports.newest(),
            gallery_space="compatible" if models.compatible_categories else "native",
            categories_compatible=tuple(sorted(models.compatible_categories)),
            gallery_age_s=gallery_age_s,
            gallery_drift=drift,
            gallery_stale=staleness(gallery_age_s, drift, limits.stale_after_days, limits.drift),
            fallback=serving.fallback,
            gpu_fallback=gpu_fallback,
            engines_building=building.of - building.built if building else 0,
            engines_left_s=building.left_s if building else None,
            damaged_files=serving.damaged,
            engines=engine_states(models.stages),
            engine_totals=engine_totals(models.stages),
            choosing_engines=self.engine_prover.is_running,
            safe_mode=safe_mode,
            config_error=self.running.problem,
            config_overlay=self.running.overlay,
            overlay_error=overlay_error,
        )
