"""Packs an archive for support: configuration, doctor findings, versions, metrics and log, without secrets.

Rules:
1. Every part is text and passes `scrub` first, which removes configured secrets by value and others by their form.
2. A part that cannot be read holds the reason instead; the archive is still written.
3. The archive holds no picture and no event.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import platform
import re
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from edge import __version__
from edge.config.camera_url import parse_source, redact
from edge.config.schema import DeviceConfig
from edge.diagnostics.doctor import run_checks
from edge.diagnostics.status import fetch
from edge.durable import write_durably
from edge.errors import FinesightError

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
_SECRET_KEY = re.compile(  # a key that names a secret, and its value as YAML or JSON writes it
    r"""(?i)\b(\w*(?:password|passwd|token|secret)\w*["']?\s*:\s*)("(?:\\.|[^"\\])*"|'(?:''|[^'])*'|[^\s,}#]+)"""
)
_STATE_FILES = ("current", "staged", "slots/a/bundle.json", "slots/b/bundle.json")


def pack_support(config_file: Path, config: DeviceConfig, archive: Path) -> list[str]:
    """Write the archive.

    Args:
        config_file: the configuration file.
        config: the configuration in it.
        archive: a .tar.gz file, replaced atomically.

    Returns:
        The names of the parts.

    Raises:
        FinesightError: the archive cannot be written.
    """
    secrets = secrets_of(config)
    parts: dict[str, Callable[[], str]] = {
        "device.yaml": lambda: config_file.read_text(encoding="utf-8"),
        "doctor.txt": lambda: "\n".join(f"{f.verdict:4}  {f.thing}: {f.words}" for f in run_checks(config)),
        "versions.txt": _versions,
        "log.txt": _log,
    }
    parts |= {f"state/{name}": (config.state_dir / name).read_text for name in _STATE_FILES}
    parts["state/files.txt"] = lambda: _listing(config.state_dir)
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
            data = scrub(text, secrets).encode()
            entry = tarfile.TarInfo(f"finesight-support/{name}")
            entry.size, entry.mtime = len(data), int(time.time())
            tar.addfile(entry, io.BytesIO(data))
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        write_durably(archive, stream.getvalue())
    except OSError as error:
        raise FinesightError(f"{archive}: cannot write: {error.strerror}") from error
    return list(parts)


def secrets_of(config: DeviceConfig) -> set[str]:
    """Return every secret value of a configuration, from the file or the environment."""
    sources = [parse_source(camera.source) for camera in config.cameras.values()]
    found = {source.password for source in sources} | {config.mqtt.password if config.mqtt else None}
    if config.kiosk is not None:
        found |= {config.kiosk.token, config.kiosk.upload_token}
    if config.health is not None:
        found.add(config.health.token)
    return {secret for secret in found if secret}


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return a text without secrets: neither known values, nor anything that looks like a secret."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _SECRET_KEY.sub(r"\1***", redact(text))


def _versions() -> str:
    found = {"finesight": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return json.dumps(found, indent=1)


def _log() -> str:
    command = ["journalctl", "--unit", "edge.service", "--unit", "edge-sync.service", "--lines", str(_LOG_LINES)]
    done = subprocess.run(
        [*command, "--no-pager", "--output", "short-iso"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return done.stdout or done.stderr


def _listing(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "\n".join(f"{path.stat().st_size:12} {path.relative_to(folder)}" for path in files)
