"""What a command is: who may carry it out, what it needs of the device, and how it ends.

Rules this module keeps:
1. A short command is carried out between two steps of the agent. A long one runs in a thread; whatever it changes of
   the pointers, it does in `then`, which is called between two steps, too.
2. One that needs the repository begins between two steps, and goes on in `watch`, which runs in a thread.
3. A command raises a FinesightError for what went wrong; its text is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edge.bundle.prove import Prove
from gallery_sync.formats.reports import Request
from gallery_sync.remote_hands.permission import Commands

if TYPE_CHECKING:
    from gallery_sync.device.source import Source


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    state: Literal["done", "refused", "failed"]
    text: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)  # JSON
    then: Callable[[], Outcome] | None = None  # what is left of it; its outcome is that of the command
    watch: Callable[[], Outcome] | None = None  # what is left of it, for a thread; of a command that is `in_loop`


@dataclass(frozen=True, slots=True)
class Context:
    """What commands may use of a device."""

    state_dir: Path
    device: str  # its id
    line: str
    labels: Mapping[str, str]  # with device, group and line
    commands: Commands  # of agent.yaml
    device_config: Path | None  # device.yaml; None: there is none
    ring: Callable[[], None]  # have the agent look at the repository now
    hold: Callable[[str, int, str], None]  # put a release into quarantine: line, sequence, reason
    prove: Prove  # runs the probes of a pair in a child process, for minutes; not while the agent proves
    prove_new: Prove  # also chooses the engines of a bundle that is to serve
    environment: Mapping[str, str] = field(default_factory=dict)  # of the agent
    source: Source | None = None  # the repository; only between two steps of the agent
    renew_deadline: Callable[[], None] = lambda: None  # gives requests to the repository their time


@dataclass(frozen=True, slots=True)
class Command:
    """A verb, and what it does."""

    verb: str
    carry_out: Callable[[Request, Context], Outcome]
    is_long: bool = False  # it runs in a thread, and an answer "accepted" goes before
    in_loop: bool = False  # a long one that begins between two steps of the agent, and goes on in `watch`
    proves: bool = False  # it waits until the agent proves nothing
    why_not: Callable[[Context], str | None] = lambda _: None  # why it is refused at once; None: it is not
