"""The verbs of `edge-sync` for other fleet systems: `hawkbit`, `mender` and `oci`."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import asdict
from pathlib import Path

from gallery_sync.command_line import add_ca_file, add_state_dir, print_values

TOKEN_VARIABLE = "FINESIGHT_HAWKBIT_TOKEN"  # noqa: S105 - its name


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to a parser."""
    _add_hawkbit(verbs)
    _add_mender(verbs)
    _add_oci(verbs)


def _add_hawkbit(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    hawkbit = verbs.add_parser(
        "hawkbit",
        help="let Eclipse hawkBit say which release this device installs, and tell it what came of it",
        description="Run beside the agent: an action of hawkBit becomes a permit for one signed release, and is closed "
        "with success once the agent confirmed that release. Set `install: {permit: true}` in agent.yaml.",
    )
    hawkbit.add_argument("--url", required=True, help="address of hawkBit: https://hawkbit.example.com")
    hawkbit.add_argument("--tenant", default="DEFAULT", help="tenant of hawkBit (default: DEFAULT)")
    hawkbit.add_argument("--controller-id", help="id of the device in hawkBit (default: that of its enrolment)")
    hawkbit.add_argument(
        "--token-env",
        default=TOKEN_VARIABLE,
        metavar="NAME",
        help=f"environment variable that holds the token (default: {TOKEN_VARIABLE})",
    )
    kind = hawkbit.add_mutually_exclusive_group()
    kind.add_argument(
        "--target-token",
        dest="scheme",
        action="store_const",
        const="TargetToken",
        default="TargetToken",
        help="the token is that of this device in hawkBit (default)",
    )
    kind.add_argument(
        "--gateway-token",
        dest="scheme",
        action="store_const",
        const="GatewayToken",
        help="the token is that of all devices of the tenant",
    )
    hawkbit.add_argument(
        "--give-up-hours",
        type=_hours,
        default=24.0,
        metavar="HOURS",
        help="an action fails whose release this device did not begin to install for so long (default: 24)",
    )
    hawkbit.add_argument("--once", action="store_true", help="ask hawkBit once, do what follows, and end")
    add_state_dir(hawkbit)
    add_ca_file(hawkbit)
    hawkbit.set_defaults(act=_hawkbit)


def _hours(text: str) -> float:
    """Parse a number of hours above 0."""
    if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) is None or not float(text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected hours above 0, such as 24 or 0.5")
    return float(text)


def _hawkbit(arguments: argparse.Namespace) -> int:
    from gallery_sync.adapters.hawkbit import run
    from gallery_sync.adapters.hawkbit_client import open_client

    client = open_client(
        arguments.url,
        arguments.tenant,
        _controller_id(arguments),
        (arguments.scheme, os.environ.get(arguments.token_env, "")),
        arguments.ca_file,
    )
    done = run(client, arguments.state_dir, give_up_s=arguments.give_up_hours * 3600.0, once=arguments.once)
    return print_values(done, as_json=arguments.json)


def _controller_id(arguments: argparse.Namespace) -> str:
    from edge.errors import SyncError
    from gallery_sync.trust.enrolment_file import read_enrolment

    enrolled = read_enrolment(arguments.state_dir)
    found: str | None = arguments.controller_id or (enrolled.device_id if enrolled else None)
    if not found:
        raise SyncError(f"{arguments.state_dir}: is not enrolled; enrol it, or name it: --controller-id")
    return found


def _add_mender(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    mender = verbs.add_parser(
        "mender",
        help="be an update module of Mender: install the release that an artifact names",
        description="Carry out one call of Mender's update module protocol, version 3. Mender runs it; see --script.",
    )
    mender.add_argument("step", nargs="?", metavar="STATE", help="state or question of the protocol")
    mender.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="folder that Mender prepared")
    mender.add_argument(
        "--script", action="store_true", help="print the script that Mender runs, with the options given here, and end"
    )
    mender.add_argument(
        "--wait-s",
        type=float,
        default=10_800.0,
        help="seconds that one state may take; keep it below ModuleTimeoutSeconds of Mender (default: 10800)",
    )
    add_state_dir(mender)
    mender.set_defaults(act=_mender)


def _mender(arguments: argparse.Namespace) -> int:
    from gallery_sync.adapters.mender import call, script

    if arguments.script:
        print(script(arguments.state_dir, arguments.wait_s), end="")
        return 0
    answer = call(arguments.step or "", arguments.folder, arguments.state_dir, wait_s=arguments.wait_s)
    if answer:
        print(answer)
    return 0


def _add_oci(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    oci = verbs.add_parser("oci", help="carry a release through a registry of containers, as an OCI artifact")
    below = oci.add_subparsers(dest="oci_verb", required=True)
    export = below.add_parser(
        "export", help="write a release, with all that devices need of it, as an OCI image layout"
    )
    export.add_argument("repo", type=Path, help="repository folder")
    export.add_argument("number", type=int, metavar="RELEASE", help="sequence number of the release")
    export.add_argument("--to", type=Path, required=True, metavar="LAYOUT", help="folder of the image layout")
    export.set_defaults(act=_export)
    back = below.add_parser("import", help="make an OCI image layout a repository folder again, to pull from")
    back.add_argument("layout", type=Path, metavar="LAYOUT", help="folder of the image layout")
    back.add_argument("--to", type=Path, required=True, metavar="REPO", help="repository folder to write")
    back.add_argument("--ref", metavar="REFERENCE", help="which artifact, such as shop-3 (default: the only one)")
    back.set_defaults(act=_import)


def _export(arguments: argparse.Namespace) -> int:
    from gallery_sync.adapters.oci import export_release

    done = export_release(arguments.repo, arguments.number, arguments.to)
    return print_values(asdict(done), as_json=arguments.json)


def _import(arguments: argparse.Namespace) -> int:
    from gallery_sync.adapters.oci import import_release

    done = import_release(arguments.layout, arguments.to, arguments.ref)
    values = {key: value for key, value in asdict(done).items() if key not in ("reference", "digest")}
    return print_values(values, as_json=arguments.json)
