"""How long `edge run` takes until it is ready, before and after a change, and what takes the time.

    git worktree add /tmp/before COMMIT && ln -s "$PWD/.venv" /tmp/before/.venv
    python benchmarks/start_up.py --before /tmp/before [--rounds 9]

The demo's bundle and gallery, one camera (the demo's stream), a broker that cannot be reached. Ready: READY=1 goes to
systemd, so the models are loaded and were run once, the outbox is open, and the cameras are being opened. Wall seconds
from exec, processor seconds of the whole process, medians; the checkouts take turns. A run of its own measures the
steps and the first recognised frame; steps may run side by side. Python's bytecode is compiled in advance, as `pip`
does when it installs; `--source` compiles it at every start, as a checkout with PYTHONDONTWRITEBYTECODE does.

Writes benchmarks/results/start_up.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.abc import Loader
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
WORK = ROOT / "runs/start_up"
STEPS = {  # module: function, step
    "edge.config.config_file": ("ConfigFile.load", "read the configuration"),
    "edge.bundle.pairs": ("open_pair", "verify bundle and gallery"),
    "edge.inference.stages": ("load_stages", "open the engines"),
    "edge.gallery.loaded_gallery": ("load_gallery", "load the gallery"),
    "edge.capture.cameras": ("Cameras.open_due", "open the cameras"),
}
IMPORTS = {
    "edge.config.config_file": "import the configuration",
    "edge.run_device": "import run_device",
    "edge.runtime": "import the runtime",
}
LAST = "edge.frame_loop"


def main() -> None:
    """Measure the checkouts in turn and write the report."""
    from benchmarks import rig

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout to measure beside this one")
    parser.add_argument("--rounds", type=int, default=9, help="starts of each kind; default: %(default)s")
    parser.add_argument("--source", action="store_true", help="compile Python's bytecode at every start")
    arguments = parser.parse_args()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    rig.install_demo(WORK / "state")
    (WORK / "device.yaml").write_text(
        f"state_dir: {WORK / 'state'}\nmqtt: {{host: 127.0.0.1, port: 1}}\n"
        f"cameras: {{shelf: {{source: 'file://{rig.DEMO / 'stream.mp4'}'}}}}\n"
    )
    checkouts = {"before": arguments.before, "after": ROOT} if arguments.before else {"after": ROOT}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in checkouts}
    for number in range(arguments.rounds + 1):
        for name, checkout in checkouts.items():
            environment = _environment(name, checkout, source=arguments.source)
            measured = {**start(checkout, environment), **steps(checkout, environment)}
            for step, value in measured.items() if number else ():  # the first round compiles bytecode and warms up
                found[name].setdefault(step, []).append(value)
    medians = {
        name: {step: round(statistics.median(values), 3) for step, values in steps_of.items()}
        for name, steps_of in found.items()
    }
    report: dict[str, Any] = {"rounds": arguments.rounds, "source": arguments.source, **medians}
    if arguments.before:
        pairs = zip(found["before"]["ready_s"], found["after"]["ready_s"], strict=True)
        report["after_over_before"] = round(statistics.median(after / before for before, after in pairs), 3)
    rig.write_report(report, ROOT / "benchmarks/results/start_up.json")


def start(checkout: Path, environment: dict[str, str]) -> dict[str, float]:
    """Start a device and stop it once it is ready; return wall and processor seconds until then."""
    address = WORK / "notify"
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(address))
        channel.settimeout(60)
        command = [sys.executable, "-m", "edge", "run", "-c", str(WORK / "device.yaml")]
        began_s = time.monotonic()
        process = subprocess.Popen(
            command, cwd=checkout, env=environment | {"NOTIFY_SOCKET": str(address)}, stderr=subprocess.DEVNULL
        )
        try:
            while b"READY=1" not in channel.recv(4096):
                pass
            ready_s = time.monotonic() - began_s
            ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        finally:
            process.terminate()
            process.wait(30)
    return {"ready_s": ready_s, "processor_s": (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")}


def steps(checkout: Path, environment: dict[str, str]) -> dict[str, float]:
    """Start a device that measures itself, until it has recognised a frame; return seconds."""
    command = [sys.executable, str(Path(__file__).resolve()), "child", str(time.monotonic())]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _environment(name: str, checkout: Path, *, source: bool) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    bytecode = {"PYTHONDONTWRITEBYTECODE": "1"} if source else {}
    cache = WORK / f"bytecode-{name}{'-none' if source else ''}"
    return kept | bytecode | {"PYTHONPATH": str(checkout), "PYTHONPYCACHEPREFIX": str(cache)}


class Stopwatch:
    """Measures the steps of this process, by wrapping functions of modules as they are imported."""

    def __init__(self, began_s: float) -> None:
        self.began_s, self.took_s = began_s, {"start Python": time.monotonic() - began_s}

    def wrap(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that also notes how long its first call takes."""

        def call(*arguments: Any, **named: Any) -> Any:
            entered_s = time.monotonic()
            try:
                return function(*arguments, **named)
            finally:
                self.took_s.setdefault(step, time.monotonic() - entered_s)

        return call

    def ending(self, recognise: Callable[..., None]) -> Callable[..., None]:
        """Return a function that prints the steps and ends the process after its first call."""

        def call(*arguments: Any) -> None:
            recognise(*arguments)
            self.took_s["first frame recognised after"] = time.monotonic() - self.began_s
            print(json.dumps(self.took_s), flush=True)
            os._exit(0)

        return call

    def find_spec(self, name: str, path: Any = None, _target: Any = None) -> Any:
        """Find a module to measure (importlib.abc.MetaPathFinder)."""
        spec = PathFinder.find_spec(name, path) if name in {*STEPS, *IMPORTS, LAST} else None
        if spec is not None:
            spec.loader = _MeasuredLoader(spec.loader, self)
        return spec


class _MeasuredLoader(Loader):
    def __init__(self, loader: Any, stopwatch: Stopwatch) -> None:
        self._loader, self._stopwatch = loader, stopwatch

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        name, stopwatch = module.__name__, self._stopwatch
        load = self._loader.exec_module
        (stopwatch.wrap(IMPORTS[name], load) if name in IMPORTS else load)(module)
        if name == LAST:
            module.FrameLoop.recognise = stopwatch.ending(module.FrameLoop.recognise)
        if name in STEPS:
            path, step = STEPS[name]
            *owner, attribute = path.split(".")
            holder = getattr(module, owner[0]) if owner else module
            setattr(holder, attribute, stopwatch.wrap(step, getattr(holder, attribute)))


def child(began_s: float) -> None:
    """Run `edge run` in this process with its steps measured, and end at the first recognised frame."""
    stopwatch = Stopwatch(began_s)
    sys.meta_path.insert(0, stopwatch)  # type: ignore[arg-type]
    sys.path[0] = os.environ["PYTHONPATH"]
    sys.argv = ["edge", "--log-level", "error", "run", "-c", str(WORK / "device.yaml")]
    from edge.cli import program

    stopwatch.took_s["start Python and import the command line"] = time.monotonic() - began_s
    program()


if __name__ == "__main__":
    child(float(sys.argv[2])) if sys.argv[1:2] == ["child"] else main()
