"""Changes of signed rollouts from the console: the functions of `edge-sync rollout`, with keys that lie on this server.

Rules this module keeps:
1. Keys are read here, for the moment of one change. None goes to a page.
2. Without keys nothing is changed: the answer is the command to run where the keys are.
3. A change names the revision that its person saw. If the rollouts changed meanwhile, it is refused.
4. Only an admin approves a plan of his own, and says so.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from console.fleet.fleet import Fleet
from console.fleet.plans import read_selector, seconds
from edge.errors import ConsoleError, SyncError
from gallery_sync.repository.keys import KeyRing
from gallery_sync.rollouts import changes
from gallery_sync.rollouts.changes import Changed, ChangedError, Desk


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a change."""

    what: str
    is_signed: bool  # devices see it
    revision: int = 0
    command: str = ""  # to run where the keys are; empty: nothing is left to do
    waits_for: tuple[str, ...] = ()  # whose signatures are missing

    @property
    def says(self) -> str:
        """It, as a sentence."""
        if self.is_signed:
            return f"{self.what}: done and signed"
        if self.waits_for:
            return f"{self.what}: waits for the signature of {', '.join(self.waits_for)}; run {self.command}"
        return f"This server has no signing keys. Run this where they are: {self.command}"


@dataclass(frozen=True, slots=True)
class Changer:
    """Changes the rollouts of the console's repository."""

    fleet: Fleet
    by: str  # name of the user
    now: datetime  # UTC

    def approve(self, plan_id: str, digest: str, *, alone: bool = False) -> Done:
        """Sign a plan, and open its first wave.

        Raises:
            ConsoleError: its planner approves it, it is another plan than the one that was read, or it cannot be used.
        """
        draft = self.fleet.signed.draft(plan_id)
        if digest != draft.digest():
            raise ConsoleError("conflict", f"the plan {plan_id} changed since you read it; read it again")
        if not alone and is_same_person(self.by, draft.planned_by):
            raise ConsoleError("denied", f"you planned {plan_id} yourself; another person must approve it")
        command = self.command("approve", plan_id, "--digest", digest, *(["--alone"] if alone else []))
        return self._change(f"Approve {plan_id}", command, lambda desk: changes.approve(desk, draft, alone=alone))

    def pause(self, expected: int, reason: str) -> Done:
        """Let no further device begin.

        Raises:
            ConsoleError: none is under way, or the rollouts changed.
        """
        command = self.command("pause", *_reason(reason))
        return self._change("Pause", command, lambda desk: changes.pause(desk, reason or None, expected=expected))

    def resume(self, expected: int, max_failed: float | None, max_silent: float | None, deadline: str) -> Done:
        """Go on with a paused rollout.

        Raises:
            ConsoleError: none is paused, its deadline is over, or the rollouts changed.
        """
        wanted = {"max_failed_percent": max_failed, "max_silent_percent": max_silent}
        gates = {name: value for name, value in wanted.items() if value is not None}
        deadline_s = seconds(deadline, "deadline") if deadline else None
        options = [f"--max-failed={max_failed:g}%"] if max_failed is not None else []
        options += [f"--max-silent={max_silent:g}%"] if max_silent is not None else []
        options += [f"--deadline={deadline}"] if deadline else []
        command = self.command("resume", *options)
        return self._change("Resume", command, lambda desk: changes.resume(desk, gates, deadline_s, expected=expected))

    def open_next(self, expected: int, reason: str) -> Done:
        """Open the next wave, whatever the gates say.

        Raises:
            ConsoleError: there is no next wave, the rollout is paused, or the rollouts changed.
        """
        command = self.command("next", *_reason(reason))
        return self._change(
            "Open the next wave",
            command,
            lambda desk: changes.open_next(desk, expected=expected, reason=reason or None),
        )

    def complete(self, expected: int, reason: str) -> Done:
        """Make the release what all selected devices run.

        Raises:
            ConsoleError: a wave is not open yet, or the rollouts changed.
        """
        command = self.command("complete", *_reason(reason))
        return self._change(
            "Complete", command, lambda desk: changes.complete(desk, expected=expected, reason=reason or None)
        )

    def abort(self, expected: int, to: int | None, reason: str) -> Done:
        """End a rollout; devices go back.

        Raises:
            ConsoleError: none is under way, devices would refuse the release, or the rollouts changed.
        """
        command = self.command("abort", *([f"--to={to}"] if to is not None else []), *_reason(reason))
        return self._change(
            "Abort", command, lambda desk: changes.abort(desk, to, reason=reason or None, expected=expected)
        )

    def pin(self, expected: int, select: str, release: int, reason: str) -> Done:
        """Keep devices at a release.

        Raises:
            ConsoleError: it selects all devices, they are pinned, or the rollouts changed.
        """
        selector = read_selector(select, "devices")
        command = self.command("pin", f"--select={select}", f"--release={release}", *_reason(reason))
        return self._change(
            "Pin", command, lambda desk: changes.pin(desk, selector, release, reason or None, expected=expected)
        )

    def unpin(self, expected: int, select: str) -> Done:
        """Let pinned devices go on.

        Raises:
            ConsoleError: there is no such pin, or the rollouts changed.
        """
        selector = read_selector(select, "devices")
        command = self.command("unpin", f"--select={select}")
        return self._change("Unpin", command, lambda desk: changes.unpin(desk, selector, expected=expected))

    def command(self, verb: str, *options: str) -> str:
        """Return a command line of `edge-sync rollout` that does the same."""
        repo = str(self.fleet.signed.folder)
        name = [options[0]] if verb == "approve" else []
        return shlex.join(["edge-sync", "rollout", verb, repo, *name, f"--by={self.by}", *options[len(name) :]])

    def _change(self, what: str, command: str, act: Callable[[Desk], Changed]) -> Done:
        settings = self.fleet.settings
        if settings.keys is None:
            return Done(what, is_signed=False, command=command)
        try:
            desk = Desk(self.fleet.signed.folder, KeyRing.open(settings.keys), self.by[:80], self.now)
            done = act(desk)
        except ChangedError as error:
            raise ConsoleError(
                "conflict", "the rollouts changed since you looked, and nothing was done; look again"
            ) from error
        except SyncError as error:
            raise ConsoleError("invalid", str(error)) from error
        if done.draft is None:
            return Done(what, is_signed=True, revision=done.revision)
        sign = shlex.join(["edge-sync", "sign", str(done.draft)])
        return Done(what, is_signed=False, revision=done.revision, command=sign, waits_for=tuple(done.waits_for))


def is_same_person(one: str, other: str) -> bool:
    """Return whether two names are of one person, as gallery_sync compares them."""
    return one.strip().casefold() == other.strip().casefold()


def _reason(reason: str) -> Sequence[str]:
    return [f"--reason={reason}"] if reason else []
