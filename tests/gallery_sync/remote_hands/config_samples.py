"""A device with real overlay files, a clock that only waiting moves, and an `edge` that is only played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge.config.overlay import Overlay, overlay_path, read_overlay
from edge.errors import ConfigError
from edge.telemetry.vital_signs import VitalCamera, VitalConfig, VitalPair, VitalSigns
from gallery_sync.remote_hands.commands import Outcome
from gallery_sync.remote_hands.config import ConfigTrials, World

TRIAL_S = 60.0
NIGHT = Overlay("night-mode", 3, {"cameras": {"door": {"max_px": 640}}})
DAY = Overlay("day-mode", 1, {"recognition": {"min_looks": 5}})


@dataclass
class PlayedDevice:
    """The machine: what plays `edge`, and time."""

    state_dir: Path
    now_s: float = 1000.0
    seconds: float = TRIAL_S  # of a trial
    boot_id: str = "boot-1"
    runs: bool = True
    run: str = "run-1"
    knows_overlays: bool = True
    refuses: set[str] = field(default_factory=set)  # overlays
    states: dict[str | None, dict[str, str]] = field(default_factory=dict)  # of cameras, by overlay; else online
    later: dict[float, dict[str, str]] = field(default_factory=dict)  # from a time on, whatever the overlay
    why_not: str | None = None  # what the check of an overlay says
    checked: list[bytes] = field(default_factory=list)
    on_sleep: Callable[[], None] = lambda: None

    def in_use(self) -> tuple[str | None, str | None]:
        """Return the overlay that is in use, and why the one that is there is not."""
        try:
            overlay = read_overlay(overlay_path(self.state_dir))
        except ConfigError as error:
            return None, str(error)
        if overlay is not None and str(overlay) in self.refuses:
            return None, f"overlay {overlay}: cameras.door.max_px: found 5"
        return (None if overlay is None else str(overlay)), None

    def signs(self) -> VitalSigns | None:
        if not self.runs:
            return None
        used, refused = self.in_use()
        states = {"door": "online", "yard": "online"} | self.states.get(used, {})
        for at_s, changed in self.later.items():
            states |= changed if self.now_s >= at_s else {}
        return VitalSigns(
            schema="finesight.vital_signs/1",
            boot_id=self.run,
            machine_boot_id=self.boot_id,
            pid=1,
            started_at=0.0,
            written_at=0.0,
            started_monotonic_s=0.0,
            written_monotonic_s=self.now_s,
            state="running",
            pair=VitalPair(slot="a", bundle_id="one", gallery="g"),
            cameras={name: VitalCamera(state=state, frames=0, errors=0, fps=0.0) for name, state in states.items()},
            config=VitalConfig(overlay=used, refused=refused) if self.knows_overlays else None,
        )

    def check(self, path: Path) -> str | None:
        self.checked.append(path.read_bytes())
        return self.why_not

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.on_sleep()

    def reboot(self, number: int = 2) -> None:
        """Start the machine again."""
        self.boot_id, self.now_s, self.run = f"boot-{number}", 10.0, f"run-{number}"

    def world(self) -> World:
        """Return the machine, as this boot of it is."""
        return World(self.signs, self.check, lambda: self.now_s, self.sleep, self.boot_id)

    def trials(self) -> ConfigTrials:
        """Return what a new agent has."""
        return ConfigTrials(self.state_dir, self.world())

    def set(self, overlay: Overlay | None, request: str = "1") -> Outcome:
        """Take an overlay, and watch it to the end of its trial."""
        trials = self.trials()
        trial = trials.begin(overlay, request, self.seconds)
        return Outcome("done", "already") if trial is None else trials.watch(trial)

    def go_on(self) -> Outcome | None:
        """Do what an agent does that starts again; None: no trial is left to be watched."""
        trials = self.trials()
        trial = trials.resume()
        return None if trial is None else trials.watch(trial)
