"""A device as it runs in a shop: its kiosk and its update agent as processes, and somebody who looks things up."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).parent.parent
ASK_S = 0.05  # between two look-ups of an item that is known
TOKEN, DEADLINE_S = "benchmark of a fleet", 300.0


def prepare_device(folder: Path, state: Path, repo: Path, url: str) -> Path:
    """Enrol a device, and return its configuration."""
    from tests.integration.mosquitto import free_port

    sync = [sys.executable, "-m", "gallery_sync.cli"]
    new = [*sync, "enrolment", "new", repo, "--url", url, "-o", folder / "devices", "--device", "bench-1"]
    enrol = [*sync, "enrol", folder / "devices/bench-1.json", "--state-dir", state]
    for command in (new, enrol):
        subprocess.run([str(word) for word in command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    video = cv2.VideoWriter(str(folder / "counter.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (320, 240))
    for _ in range(50):
        video.write(np.full((240, 320, 3), 150, np.uint8))
    video.release()
    config = folder / "device.yaml"
    config.write_text(
        f"state_dir: {state}\nengine: {{backend: onnxruntime}}\n"
        f"cameras:\n  counter: {{source: 'file://{folder}/counter.mp4?loop=1', framing: whole_frame}}\n"
        f"kiosk: {{camera: counter, port: {free_port()}, token: '{TOKEN}'}}\n"
    )
    return config


def agent_command(folder: Path, state: Path, config: Path, poll_s: float) -> list[str]:
    """Return the command of the agent."""
    policy = folder / f"agent-{poll_s}.yaml"
    policy.write_text(f"poll_s: {poll_s}\njitter: 0\ntrial: {{seconds: 1, look_s: 0.2}}\n")
    words = [sys.executable, "-m", "gallery_sync.cli", "--verbose", "agent", "--state-dir", state, "--config", policy]
    return [str(word) for word in [*words, "--device-config", config]]


class Process:
    """A process, and what it logs with the time at which each line arrived."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.lines: list[tuple[float, str]] = []
        self._log = log
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with self._log.open("w") as log:
            for line in self.process.stderr or ():
                self.lines.append((time.time(), line.strip()))
                log.write(f"{time.time():.3f} {line}")

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)
        self._thread.join()


@contextmanager
def running(command: list[str], log: Path) -> Iterator[Process]:
    """Run a process until the end of the block."""
    started = Process(command, log)
    try:
        yield started
    finally:
        started.stop()


def wait_for(condition: Callable[[], Any], what: str, pause_s: float = 0.05) -> Any:
    """Return the first answer that is true."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            if answer := condition():
                return answer
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"not in time: {what}")
        time.sleep(pause_s)


class Kiosk:
    """Looks pictures up at a running device."""

    def __init__(self, port: int) -> None:
        self._port = port

    def item(self, picture: bytes) -> str | None:
        """Return the item that the device answers with; None: unknown.

        Raises:
            OSError: it gave no answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "image/png"}
            connection.request("POST", "/v1/lookup", picture, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise OSError(f"{response.status}: {answer}")
        match = answer["match"]
        return match and match["item"]


class Asking:
    """Looks an item up all the time, in a thread."""

    def __init__(self, kiosk: Kiosk, picture: bytes, item: str) -> None:
        self.count = self.failed = 0
        self._kiosk, self._picture, self._item = kiosk, picture, item
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(ASK_S):
            self.count += 1
            try:
                self.failed += self._kiosk.item(self._picture) != self._item
            except OSError:
                self.failed += 1

    def stop(self) -> None:
        """End it."""
        self._ended.set()
        self._thread.join()
