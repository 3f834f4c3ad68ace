"""The `edge` command: reads the environment, sets up logging and runs one verb.

Each verb imports the modules it needs, so that `edge --help` starts fast.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edge.errors import BundleError, ConfigError, FinesightError
from edge.options import STATE_DIR, build_parser
from edge.process import leave, starting
from edge.telemetry.known_secrets import hide, hide_in, set_up_logging

if TYPE_CHECKING:
    from edge.bundle.active_pointer import ActivePointer
    from edge.config.schema import DeviceConfig
    from edge.diagnostics.bench import Change
    from edge.recognition.pipeline import Pipeline

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return 0 when done, 1 after an error, 2 on wrong usage."""
    arguments = build_parser(os.environ.get("FINESIGHT_LOG", "info")).parse_args(argv)
    _set_up_logging(arguments.log_level)
    try:
        status = _VERBS[arguments.verb](arguments)
    except FinesightError as error:
        print(f"edge: {hide(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `edge ... | head`
        sys.stderr.close()
        return 0
    return status


def program() -> NoReturn:
    """Run one verb and end the process, whatever its threads do."""
    # A plug-in of another package could change what a bundle may hold; the search for one looks at every package.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    # Read when numpy is loaded. Networks and cameras use the cores, and the second thread of a small product waits for
    # one: 4 vectors of 384 numbers, busy machine: 0.1 ms with one thread, 84 ms with two (docs/results/whitening.md).
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        status = main()
    except Exception:
        log.exception("unexpected error")
        status = 1
    leave(status)


def _set_up_logging(level: str) -> None:
    # journald adds the time
    stamp = "" if os.environ.get("JOURNAL_STREAM") else "%(asctime)s "
    set_up_logging(level.upper(), f"{stamp}%(levelname)s %(name)s: %(message)s")


def _config(arguments: argparse.Namespace) -> DeviceConfig:
    """Read the configuration; --state-dir overrides its state folder."""
    from edge.config.config_file import ConfigFile

    return ConfigFile(arguments.config, os.environ, getattr(arguments, "state_dir", None)).load()


def _state_dir(arguments: argparse.Namespace) -> Path:
    if arguments.config is None:
        return arguments.state_dir or STATE_DIR
    return _config(arguments).state_dir


def _run(arguments: argparse.Namespace) -> int:
    with starting() as on_started:
        from edge.config.config_file import ConfigFile

        file = ConfigFile(arguments.config, os.environ, arguments.state_dir)
        config = file.load_or_last_good(arguments.state_dir or STATE_DIR) if arguments.safe else file.load()
        from edge.run_device import run_device

        return run_device(config, file, until_end=arguments.until_end, wait=arguments.safe, on_started=on_started)


def _record(arguments: argparse.Namespace) -> int:
    from edge.capture.cameras import check_recordable
    from edge.run_device import run_device

    config = _config(arguments)
    for name, camera in config.cameras.items():
        if camera.enabled:
            check_recordable(name, camera)
    cameras = {
        name: camera.model_copy(update={"record_mib": camera.record_mib or arguments.mib})
        for name, camera in config.cameras.items()
    }
    log.info("recording to %s", config.state_dir / "ring")
    return run_device(config.model_copy(update={"cameras": cameras}), None, until_end=arguments.until_end)


def _replay(arguments: argparse.Namespace) -> int:
    from edge.build import load_active_models
    from edge.diagnostics.replay import replay
    from edge.frame_loop import build_pipeline
    from edge.messaging.payload import event_payload
    from edge.telemetry.counters import Counters

    config = _config(arguments)
    models = load_active_models(config)

    def build(name: str) -> Pipeline:
        if name not in config.cameras:
            raise ConfigError(f"{arguments.config}: has no camera {name!r}, which was recorded; add it to `cameras`")
        return build_pipeline(models, config.recognition, {name: config.cameras[name]}, Counters())

    for number, event in enumerate(replay(arguments.folder, build, lambda name: config.cameras[name].max_px)):
        print(event_payload(event, config.site, config.device, "replay", number).decode())
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from edge.config.config_file import AsWritten, ConfigFile
    from edge.diagnostics.check import check, check_config

    environment = AsWritten(os.environ) if arguments.config_only else os.environ
    file = ConfigFile(arguments.config, environment, arguments.state_dir, arguments.overlay)
    config = file.load()
    if file.overlay is not None:
        print(f"overlay {file.overlay}: used")
    check_config(config)
    if not arguments.config_only and not check(config, arguments.seconds if arguments.probe else None):
        return 1
    if file.overlay_problem is not None:
        raise ConfigError(f"{file.overlay_problem}; the device ignores it")
    print(f"{arguments.config}: ok")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from edge.diagnostics.doctor import run_checks

    config = _config(arguments) if arguments.config else None
    findings = []
    for finding in run_checks(config):
        findings.append(finding)
        if not arguments.json:
            print(hide(f"{finding.verdict:4}  {finding.thing}: {finding.words}"), flush=True)
    if arguments.json:
        print(json.dumps(hide_in([asdict(finding) for finding in findings]), indent=1))
    return 1 if any(finding.verdict == "bad" for finding in findings) else 0


def _status(arguments: argparse.Namespace) -> int:
    from edge.diagnostics.status import fetch, format_status

    status = fetch(_config(arguments), "/status")
    print(status.strip() if arguments.json else "\n".join(format_status(status)))
    return 0


def _support(arguments: argparse.Namespace) -> int:
    from edge.diagnostics.support_bundle import pack_support

    parts = pack_support(_config(arguments), arguments.out)
    print(f"{arguments.out}: {', '.join(parts)}")
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from edge.diagnostics.bench import BenchRequest, bench, compare
    from edge.diagnostics.bench_table import format_comparison, format_report

    request = BenchRequest(
        arguments.source,
        arguments.camera,
        arguments.framing,
        arguments.resize,
        arguments.frames,
        arguments.bundle,
        arguments.gallery,
    )
    config = _config(arguments)
    if not arguments.compare:
        report = bench(config, request)
        print(json.dumps(hide_in(asdict(report)), indent=1) if arguments.json else hide(format_report(report)))
        return 0
    changes = [_change(words, pairs) for words, pairs in arguments.compare]
    comparison = compare(config, request, changes)
    print(json.dumps(hide_in(asdict(comparison)), indent=1) if arguments.json else hide(format_comparison(comparison)))
    return 0


def _change(words: str, pairs: dict[str, str]) -> Change:
    """Return what `--compare` changes: the files it names, read."""
    from edge.config.yaml_file import load_config
    from edge.diagnostics.bench import Change

    named = {key: pairs.get(key) for key in ("precision", "engine", "threads")}
    bundle, gallery = (Path(pairs[key]) if key in pairs else None for key in ("bundle", "gallery"))
    config = load_config(Path(pairs["config"]), os.environ) if "config" in pairs else None
    return Change(words, **named, bundle=bundle, gallery=gallery, config=config)


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


def _recognise(arguments: argparse.Namespace) -> int:
    from edge.diagnostics.picture_report import describe_recognition, format_recognition, recognise_pictures
    from edge.recogniser import Recogniser

    if arguments.bundle is not None:
        recogniser = Recogniser.load(arguments.bundle, arguments.gallery)
    elif arguments.gallery is not None:
        raise ConfigError("--gallery needs --bundle; give both, or neither for the active ones")
    elif arguments.config is not None:
        recogniser = Recogniser.of_device(_config(arguments))
    else:
        recogniser = Recogniser.of_state(_state_dir(arguments))
    unreadable = False
    for picture, found in recognise_pictures(recogniser, arguments.pictures, arguments.framing):
        if isinstance(found, FinesightError):
            unreadable = True
            print(f"edge: {found}", file=sys.stderr)
        elif arguments.json:
            print(json.dumps(describe_recognition(picture, found), ensure_ascii=False), flush=True)
        else:
            print("\n".join(format_recognition(picture, found)), flush=True)
    return 1 if unreadable else 0


def _find(arguments: argparse.Namespace) -> int:
    from edge.bundle.bundle import read_bundle
    from edge.finder.find_in_file import find, parse_queries
    from edge.finder.finder import open_finder

    bundle = read_bundle(arguments.bundle)
    if bundle.manifest.finder is None:
        raise BundleError(
            f"{arguments.bundle}: holds no finder; train one with edge-train finder -c configs/train/demo-finder.yaml, "
            f"and add it with edge-quantize pack --base {arguments.bundle} --finder RUN"
        )
    finder = open_finder(bundle.folder, bundle.manifest.finder)
    found = find(finder, parse_queries(arguments.query), arguments.scene, arguments.out, arguments.known)
    print(json.dumps(found, indent=1))
    return 0


def _schema(_: argparse.Namespace) -> int:
    from edge.config.json_schema import json_schema

    print(json.dumps(json_schema(), indent=1))
    return 0


def _bundle_list(arguments: argparse.Namespace) -> int:
    from edge.diagnostics.installed import describe_bundles, format_bundles

    state_dir = _state_dir(arguments)
    return _print_answer(arguments, describe_bundles(state_dir), "\n".join(format_bundles(state_dir)))


def _bundle_verify(arguments: argparse.Namespace) -> int:
    from edge.bundle.prove import prover

    for line in prover()(arguments.folder, None):
        print(line)
    return 0


def _bundle_prove(arguments: argparse.Namespace) -> int:
    from edge.build import build_gpu_engines
    from edge.diagnostics.engine_report import describe_choice, format_choice, prove_engines
    from edge.recognition.chosen_engines import proof_options
    from edge.telemetry.counters import Counters

    device = _device(arguments)
    options, gpu = proof_options(device.engine, device.state_dir), build_gpu_engines(device, Counters())
    choice = prove_engines(device.state_dir, arguments.bundle, options, gpu.prepare_trial)
    return _print_answer(arguments, describe_choice(choice), "\n".join(format_choice(choice)))


def _bundle_install(arguments: argparse.Namespace) -> int:
    from edge.bundle import slots
    from edge.bundle.active_pointer import edge_command, read_active_pointer
    from edge.bundle.install import install_bundle, install_gallery

    state_dir = _state_dir(arguments)
    slot = install_bundle(arguments.folder, state_dir)
    result, activate = {"slot": slot}, f"bundle activate {slot}"  # with the active gallery
    if arguments.gallery is None and read_active_pointer(state_dir) is None:
        activate += " --gallery GENERATION"
    if arguments.gallery is not None:
        result["gallery"] = install_gallery(arguments.gallery, state_dir)
        slots.stage(state_dir, slot, result["gallery"])
        activate = "bundle activate"
    held = " with gallery ".join([f"slot {slot}", *list(result.values())[1:]])
    return _print_answer(arguments, result, f"installed in {held}; to use it, run: {edge_command(activate, state_dir)}")


def _bundle_activate(arguments: argparse.Namespace) -> int:
    from edge.build import build_gpu_engines, device_prover
    from edge.bundle import slots
    from edge.telemetry.counters import Counters

    device = _device(arguments)
    prove = device_prover(device, build_gpu_engines(device, Counters()))
    return _print_active(arguments, slots.activate(device.state_dir, arguments.bundle, arguments.gallery, prove))


def _device(arguments: argparse.Namespace) -> DeviceConfig:
    """Return the configuration of the device whose state folder is named, or the defaults for it."""
    from edge.config.schema import DeviceConfig

    state_dir = _state_dir(arguments)
    config = DeviceConfig() if arguments.config is None else _config(arguments)
    return config.model_copy(update={"state_dir": state_dir})


def _bundle_rollback(arguments: argparse.Namespace) -> int:
    from edge.bundle import slots

    return _print_active(arguments, slots.rollback(_state_dir(arguments)))


def _print_active(arguments: argparse.Namespace, active: ActivePointer) -> int:
    line = f"bundle {active.bundle_id} in slot {active.slot} is active with gallery {active.gallery}"
    return _print_answer(arguments, {"serving": active.model_dump()}, line)


def _print_answer(arguments: argparse.Namespace, value: dict[str, Any], text: str) -> int:
    print(json.dumps(value, indent=1) if arguments.json else text)
    return 0


def _gallery_status(arguments: argparse.Namespace) -> int:
    from edge.bundle import slots
    from edge.diagnostics.installed import describe_gallery, format_gallery

    _, gallery = slots.read_active(_state_dir(arguments))
    return _print_answer(arguments, describe_gallery(gallery), "\n".join(format_gallery(gallery)))


def _gallery_cut(arguments: argparse.Namespace) -> int:
    from edge.bundle.bundle import read_bundle
    from edge.gallery.cut import cut_gallery
    from edge.gallery.generation import read_gallery
    from edge.inference.stages import load_stages

    bundles = [read_bundle(folder) for folder in (arguments.whole, arguments.bundle)]
    whole, part = (load_stages(one.folder, one.manifest, "onnxruntime").embedders for one in bundles)
    gallery, cut = cut_gallery(read_gallery(arguments.gallery), whole, part, arguments.out)
    result = {"gallery": gallery.generation, "categories": [asdict(one) for one in cut]}
    lines = [f"{one.category}: {one.items} items, {one.numbers} of {one.before} numbers a vector" for one in cut]
    return _print_answer(arguments, result, "\n".join([f"{arguments.out}: gallery {gallery.generation}", *lines]))


_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "status": _status,
    "record": _record,
    "replay": _replay,
    "check": _check,
    "doctor": _doctor,
    "support-bundle": _support,
    "recognise": _recognise,
    "bench": _bench,
    "demo": _demo,
    "init": _init,
    "find": _find,
    "schema": _schema,
    "bundle list": _bundle_list,
    "bundle verify": _bundle_verify,
    "bundle prove": _bundle_prove,
    "bundle install": _bundle_install,
    "bundle activate": _bundle_activate,
    "bundle rollback": _bundle_rollback,
    "gallery status": _gallery_status,
    "gallery cut": _gallery_cut,
}
