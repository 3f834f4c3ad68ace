"""How a running device is, asked over its health address."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from edge.config.schema import DeviceConfig
from edge.errors import ConfigError, FinesightError

_TIMEOUT_S = 5.0
_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  listened on, not to be called


def ask(config: DeviceConfig, path: str) -> str:
    """What the running device answers on a path of its health server.

    Raises:
        ConfigError: the configuration has no health section.
        FinesightError: nothing answers there.
    """
    if config.health is None or config.health.port == 0:
        raise ConfigError("found no health section with a port, expected one: a running device is asked there")
    host = _UNSPECIFIED.get(config.health.host, config.health.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{config.health.port}{path}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy: the device itself is asked
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as answer:
            text: str = answer.read().decode("utf-8", "replace")
    except (OSError, urllib.error.URLError) as error:
        raise FinesightError(f"{url}: found no answer ({error}), expected a running device") from error
    return text


def describe(status: str) -> Iterator[str]:
    """Lines for people, of what /status answered."""
    report: dict[str, Any] = json.loads(status)
    yield f"{report.get('site', '')}/{report.get('device', '')}: {report['state']}"
    if "counters" not in report:  # engines are being built
        return
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    yield f"up {report['uptime_s']:.0f} s, {versions}, {(report['resident_bytes'] or 0) / 2**20:.0f} MiB"
    if report.get("gallery_space") == "compatible":
        waiting = ", ".join(report["categories_compatible"])
        yield f"gallery: of an older embedding space, searched as compatible, until it is embedded anew: {waiting}"
    for why in report.get("gallery_stale", ()):
        yield f"gallery is stale: {why}"
    for camera, state in sorted(report["cameras"].items()):
        off = camera in report.get("clocks_off", ())
        clock = f", its clock {report['clock_offsets_s'][camera]:+.1f} s from ours" if off else ""
        yield f"camera {camera}: {state}{clock}"
    broker = "connected" if report["mqtt_connected"] else f"not connected ({report['mqtt_error'] or 'none configured'})"
    yield f"broker: {broker}; {report['outbox_events']} events wait"
    for stage, times in report["stages"].items():
        yield f"{stage}: p50 {times['p50_ms']:.1f} ms, p95 {times['p95_ms']:.1f} ms, p99 {times['p99_ms']:.1f} ms"
    for counter, count in sorted(report["counters"].items()):
        yield f"{counter} {count}"
