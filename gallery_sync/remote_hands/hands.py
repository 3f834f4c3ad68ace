"""Takes commands from the mailbox, has them carried out between the steps of the agent, and answers each.

Rules this module keeps:
1. Each command gets one answer, a long one "accepted" before it; the same id gets the same answer again.
2. An id is written down before its command begins. A command that the end of the process interrupted is answered as
   interrupted when the agent starts, and is not begun again.
3. One long command at a time. As many wait as the mailbox brings at once, and the fleet server keeps fewer for a device
   that was off; more are refused.
4. Whatever a command raises is its answer. It never stops the agent.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from edge.errors import FinesightError, one_line
from edge.telemetry.counters import Counters
from edge.telemetry.known_secrets import hide, hide_in
from gallery_sync.formats.fields import canonical_json
from gallery_sync.formats.reports import Answer, Request
from gallery_sync.mailbox.incoming import MOST_COMMANDS
from gallery_sync.mailbox.messages import CommandMessage
from gallery_sync.remote_hands.commands import Command, Context, Outcome
from gallery_sync.remote_hands.judge import Now, Refused, read_request, why_not
from gallery_sync.remote_hands.ledger import Audited, Known, Ledger
from gallery_sync.transport.errors import StorageError

log = logging.getLogger(__name__)

MOST_WAITING = MOST_COMMANDS  # long commands
_LONGEST_TEXT, _LARGEST_ANSWER_BYTES = 1000, 32 << 10
_INTERRUPTED = "interrupted: the agent ended while it was under way, or before; it is not carried out again"
_BUSY = "too many commands wait; send it again later"


class Post(Protocol):
    """The part of the mailbox that commands use."""

    def take_commands(self) -> list[CommandMessage]:
        """Return the commands that arrived since the last call."""
        ...

    def answer(self, key: str, payload: bytes) -> None:
        """Send an answer."""
        ...

    def take_delivered(self) -> list[str]:
        """Return the keys of answers that the broker has since the last call."""
        ...

    def nudge(self) -> None:
        """End the agent's wait; from any thread."""
        ...


@dataclass(frozen=True, slots=True)
class LeftOver:
    """What an earlier process left of a command, and goes on."""

    id: str  # of the command
    watch: Callable[[], Outcome]  # for a thread


@dataclass(slots=True)
class _Task:
    """A long command."""

    verb: str
    id: str
    who: str
    carry_out: Callable[[], Outcome]
    in_loop: bool = False
    proves: bool = False
    outcome: Outcome | None = None  # once the thread ended


class RemoteHands:
    """The commands of one device."""

    def __init__(
        self,
        post: Post,
        ledger: Ledger,
        commands: Mapping[str, Command],
        context: Context,
        now: Callable[[], Now],
        counters: Counters,
        left_over: LeftOver | None = None,
    ) -> None:
        """Answer what an earlier process left.

        Args:
            post: brings commands and takes answers.
            ledger: of the device.
            commands: what each verb does.
            context: what they may use.
            now: returns the time.
            counters: `commands`, by result.
            left_over: goes on; None: nothing does.
        """
        self._post, self._ledger, self._commands, self._context = post, ledger, commands, context
        self._now, self._counters = now, counters
        self._waiting: deque[_Task] = deque()
        self._running: _Task | None = None
        with self._counted():
            for command_id, answer in ledger.undelivered():
                post.answer(command_id, answer)
        with self._counted():
            self._go_on(left_over)

    def _go_on(self, left_over: LeftOver | None) -> None:
        """Answer the commands that the end of the process interrupted, but the one that goes on."""
        goes_on = left_over.id if left_over else ""
        if left_over is not None:
            known = self._ledger.known(goes_on) or Known(goes_on, "config", "unknown", None)
            self._start(_Task(known.verb, known.id, known.who, left_over.watch))
        for left in self._ledger.interrupted():
            if left.id != goes_on:
                self._end(left.verb, left.id, left.who, Outcome("failed", _INTERRUPTED))

    def turn(self, *, proving: bool = False) -> None:
        """Carry out what may be carried out now, between two steps of the agent. It returns soon.

        Args:
            proving: the agent proves a release beside its loop.
        """
        with self._counted():
            if delivered := list(filter(None, self._post.take_delivered())):
                self._ledger.delivered(delivered)
        with self._counted():
            self._finish()
        for message in self._post.take_commands():
            with self._counted():
                self._receive(message)
        with self._counted():
            self._begin(proving=proving)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Let nothing stop because the disk failed."""
        try:
            yield
        except FinesightError as error:
            self._counters.add("commands", result="not_written")
            log.warning("%s", error)

    @property
    def proves(self) -> bool:
        """Whether a command proves a pair now; two proofs at once could need more memory than there is."""
        return self._running is not None and self._running.proves

    def _receive(self, message: CommandMessage) -> None:
        request = read_request(message.payload)
        if isinstance(request, Refused):
            self._refuse(message.verb, request)
            return
        try:
            known = self._ledger.known(request.id)
            if known is not None:
                self._repeat(known)
                return
            command = self._commands.get(message.verb)
            why = self._why_not(message.verb, command, request)
            if why is not None or command is None:
                self._refuse(message.verb, Refused(request.id, request.by, why or _BUSY))
                return
            self._ledger.begin(Audited(self._now().at, request.by, command.verb, request.id, "accepted", ""))
        except StorageError as error:  # what is not written down is not carried out
            text = f"not carried out: {error}"
            self._post.answer("", self._answer(message.verb, request.id, request.by, "failed", text, {}))
            raise
        self._carry_out(command, request)

    def _why_not(self, verb: str, command: Command | None, request: Request) -> str | None:
        now, remembers_from = self._now(), self._ledger.remembers_from()
        if why := why_not(verb, request, self._context.commands, now, remembers_from):
            return why
        if command is None:
            return f"this device has no command {verb}"
        if command.is_long and len(self._waiting) >= MOST_WAITING:
            return _BUSY
        return command.why_not(self._context)

    def _repeat(self, known: Known) -> None:
        self._counters.add("commands", result="repeated")
        if known.answer is not None:
            self._post.answer(known.id, known.answer)
        else:
            self._post.answer("", self._answer(known.verb, known.id, known.who, "accepted", "it is under way", {}))

    def _carry_out(self, command: Command, request: Request) -> None:
        log.info("command %s %s of %s", command.verb, request.id, one_line(request.by))
        if not command.is_long:
            self._end(command.verb, request.id, request.by, _tried(lambda: command.carry_out(request, self._context)))
            return
        carry_out = partial(command.carry_out, request, self._context)
        self._waiting.append(
            _Task(command.verb, request.id, request.by, carry_out, in_loop=command.in_loop, proves=command.proves)
        )
        self._counters.add("commands", result="accepted")
        self._post.answer("", self._answer(command.verb, request.id, request.by, "accepted", "", {}))

    def _begin(self, *, proving: bool) -> None:
        if self._running is not None or not self._waiting or (proving and self._waiting[0].proves):
            return
        task = self._waiting.popleft()
        if not task.in_loop:
            self._start(task)
            return
        self._context.renew_deadline()
        outcome = _tried(task.carry_out)
        if outcome.watch is not None:
            self._start(replace(task, carry_out=outcome.watch))
        else:
            self._end(task.verb, task.id, task.who, outcome)

    def _start(self, task: _Task) -> None:
        """Carry a long command out in a thread."""
        self._running = task

        def run() -> None:
            task.outcome = _tried(task.carry_out)
            self._post.nudge()

        threading.Thread(target=run, name=f"command {task.verb}", daemon=True).start()

    def _finish(self) -> None:
        """Finish the long command whose thread ended."""
        task = self._running
        if task is None or task.outcome is None:
            return
        outcome, self._running = task.outcome, None
        self._end(task.verb, task.id, task.who, _tried(outcome.then) if outcome.then is not None else outcome)

    def _refuse(self, verb: str, refused: Refused) -> None:
        log.warning("command %s of %s is refused: %s", one_line(verb), one_line(refused.by), refused.why)
        answer = self._answer(verb, refused.id, refused.by, "refused", refused.why, {})
        entry = Audited(self._now().at, refused.by, verb, refused.id, "refused", refused.why[:_LONGEST_TEXT])
        self._counters.add("commands", result="refused")
        try:
            if not refused.id or self._ledger.known(refused.id) is None:
                self._ledger.begin(entry, answer)
        finally:
            self._post.answer(refused.id, answer)

    def _end(self, verb: str, command_id: str, who: str, outcome: Outcome) -> None:
        text = hide(outcome.text)[:_LONGEST_TEXT]
        answer = self._answer(verb, command_id, who, outcome.state, text, outcome.result)
        self._counters.add("commands", result=outcome.state)
        level = logging.INFO if outcome.state == "done" else logging.WARNING
        log.log(level, "command %s: %s %s", verb, outcome.state, text)
        try:
            self._ledger.end(Audited(self._now().at, who, verb, command_id, outcome.state, text), answer)
        finally:
            self._post.answer(command_id, answer)

    def _answer(self, verb: str, command_id: str, who: str, state: str, text: str, result: Mapping[str, Any]) -> bytes:
        answer = Answer.model_validate(
            {
                "device": self._context.device,
                "id": command_id[:80],
                "verb": one_line(verb)[:80],
                "by": one_line(who)[:80] or "unknown",
                "state": state,
                "text": hide(text)[:_LONGEST_TEXT],
                "result": hide_in(dict(result)),
                "at": max(0.0, self._now().at),
            }
        )
        if len(payload := canonical_json(answer)) <= _LARGEST_ANSWER_BYTES:
            return payload
        return canonical_json(answer.model_copy(update={"result": {"left_out": "it is too large"}}))


def _tried(carry_out: Callable[[], Outcome]) -> Outcome:
    """Return the outcome of a command, whatever it raises."""
    try:
        return carry_out()
    except FinesightError as error:
        return Outcome("failed", one_line(str(error)))
    except Exception as error:
        log.exception("a command failed in a way that nobody expects")
        return Outcome("failed", f"{type(error).__name__}: {one_line(str(error))}; see the log of the agent")
