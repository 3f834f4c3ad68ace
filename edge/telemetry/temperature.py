"""Temperatures and throttling, read from the kernel."""

from __future__ import annotations

from pathlib import Path

ZONES = Path("/sys/class/thermal")
_PLAUSIBLE_C = (-40.0, 150.0)  # zones that are switched off read -256 on a Jetson


def read_temperatures(zones: Path = ZONES) -> dict[str, float]:
    """Return degrees Celsius by zone name; empty where the kernel reports none."""
    found = {}
    for zone in sorted(zones.glob("thermal_zone*")):
        try:
            name = (zone / "type").read_text(encoding="ascii").strip()
            degrees_c = int((zone / "temp").read_text(encoding="ascii")) / 1e3
        except (OSError, ValueError):  # a sleeping sensor cannot be read
            continue
        if _PLAUSIBLE_C[0] < degrees_c < _PLAUSIBLE_C[1]:
            found[name] = degrees_c
    return found


def is_throttling(cooling: Path = ZONES) -> bool | None:
    """Return whether the kernel slows something down to keep cool; None where it does not report it.

    A fan is a cooling device too, but does not throttle.
    """
    slowed = None
    for device in cooling.glob("cooling_device*"):
        try:
            kind = (device / "type").read_text(encoding="ascii").strip().lower()
            state = int((device / "cur_state").read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        if "fan" in kind:
            continue
        slowed = bool(slowed) or state > 0
    return slowed
