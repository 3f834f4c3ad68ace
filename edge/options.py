"""The arguments of the `edge` command; `verb` names what is to be done, such as `bundle list`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge import __version__

_CONFIG = Path("/etc/finesight/device.yaml")
_STATE_DIR = Path("/var/lib/finesight")


def build_parser(log_level: str) -> argparse.ArgumentParser:
    """The parser of the whole command line; the log level is what the environment says."""
    parser = argparse.ArgumentParser(prog="edge", description="Recognise which exact product or vehicle a camera sees.")
    parser.add_argument("--version", action="version", version=f"finesight {__version__}")
    parser.add_argument("--log-level", default=log_level, choices=["debug", "info", "warning", "error"])
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_run(verbs)
    _add_care(verbs)
    _add_trials(verbs)
    schema = verbs.add_parser("schema", help="print the JSON Schema of the configuration file")
    schema.set_defaults(verb="schema")
    _add_bundle(verbs)
    gallery = verbs.add_parser("gallery", help="what a device can recognise")
    actions = gallery.add_subparsers(metavar="ACTION", required=True)
    _state_verb(actions, "gallery status", "categories and items of the serving generation")
    return parser


def _add_run(verbs: Any) -> None:
    run = _verb(verbs, "run", "run the device until it is stopped")
    run.add_argument(
        "--safe", action="store_true", help="when the file is bad, run by the configuration that last ran well"
    )
    run.add_argument(
        "--state-dir",
        type=Path,
        default=_STATE_DIR,
        help="where --safe finds it, since the file cannot tell; default: %(default)s",
    )
    run.add_argument("--until-end", action="store_true", help="stop when every file has ended and events are delivered")


def _add_care(verbs: Any) -> None:
    """The verbs by which a device is looked after."""
    status = _verb(verbs, "status", "ask a running device how it is")
    status.add_argument("--json", action="store_true")

    record = _verb(verbs, "record", "run, and keep the latest encoded video of every camera for `edge replay`")
    record.add_argument("--mib", type=int, default=256, help="of each camera's video; default: 256")
    record.add_argument("--until-end", action="store_true", help="stop when every file has ended")

    replay = _verb(verbs, "replay", "recognise recorded video again, and print its events as JSON lines")
    replay.add_argument("folder", type=Path, help="of one run and camera: state_dir/ring/RUN/CAMERA")

    check = _verb(verbs, "check", "load the whole configuration and the bundle it runs, open nothing")
    check.add_argument("--probe", action="store_true", help="open each camera, too, and tell what it really sends")
    check.add_argument("--seconds", type=float, default=5.0, help="to watch each camera; default: 5")

    doctor = verbs.add_parser("doctor", help="tell what works here: decoders, engines, broker, clock, disk")
    doctor.add_argument("-c", "--config", type=Path, help="look at the disk, bundle and broker of this device, too")
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(verb="doctor")

    support = _verb(verbs, "support-bundle", "pack configuration, findings, metrics and log, without secrets")
    support.add_argument("-o", "--out", type=Path, default=Path("finesight-support.tar.gz"))


def _add_trials(verbs: Any) -> None:
    """The verbs that try something out, beside a device that runs."""
    bench = _verb(verbs, "bench", "measure every stage on a file")
    bench.add_argument("--source", required=True, help="a video file or a source address")
    bench.add_argument("--resize", type=_size, metavar="WxH", help="scale frames first, such as 1280x720")
    bench.add_argument("--frames", type=int, default=0, help="stop after this many; 0: all")
    bench.add_argument("--framing", choices=["detect", "whole_frame"], default="detect")
    bench.add_argument("--bundle", type=Path, help="a bundle folder instead of the active slot")
    bench.add_argument("--gallery", type=Path, help="a gallery folder instead of the active generation")
    bench.add_argument("--json", action="store_true")

    demo = _verb(verbs, "demo", "recognise the shipped synthetic stream and score what a subscriber receives")
    demo.add_argument("--assets", type=Path, default=None, help="folder of bundle/, gallery/, stream.mp4, stream.json")
    demo.add_argument("--sheet", type=Path, default=Path("build/demo/contact-sheet.png"), help="where the picture goes")

    text = "find the object of a query picture in a picture or video, by the finder of a bundle"
    find = verbs.add_parser("find", help=text, description=text)
    find.add_argument("--bundle", type=Path, required=True, help="bundle folder with a finder")
    add_find_arguments(find)
    find.set_defaults(verb="find")


def _add_bundle(verbs: Any) -> None:
    bundle = verbs.add_parser("bundle", help="list, verify, install, activate or roll back bundles")
    actions = bundle.add_subparsers(metavar="ACTION", required=True)
    _state_verb(actions, "bundle list", "slots, galleries and what is serving")
    verify = actions.add_parser("verify", help="check every hash of a bundle folder and run its golden probes")
    verify.add_argument("folder", type=Path)
    verify.set_defaults(verb="bundle verify")
    install = _state_verb(actions, "bundle install", "copy a bundle into the idle slot")
    install.add_argument("folder", type=Path)
    install.add_argument("--gallery", type=Path, help="a gallery folder to install beside it")
    activate = _state_verb(actions, "bundle activate", "serve an installed bundle from now on")
    activate.add_argument("bundle", nargs="?", help="a slot or a bundle id; default: what was installed or pulled last")
    activate.add_argument("--gallery", help="a generation; default: likewise")
    _state_verb(actions, "bundle rollback", "serve what was served before")


def _verb(verbs: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A verb of a configured device."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    parser.add_argument("-c", "--config", type=Path, default=_CONFIG, help="default: %(default)s")
    parser.set_defaults(verb=name)
    return parser


def _state_verb(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A verb of a device's folder, which needs no configuration."""
    parser: argparse.ArgumentParser = actions.add_parser(name.split()[1], help=text, description=text)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-c", "--config", type=Path, help="take state_dir from this file")
    where.add_argument("--state-dir", type=Path, default=_STATE_DIR, help="default: %(default)s")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(verb=name)
    return parser


def _size(text: str) -> tuple[int, int]:
    """Read a size such as 1280x720."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a size such as 1280x720")
    return int(width), int(height)


def add_find_arguments(parser: argparse.ArgumentParser) -> None:
    """Queries, the scene, and where the pictures go."""
    parser.add_argument(
        "query",
        nargs="+",
        help="picture of the object, on plain ground or filling it; or PICTURE@x0,y0,x1,y1 or PICTURE@MASK.png",
    )
    parser.add_argument("scene", type=Path, help="picture or video to find it in")
    parser.add_argument("-o", "--out", type=Path, default=Path("found"), help="folder for the pictures; default: found")
