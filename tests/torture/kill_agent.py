"""Kill the update agent with SIGKILL before and after each store and action, twice in a row, and let it go on.

python -m tests.torture.kill_agent
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from edge.bundle.active_pointer import read_active_pointer
from edge.bundle.pairs import Pair, open_pair
from gallery_sync.agent.machine import State
from gallery_sync.device.security_floor import read_security_floor
from tests.gallery_sync.agent.samples import TWO, Device, copy_device, make_repository, start_agent

_FLOWS = {"good": 10.0, "bad": 1.0}  # frames per second of the new release; the one before has 10
_MOST_TURNS = 300
_IN_A_ROLLOUT = replace(TWO, plan="spring", windows=("00:00-24:00",), deadline=2e9)


def torture(folder: Path, *, stores: bool = False, flows: tuple[str, ...] = tuple(_FLOWS)) -> Counter[str]:
    """Kill agents; return how many runs were killed, by flow and point.

    Args:
        folder: for the devices.
        stores: only after each store, and once more at once.
        flows: `good`, `bad`.

    Raises:
        AssertionError: a device does not serve a whole pair, or does not converge.
    """
    made, killed = folder / "made", Counter[str]()
    make_repository(made)
    for flow in flows:
        points = _points(made, folder / f"{flow}-whole", flow)
        for first, point in enumerate(points):
            if stores and not point.startswith("after store"):
                continue
            for second in (2,) if stores else (0, 2):
                device = folder / f"{flow}-{first}-{second}"
                copy_device(made, device)
                assert _kill(device, flow, first), point
                _check(device)
                killed[f"{flow}: {point}"] += 1
                killed["again"] += _kill(device, flow, second)
                _check(device)
                _converge(device, flow)
                shutil.rmtree(device)
    return killed


def _start(folder: Path, flow: str) -> Device:
    device = start_agent(folder)
    device.steps.edge.fps = _FLOWS[flow]
    device.steps.wanted = _IN_A_ROLLOUT
    return device


def _run(device: Device) -> None:
    for _ in range(_MOST_TURNS):
        device.clock.sleep(device.agent.turn())
        if device.agent.task.state is State.IDLE and device.outcomes():
            return
    raise AssertionError(f"does not come to rest: {device.agent.task}")


def _points(made: Path, folder: Path, flow: str) -> list[str]:
    """Return the points of an undisturbed run."""
    copy_device(made, folder)
    device, points = _start(folder, flow), []
    device.steps.hook = device.journal.hook = points.append  # type: ignore[method-assign]
    _run(device)
    return points


def _kill(folder: Path, flow: str, point: int) -> bool:
    """Run an agent in a process that kills itself at a point; return whether it came so far."""
    pid = os.fork()
    if pid == 0:
        left = [point]

        def hook(_: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            device = _start(folder, flow)
            device.steps.hook = device.journal.hook = hook  # type: ignore[method-assign]
            _run(device)
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "an agent after a kill failed"
    return os.WIFSIGNALED(status)


def _check(folder: Path) -> None:
    """Check that the active pair is whole, whatever happened."""
    active = read_active_pointer(folder / "device")
    assert active is not None
    open_pair(folder / "device", Pair.of(active))


def _converge(folder: Path, flow: str) -> None:
    device = _start(folder, flow)
    _run(device)
    good = flow == "good"
    assert device.serving() == ("bundle-2" if good else "bundle-1")
    assert device.outcomes()[-1] == (2, "confirmed" if good else "rolled back")
    assert read_security_floor(device.state_dir, "demo") == (2 if good else 0)
    assert device.agent.task.stores == 0
    device.journal.close()


def main() -> None:
    """Run it by hand."""
    parser = argparse.ArgumentParser(description="Kill the update agent at each store and action.")
    parser.add_argument("--stores", action="store_true", help="only after each store")
    parser.add_argument("--flow", choices=tuple(_FLOWS), action="append", help="only this flow")
    memory = Path("/dev/shm")
    default = memory if memory.is_dir() else None
    parser.add_argument("--folder", type=Path, default=default, help="for the devices (default: in memory)")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        flows = tuple(arguments.flow or _FLOWS)
        killed = torture(Path(folder), stores=arguments.stores, flows=flows)
    again = killed.pop("again")
    print(f"{sum(killed.values())} kills at {len(killed)} points, and {again} in resumed runs: 0 unhealthy")


if __name__ == "__main__":
    main()
