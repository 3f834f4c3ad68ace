"""The verbs that operate a device: run, status, record, check, doctor and support-bundle."""

from __future__ import annotations

import argparse
import json
import logging
import os
from dataclasses import asdict

from edge.errors import ConfigError
from edge.options import STATE_DIR
from edge.process import starting
from edge.telemetry.known_secrets import hide, hide_in
from edge.verbs.device import config_of

log = logging.getLogger(__name__)


def run(arguments: argparse.Namespace) -> int:
    """Run the device until it is stopped; return its exit status.

    Raises:
        FinesightError: it failed; the message says why.
    """
    with starting() as on_started:
        from edge.config.config_file import ConfigFile

        file = ConfigFile(arguments.config, os.environ, arguments.state_dir)
        config = file.load_or_last_good(arguments.state_dir or STATE_DIR) if arguments.safe else file.load()
        from edge.run_device import run_device

        return run_device(config, file, until_end=arguments.until_end, wait=arguments.safe, on_started=on_started)


def record(arguments: argparse.Namespace) -> int:
    """Run, and keep the latest video of every camera; return the exit status.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.capture.cameras import check_recordable
    from edge.run_device import run_device

    config = config_of(arguments)
    for name, camera in config.cameras.items():
        if camera.enabled:
            check_recordable(name, camera)
    cameras = {
        name: camera.model_copy(update={"record_mib": camera.record_mib or arguments.mib})
        for name, camera in config.cameras.items()
    }
    log.info("recording to %s", config.state_dir / "ring")
    return run_device(config.model_copy(update={"cameras": cameras}), None, until_end=arguments.until_end)


def check(arguments: argparse.Namespace) -> int:
    """Check the configuration, and what it names; return 0 if all is well.

    Raises:
        FinesightError: it failed; the message says why.
    """
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


def doctor(arguments: argparse.Namespace) -> int:
    """Check what works on this machine; return 1 if something is bad.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.diagnostics.doctor import run_checks

    config = config_of(arguments) if arguments.config else None
    findings = []
    for finding in run_checks(config):
        findings.append(finding)
        if not arguments.json:
            print(hide(f"{finding.verdict:4}  {finding.thing}: {finding.words}"), flush=True)
    if arguments.json:
        print(json.dumps(hide_in([asdict(finding) for finding in findings]), indent=1))
    return 1 if any(finding.verdict == "bad" for finding in findings) else 0


def status(arguments: argparse.Namespace) -> int:
    """Print the state of the running device; return 0.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.diagnostics.status import fetch, format_status

    status = fetch(config_of(arguments), "/status")
    print(status.strip() if arguments.json else "\n".join(format_status(status)))
    return 0


def support(arguments: argparse.Namespace) -> int:
    """Pack an archive without secrets; return 0.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.diagnostics.support_bundle import pack_support

    parts = pack_support(config_of(arguments), arguments.out)
    print(f"{arguments.out}: {', '.join(parts)}")
    return 0
