"""Ask a running device for its state, over its health endpoint."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from edge.config.schema import DeviceConfig
from edge.errors import ConfigError, FinesightError

_TIMEOUT_S = 5.0
_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  addresses to listen on, not to connect to


def fetch(config: DeviceConfig, path: str) -> str:
    """Return the response of the running device for a path of its health server.

    Raises:
        ConfigError: the configuration has no health section.
        FinesightError: the device does not answer.
    """
    if config.health is None or config.health.port == 0:
        raise ConfigError(
            "the configuration has no health section with a port; add one so that a running device can answer"
        )
    host = _UNSPECIFIED.get(config.health.host, config.health.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{config.health.port}{path}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy: connect to the device itself
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as answer:
            text: str = answer.read().decode("utf-8", "replace")
    except (OSError, urllib.error.URLError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split())  # may hold line breaks of another program
        raise FinesightError(f"{url}: no answer ({reason}); start the device with `edge run`") from error
    return text


def format_status(status: str) -> list[str]:
    """Return the lines that `edge status` prints, from the JSON of /status.

    Raises:
        FinesightError: the text is not a health report.
    """
    try:
        return list(_status_lines(json.loads(status)))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FinesightError(f"/status: not a health report ({error!r}); check health.port") from error


def _status_lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"{report.get('site', '')}/{report.get('device', '')}: {report['state']}"
    if "waiting_for" in report:
        yield f"waiting for a bundle: {report['waiting_for']}"
    if "counters" not in report:  # still loading models
        return
    yield from _serving_lines(report)
    for camera, state in sorted(report["cameras"].items()):
        off = camera in report.get("clocks_off", ())
        clock = f", its clock {report['clock_offsets_s'][camera]:+.1f} s from the device's" if off else ""
        yield f"camera {camera}: {state}{clock}"
    yield from _messaging_lines(report)
    for stage, times in report["stages"].items():
        yield f"{stage}: p50 {times['p50_ms']:.1f} ms, p95 {times['p95_ms']:.1f} ms, p99 {times['p99_ms']:.1f} ms"
    for counter, count in sorted(report["counters"].items()):
        yield f"{counter} {count}"


def _serving_lines(report: dict[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    yield f"up {report['uptime_s']:.0f} s, {versions}, {(report['resident_bytes'] or 0) / 2**20:.0f} MiB"
    yield from _release_lines(report)
    yield from _config_lines(report)
    if report.get("fallback"):
        yield f"fallback: {report['fallback']}"
    if report.get("gpu_fallback"):
        yield f"engines: the CPU runs the models: {report['gpu_fallback']}"
    yield from (f"damaged: {line}" for line in report.get("damaged_files", []))
    yield from _engine_lines(report)
    if report.get("gallery_space") == "compatible":
        waiting = ", ".join(report["categories_compatible"])
        yield f"gallery: in an older, compatible embedding space; re-embed these categories: {waiting}"
    for why in report.get("gallery_stale", ()):
        yield f"gallery is stale: {why}"


def _config_lines(report: dict[str, Any]) -> Iterator[str]:
    if report.get("config_overlay"):
        yield f"configuration: with the overlay {report['config_overlay']}"
    if report.get("overlay_error"):
        yield f"configuration: without the overlay, which is refused: {report['overlay_error']}"
    if report.get("config_error"):
        yield f"configuration: the file is invalid: {report['config_error']}"


def _release_lines(report: dict[str, Any]) -> Iterator[str]:
    if release := report.get("release"):
        trial = f", on trial {report['trial']}" if report.get("trial") else ""
        yield f"release {_release_in_words(release)}{trial}"
    if update := report.get("update"):
        of = f", release {_release_in_words(update['release'])}" if update.get("release") else ""
        yield f"updates: {update['state']}{of}" + (f": {update['reason']}" if update.get("reason") else "")
        expires_at, warn_at = update.get("expires_at"), update.get("warn_at")
        if expires_at is not None and warn_at is not None and _unix_s(report) >= warn_at:
            days = (expires_at - _unix_s(report)) / 86400
            expiry = f"expires in {days:.1f} days" if days > 0 else "has expired: nothing new is installed"
            yield f"updates: the metadata of the repository {expiry}; refresh the repository"
    if taught := report.get("taught"):
        waiting = f", {taught['waiting']} wait to be embedded" if taught["waiting"] else ""
        unusable = f", {taught['unusable']} cannot be used" if taught["unusable"] else ""
        yield f"taught items: {taught['items']}, {taught['searched']} of them searched{waiting}{unusable}"
    if unknowns := report.get("unknowns"):
        problem = f"; {unknowns['problem']}" if unknowns["problem"] else ""
        yield f"unknown objects: {unknowns['files']} pictures wait for the server{problem}"


def _release_in_words(release: dict[str, Any]) -> str:
    gallery = release.get("gallery_sequence")
    return f"{release['line']} {release['sequence']}" + ("" if gallery is None else f", galleries {gallery}")


def _unix_s(report: dict[str, Any]) -> float:
    return datetime.fromisoformat(report["at"].replace("Z", "+00:00")).timestamp()


def _engine_lines(report: dict[str, Any]) -> Iterator[str]:
    if totals := report.get("engine_totals"):
        budget = "" if totals["budget_mib"] is None else f" of {totals['budget_mib']:.0f}"
        used = f"{totals['memory_mib']:.0f}{budget} MiB"
        yield f"engines: {totals['loaded']} of {totals['engines']} loaded, {used}"
    for model, engine in report.get("engines", {}).items():
        ms = "" if engine["ms"] is None else f", {engine['ms']:.2f} ms"
        since = f" (since {engine['since'][:10]})" if engine["since"] else ""
        loaded = "" if engine["status"] == "loaded" else f", {engine['status'].replace('_', ' ')}"
        error = f": {engine['error']}" if engine["error"] else ""
        yield f"{model}: {engine['engine']} {engine['form']}{ms}{loaded}{error}{since}: {engine['reason']}"
    if report.get("choosing_engines"):
        yield "engines: every engine is being tried in the background"


def _messaging_lines(report: dict[str, Any]) -> Iterator[str]:
    broker = "connected" if report["mqtt_connected"] else f"not connected ({report['mqtt_error'] or 'none configured'})"
    yield f"broker: {broker}; {report['outbox_events']} events wait"
    for problem in report.get("mqtt_problems", ()):
        yield f"broker: {problem}"
    if report.get("outbox_error"):
        yield f"outbox: {report['outbox_error']}"
    for event in report.get("set_aside", ()):
        yield f"set aside: {event}"
