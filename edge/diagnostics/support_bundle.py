"""Packs an archive for support: configuration, doctor findings, versions, metrics and log, without secrets.

Rules:
1. Every part is text and passes `scrub` first, which removes configured secrets by value and others by their form.
2. The configuration is written as it was understood, without comments: a comment may hold a secret in any form.
3. A part that cannot be read holds the reason instead; the archive is still written.
4. The archive holds no picture and no event.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import platform
import sqlite3
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge import __version__
from edge.config.schema import DeviceConfig
from edge.config.secret_values import ADDRESS_KEYS, SECRET_KEYS, secret_values
from edge.diagnostics.doctor import run_checks
from edge.diagnostics.status import fetch
from edge.durable import write_durably
from edge.errors import FinesightError
from edge.messaging.outbox_salvage import read_set_aside
from edge.redact import MARK, redact_address, redact_fields
from edge.telemetry.known_secrets import hide, remember

_LOG_LINES = 5000
_TIMEOUT_S = 10.0
_PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "openvino",
    "hnswlib",
    "simplejpeg",
    "paho-mqtt",
    "pydantic",
    "PyGObject",
)
_STATE_FILES = (
    "current",
    "staged",
    "starts.json",
    "vital_signs.json",
    "agent.json",
    "mailbox.json",
    "permit.json",
    "config/overlay.json",
    "config/trial.json",
    "slots/a/bundle.json",
    "slots/b/bundle.json",
)
_JOURNAL = "journal.sqlite"  # of the update agent
_JOURNAL_PARTS = {
    "task": "SELECT content FROM task LIMIT 1",
    "quarantine": "SELECT * FROM quarantine ORDER BY sequence DESC LIMIT 100",
    "history": "SELECT * FROM history ORDER BY id DESC LIMIT 100",
    "receipts": "SELECT * FROM receipts ORDER BY at DESC LIMIT 100",
    "failures": "SELECT * FROM failures ORDER BY again_at DESC LIMIT 100",
    "spent": "SELECT * FROM spent ORDER BY day DESC LIMIT 40",
}


def pack_support(config: DeviceConfig, archive: Path) -> list[str]:
    """Write the archive.

    Args:
        config: of the device.
        archive: a .tar.gz file, replaced atomically.

    Returns:
        The names of the parts.

    Raises:
        FinesightError: the archive cannot be written.
    """
    written = config.model_dump(mode="json", exclude_unset=True)
    remember(secret_values(written))
    parts: dict[str, Callable[[], str]] = {
        "device.json": lambda: json.dumps(_without_secrets(written), indent=1),
        "doctor.txt": lambda: "\n".join(f"{f.verdict:4}  {f.thing}: {f.words}" for f in run_checks(config)),
        "versions.txt": _versions,
        "log.txt": _log,
    }
    parts |= {f"state/{name}": (config.state_dir / name).read_text for name in _STATE_FILES}
    parts["state/agent_journal.json"] = lambda: _agent_journal(config.state_dir / _JOURNAL)
    parts["state/files.txt"] = lambda: _listing(config.state_dir)
    parts["state/set_aside.txt"] = lambda: "\n".join(map(str, read_set_aside(config.state_dir / "outbox.sqlite")))
    if config.health is not None:
        parts["metrics.txt"] = lambda: fetch(config, "/metrics")
        parts["status.json"] = lambda: fetch(config, "/status")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, read in parts.items():
            try:
                text = read()
            except (OSError, FinesightError, subprocess.SubprocessError) as error:
                text = f"not available: {error}"
            data = scrub(text).encode()
            entry = tarfile.TarInfo(f"finesight-support/{name}")
            entry.size, entry.mtime = len(data), int(time.time())
            tar.addfile(entry, io.BytesIO(data))
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        write_durably(archive, stream.getvalue())
    except OSError as error:
        raise FinesightError(f"{archive}: cannot write: {error.strerror}") from error
    return list(parts)


def scrub(text: str) -> str:
    """Return a text without secrets: neither known values, nor anything that looks like a secret."""
    return redact_fields(hide(text))


def _without_secrets(tree: Any, key: str = "") -> Any:
    if isinstance(tree, dict):
        return {name: _without_secrets(item, name) for name, item in tree.items()}
    if key in ADDRESS_KEYS and isinstance(tree, str):
        return redact_address(tree)
    return MARK if key in SECRET_KEYS and tree is not None else tree


def _versions() -> str:
    found = {"finesight": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return json.dumps(found, indent=1)


def _log() -> str:
    command = ["journalctl", "--unit", "edge.service", "--unit", "edge-sync-agent.service", "--lines", str(_LOG_LINES)]
    done = subprocess.run(
        [*command, "--no-pager", "--output", "short-iso"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return done.stdout or done.stderr


def _agent_journal(path: Path) -> str:
    """Return what the update agent did, and what it holds back.

    Raises:
        FinesightError: there is no journal, or it cannot be read.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as file:
            file.row_factory = sqlite3.Row
            found = {name: [dict(row) for row in file.execute(sql)] for name, sql in _JOURNAL_PARTS.items()}
    except sqlite3.Error as error:
        raise FinesightError(f"{path}: {error}") from error
    return json.dumps(found, indent=1, default=str)


def _listing(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "\n".join(f"{path.stat().st_size:12} {path.relative_to(folder)}" for path in files)
