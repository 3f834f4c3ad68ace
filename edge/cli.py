"""The `edge` command: reads the environment, sets up logging and runs one verb.

Each verb imports the modules it needs, so that `edge --help` starts fast.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import BundleError, ConfigError, FinesightError
from edge.options import build_parser

if TYPE_CHECKING:
    from edge.config.config_file import ConfigFile
    from edge.config.schema import DeviceConfig
    from edge.recognition.pipeline import Pipeline

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return 0 when done, 1 after an error, 2 on wrong usage."""
    arguments = build_parser(os.environ.get("FINESIGHT_LOG", "info")).parse_args(argv)
    _set_up_logging(arguments.log_level)
    try:
        return _VERBS[arguments.verb](arguments)
    except FinesightError as error:
        print(f"edge: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `edge ... | head`
        sys.stderr.close()
        return 0


def _set_up_logging(level: str) -> None:
    # journald adds the time
    stamp = "" if os.environ.get("JOURNAL_STREAM") else "%(asctime)s "
    logging.basicConfig(level=level.upper(), format=f"{stamp}%(levelname)s %(name)s: %(message)s", stream=sys.stderr)


def _config(arguments: argparse.Namespace) -> DeviceConfig:
    from edge.config.yaml_file import load_config

    return load_config(arguments.config, os.environ)


def _state_dir(arguments: argparse.Namespace) -> Path:
    state_dir: Path = arguments.state_dir
    return state_dir if arguments.config is None else _config(arguments).state_dir


def _run(arguments: argparse.Namespace) -> int:
    from edge.config.config_file import ConfigFile

    file = ConfigFile(arguments.config, os.environ)
    config = file.load_or_last_good(arguments.state_dir) if arguments.safe else file.load()
    return _run_device(config, file, until_end=arguments.until_end)


def _record(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    cameras = {
        name: camera.model_copy(update={"record_mib": camera.record_mib or arguments.mib})
        for name, camera in config.cameras.items()
    }
    log.info("recording to %s", config.state_dir / "ring")
    return _run_device(config.model_copy(update={"cameras": cameras}), None, until_end=arguments.until_end)


def _replay(arguments: argparse.Namespace) -> int:
    from edge.build import build_pipeline, load_active_models
    from edge.diagnostics.replay import replay
    from edge.messaging.payload import event_payload
    from edge.telemetry.counters import Counters

    config = _config(arguments)
    models = load_active_models(config)

    def build(name: str) -> Pipeline:
        if name not in config.cameras:
            raise ConfigError(f"{arguments.config}: has no camera {name!r}, which was recorded; add it to `cameras`")
        return build_pipeline(models, config.recognition, {name: config.cameras[name]}, Counters())

    for number, event in enumerate(replay(arguments.folder, build)):
        print(event_payload(event, config.site, config.device, "replay", number).decode())
    return 0


def _run_device(config: DeviceConfig, file: ConfigFile | None, *, until_end: bool) -> int:
    """Run a device until it is stopped; without a file, it cannot reload its configuration."""
    from edge.process import StateLock, limit_heaps
    from edge.runtime import Runtime

    limit_heaps()
    stop, reload = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
    with ExitStack() as stack:
        if config.state_dir.is_dir():  # otherwise no bundle is active, which Runtime reports
            stack.callback(StateLock(config.state_dir).release)
        server = None
        if config.health is not None:  # before the engines are built: it reports "starting" meanwhile
            from edge.diagnostics.health_server import HealthServer

            server = stack.enter_context(HealthServer(config.health.host, config.health.port))
        if config.kiosk is None:
            runtime = stack.enter_context(Runtime(config, file))
        else:
            from edge.extras import require_extra

            require_extra("kiosk")
            from edge.kiosk.open_kiosk import open_kiosk

            runtime = open_kiosk(config, config.kiosk, file, stack)
        if server is not None:
            server.attach(runtime)
        runtime.run(stop, until_end=until_end, reload=reload)
        errors = runtime.camera_errors()
    if until_end and errors:
        raise next(iter(errors.values()))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from edge.diagnostics.check import check

    if not check(_config(arguments), arguments.seconds if arguments.probe else None):
        return 1
    print(f"{arguments.config}: ok")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from edge.diagnostics.doctor import run_checks

    config = _config(arguments) if arguments.config else None
    findings = []
    for finding in run_checks(config):
        findings.append(finding)
        if not arguments.json:
            print(f"{finding.verdict:4}  {finding.thing}: {finding.words}", flush=True)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    return 1 if any(finding.verdict == "bad" for finding in findings) else 0


def _status(arguments: argparse.Namespace) -> int:
    from edge.diagnostics.status import fetch, format_status

    status = fetch(_config(arguments), "/status")
    print(status.strip() if arguments.json else "\n".join(format_status(status)))
    return 0


def _support(arguments: argparse.Namespace) -> int:
    from edge.diagnostics.support_bundle import pack_support

    parts = pack_support(arguments.config, _config(arguments), arguments.out)
    print(f"{arguments.out}: {', '.join(parts)}")
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from edge.diagnostics.bench import BenchRequest, bench, format_table

    request = BenchRequest(
        arguments.source, arguments.framing, arguments.resize, arguments.frames, arguments.bundle, arguments.gallery
    )
    report = bench(_config(arguments), request)
    print(json.dumps(asdict(report), indent=1) if arguments.json else format_table(report))
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from edge.config.yaml_file import load_config
    from edge.demo.demo import demo
    from edge.extras import require_extra
    from edge.shipped.examples import shipped

    file = arguments.config or shipped("configs") / "demo.yaml"
    config = load_config(file, os.environ)
    if arguments.config is None:  # the shipped folder may be read-only
        config = config.model_copy(update={"state_dir": Path("build/demo").absolute()})
    if config.mqtt is None:  # it starts its own broker
        require_extra("demo")
    return demo(config, arguments.assets or shipped("demo"), arguments.sheet)


def _init(arguments: argparse.Namespace) -> int:
    from edge.shipped.examples import copy_examples

    written, kept = copy_examples(arguments.folder)
    print(f"{arguments.folder}: {written} files written, {kept} kept as they were")
    return 0


def _find(arguments: argparse.Namespace) -> int:
    from edge.bundle.bundle import read_bundle
    from edge.finder.find_in_file import find, parse_queries
    from edge.finder.finder import open_finder

    bundle = read_bundle(arguments.bundle)
    if bundle.manifest.finder is None:
        raise BundleError(f"{arguments.bundle}: holds no finder; give a bundle that was packed with one")
    finder = open_finder(bundle.folder, bundle.manifest.finder)
    print(json.dumps(find(finder, parse_queries(arguments.query), arguments.scene, arguments.out), indent=1))
    return 0


def _schema(_: argparse.Namespace) -> int:
    from edge.config.schema import DeviceConfig

    print(json.dumps(DeviceConfig.model_json_schema(), indent=1))
    return 0


def _print_result(arguments: argparse.Namespace, value: dict[str, Any]) -> int:
    if arguments.json:
        print(json.dumps(value, indent=1, default=str))
    else:
        for key, item in value.items():
            print(f"{key}: {item}")
    return 0


def _bundle_list(arguments: argparse.Namespace) -> int:
    from edge.bundle import active_pointer as pointer
    from edge.bundle import slots

    state_dir = _state_dir(arguments)
    result: dict[str, Any] = {f"slot {slot.name}": asdict(slot) for slot in slots.read_slots(state_dir)}
    active, staged = pointer.read_active_pointer(state_dir), pointer.read_staged_pointer(state_dir)
    result["serving"] = active.model_dump() if active else None
    result["staged"] = staged.model_dump() if staged else None
    return _print_result(arguments, result)


def _bundle_verify(arguments: argparse.Namespace) -> int:
    from edge.bundle.golden_probes import verify_bundle

    for line in verify_bundle(arguments.folder):
        print(line)
    return 0


def _bundle_install(arguments: argparse.Namespace) -> int:
    from edge.bundle import slots

    state_dir = _state_dir(arguments)
    slot = slots.install_bundle(arguments.folder, state_dir)
    result = {"slot": slot}
    if arguments.gallery is not None:
        result["gallery"] = slots.install_gallery(arguments.gallery, state_dir)
        slots.stage(state_dir, slot, result["gallery"])
    return _print_result(arguments, result)


def _bundle_activate(arguments: argparse.Namespace) -> int:
    from edge.bundle import slots
    from edge.bundle.golden_probes import verify_slot

    state_dir = _state_dir(arguments)
    verify_slot(state_dir, arguments.bundle)
    active = slots.activate(state_dir, arguments.bundle, arguments.gallery)
    return _print_result(arguments, {"serving": active.model_dump()})


def _bundle_rollback(arguments: argparse.Namespace) -> int:
    from edge.bundle import slots

    return _print_result(arguments, {"serving": slots.rollback(_state_dir(arguments)).model_dump()})


def _gallery_status(arguments: argparse.Namespace) -> int:
    from edge.bundle import slots

    _, gallery = slots.read_active(_state_dir(arguments))
    result: dict[str, Any] = {"generation": gallery.generation, "created_at": gallery.created_at}
    result |= {name: f"{e.items} items, {e.vectors} vectors" for name, e in sorted(gallery.categories.items())}
    return _print_result(arguments, result)


_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "status": _status,
    "record": _record,
    "replay": _replay,
    "check": _check,
    "doctor": _doctor,
    "support-bundle": _support,
    "bench": _bench,
    "demo": _demo,
    "init": _init,
    "find": _find,
    "schema": _schema,
    "bundle list": _bundle_list,
    "bundle verify": _bundle_verify,
    "bundle install": _bundle_install,
    "bundle activate": _bundle_activate,
    "bundle rollback": _bundle_rollback,
    "gallery status": _gallery_status,
}
