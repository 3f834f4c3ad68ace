"""Runs `gallery_sync.conformance` for the conformance suite, fast: one process imports it, and forks for each command.

The suite starts its client some four hundred times. `answer_commands` listens on a socket; `write_client` writes the
program that the suite starts, which only passes its arguments on, and a `faketime` that passes the time on. The client
takes the time as an argument, so the suite needs no library that lies about the clock.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import sys
from datetime import datetime, timezone
from pathlib import Path

_CLIENT = """\
#!{python} -SEs
import json, os, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({path!r})
link.sendall(json.dumps([sys.argv[1:], os.environ.get("CLIENT_TIME")]).encode())
link.shutdown(socket.SHUT_WR)
status, text = json.loads(b"".join(iter(lambda: link.recv(65536), b"")))
sys.stderr.write(text)
sys.exit(status)
"""
_FAKETIME = '#!/bin/sh\nCLIENT_TIME="$1"\nexport CLIENT_TIME\nshift\nexec "$@"\n'


def write_client(folder: Path, socket_path: Path) -> Path:
    """Write the client and `faketime` into a folder, and return the path of the client."""
    for name, text in (
        ("client", _CLIENT.format(python=sys.executable, path=str(socket_path))),
        ("faketime", _FAKETIME),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder / "client"


def answer_commands(socket_path: Path) -> None:
    """Listen for commands for ever; each runs in a process of its own, as it would on a device."""
    import gallery_sync.trust.fetch
    import gallery_sync.trust.updater  # noqa: F401
    from gallery_sync.conformance import main

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        listener.listen(16)
        print("ready", flush=True)
        while True:
            link, _ = listener.accept()
            if os.fork() == 0:
                with link:
                    argv, time = json.loads(b"".join(iter(lambda link=link: link.recv(65536), b"")))
                    link.sendall(json.dumps(run(main, argv, time)).encode())
                os._exit(0)
            link.close()


def run(main, argv: list[str], time: str | None) -> tuple[int, str]:
    """Run one command; return its status and what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
        try:
            if time is None:
                status = main(argv)
            else:
                moment = read_fake_time(time)
                status = main(argv, now=lambda: moment)
        except SystemExit as stopped:
            status = 2 if stopped.code is None else int(stopped.code)
    return status, printed.getvalue()


def read_fake_time(text: str) -> datetime:
    """Read a time as `faketime` does: without a zone it is local."""
    moment = datetime.fromisoformat(text.strip().replace(" UTC", "+00:00").replace(" +", "+"))
    return moment.astimezone(timezone.utc)


if __name__ == "__main__":
    answer_commands(Path(sys.argv[1]))
