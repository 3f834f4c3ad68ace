"""Runs a command under strace, and tells what it says to the network and what it leaves in the home folder.

Hooks of Python are not enough: ONNX Runtime's and OpenVINO's reports come from native threads and child processes.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_ADDRESS = re.compile(
    r"sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?(?:inet_addr\(\"([^\"]+)\"\)|inet_pton\(AF_INET6, \"([^\"]+)\")"
)
_TALKS = re.compile(r"^\d+ +(?:connect|sendto|sendmsg|sendmmsg)\(")
_DNS = 53
# Caches of libraries: about fonts, GStreamer's plug-ins, GPU shaders; they hold nothing about anybody
CACHES = ("matplotlib/", "fontconfig/", "gstreamer-1.0/", "mesa_shader_cache")


@dataclass
class Watch:
    """One watched command: `with watch(...) as watched`, which ends it."""

    folder: Path  # of its home and of strace's output
    process: subprocess.Popen[str]

    def __enter__(self) -> Watch:  # noqa: PYI034  Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.process.communicate()

    def wait(self, timeout_s: float = 900.0) -> str:
        """Return what it printed, once it has ended."""
        printed, _ = self.process.communicate(timeout=timeout_s)
        return printed

    def talk(self) -> list[str]:
        """Return the name servers, and the addresses outside this machine, that its threads and children used."""
        found = set()
        for line in (self.folder / "strace").read_text(encoding="utf-8", errors="replace").splitlines():
            for port, v4, v6 in _ADDRESS.findall(line) if _TALKS.match(line) else ():
                host = v4 or v6
                if int(port) == _DNS or not is_this_machine(host):
                    found.add(f"{host}:{port}")
        return sorted(found)

    def left_at_home(self) -> list[str]:
        """Return the files in its home folder that are no cache of a known library."""
        home = self.folder / "home"
        names = [str(path.relative_to(home)) for path in home.rglob("*") if not path.is_dir()]
        return sorted(name for name in names if not any(f"/{cache}" in f"/{name}" for cache in CACHES))


def is_this_machine(host: str) -> bool:
    return host.startswith("127.") or host in {"::1", "::ffff:127.0.0.1", "0.0.0.0", "::"}


def watch(folder: Path, command: list[object], typed: str = "") -> Watch:
    """Start a command with an empty home folder, watched; it reads what is typed, and no more."""
    strace = shutil.which("strace")
    if strace is None:
        raise FileNotFoundError("strace is not installed; run: apt install strace")
    home = folder / "home"
    home.mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HF_", "ORT_"))}
    environment = kept | {"HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    tracer = [strace, "--follow-forks", "--seccomp-bpf", "-qq", "-e", "trace=network", "-e", "signal=none"]
    process = subprocess.Popen(
        [*tracer, "-o", str(folder / "strace"), *map(str, command)],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(typed)
    process.stdin = None  # closed: communicate would flush it
    return Watch(folder, process)
