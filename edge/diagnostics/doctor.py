"""Checks decoders, engines, broker, clock and disk of this machine, without changing anything."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge import durable
from edge.build import load_active_models
from edge.capture.gstreamer_pipeline import HARDWARE, hardware_present
from edge.config.schema import DeviceConfig
from edge.diagnostics.engine_checks import ENGINES, check_engine
from edge.errors import CaptureError, FinesightError
from edge.messaging.connection import Connection
from edge.messaging.settings import mqtt_settings
from edge.telemetry.temperature import read_temperatures

FindingVerdict = Literal["good", "note", "bad"]
_MIN_FREE_BYTES = 512 * 2**20  # two bundles, two galleries and an outbox at its bound
_SLOW_WRITE_MS = 100.0
_HOT_C = 85.0
_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "asimddp")  # flags of processors with 8-bit dot products
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 208


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    verdict: FindingVerdict  # bad: the device cannot work as configured
    thing: str
    words: str


def run_checks(config: DeviceConfig | None) -> Iterator[Finding]:
    """Run every check and yield its finding.

    Args:
        config: of the device; None: run only the checks that need no configuration.
    """
    yield processor(Path("/proc/cpuinfo"))
    yield from engines()
    yield from decoders()
    yield clock()
    yield from temperatures(Path("/sys/class/thermal"))
    if config is not None:
        yield disk(config.state_dir)
        yield models(config)
        yield broker(config)


def processor(cpuinfo: Path) -> Finding:
    """Check the cores, and whether INT8 is fast here."""
    try:
        words = set(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        words = set()
    cores = os.cpu_count() or 1
    found = [flag for flag in _DOT_PRODUCTS if flag in words]
    if found:
        return Finding("good", "processor", f"{cores} cores with 8-bit dot products ({found[0]}): INT8 models run fast")
    return Finding("note", "processor", f"{cores} cores without 8-bit dot products: INT8 models gain less")


def engines() -> Iterator[Finding]:
    """Check which engines are installed and run here."""
    for name in ENGINES:
        runs, words = check_engine(name)
        yield Finding("good" if runs else "note", f"engine {name}", words)


def decoders() -> Iterator[Finding]:
    """Check which libraries that read cameras are installed, and their hardware decoders."""
    from edge.capture.opencv_source import built_with

    apis = built_with()
    verdict: FindingVerdict = "good" if "FFMPEG" in apis else "bad"
    yield Finding(verdict, "decoder opencv", f"reads with {', '.join(apis)}, decodes in software")
    try:
        from edge.capture.gstreamer_source import elements_present
    except CaptureError as error:
        yield Finding("note", "decoder gstreamer", str(error))
        return
    present = elements_present()
    hardware = hardware_present(present)
    codecs = [codec for codec, names in HARDWARE.items() if any(name in present for name in names)]
    words = (
        f"hardware {', '.join(hardware)} for {', '.join(codecs)}" if hardware else "in software: no hardware decoder"
    )
    yield Finding("good", "decoder gstreamer", words)


def clock() -> Finding:
    """Check that a time service keeps the clock right, because events carry its time."""
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)) if os.name == "posix" else -1
    if state in (_TIME_ERROR, -1):
        return Finding("note", "clock", "not synchronised by a time service: event times may be wrong")
    return Finding("good", "clock", "synchronised by a time service")


def temperatures(zones: Path) -> Iterator[Finding]:
    """Check the temperatures."""
    for name, degrees_c in sorted(read_temperatures(zones).items()):
        hot = degrees_c >= _HOT_C
        yield Finding("note" if hot else "good", f"temperature {name}", f"{degrees_c:.0f} C{': it throttles' * hot}")


def disk(state_dir: Path) -> Finding:
    """Check the free space, and time a durable write."""
    probe = state_dir / f".doctor-{secrets.token_hex(4)}"
    try:
        started = time.monotonic()
        durable.write_durably(probe, b"x" * 4096)
        elapsed_ms = 1e3 * (time.monotonic() - started)
        probe.unlink()
        free = shutil.disk_usage(state_dir).free
    except (OSError, FinesightError) as error:
        return Finding("bad", "disk", f"{state_dir}: cannot write: {error}")
    words = f"{state_dir}: {free / 2**30:.1f} GiB free, a durable write takes {elapsed_ms:.1f} ms"
    good = free >= _MIN_FREE_BYTES and elapsed_ms <= _SLOW_WRITE_MS
    return Finding("good" if good else "note", "disk", words)


def models(config: DeviceConfig) -> Finding:
    """Load the active bundle and gallery, and run them once with the configured engine."""
    started = time.monotonic()
    try:
        loaded = load_active_models(config)
    except FinesightError as error:
        return Finding("bad", "bundle", str(error))
    words = f"{loaded.bundle_id}, gallery {loaded.gallery_id}, ready in {time.monotonic() - started:.1f} s"
    return Finding("good", "bundle", words)


def broker(config: DeviceConfig) -> Finding:
    """Connect to the broker and disconnect."""
    if config.mqtt is None:
        return Finding("note", "broker", "none configured: events stay in the outbox")
    # a different client id, so that the running device stays connected
    own = config.mqtt.model_copy(update={"client_id": None})
    settings = mqtt_settings(own, config.site, config.device)
    started = time.monotonic()
    try:
        Connection(settings).close()
    except FinesightError as error:
        return Finding("bad", "broker", str(error))
    return Finding("good", "broker", f"{settings.address} answers in {1e3 * (time.monotonic() - started):.0f} ms")
