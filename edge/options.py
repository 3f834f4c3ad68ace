"""The arguments of the `edge` command; `verb` names the verb, such as `bundle list`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from edge import __version__
from edge.redact import redact

STATE_DIR = Path("/var/lib/finesight")
_CONFIG = Path("/etc/finesight/device.yaml")
_MOST_DIGITS = 12


class _Parser(argparse.ArgumentParser):
    """Quotes what it does not understand without secrets: a source may hold a password."""

    def error(self, message: str) -> NoReturn:
        """Print usage and the message, and exit with 2."""
        super().error(redact(message))


def build_parser(log_level: str) -> argparse.ArgumentParser:
    """Return the parser of the command line; `log_level` is the default, from the environment."""
    parser = _Parser(prog="edge", description="Recognise which exact product or vehicle a camera sees.")
    parser.add_argument(
        "--version", action="version", version=f"finesight {__version__}", help="print the version and exit"
    )
    parser.add_argument(
        "--log-level",
        default=log_level,
        choices=["debug", "info", "warning", "error"],
        help="lowest level that is logged; FINESIGHT_LOG changes the default; default: %(default)s",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_run(verbs)
    _add_operation(verbs)
    _add_tools(verbs)
    schema = _plain_verb(verbs, "schema", "print the JSON Schema of the configuration file")
    schema.set_defaults(verb="schema")
    _add_bundle(verbs)
    _add_gallery(verbs)
    return parser


def _add_run(verbs: Any) -> None:
    run = _verb(verbs, "run", "run the device until it is stopped")
    run.add_argument(
        "--safe",
        action="store_true",
        help="run the last good configuration when the file is invalid, and wait for a bundle when none can be used",
    )
    _add_state_dir(run, f"that of the configuration; if --safe cannot read that, {STATE_DIR}")
    run.add_argument(
        "--until-end", action="store_true", help="stop when every file has ended and all events are delivered"
    )


def _add_operation(verbs: Any) -> None:
    """Add the verbs for operating a device."""
    status = _verb(verbs, "status", "show the state of the running device")
    _add_json(status)

    record = _verb(verbs, "record", "run, and keep the latest video of every camera for `edge replay`")
    record.add_argument("--mib", type=int, default=256, help="MiB of video kept per camera; default: %(default)s")
    _add_state_dir(record)
    record.add_argument("--until-end", action="store_true", help="stop when every file has ended")

    replay = _verb(verbs, "replay", "run recognition on recorded video again and print its events as JSON lines")
    replay.add_argument("folder", type=Path, help="recording of one run and camera: state_dir/ring/RUN/CAMERA")

    check = _verb(verbs, "check", "load the configuration and the active bundle without opening a camera")
    _add_state_dir(check)
    check.add_argument(
        "--overlay",
        type=Path,
        metavar="FILE",
        help="check the configuration with this overlay or YAML file of keys over it, instead of the one in use",
    )
    check.add_argument(
        "--config-only",
        action="store_true",
        help="load no bundle, and take variables that are not set as they are written",
    )
    check.add_argument("--probe", action="store_true", help="also open each camera and report what it really sends")
    check.add_argument(
        "--seconds", type=float, default=5.0, help="seconds for which --probe watches each camera; default: %(default)s"
    )

    doctor = _plain_verb(verbs, "doctor", "check decoders, engines, broker, clock and disk")
    doctor.add_argument("-c", "--config", type=Path, help="also check the disk, bundle and broker of this device")
    _add_state_dir(doctor, "that of -c")
    _add_json(doctor)
    doctor.set_defaults(verb="doctor")

    support = _verb(
        verbs, "support-bundle", "pack configuration, findings, metrics and log into an archive without secrets"
    )
    _add_state_dir(support)
    support.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("finesight-support.tar.gz"),
        help="archive to write; default: %(default)s",
    )


def _add_tools(verbs: Any) -> None:
    """Add the verbs that need no running device."""
    recognise = _state_verb(verbs, "recognise", "say what pictures show")
    recognise.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="picture, or a folder of pictures")
    recognise.add_argument("--bundle", type=Path, help="bundle folder to use instead of the active bundle")
    recognise.add_argument("--gallery", type=Path, help="gallery folder to use with --bundle")
    recognise.add_argument(
        "--framing",
        choices=["whole", "detect"],
        default="whole",
        help="take each picture as one object, or detect the objects in it; default: %(default)s",
    )

    bench = _verb(verbs, "bench", "measure every stage of a device on a video or camera, or compare devices")
    _add_state_dir(bench)
    bench.add_argument("--source", help="video file, folder of pictures or source address; default: that of --camera")
    bench.add_argument(
        "--camera",
        metavar="NAME",
        help="camera of the configuration, with its framing, zones, motion and view; default: one with the defaults",
    )
    bench.add_argument(
        "--resize", type=_size, metavar="WxH", help="scale frames to this size first, such as 1280x720; not measured"
    )
    bench.add_argument(
        "--frames", type=_count, default=0, help="stop after this many frames, 0 for all; default: %(default)s"
    )
    bench.add_argument(
        "--framing",
        choices=["detect", "whole_frame"],
        help="detect objects, or take the whole frame as one object; default: that of --camera, else detect",
    )
    bench.add_argument("--bundle", type=Path, help="bundle folder to use instead of the active bundle")
    bench.add_argument("--gallery", type=Path, help="gallery folder to use instead of the active generation")
    bench.add_argument(
        "--compare",
        type=_changes,
        action="append",
        default=[],
        metavar="WHAT=VALUE[,...]",
        help="measure another device in turn with this one, with another precision, engine, threads, bundle, gallery "
        "or config (a file, of which `engine` and `recognition` count), such as precision=fp32; may be repeated",
    )
    _add_json(bench)

    demo = _plain_verb(
        verbs, "demo", "run the shipped synthetic stream and score the events that a subscriber receives"
    )
    demo.add_argument(
        "-c", "--config", type=Path, help="configuration file; default: the shipped one, with its state in build/demo"
    )
    demo.set_defaults(verb="demo")
    demo.add_argument(
        "--assets",
        type=Path,
        default=None,
        help="folder with bundle/, gallery/, stream.mp4 and stream.json; default: the shipped folder",
    )
    demo.add_argument(
        "--sheet",
        type=Path,
        default=Path("build/demo/contact-sheet.png"),
        help="contact sheet to write; default: %(default)s",
    )

    init = _plain_verb(verbs, "init", "copy the example configurations, the systemd units and the demo into a folder")
    init.add_argument("folder", type=Path, help="folder to fill; files that exist in it stay as they are")
    init.set_defaults(verb="init")

    find = _plain_verb(verbs, "find", "find the object of a query picture in a picture or video")
    find.add_argument("--bundle", type=Path, required=True, help="bundle folder that holds a finder")
    add_find_arguments(find)
    find.set_defaults(verb="find")


def add_find_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `find`, which `trainer find` shares: queries, the scene and the output folder."""
    parser.add_argument(
        "query",
        nargs="+",
        help="picture of the object on a plain background; PICTURE@x0,y0,x1,y1 or PICTURE@MASK.png marks the object",
    )
    parser.add_argument("scene", type=Path, help="picture or video to search")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("found"), help="folder for the output pictures; default: %(default)s"
    )
    parser.add_argument(
        "--known",
        type=Path,
        help="folder LABEL/PICTURE or CATEGORY/LABEL/PICTURE of known things; each found one takes the nearest ones' "
        "label",
    )


def _add_bundle(verbs: Any) -> None:
    bundle = _plain_verb(verbs, "bundle", "list, verify, prove, install, activate or roll back bundles")
    actions = bundle.add_subparsers(metavar="ACTION", required=True)
    _state_verb(actions, "bundle list", "list the installed bundles and the active bundle and gallery")
    verify = _plain_verb(actions, "verify", "check every hash of a bundle folder and run its golden probes")
    verify.add_argument("folder", type=Path, help="bundle folder")
    verify.set_defaults(verb="bundle verify")
    prove = _state_verb(
        actions, "bundle prove", "try every engine and form of each model on this machine, and choose the fastest"
    )
    prove.add_argument(
        "bundle", nargs="?", help="slot, bundle id or bundle folder; default: the active bundle, else the staged one"
    )
    install = _state_verb(actions, "bundle install", "copy a bundle into the inactive slot without activating it")
    install.add_argument("folder", type=Path, help="bundle folder")
    install.add_argument("--gallery", type=Path, help="gallery folder to install with it")
    activate = _state_verb(actions, "bundle activate", "activate an installed bundle and gallery")
    activate.add_argument("bundle", nargs="?", help="slot or bundle id; default: the bundle installed or pulled last")
    activate.add_argument("--gallery", help="generation; default: the gallery installed or pulled last")
    _state_verb(actions, "bundle rollback", "activate the previous bundle and gallery again")


def _add_gallery(verbs: Any) -> None:
    gallery = _plain_verb(verbs, "gallery", "show what the device can recognise, or cut a smaller gallery")
    actions = gallery.add_subparsers(metavar="ACTION", required=True)
    _state_verb(actions, "gallery status", "count the items of each category in the active generation")
    cut = _plain_verb(
        actions, "cut", "cut the gallery of a smaller embedder out of a stored one, without embedding again"
    )
    cut.add_argument("gallery", type=Path, help="gallery folder of the whole embedder")
    cut.add_argument("--whole", type=Path, required=True, help="bundle folder that the gallery was embedded with")
    cut.add_argument(
        "--bundle", type=Path, required=True, help="bundle folder with the smaller embedder (edge-train shrink)"
    )
    cut.add_argument("-o", "--out", type=Path, required=True, help="gallery folder to create")
    _add_json(cut)
    cut.set_defaults(verb="gallery cut")


def _plain_verb(verbs: Any, name: str, text: str) -> argparse.ArgumentParser:
    """Add a verb without a device."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_state_dir(parser: argparse.ArgumentParser, default: str = "that of the configuration") -> None:
    parser.add_argument("--state-dir", type=Path, help=f"state folder of the device; default: {default}")


def _verb(verbs: Any, name: str, text: str) -> argparse.ArgumentParser:
    """Add a verb of a configured device."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    parser.add_argument(
        "-c", "--config", type=Path, default=_CONFIG, help="configuration file of the device; default: %(default)s"
    )
    parser.set_defaults(verb=name)
    return parser


def _state_verb(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    """Add a verb that needs only the state folder of a device."""
    parser: argparse.ArgumentParser = actions.add_parser(name.rsplit(maxsplit=1)[-1], help=text, description=text)
    parser.add_argument("-c", "--config", type=Path, help="configuration file of the device")
    _add_state_dir(parser, f"that of -c, else {STATE_DIR}")
    _add_json(parser)
    parser.set_defaults(verb=name)
    return parser


def _count(text: str) -> int:
    """Parse a number of things, 0 or more."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of frames; give 0 or more")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    """Parse a size such as 1280x720."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; give one such as 1280x720")
    return int(width), int(height)


_CHANGES = ("precision", "engine", "threads", "bundle", "gallery", "config")


def _changes(text: str) -> tuple[str, dict[str, str]]:
    """Parse what is different on another device; return it as written, and by key."""
    changes = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in _CHANGES or not value or key in changes:
            wanted = f"one of {', '.join(_CHANGES)}"
            raise argparse.ArgumentTypeError(f"{text!r} is no change; give one such as precision=fp32, of {wanted}")
        changes[key] = value
    return text, changes
