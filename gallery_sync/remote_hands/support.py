"""The command support-bundle: packs an archive without secrets, and puts it where `agent.yaml` says.

Rules this module keeps:
1. Where the archive goes is the owner's choice alone: the command cannot name an address.
2. The archive is made in a child process, which ends in time and leaves no engine in the agent.
3. A redirect is not followed: the token goes to one server.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

from edge.errors import SyncError, one_line
from edge.redact import secrets_in
from edge.telemetry.known_secrets import hide, remember
from gallery_sync.formats.reports import Request
from gallery_sync.remote_hands.commands import Command, Context, Outcome

_FOLDER = "support-"
_PACK_LIMIT_S, _TIMEOUT_S = 300.0, 60.0
_ATTEMPTS, _FIRST_WAIT_S = 5, 5.0
_TRIED_AGAIN = frozenset({408, 425, 429})  # of the answers 4xx


def support_bundle(_: Request, context: Context) -> Outcome:
    """Pack the archive and put it to the owner's address.

    Raises:
        SyncError: it cannot be packed, is too large, or the server does not take it.
    """
    commands, token = context.commands, _token(context)
    if (why := why_no_upload(context)) or commands.support_url is None:
        return Outcome("refused", why or "")
    remember([token, *secrets_in(commands.support_url)])
    name = f"{context.device}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}.tar.gz"
    for left in context.state_dir.glob(f"{_FOLDER}*"):  # of a process that ended meanwhile
        shutil.rmtree(left, ignore_errors=True)
    with _folder(context.state_dir) as folder:
        archive = folder / name
        note = pack(context.state_dir, context.device_config, archive)
        size = check_size(archive, commands.support_mib)
        put_file(archive, commands.support_url, token, commands.support_ca_file)
    return Outcome("done", f"{name} is uploaded{note}", {"name": name, "bytes": size})


def why_no_upload(context: Context) -> str | None:
    """Return why no archive can be uploaded from this device; None: it can be."""
    commands = context.commands
    if commands.support_url is None:
        return "agent.yaml names no commands.support_url; an archive has nowhere to go"
    if commands.support_token_env and not _token(context):
        return f"the environment variable {commands.support_token_env} is not set for the agent"
    return None


def _token(context: Context) -> str | None:
    name = context.commands.support_token_env
    return context.environment.get(name) if name else None


@contextlib.contextmanager
def _folder(state_dir: Path) -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix=_FOLDER, dir=state_dir) as folder:
            yield Path(folder)
    except OSError as error:
        raise SyncError(f"{state_dir}: cannot keep an archive: {error.strerror or error}") from error


def pack(state_dir: Path, device_config: Path | None, archive: Path) -> str:
    """Pack the archive in a child process; without the configuration, if that cannot be read here.

    Args:
        state_dir: of the device.
        device_config: device.yaml; None: there is none.
        archive: to write.

    Returns:
        What the archive lacks, for people; empty: nothing.

    Raises:
        SyncError: it cannot be packed.
    """
    problem = "there is no device.yaml" if device_config is None else _pack(state_dir, device_config, archive)
    if problem is None:
        return ""
    bare = archive.with_name("device.yaml")
    bare.write_text("{}\n")
    if (again := _pack(state_dir, bare, archive)) is not None:
        raise SyncError(f"the archive cannot be packed: {again}")
    return f", without the device's configuration: {problem}"


def _pack(state_dir: Path, device_config: Path, archive: Path) -> str | None:
    """Pack it; return why it failed."""
    command = [sys.executable, "-m", "edge", "support-bundle", "-c", str(device_config)]
    command += ["--state-dir", str(state_dir), "-o", str(archive)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PACK_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"it did not end within {_PACK_LIMIT_S:.0f} s"
    if done.returncode == 0 and archive.is_file():
        return None
    return one_line(hide((done.stderr.strip().splitlines() or ["it failed without a word"])[-1]))


def check_size(archive: Path, most_mib: int) -> int:
    """Return the size of an archive, in bytes.

    Raises:
        SyncError: it is larger than the owner allows.
    """
    size = archive.stat().st_size
    if size > most_mib << 20:
        raise SyncError(f"the archive has {size} bytes, expected at most {most_mib} MiB (commands.support_mib)")
    return size


def put_file(
    file: Path, url: str, token: str | None, ca_file: Path | None, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Put a file to a folder on a server, and try again with growing waits.

    Args:
        file: to put.
        url: of the folder; a query, such as a signature, stays.
        token: sent as `Authorization: Bearer`; None: none.
        ca_file: the only certificate authorities to trust; None: those of the system.
        sleep: waits.

    Raises:
        SyncError: the server does not take it. The message does not hold the URL, which may be a secret.
    """
    problem = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            sleep(_FIRST_WAIT_S * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0))
        try:
            _put_once(file, url, token, ca_file)
        except urllib.error.HTTPError as error:
            error.close()
            problem = f"the server answered HTTP {error.code}"
            if error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in _TRIED_AGAIN:
                raise SyncError(f"{file.name} is not uploaded: {problem}; check support_url and its token") from None
        except (OSError, http.client.HTTPException, ValueError) as error:  # no server, no HTTP, no URL
            problem = one_line(hide(str(getattr(error, "reason", None) or error) or type(error).__name__))
        else:
            return
    raise SyncError(f"{file.name} is not uploaded after {_ATTEMPTS} attempts: {problem}")


def _put_once(file: Path, url: str, token: str | None, ca_file: Path | None) -> None:
    base, mark, query = url.partition("?")
    headers = {"Content-Type": "application/gzip", "Content-Length": str(file.stat().st_size)}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    with file.open("rb") as data:
        request = urllib.request.Request(  # noqa: S310  agent.yaml allows https only
            f"{base.rstrip('/')}/{file.name}{mark}{query}", data=data, headers=headers, method="PUT"
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context):  # noqa: S310
            pass


SUPPORT_COMMANDS = (Command("support-bundle", support_bundle, is_long=True, why_not=why_no_upload),)
