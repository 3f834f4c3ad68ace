"""The `edge` command: the only place that reads the environment, sets up logging and builds a device.

Modules are imported by the verb that needs them, so that `edge --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge import __version__
from edge.errors import BundleError, ConfigError, FinesightError
from edge.find_command import add_find_arguments

if TYPE_CHECKING:
    from edge.config import DeviceConfig
    from edge.config_file import ConfigFile
    from edge.pipeline import Pipeline
    from edge.serving import Serving

log = logging.getLogger(__name__)

DEFAULT_CONFIG = Path("/etc/finesight/device.yaml")


def main(argv: list[str] | None = None) -> int:
    """Run one verb: 0 done, 1 our error in one line, 2 usage."""
    arguments = _parser().parse_args(argv)
    _set_up_logging(arguments.log_level)
    try:
        verb: Callable[[argparse.Namespace], int] = arguments.verb
        return verb(arguments)
    except FinesightError as error:
        print(f"edge: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `edge ... | head`
        sys.stderr.close()
        return 0


def _set_up_logging(level: str) -> None:
    # journald adds the time itself
    stamp = "" if os.environ.get("JOURNAL_STREAM") else "%(asctime)s "
    logging.basicConfig(level=level.upper(), format=f"{stamp}%(levelname)s %(name)s: %(message)s", stream=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edge", description="Recognise which exact product or vehicle a camera sees.")
    parser.add_argument("--version", action="version", version=f"finesight {__version__}")
    parser.add_argument(
        "--log-level", default=os.environ.get("FINESIGHT_LOG", "info"), choices=["debug", "info", "warning", "error"]
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    run = _verb(verbs, "run", _run, "run the device until it is stopped")
    run.add_argument(
        "--safe", action="store_true", help="when the file is bad, run by the configuration that last ran well"
    )
    run.add_argument(
        "--state-dir",
        type=Path,
        default=Path("/var/lib/finesight"),
        help="where --safe finds it, since the file cannot tell; default: %(default)s",
    )
    run.add_argument("--until-end", action="store_true", help="stop when every file has ended and events are delivered")

    _add_care(verbs)

    bench = _verb(verbs, "bench", _bench, "measure every stage on a file")
    bench.add_argument("--source", required=True, help="a video file or a source address")
    bench.add_argument("--resize", type=_size, metavar="WxH", help="scale frames first, such as 1280x720")
    bench.add_argument("--frames", type=int, default=0, help="stop after this many; 0: all")
    bench.add_argument("--framing", choices=["detect", "whole_frame"], default="detect")
    bench.add_argument("--bundle", type=Path, help="a bundle folder instead of the active slot")
    bench.add_argument("--gallery", type=Path, help="a gallery folder instead of the active generation")
    bench.add_argument("--json", action="store_true")

    demo = _verb(verbs, "demo", _demo, "recognise the shipped synthetic stream and score what a subscriber receives")
    demo.add_argument("--assets", type=Path, default=None, help="folder of bundle/, gallery/, stream.mp4, stream.json")
    demo.add_argument("--sheet", type=Path, default=Path("build/demo/contact-sheet.png"), help="where the picture goes")

    text = "find the object of a query picture in a picture or video, by the finder of a bundle"
    find = verbs.add_parser("find", help=text, description=text)
    find.add_argument("--bundle", type=Path, required=True, help="bundle folder with a finder")
    add_find_arguments(find)
    find.set_defaults(verb=_find)

    schema = verbs.add_parser("schema", help="print the JSON Schema of the configuration file")
    schema.set_defaults(verb=_schema)

    bundle = verbs.add_parser("bundle", help="list, verify, install, activate or roll back bundles")
    actions = bundle.add_subparsers(metavar="ACTION", required=True)
    _state_verb(actions, "list", _bundle_list, "slots, galleries and what is serving")
    verify = actions.add_parser("verify", help="check every hash of a bundle folder and run its golden probes")
    verify.add_argument("folder", type=Path)
    verify.set_defaults(verb=_bundle_verify)
    install = _state_verb(actions, "install", _bundle_install, "copy a bundle into the idle slot")
    install.add_argument("folder", type=Path)
    install.add_argument("--gallery", type=Path, help="a gallery folder to install beside it")
    activate = _state_verb(actions, "activate", _bundle_activate, "serve an installed bundle from now on")
    activate.add_argument("bundle", nargs="?", help="a slot or a bundle id; default: what was installed or pulled last")
    activate.add_argument("--gallery", help="a generation; default: likewise")
    _state_verb(actions, "rollback", _bundle_rollback, "serve what was served before")

    gallery = verbs.add_parser("gallery", help="what a device can recognise")
    actions = gallery.add_subparsers(metavar="ACTION", required=True)
    _state_verb(actions, "status", _gallery_status, "categories and items of the serving generation")
    return parser


def _add_care(verbs: Any) -> None:
    """The verbs by which a device is looked after."""
    status = _verb(verbs, "status", _status, "ask a running device how it is")
    status.add_argument("--json", action="store_true")

    record = _verb(verbs, "record", _record, "run, and keep the latest encoded video of every camera for `edge replay`")
    record.add_argument("--mib", type=int, default=256, help="of each camera's video; default: 256")
    record.add_argument("--until-end", action="store_true", help="stop when every file has ended")

    replay = _verb(verbs, "replay", _replay, "recognise recorded video again, and print its events as JSON lines")
    replay.add_argument("folder", type=Path, help="of one run and camera: state_dir/ring/RUN/CAMERA")

    check = _verb(verbs, "check", _check, "load the whole configuration and the bundle it runs, open nothing")
    check.add_argument("--probe", action="store_true", help="open each camera, too, and tell what it really sends")
    check.add_argument("--seconds", type=float, default=5.0, help="to watch each camera; default: 5")

    doctor = verbs.add_parser("doctor", help="tell what works here: decoders, engines, broker, clock, disk")
    doctor.add_argument("-c", "--config", type=Path, help="look at the disk, bundle and broker of this device, too")
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(verb=_doctor)

    support = _verb(verbs, "support-bundle", _support, "pack configuration, findings, metrics and log, without secrets")
    support.add_argument("-o", "--out", type=Path, default=Path("finesight-support.tar.gz"))


def _size(text: str) -> tuple[int, int]:
    """Read a size such as 1280x720."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a size such as 1280x720")
    return int(width), int(height)


def _verb(verbs: Any, name: str, function: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    parser.add_argument("-c", "--config", type=Path, default=DEFAULT_CONFIG, help=f"default: {DEFAULT_CONFIG}")
    parser.set_defaults(verb=function)
    return parser


def _state_verb(
    verbs: Any, name: str, function: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-c", "--config", type=Path, help="take state_dir from this file")
    where.add_argument("--state-dir", type=Path, help="default: /var/lib/finesight")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(verb=function)
    return parser


def _state_dir(arguments: argparse.Namespace) -> Path:
    if arguments.config is None:
        return arguments.state_dir or Path("/var/lib/finesight")
    from edge.config import load_config

    return load_config(arguments.config, os.environ).state_dir


def _run(arguments: argparse.Namespace) -> int:
    from edge.config_file import ConfigFile

    file = ConfigFile(arguments.config, os.environ)
    config = file.load_or_last_good(arguments.state_dir) if arguments.safe else file.load()
    return _serve(config, file, until_end=arguments.until_end)


def _record(arguments: argparse.Namespace) -> int:
    from edge.config import load_config

    config = load_config(arguments.config, os.environ)
    cameras = {
        name: camera.model_copy(update={"record_mib": camera.record_mib or arguments.mib})
        for name, camera in config.cameras.items()
    }
    log.info("recording to %s", config.state_dir / "ring")
    return _serve(config.model_copy(update={"cameras": cameras}), None, until_end=arguments.until_end)


def _replay(arguments: argparse.Namespace) -> int:
    from edge.config import load_config
    from edge.health import Counters
    from edge.parts import build_pipeline, open_serving
    from edge.payload import event_payload
    from edge.replay import replay

    config = load_config(arguments.config, os.environ)
    serving = open_serving(config)

    def build(name: str) -> Pipeline:
        if name not in config.cameras:
            raise ConfigError(f"{arguments.config}: found no camera {name!r}, expected the one that was recorded")
        return build_pipeline(serving, config.recognition, {name: config.cameras[name]}, Counters())

    for number, event in enumerate(replay(arguments.folder, build)):
        print(event_payload(event, config.site, config.device, "replay", number).decode())
    return 0


def _serve(config: DeviceConfig, file: ConfigFile | None, *, until_end: bool) -> int:
    """Run a device until it is stopped; without a file, there is none to read again."""
    from edge.native import limit_heaps
    from edge.runtime import Runtime
    from edge.state_lock import StateLock

    limit_heaps()
    stop, reload = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
    with ExitStack() as stack:
        if config.state_dir.is_dir():  # else nothing was activated, which is said below
            stack.callback(StateLock(config.state_dir).release)
        server = None
        if config.health is not None:  # first of all: it says "starting" while engines are built
            from edge.health_server import HealthServer

            server = stack.enter_context(HealthServer(config.health.host, config.health.port))
        if config.kiosk is None:
            runtime = stack.enter_context(Runtime(config, file))
        else:
            _need_packages("starlette", "uvicorn", extra="kiosk")
            from edge.kiosk_device import open_kiosk

            runtime = open_kiosk(config, config.kiosk, file, stack)
        if server is not None:
            server.watch(runtime)
        runtime.run(stop, until_end=until_end, reload=reload)
    return 0


def _need_packages(*packages: str, extra: str) -> None:
    """An extra that the configuration asks for must be installed."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(f"{extra}: found no package {missing[0]!r}, expected it installed (extra {extra!r})")


def _check(arguments: argparse.Namespace) -> int:
    from edge.config import load_config
    from edge.kiosk_tls import verify_tls
    from edge.mqtt_settings import mqtt_settings, tls_context
    from edge.parts import open_serving
    from edge.source import parse_source

    config = load_config(arguments.config, os.environ)
    for name, camera in config.cameras.items():
        print(f"camera {name}: {parse_source(camera.source)} ({camera.framing})")
    if config.mqtt is not None:
        settings = mqtt_settings(config.mqtt, config.site, config.device)
        if settings.tls:
            tls_context(settings)
        print(f"broker {settings.address}: {'TLS' if settings.tls else 'no TLS'}")
    if config.health is not None:
        print(f"health http://{config.health.host}:{config.health.port}/healthz")
    if config.kiosk is not None:
        _need_packages("starlette", "uvicorn", extra="kiosk")
        kiosk = config.kiosk
        if kiosk.tls is not None:
            verify_tls(kiosk.tls)
        print(
            f"kiosk {'https' if kiosk.tls else 'http'}://{kiosk.host}:{kiosk.port}/ "
            f"({'token' if kiosk.token else 'no token'})"
        )
    serving = open_serving(config)
    print(f"bundle {serving.bundle_id}, gallery {serving.gallery_id}: categories {', '.join(sorted(serving.indexes))}")
    if arguments.probe and not _probe(config, serving, arguments.seconds):
        return 1
    print(f"{arguments.config}: ok")
    return 0


def _probe(config: DeviceConfig, serving: Serving, seconds: float) -> bool:
    """Open each camera and print what it sends; whether all could be read."""
    from edge.errors import CaptureError
    from edge.health import Counters
    from edge.parts import build_pipeline, capture_options
    from edge.probe import describe, probe, recognition_ms
    from edge.source import parse_source

    good = True
    for name, camera in config.cameras.items():
        if not camera.enabled:
            continue
        recognise = partial(
            recognition_ms, build_pipeline(serving, config.recognition, {name: camera}, Counters()), name
        )
        try:
            seen = probe(parse_source(camera.source), camera.backend, capture_options(camera), seconds, recognise)
        except CaptureError as error:
            print(f"camera {name}: {error}", file=sys.stderr)
            good = False
            continue
        for line in describe(seen):
            print(f"camera {name}: {line}")
    return good


def _doctor(arguments: argparse.Namespace) -> int:
    from edge.config import load_config
    from edge.doctor import examine

    config = load_config(arguments.config, os.environ) if arguments.config else None
    findings = []
    for finding in examine(config):
        findings.append(finding)
        if not arguments.json:
            print(f"{finding.verdict:4}  {finding.thing}: {finding.words}", flush=True)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    return 1 if any(finding.verdict == "bad" for finding in findings) else 0


def _status(arguments: argparse.Namespace) -> int:
    from edge.config import load_config
    from edge.status import ask, describe

    status = ask(load_config(arguments.config, os.environ), "/status")
    print(status.strip() if arguments.json else "\n".join(describe(status)))
    return 0


def _support(arguments: argparse.Namespace) -> int:
    from edge.config import load_config
    from edge.support import pack_support

    parts = pack_support(arguments.config, load_config(arguments.config, os.environ), arguments.out)
    print(f"{arguments.out}: {', '.join(parts)}")
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from edge.bench import Request, bench, table
    from edge.config import load_config

    request = Request(
        arguments.source, arguments.framing, arguments.resize, arguments.frames, arguments.bundle, arguments.gallery
    )
    report = bench(load_config(arguments.config, os.environ), request)
    print(json.dumps(asdict(report), indent=1) if arguments.json else table(report))
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from edge.config import load_config
    from edge.demo import demo

    config = load_config(arguments.config, os.environ)
    assets = arguments.assets or Path(__file__).parent.parent / "demo"
    return demo(config, assets, arguments.sheet)


def _find(arguments: argparse.Namespace) -> int:
    from edge.bundle import read_bundle
    from edge.find import find, parse_queries
    from edge.finder import open_finder

    bundle = read_bundle(arguments.bundle)
    if bundle.manifest.finder is None:
        raise BundleError(f"{arguments.bundle}: found no finder in it, expected one")
    finder = open_finder(bundle.folder, bundle.manifest.finder)
    print(json.dumps(find(finder, parse_queries(arguments.query), arguments.scene, arguments.out), indent=1))
    return 0


def _schema(_: argparse.Namespace) -> int:
    from edge.config import json_schema

    print(json.dumps(json_schema(), indent=1))
    return 0


def _answer(arguments: argparse.Namespace, value: dict[str, Any]) -> int:
    if arguments.json:
        print(json.dumps(value, indent=1, default=str))
    else:
        for key, item in value.items():
            print(f"{key}: {item}")
    return 0


def _bundle_list(arguments: argparse.Namespace) -> int:
    from edge import bundle, pointer

    state_dir = _state_dir(arguments)
    answer: dict[str, Any] = {f"slot {slot.name}": asdict(slot) for slot in bundle.slots(state_dir)}
    serving, staged = pointer.current(state_dir), pointer.staged(state_dir)
    answer["serving"] = serving.model_dump() if serving else None
    answer["staged"] = staged.model_dump() if staged else None
    return _answer(arguments, answer)


def _bundle_verify(arguments: argparse.Namespace) -> int:
    from edge.prove import prove

    for line in prove(arguments.folder):
        print(line)
    return 0


def _bundle_install(arguments: argparse.Namespace) -> int:
    from edge import bundle

    state_dir = _state_dir(arguments)
    slot = bundle.install_bundle(arguments.folder, state_dir)
    answer = {"slot": slot}
    if arguments.gallery is not None:
        answer["gallery"] = bundle.install_gallery(arguments.gallery, state_dir)
        bundle.stage(state_dir, slot, answer["gallery"])
    return _answer(arguments, answer)


def _bundle_activate(arguments: argparse.Namespace) -> int:
    from edge import bundle
    from edge.prove import prove_slot

    state_dir = _state_dir(arguments)
    prove_slot(state_dir, arguments.bundle)
    serving = bundle.activate(state_dir, arguments.bundle, arguments.gallery)
    return _answer(arguments, {"serving": serving.model_dump()})


def _bundle_rollback(arguments: argparse.Namespace) -> int:
    from edge import bundle

    return _answer(arguments, {"serving": bundle.rollback(_state_dir(arguments)).model_dump()})


def _gallery_status(arguments: argparse.Namespace) -> int:
    from edge import bundle

    _, gallery = bundle.read_serving(_state_dir(arguments))
    answer: dict[str, Any] = {"generation": gallery.generation, "created_at": gallery.created_at}
    answer |= {name: f"{e.items} items, {e.vectors} vectors" for name, e in sorted(gallery.categories.items())}
    return _answer(arguments, answer)
