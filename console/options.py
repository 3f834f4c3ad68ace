"""The command line of `edge-console`: its options, and the settings that they give."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from console.administration import add_verbs
from console.settings import Settings
from edge import __version__
from gallery_sync.command_line import FLEET_TOKEN

DATA = "finesight-console"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="edge-console",
        description="A web page to label pictures, curate galleries, search, train, evaluate, and watch a fleet.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--verbose", action="store_true", help="log every step")
    verbs = parser.add_subparsers(dest="verb", required=True)
    serve = verbs.add_parser("serve", help="run the console until it is stopped")
    _add_data(serve)
    _add_listen(serve)
    serve.add_argument("--repo", type=Path, metavar="REPO", help="signed repository whose galleries it curates")
    serve.add_argument(
        "--keys",
        type=Path,
        default=_path_of("FINESIGHT_KEYS"),
        help="folder of signing keys on this server (default: $FINESIGHT_KEYS, or REPO.keys beside it; without one, "
        "changes wait to be signed elsewhere)",
    )
    serve.add_argument(
        "--fleet",
        metavar="URL",
        default=os.environ.get("FINESIGHT_FLEET"),
        help="the fleet's server (default: $FINESIGHT_FLEET, or none)",
    )
    serve.add_argument("--fleet-ca", type=Path, help="trust only the certificate authorities in this PEM file")
    serve.add_argument("--device", type=Path, metavar="STATE_DIR", help="state folder of a device on this machine")
    serve.add_argument("--inbox", type=Path, metavar="DIR", help="folder that devices upload to")
    serve.add_argument(
        "--folder",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="sets of pictures may be made of folders below this one; may be repeated (default: none)",
    )
    demo = verbs.add_parser("demo", help="run a console with the demo's bundle, gallery and video")
    _add_data(demo, "finesight-console-demo")
    _add_listen(demo)
    add_verbs(verbs, _add_data)
    return parser


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings that the arguments of `serve` give."""
    return Settings(
        data=arguments.data.absolute(),
        repository=_absolute(arguments.repo),
        keys=_absolute(arguments.keys or _keys_beside(arguments.repo)),
        fleet=arguments.fleet,
        fleet_token=os.environ.get(FLEET_TOKEN),
        fleet_ca=arguments.fleet_ca,
        device=_absolute(arguments.device),
        inbox=_absolute(arguments.inbox),
        folders=tuple(one.absolute() for one in arguments.folder),
    )


def demo_settings(arguments: argparse.Namespace) -> Settings:
    """Return the settings that the arguments of `demo` give: all that it works on lies in its own folder."""
    folder = arguments.data.absolute()
    demo = folder / "demo"
    return Settings(
        data=folder,
        repository=demo / "repository",
        keys=demo / "repository.keys",
        device=demo / "state",
        folders=(demo / "pictures",),
        is_demo=True,
    )


def _keys_beside(repo: Path | None) -> Path | None:
    """Return the folder that `edge-sync init` makes beside a repository, where there is one."""
    beside = None if repo is None else repo.parent / f"{repo.name}.keys"
    return beside if beside is not None and beside.is_dir() else None


def _add_data(parser: argparse.ArgumentParser, default: str = DATA) -> None:
    parser.add_argument("--data", type=Path, default=Path(default), help=f"its own folder (default: {default})")


def _add_listen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", default="127.0.0.1:8095", metavar="HOST:PORT", help="(default: 127.0.0.1:8095)")
    parser.add_argument(
        "--host-name", action="append", default=[], metavar="NAME", help="another name of this server (default: none)"
    )
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="certificate of this server, PEM")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, PEM")
    parser.add_argument(
        "--proxy-https",
        action="store_true",
        help="a proxy in front of it ends TLS, sets X-Forwarded-For, and keeps the Host header",
    )


def _path_of(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()
