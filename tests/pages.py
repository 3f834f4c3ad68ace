"""The pages whose commands tests run as printed, and how."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.fresh_checkout import ROOT, copy_checkout, distributions, make_venv, new_user
from tests.printed import Block, blocks_of, first_that_differs

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs/tutorials").glob("*.md"), *(ROOT / "docs/how-to").glob("*.md")])
NEXT = "--- next block ---"
END_WITH_THE_PAGE = "trap 'jobs -p | xargs -r kill 2> /dev/null || true' EXIT\n"  # whatever a page starts

# It keeps its terminal until it is stopped: here it gets one of its own, until the page ends.
CONSOLE = """
edge-console() {
    case "$1" in demo | serve) ;; *) command edge-console "$@"; return ;; esac
    command edge-console "$@" > console.log 2>&1 &
    timeout 180 sh -c 'until grep -q "^console: http" console.log; do sleep 0.2; done' || true
    cat console.log
}
"""

# Its camera is on a USB port: the device sees a file instead.
RUN_KIOSK = """
sed -i 's|v4l2:///dev/video0|file://demo/stream.mp4?loop=1|' kiosk.yaml
edge run -c kiosk.yaml & trap "kill $!" EXIT
timeout 120 sh -c 'until curl -s -o /dev/null http://127.0.0.1:8090/v1/state; do sleep 0.1; done'
"""


def run_by_itself(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.kind == "sh"]


def reading_order(page: Path) -> tuple[int, int]:
    """README first, then the tutorials as their index lists them, then the guides."""
    tutorials = re.findall(r"^\d\. .*\((\S+)\)", (ROOT / "docs/tutorials/index.md").read_text("utf-8"), re.MULTILINE)
    return page.parent.name == "how-to", tutorials.index(page.name) if page.name in tutorials else -1


def chain(*, trains: bool) -> list[Path]:
    """Return the pages with commands, in reading order: those that install the trainer, or the others.

    The pages of a chain run one after another in one checkout. All that listen on a port are in the same one.
    """
    pages = sorted((page for page in PAGES if run_by_itself(page)), key=reading_order)
    return [
        page for page in pages if any("make setup-trainer" in one.commands for one in run_by_itself(page)) == trains
    ]


def name_of(page: Path) -> str:
    """Return its place in the checkout."""
    return str(page.relative_to(ROOT))


@dataclass(frozen=True, slots=True)
class NewUser:
    """A new user before a fresh checkout."""

    checkout: Path
    environment: dict[str, str]


def new_user_at(folder: Path, *, trains: bool) -> NewUser:
    """Make a fresh checkout, whose environment is empty but for what the trainer needs, where one trains.

    `make demo` and the `pip` commands of the pages install everything else. The packages of the trainer fill 6 GB, so
    they are lent by the environment of the tests: pip finds those, and no others, as installed.
    """
    (folder / "home").mkdir(parents=True)
    checkout = copy_checkout(folder / "finesight")
    make_venv(checkout / ".venv", lent=distributions("trainer", "quantize") - distributions() if trains else set())
    return NewUser(checkout, new_user(folder / "home"))


def run_page(page: Path, user: NewUser) -> None:
    """Run a page's commands as printed, in one shell; fail if one does, or if something else comes than it prints."""
    blocks = run_by_itself(page)
    if "make demo" not in blocks[0].commands:  # "Run the demo first"
        subprocess.run(["make", "setup-device"], cwd=user.checkout, env=user.environment, check=True, timeout=600)
    commands = [block.commands for block in blocks]
    if page.name == "kiosk.md":
        blocks += [block for block in blocks_of(page) if block.commands.startswith("curl")]
        commands += [RUN_KIOSK + block.commands for block in blocks[len(commands) :]]
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", END_WITH_THE_PAGE + CONSOLE + f"\necho '{NEXT}'\n".join(commands)],
        cwd=user.checkout,
        env=user.environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    differ = [
        first_that_differs(block.output, came)
        for block, came in zip(blocks, done.stdout.split(f"{NEXT}\n"), strict=True)
        if block.output is not None
    ]
    assert [line for line in differ if line] == []
