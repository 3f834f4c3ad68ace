"""Runs a device as one process: signals, the lock of the state folder, the servers, and the runtime.

Exit status: 0 after a stop, 3 after a stop if another bundle or gallery than the active ones served (FALLBACK).
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge.build import ModelLoading
from edge.bundle.layout import state_fingerprint
from edge.errors import BundleError
from edge.process import StateLock, StoppedError, limit_heaps
from edge.telemetry.systemd import notify_systemd, watchdog_interval_s

if TYPE_CHECKING:
    from edge.config.config_file import ConfigFile
    from edge.config.schema import DeviceConfig
    from edge.diagnostics.health_server import HealthServer
    from edge.runtime import Runtime

log = logging.getLogger(__name__)

FALLBACK = 3
_LOOK_AGAIN_S = 1.0


def run_device(
    config: DeviceConfig,
    file: ConfigFile | None,
    *,
    until_end: bool,
    wait: bool = False,
    on_started: Callable[[], None] = lambda: None,
) -> int:
    """Run a device until it is stopped, and return the exit status.

    Args:
        config: the device.
        file: its configuration file; None: it cannot reload its configuration.
        until_end: also stop once every file and folder has ended.
        wait: while no bundle can be used, wait for one instead of failing.
        on_started: called once the device is ready, or waits for a bundle.

    Raises:
        FinesightError: the device cannot start; or a file could not be read, with `until_end`.
    """
    limit_heaps()
    stop, reload = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
    with ExitStack() as stack:
        if wait:
            with contextlib.suppress(OSError):  # a disk that cannot be written; nothing can arrive there
                config.state_dir.mkdir(parents=True, exist_ok=True)
        if config.state_dir.is_dir():  # otherwise no bundle is active, which Runtime reports
            stack.callback(StateLock(config.state_dir).release)
        server = None
        if config.health is not None:  # before the engines are built: it reports "starting" meanwhile
            from edge.diagnostics.health_server import HealthServer

            server = stack.enter_context(HealthServer(config.health))
        try:
            open_runtime = partial(_open, config, file, stop)
            runtime = _opened(open_runtime, config.state_dir, stack, stop, server, on_started if wait else None)
        except StoppedError:
            return 0
        on_started()
        pictures = None
        if config.snapshots is not None or config.live is not None:
            from edge.pictures.open_pictures import open_pictures

            pictures = open_pictures(runtime, stack)
        if config.unknowns is not None:
            from edge.unknowns.open_unknowns import open_unknowns

            open_unknowns(runtime, config.unknowns, stack)
        if server is not None:
            server.attach(runtime, pictures)
        runtime.run(stop, until_end=until_end, reload=reload)
        errors = runtime.camera_errors()
        fallback = runtime.fallback
    if until_end and errors:
        raise next(iter(errors.values()))
    return 0 if fallback is None else FALLBACK


def _open(config: DeviceConfig, file: ConfigFile | None, stop: threading.Event, stack: ExitStack) -> Runtime:
    if config.kiosk is None:
        loading = ModelLoading(config)
        loading.wait_for_verification()
        from edge.runtime import Runtime  # the other half of the program is imported while the models load

        return stack.enter_context(Runtime(config, file, stop=stop, loading=loading))
    from edge.extras import require_extra

    require_extra("kiosk")
    from edge.kiosk.open_kiosk import open_kiosk

    return open_kiosk(config, config.kiosk, file, stack, stop)


def _opened(
    open_runtime: Callable[[ExitStack], Runtime],
    state_dir: Path,
    stack: ExitStack,
    stop: threading.Event,
    server: HealthServer | None,
    on_waiting: Callable[[], None] | None,
) -> Runtime:
    """Open the runtime; with `on_waiting`, again whenever the state folder changes, until a bundle can be used.

    Raises:
        FinesightError: it cannot be opened.
        StoppedError: `stop` was set meanwhile.
    """
    while True:
        before = state_fingerprint(state_dir)
        with ExitStack() as opened:
            try:
                runtime = open_runtime(opened)
            except BundleError as error:
                if on_waiting is None:
                    raise
                log.error("%s; waiting for a bundle and gallery", error)  # noqa: TRY400  the message says it all
                problem = str(error)
            else:
                stack.push(opened.pop_all())
                return runtime
        if server is not None:
            server.waiting_for = problem
        on_waiting()
        _wait_for_change(state_dir, before, stop)


def _wait_for_change(state_dir: Path, before: tuple[object, ...], stop: threading.Event) -> None:
    """Wait until the state folder changes; tell systemd meanwhile that the process is alive.

    Raises:
        StoppedError: `stop` was set.
    """
    notify_systemd("READY=1\nSTATUS=waiting for a bundle and gallery")
    period_s = min(_LOOK_AGAIN_S, watchdog_interval_s() or _LOOK_AGAIN_S)
    while state_fingerprint(state_dir) == before:
        notify_systemd("WATCHDOG=1")
        if stop.wait(period_s):
            raise StoppedError
    notify_systemd("STATUS=")
