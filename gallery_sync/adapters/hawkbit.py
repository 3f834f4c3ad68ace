"""The adapter of Eclipse hawkBit: its action becomes a permit for one signed release, and gets the true result.

    action offered -> which release? -> permit -> the agent fetches, proves, tries -> confirmed -> closed, success
                                                                                   -> undone    -> closed, failure
    cancelled before the switch -> permit withdrawn -> confirmed;  after it -> rejected

The agent does not know of hawkBit, and hawkBit's bytes never reach it: an action only names a release of the signed
repository. Run it beside the agent, with `install: {permit: true}` in `agent.yaml`.

Rules this module keeps:
1. An action is closed with success only once the agent confirmed exactly its release and that serves. All other ends
   are closed with failure, and say why. `none` closes nothing.
2. What is to be done is on the disk first, so it goes on after a restart at any place. A result is sent again only
   while hawkBit still offers the action.
3. An action that failed is not tried again: hawkBit must make a new one. A file that cannot be read is read 5 times.
4. An action whose release the agent does not begin with ends in failure after a given time. Time is what passed while
   the adapter ran, by the monotonic clock.
5. The agent asks hawkBit as often as hawkBit says, and later after a failure. It sends feedback about an undecided
   action every 10 minutes at most, and 200 times in all at most.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from edge import __version__
from edge.errors import FinesightError, SyncError, one_line
from edge.telemetry.systemd import notify_systemd
from gallery_sync.adapters.device_view import DeviceView, Named, line_of, read_view
from gallery_sync.adapters.hawkbit_decisions import decide
from gallery_sync.adapters.hawkbit_doors import Client, World
from gallery_sync.adapters.hawkbit_messages import Deployment, ReleaseFile
from gallery_sync.adapters.hawkbit_record import Action, Result, read_record, write_record
from gallery_sync.device.permit import Permit, read_permit, withdraw_permit, write_permit
from gallery_sync.fresh_files import one_at_a_time
from gallery_sync.transport.errors import StorageError, TransferError
from gallery_sync.trust.enrolment_file import read_enrolment

log = logging.getLogger(__name__)

BY, LOCK_NAME = "hawkbit", "hawkbit.lock"
LOOK_S = 15.0  # between two looks at the device while an action is open
SETTLE_S = 10.0  # that a permit is gone before a cancellation is answered: the agent may just have read it
FEEDBACK_EVERY_S, MOST_FEEDBACKS = 600.0, 200  # hawkBit stores 1,000 for an action
MOST_READS = 5  # of a release.json
_SAVE_EVERY_S = 600.0  # of waiting
_SILENT_S = 3600.0  # after which an agent that reports nothing new counts as one that does not work
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 3600.0


class Adapter:
    """The adapter of one device."""

    def __init__(self, client: Client, state_dir: Path, give_up_s: float, world: World = World()) -> None:  # noqa: B008 - frozen
        """Read what it remembers.

        Args:
            client: reaches hawkBit.
            state_dir: of the device.
            give_up_s: how long the agent may take to begin with a release, in seconds.
            world: clock, waiting and chance.
        """
        self._client, self._state_dir, self._give_up_s, self._world = client, state_dir, give_up_s, world
        self._record = read_record(state_dir)
        self._offer: Deployment | None = None  # what hawkBit says of the action; None: nothing, or it was not asked yet
        self._cancel: str | None = None  # id of an action that is to be cancelled
        self._withdrawn_s: float | None = None  # since when the permit is gone, for a cancellation
        self._next_poll_s = self._last_s = self._saved_s = world.monotonic()
        self._told_s: float | None = None
        self._seen: tuple[object, float] = (None, self._last_s)  # the agent's report, and since when it is as it is
        self._warned: set[str] = set()
        self._failures = 0  # turns in a row

    @property
    def state(self) -> dict[str, object]:
        """What is under way, for people."""
        action = self._record.action
        return {
            "action": action.id if action else None,
            "release": action.named.sequence if action and action.named else None,
            "told": action.told if action else None,
            "answered": self._record.answered[-1] if self._record.answered else None,
            "failures": self._record.failures,
        }

    @property
    def settles(self) -> bool:
        """Whether a cancellation waits to be answered in a moment."""
        return self._withdrawn_s is not None

    def turn(self) -> float:
        """Ask hawkBit if it is time, look at the device, and do what follows; return the seconds until the next turn.

        Raises:
            FinesightError: hawkBit, the network or the disk failed; `pause` says how long to wait.
        """
        now, view = self._world.monotonic(), read_view(self._state_dir)
        self._count_waiting(now, view)
        try:
            if now >= self._next_poll_s:
                self._poll(now, view)
            if self._cancel is not None:
                self._answer_cancel(now, view, self._cancel)
            elif self._record.action is not None and self._offer is not None:
                self._work(now, view, self._record.action, self._offer)
        except FinesightError as error:
            self._failures += 1
            self._note(one_line(str(error)))
            raise
        self._failures = 0
        self._note(None)
        until_poll = max(0.0, self._next_poll_s - self._world.monotonic())
        if self.settles:
            return SETTLE_S
        return min(LOOK_S, until_poll) if self._record.action is not None else until_poll

    def pause(self, error: FinesightError) -> float:
        """Return how long to wait after a turn that failed: longer each time, and as long as hawkBit asks."""
        wait_s = min(_FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 20), _LONGEST_PAUSE_S)
        asked_s = (error.retry_after_s if isinstance(error, TransferError) else None) or 0.0
        return max(asked_s, wait_s * (0.5 + self._world.jitter()))

    def _count_waiting(self, now: float, view: DeviceView) -> None:
        passed_s, self._last_s = max(0.0, now - self._last_s), now
        if self._seen[0] != view.report:
            self._seen = (view.report, now)
        action = self._record.action
        if action is None or self._works(view):
            return
        waited = action.model_copy(update={"waited_s": action.waited_s + passed_s})
        self._record = self._record.with_action(waited)
        if now - self._saved_s >= _SAVE_EVERY_S:
            self._save()

    def _works(self, view: DeviceView) -> bool:
        action, is_silent = self._record.action, self._last_s - self._seen[1] >= _SILENT_S
        return action is not None and action.named is not None and view.is_at(action.named) and not is_silent

    def _poll(self, now: float, view: DeviceView) -> None:
        poll = self._client.poll()
        self._next_poll_s = now + poll.sleep_s
        self._cancel, self._offer = poll.cancel, None
        if poll.wants_labels:
            self._client.put_labels(self._labels(view))
        if poll.wants_confirmation:
            self._warn(
                "hawkBit waits for a confirmation of its action; confirm it there, or let it be confirmed always"
            )
        if poll.cancel is not None:
            return
        self._withdrawn_s = None
        action = self._record.action
        if action is not None and action.id != poll.deployment:
            self._drop(action)
        if poll.deployment is None:
            return
        if poll.deployment in self._record.answered:
            self._warn(f"hawkBit offers action {poll.deployment} again, which was answered; it is not done twice")
            return
        offer = self._client.deployment(poll.deployment, poll.tag, self._line(view))
        if self._record.action is None:
            self._record = self._record.with_action(Action(id=poll.deployment, mark=view.newest_mark))
            self._save()
            log.info("action %s of hawkBit", poll.deployment)
        self._offer = offer

    def _drop(self, action: Action) -> None:
        """Forget an action that hawkBit does not offer any more: it was closed there, or replaced."""
        log.warning("hawkBit does not offer action %s any more", action.id)
        withdraw_permit(self._state_dir, BY)
        self._record = self._record.after(action.id) if action.result else self._record.with_action(None)
        self._save()

    def _work(self, now: float, view: DeviceView, action: Action, offer: Deployment) -> None:
        if action.result is None and action.named is None:
            action = self._name(view, action, offer)
        if action.result is None:
            found = decide(view, action, offer, self._give_up_s, works=self._works(view))
            if isinstance(found, str):
                self._permit(action, offer)
                self._tell(now, action, found)
                return
            action = self._end(action, found)
        self._send_result(action)

    def _name(self, view: DeviceView, action: Action, offer: Deployment) -> Action:
        """Find out which release an action names; an action that names none, or another line's, fails."""
        names = offer.names
        if isinstance(names, ReleaseFile):
            try:
                names = self._client.release_file(names)
            except SyncError as error:
                action = action.model_copy(update={"failed_reads": action.failed_reads + 1})
                if action.failed_reads < MOST_READS:
                    self._keep(action)
                    raise
                names = f"{error}; it was read {MOST_READS} times"
        if isinstance(names, Named) and names.line != (line := self._line(view)):
            names = f"{names} is not for this device of line {line}"
        if isinstance(names, str):
            return self._end(action, Result(execution="closed", finished="failure", text=names[:1000]))
        return self._keep(action.model_copy(update={"named": names}))

    def _permit(self, action: Action, offer: Deployment) -> None:
        """Write the permit, or withdraw it where hawkBit does not want the release installed now."""
        named = action.named
        if named is None or not offer.may_download:
            withdraw_permit(self._state_dir, BY)
            return
        permit = Permit(
            line=named.line,
            sequence=named.sequence,
            by=BY,
            reference=f"action {action.id}",
            install=offer.may_install,
        )
        if read_permit(self._state_dir) != permit:
            write_permit(self._state_dir, permit)
            log.info("%s may be %s", named, "installed" if permit.install else "downloaded")

    def _tell(self, now: float, action: Action, text: str) -> None:
        """Tell hawkBit how far an action is, if that changed and it was not told a moment ago."""
        is_early = self._told_s is not None and now - self._told_s < FEEDBACK_EVERY_S
        if text == action.told or is_early or action.feedbacks >= MOST_FEEDBACKS:
            return
        self._told_s = now
        self._keep(action.model_copy(update={"told": text[:2000], "feedbacks": action.feedbacks + 1}))
        self._client.tell(action.id, "proceeding", "none", text)

    def _end(self, action: Action, result: Result) -> Action:
        """Write down how an action ends; nothing is permitted from then on."""
        log.log(logging.INFO if result.finished != "failure" else logging.WARNING, "%s", result.text)
        action = self._keep(action.model_copy(update={"result": result}))
        withdraw_permit(self._state_dir, BY)
        return action

    def _send_result(self, action: Action) -> None:
        result = action.result
        if result is None:
            return
        if not self._client.tell(action.id, result.execution, result.finished, result.text):
            log.warning("action %s was over in hawkBit before its result: %s", action.id, result.text)
        self._answered(action.id)

    def _answered(self, action_id: str) -> None:
        self._record, self._offer, self._told_s = self._record.after(action_id), None, None
        self._save()

    def _answer_cancel(self, now: float, view: DeviceView, cancel: str) -> None:
        """Confirm a cancellation, or reject it once the device has switched."""
        stop = self._client.cancelled(cancel)
        action = self._record.action
        if action is None or action.id != stop:
            self._client.answer_cancel(cancel, "closed", "success", "nothing of it was begun here, or it was over")
            self._cancel = None
            return
        has_switched = action.named is not None and view.has_switched(action.named)
        if has_switched or (action.result and action.result.finished == "success"):
            self._client.answer_cancel(cancel, "rejected", "none", f"{action.named} is active already, on trial or not")
            self._cancel, self._withdrawn_s = None, None
            self._next_poll_s = min(self._next_poll_s, now + LOOK_S)  # hawkBit offers the action again
            return
        if self._withdrawn_s is None:
            withdraw_permit(self._state_dir, BY)
            self._withdrawn_s = now
        elif now - self._withdrawn_s >= SETTLE_S:
            self._client.answer_cancel(cancel, "closed", "success", "the permit is withdrawn; nothing was switched")
            self._cancel, self._withdrawn_s = None, None
            self._answered(action.id)

    def _keep(self, action: Action) -> Action:
        self._record = self._record.with_action(action)
        self._save()
        return action

    def _note(self, problem: str | None) -> None:
        """Keep why a turn failed, and how many did, where an operator sees it."""
        if problem is None and self._record.problem is None:
            return
        failures = self._record.failures + (problem is not None)
        self._record = self._record.model_copy(update={"failures": failures, "problem": problem})
        with suppress(StorageError):  # the disk may be what failed
            self._save()

    def _save(self) -> None:
        write_record(self._state_dir, self._record)
        self._saved_s = self._last_s

    def _line(self, view: DeviceView) -> str:
        """Return the line of the device.

        Raises:
            SyncError: it has none yet.
        """
        line = line_of(self._state_dir, view)
        if line is None:
            raise SyncError(f"{self._state_dir}: the device is of no line yet; enrol it: edge-sync enrol FILE")
        return line

    def _labels(self, view: DeviceView) -> dict[str, str]:
        enrolled = read_enrolment(self._state_dir)
        active, release = view.active, view.active.release if view.active else None
        found = {**(enrolled.all_labels() if enrolled else {}), "finesight": __version__}
        found |= {"bundle": active.bundle_id} if active else {}
        return found | ({"release": str(release.sequence)} if release else {})

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned = {text}
            log.warning("%s", text)


def run(
    client: Client,
    state_dir: Path,
    *,
    give_up_s: float,
    once: bool = False,
    world: World = World(),  # noqa: B008 - frozen
) -> dict[str, object]:
    """Run the adapter for ever, or once; return what is under way.

    Args:
        client: reaches hawkBit.
        state_dir: of the device.
        give_up_s: how long the agent may take to begin with a release, in seconds.
        once: ask hawkBit once, and do what follows at once.
        world: clock, waiting and chance.

    Raises:
        SyncError: another adapter runs here, or, once, anything failed.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(state_dir / LOCK_NAME):
            adapter = Adapter(client, state_dir, give_up_s, world)
            notify_systemd("READY=1")
            while True:
                try:
                    wait_s = adapter.turn()
                except FinesightError as error:
                    if once:
                        raise
                    log.warning("%s", error)
                    wait_s = adapter.pause(error)
                if once and not adapter.settles:
                    return adapter.state
                world.sleep(wait_s)
    except BlockingIOError as error:
        raise SyncError(f"{state_dir}: another edge-sync hawkbit is running here; stop it first") from error
    except OSError as error:
        raise SyncError(f"{error.filename or state_dir}: {error.strerror or error}") from error
