"""A real mosquitto on a free loopback port that tests can stop, kill and restart."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.waiting import DEADLINE_S


class Mosquitto:
    """One broker. `start` returns when it answers; sessions survive a kill, and the port stays the same."""

    def __init__(
        self,
        folder: Path,
        users: dict[str, str] | None = None,
        lines: tuple[str, ...] = (),
        *,
        port: int | None = None,
        anonymous: bool = True,
    ) -> None:
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._binary = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if self._binary is None:
            raise FileNotFoundError("mosquitto is not installed; run: apt install mosquitto")
        folder.mkdir(parents=True, exist_ok=True)
        access = ["allow_anonymous true"] if anonymous else ["allow_anonymous false"]
        if users:
            passwords = folder / "passwords"
            passwords.touch(mode=0o600)
            for name, password in users.items():
                subprocess.run(["mosquitto_passwd", "-b", passwords, name, password], check=True)
            access = ["allow_anonymous false", f"password_file {passwords}"]
        self._configuration = folder / "mosquitto.conf"
        self._configuration.write_text(
            "\n".join(
                [
                    f"listener {self.port} {self.host}",
                    *access,
                    "user root",
                    "persistence true",
                    f"persistence_location {folder}/",
                    "autosave_on_changes true",
                    "autosave_interval 1",
                    *([] if any(line.startswith("max_inflight") for line in lines) else ["max_inflight_messages 0"]),
                    "max_queued_messages 0",
                    "log_dest none",
                    *lines,
                    "",
                ]
            )
        )

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self) -> None:
        assert self._binary is not None
        self._process = subprocess.Popen(
            [self._binary, "-c", self._configuration], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                socket.create_connection((self.host, self.port), timeout=1.0).close()
            except ConnectionRefusedError:
                if self._process.poll() is not None:
                    raise RuntimeError(f"mosquitto ended with {self._process.returncode}") from None
                if time.monotonic() > deadline:
                    raise TimeoutError("mosquitto does not listen") from None
                time.sleep(0.01)
            else:
                return

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """Terminate it cleanly; it saves its state."""
        self._end(kill=False)

    def kill(self) -> None:
        """Kill it without warning."""
        self._end(kill=True)

    def freeze(self) -> None:
        """Stop its process with open connections (SIGSTOP); `kill` ends it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def _end(self, *, kill: bool) -> None:
        if self._process is not None:
            (self._process.kill if kill else self._process.terminate)()
            self._process.wait(DEADLINE_S)
            self._process = None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
