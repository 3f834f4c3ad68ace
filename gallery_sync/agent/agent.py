"""The update agent: carries out the steps of the state machine, one after the other, for as long as it runs.

Rules this module keeps:
1. Each turn does the action of the task, gathers the facts, asks for the next step, and stores it before anything
   else. The process may end at any place.
2. Urgent deletions are applied at each check, before anything else and whatever windows say; also while a release
   waits, is proved or is on trial.
3. No error ends the loop: one of the network, the disk or a release has its outcome; any other is logged with its
   traceback, and tried again after a wait that grows.
4. What the agent does, it derives from the repository and from files alone. A message of the fleet wakes it, or is its
   turn, where a rollout lets few devices switch at a time. Without a broker it is the same.
5. A proof that started goes on to its end, beside the loop. A newer release is turned to after it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from edge.errors import BundleError, EngineError, FinesightError, GalleryError, GpuError, SyncError, one_line
from gallery_sync.agent.check import Check
from gallery_sync.agent.doors import Mailbox, NothingBeforeError, Requests, StaleError, Steps, TakenOverError, World
from gallery_sync.agent.fleet_report import FleetReport
from gallery_sync.agent.gates import why_not_download, why_not_install
from gallery_sync.agent.journal import Journal
from gallery_sync.agent.machine import (
    AT_REST,
    BEFORE_SWITCH,
    DONE,
    Facts,
    Outcome,
    State,
    Step,
    Target,
    Task,
    next_step,
)
from gallery_sync.agent.policy import Policy
from gallery_sync.agent.report import Reporter, Told
from gallery_sync.agent.trial import Verdict, Watch, baseline_of, judge, look, read_baseline
from gallery_sync.transport.errors import ReleaseError

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 300.0  # after an error that nobody expects, or a journal that cannot be written


class Agent:
    """The agent of one device."""

    def __init__(
        self,
        steps: Steps,
        journal: Journal,
        policy: Policy,
        world: World,
        reporter: Reporter,
        mailbox: Mailbox | None = None,
        fleet_report: FleetReport | None = None,
        requests: Requests | None = None,
    ) -> None:
        """Read the task from the journal.

        Args:
            steps: doors to the device and its repository.
            journal: of the device.
            policy: of the device.
            world: clocks and waiting.
            reporter: writes agent.json.
            mailbox: the fleet; None: the device has no broker, and looks at the repository now and then.
            fleet_report: makes what the mailbox reports; None: nothing is reported.
            requests: carries out what a person commands from afar; None: nothing is.

        Raises:
            StorageError: the journal cannot be read.
        """
        self._steps, self._journal, self._policy, self._world, self._reporter = steps, journal, policy, world, reporter
        self._mailbox, self._fleet_report, self._requests = mailbox, fleet_report, requests
        self._task = journal.task()
        self._started = True  # the task is as another process left it
        if self._task.state in AT_REST:
            self._task, self._started = replace(self._task, state=State.CHECK), False
        self._repository_check = Check(steps, journal, world, policy.poll_s)
        self._told = Told()  # what the last report said, beside the task
        self._proving = False  # a proof goes on beside the loop
        self._watch, self._watched = Watch(), None  # type: Watch, str | None
        self._failures = 0  # in a row, of the journal or unexpected

    @property
    def task(self) -> Task:
        """What it is doing."""
        return self._task

    def run(self, *, once: bool = False) -> None:
        """Run for ever, or until nothing is left to do but to wait for the next check, a window or the device."""
        while True:
            self._carry_out()
            wait_s = self.turn()
            if once and self._is_waiting(wait_s):
                return
            if wait_s > 0 and (pause_s := self._guarded(partial(self._wait, wait_s))) > 0:
                self._world.sleep(pause_s)

    def _wait(self, wait_s: float) -> float:
        """Wait, and return 0. The doorbell ends it, and where the agent waits for a turn, whatever arrives does."""
        if self._mailbox is None:
            self._world.sleep(wait_s)
            return 0.0
        now_s, report_s = self._world.monotonic, max(1.0, self._policy.fleet.report_every_s)
        end_s = now_s() + wait_s
        while (left_s := end_s - now_s()) > 0:
            self._mailbox.wait(min(left_s, report_s))
            self._carry_out()
            if self._mailbox.rang():
                self._repository_check.hurry()
                return 0.0
            if self._task.state not in AT_REST:
                return 0.0
            self._report()
        return 0.0

    def _carry_out(self) -> None:
        """Let commands be carried out, between two steps."""
        if self._requests is not None:
            self._requests.turn(proving=self._proving)

    def _is_waiting(self, wait_s: float) -> bool:
        if self._failures or self._task.state is State.IDLE:
            return True
        return wait_s > 0 and (self._task.state is not State.TRIAL or self._steps.signs() is None)

    def turn(self) -> float:
        """Do one action and store what follows; return how long to wait before the next one, in seconds."""
        return self._guarded(self._turn)

    def _turn(self) -> float:
        step = self._step()
        self._failures = 0
        wait_s = step.wait_s
        if wait_s > 0:
            self._steps.rest()
        if self._task.state in AT_REST and wait_s > 0:
            wait_s *= 1.0 + self._policy.jitter * (2.0 * self._world.jitter() - 1.0)
        return wait_s

    def _guarded(self, action: Callable[[], float]) -> float:
        """Return how long to wait after an action, whatever it raises."""
        try:
            return action()
        except FinesightError as error:  # the journal
            return self._failed(one_line(str(error)))
        except Exception as error:  # whatever it is, what serves goes on, and the next turn may succeed
            log.exception("an error that nobody expects")
            return self._failed(f"{type(error).__name__}: {one_line(str(error))}; see the log of the agent")

    def _failed(self, reason: str) -> float:
        self._failures += 1
        log.warning("%s", reason)
        self._report(replace(self._told, reason=reason))
        return min(self._policy.poll_s * 2.0 ** min(self._failures - 1, 30), max(self._policy.poll_s, _LONGEST_PAUSE_S))

    def _step(self) -> Step:
        task = self._task
        outcome = None if self._started else self._act(task)
        facts = self._facts(task, outcome)
        step = next_step(task, facts, self._policy)
        if step.store:
            self._journal.store(step, facts.now)
        self._task, self._started, self._repository_check.erased = step.task, False, False
        self._tell(task, step)
        return step

    def _tell(self, before: Task, step: Step) -> None:
        after = step.task
        if before.state is not after.state and after.state not in AT_REST:
            of = f" {after.release.name}" if after.release else ""
            log.info("%s%s%s", after.state.value, of, f": {after.failed}" if after.failed else "")
        if step.ended is not None:
            text = f"{step.ended.release.name} {step.ended.outcome}"
            level = logging.INFO if step.ended.outcome in ("confirmed", "postponed") else logging.WARNING
            log.log(level, "%s%s", text, f": {step.ended.reason}" if step.ended.reason else "")
            self._tidy()
        if step.store or step.wait_s > 0 or after.state not in AT_REST:
            self._report(self._what_to_tell(step))

    def _what_to_tell(self, step: Step) -> Told:
        known = self._repository_check.known
        reason = step.reason or known.problem or (known.waits if step.task.state in AT_REST else None)
        return Told(reason, known.wanted, known.refusal, known.waits, waits_for_turn=step.waits_for_turn)

    def _report(self, told: Told | None = None) -> None:
        """Write the report, and send it to the fleet; None: the last one again, because time has passed."""
        self._told = told = told or self._told
        self._reporter.write(self._task, told, self._steps)
        if self._mailbox is None or self._fleet_report is None:
            return
        try:
            self._mailbox.put(self._fleet_report.content(self._task, told, self._steps))
        except FinesightError as error:
            log.warning("cannot report to the fleet: %s", error)

    def _tidy(self) -> None:
        try:
            self._steps.tidy()
        except (FinesightError, OSError) as error:
            log.warning("cannot remove old downloads: %s", error)

    def _facts(self, task: Task, outcome: Outcome | None) -> Facts:
        verdict = self._judge(task) if task.state is State.TRIAL and outcome is not None else Verdict("waiting")
        known, here, release = self._repository_check.known, self._steps.surroundings(), self._terms(task)
        return Facts(
            now=self._world.now(),
            boot_id=self._world.boot_id,
            new_trial=self._world.new_trial(),
            outcome=outcome,
            wanted=known.wanted,
            serving=self._steps.serving(),
            gate=self._expired() or why_not_download(self._policy, here, release, has_begun=task.has_begun),
            window=self._expired() or why_not_install(self._policy, here, release),
            turn=self._why_no_turn(release) if task.state is State.ARMED else None,
            stays=known.stays,
            waits=known.waits,
            held=self._journal.held(known.wanted if task.state in AT_REST else task.release),
            verdict=verdict.kind,
            verdict_reason=verdict.reason,
            baseline=baseline_of(self._steps.signs()) if task.state is State.ARMED else None,
            erased=self._repository_check.erased,
        )

    def _terms(self, task: Task) -> Target | None:
        """Return the release that is under way, with what its rollout says now."""
        wanted = self._repository_check.known.wanted
        return wanted if task.state in AT_REST or wanted == task.release else task.release

    def _expired(self) -> str | None:
        fresh = self._steps.freshness()
        return "the signed metadata is expired; nothing is installed" if fresh is not None and fresh.expired else None

    def _why_no_turn(self, release: Target | None) -> str | None:
        if release is None or release.max_unavailable is None:
            return None
        if self._mailbox is None:
            return (
                f"rollout {release.plan} gives devices turns, which this one cannot hear; set fleet.host in "
                "agent.yaml, or enrol it with an account at the broker"
            )
        if self._mailbox.has_turn(release.sequence, release.plan):
            return None
        return f"waits for its turn at its {release.unavailable_by}"

    def _judge(self, task: Task) -> Verdict:
        trial = task.trial or ""
        if self._watched != trial:
            self._watch, self._watched = Watch(), trial
        self._watch = look(self._watch, self._steps.signs(), trial, self._world.monotonic())
        return judge(self._watch, read_baseline(task.baseline), self._policy.trial)

    def _act(self, task: Task) -> Outcome:
        """Do the action of a task."""
        self._proving = self._proving and task.state is State.PROVE
        if task.state is State.CHECK:
            return self._check()
        if task.state in BEFORE_SWITCH | {State.TRIAL} and self._repository_check.is_due:
            self._check()  # a newer release, or urgent deletions
            known = self._repository_check.known
            is_other = self._repository_check.erased or known.stays or known.wanted not in (None, task.release)
            if is_other and task.state in BEFORE_SWITCH and not self._proving:
                return Outcome("more")
        actions: dict[State, Callable[[Task, Target], Outcome | None]] = {
            State.FETCH: self._fetch,
            State.VERIFY: lambda _, release: self._steps.verify(release),
            State.STAGE: self._stage,
            State.PROVE: self._prove,
            State.SWITCH: self._switch,
            State.CONFIRM: lambda task, release: self._steps.confirm(release, task.trial),
            State.ROLLBACK: lambda *_: self._steps.roll_back(),
            State.FAILSAFE: lambda *_: self._steps.roll_back(),
        }
        action = actions.get(task.state)
        if action is None:
            return DONE
        try:
            return action(task, task.release or Target("", 0, "")) or DONE
        except FinesightError as error:
            return outcome_of(error, task.state)

    def _fetch(self, _: Task, release: Target) -> Outcome | None:
        return None if self._steps.fetch(release) else Outcome("more", "downloading")

    def _stage(self, _: Task, release: Target) -> Outcome | None:
        return Outcome("already") if self._steps.stage(release) else None

    def _switch(self, task: Task, release: Target) -> Outcome | None:
        return None if self._steps.switch(release, task.trial or "") else Outcome("already")

    def _prove(self, task: Task, release: Target) -> Outcome | None:
        was_proving, self._proving = self._proving, False
        if not was_proving and (closed := self._why_not_prove(task)):
            return Outcome("more", closed)
        progress = self._steps.prove(release)
        self._proving = progress is not None
        return Outcome("busy", progress) if self._proving else None

    def _why_not_prove(self, task: Task) -> str | None:
        if self._requests is not None and self._requests.proves:
            return "waits until a command has proved its pair"
        return self._expired() or why_not_install(self._policy, self._steps.surroundings(), self._terms(task))

    def _check(self) -> Outcome:
        """Look at the repository, and apply urgent deletions first."""
        begun = self._task.release.sequence if self._task.release and self._task.has_begun else 0
        return self._repository_check.look(begun, self._reporter.checked)


def outcome_of(error: FinesightError, state: State) -> Outcome:
    """Return how an action ended that raised an error."""
    reason = one_line(str(error))
    if isinstance(error, StaleError):
        return Outcome("stale", reason)
    if isinstance(error, (NothingBeforeError, TakenOverError)):
        return Outcome("failed", reason)
    if isinstance(error, ReleaseError):
        return Outcome("failed", reason)
    if isinstance(error.__cause__, OSError) or isinstance(error, (SyncError, GpuError)):
        return Outcome("later", reason)  # the disk, the network, a lock, a lost GPU
    if isinstance(error, (BundleError, GalleryError, EngineError)) and state is State.PROVE:
        return Outcome("failed", reason)
    return Outcome("later", reason)
