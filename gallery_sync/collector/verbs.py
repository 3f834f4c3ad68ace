"""The verb `edge-sync fleet serve`, which runs the fleet's server."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
from pathlib import Path

from edge.errors import SyncError
from gallery_sync.command_line import add_ca_file


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to a parser."""
    fleet = verbs.add_parser("fleet", help="run the server of a fleet, which collects what devices report")
    _add_serve(fleet.add_subparsers(dest="action", required=True).add_parser("serve", help="run the fleet's server"))


def _add_serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--database", type=Path, required=True, help="SQLite file of what devices report")
    serve.add_argument("--broker", required=True, metavar="URL", help="MQTT broker: mqtt://HOST or mqtts://HOST[:PORT]")
    serve.add_argument(
        "--account-file",
        type=Path,
        help="file like broker.env with the account at the broker (default: $FINESIGHT_MQTT_USERNAME and _PASSWORD)",
    )
    add_ca_file(serve)
    serve.add_argument("--cert", type=Path, help="PEM certificate of this server, for a broker that asks for one")
    serve.add_argument("--key", type=Path, help="PEM key of --cert (default: it is in the same file)")
    serve.add_argument(
        "--repository",
        action="append",
        default=[],
        metavar="PLACE",
        help="folder or URL: wake its devices when it changes, and give turns (may be repeated)",
    )
    serve.add_argument("--listen", default="127.0.0.1:8090", help="address of the API (default: 127.0.0.1:8090)")
    serve.add_argument("--host-name", action="append", default=[], help="name that clients use (may be repeated)")
    serve.add_argument("--token-file", type=Path, help="file with the token of the API; any but loopback needs it")
    serve.add_argument("--https-cert", type=Path, help="PEM certificate: serve the API by https")
    serve.add_argument("--https-key", type=Path, help="PEM key of --https-cert (default: it is in the same file)")
    serve.add_argument("--inbox", type=Path, metavar="FOLDER", help="take uploads of devices into this folder")
    serve.add_argument("--inbox-token-file", type=Path, help="file with the token for uploads")
    serve.add_argument(
        "--keep-days", type=float, default=180.0, help="forget devices that are silent for so long (default: 180)"
    )
    serve.add_argument("--prefix", default="fleet/v1", help="of the fleet's topics (default: fleet/v1)")
    serve.add_argument("--topic-root", default="finesight", help="first level of other topics (default: finesight)")
    serve.add_argument(
        "--mqtt-version", choices=("3.1.1", "5"), default="5", help="of the protocol of the broker (default: 5)"
    )
    serve.set_defaults(act=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from gallery_sync.collector.credentials import read_account
    from gallery_sync.collector.serve import Options, serve

    if missing := [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]:
        from edge.extras import install_command

        raise SyncError(f"the fleet's server needs {missing[0]}; run: {install_command('fleet')}")
    if not 1 <= arguments.keep_days <= 36_500:
        raise SyncError(f"--keep-days: found {arguments.keep_days:g}, expected 1 to 36500")
    for name in ("prefix", "topic_root"):
        if not re.fullmatch(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*", getattr(arguments, name)):
            raise SyncError(f"--{name.replace('_', '-')}: expected levels of letters and digits, such as fleet/v1")
    serve(
        Options(
            database=arguments.database,
            broker=arguments.broker,
            account=read_account(arguments.account_file, os.environ),
            ca_file=arguments.ca_file,
            certificate=arguments.cert,
            key=arguments.key,
            repositories=tuple(arguments.repository),
            listen=arguments.listen,
            host_names=tuple(arguments.host_name),
            token_file=arguments.token_file,
            https_certificate=arguments.https_cert,
            https_key=arguments.https_key,
            inbox=arguments.inbox,
            inbox_token_file=arguments.inbox_token_file,
            keep_days=arguments.keep_days,
            prefix=arguments.prefix,
            topic_root=arguments.topic_root,
            mqtt_version=arguments.mqtt_version,
        )
    )
    return 0
