"""Try every engine and form of every model of a bundle on this machine, and choose the fastest that passes.

It runs in the child process of `edge.bundle.prove`; each engine runs in a further one (`edge.bundle.trial_process`).

Rules:
1. What cannot be loaded, fails its probes, crashes or hangs is out, with the reason; the others go on.
2. Only what passed is timed (`edge.bundle.trial_times`).
3. An engine that builds for minutes is tried only if the caller has the time; else it is pending.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edge.bundle.judge import Judge
from edge.bundle.trial_process import TrialEngine, TrialProcess
from edge.bundle.trial_times import Pair, Timed, TrialTimes
from edge.config.schema import TensorRtConfig
from edge.errors import BundleError, EngineError
from edge.inference.engine import BUILDING_BACKENDS, GPU_BACKENDS, RUNS, Backend, choose_backend, unusable
from edge.inference.engine_choice import TIE, EngineChoice, Model, ModelChoice, Tried, fastest, models_of
from edge.inference.engine_plugins import plugin_names
from edge.inference.machine import describe_machine
from edge.manifest.manifest import Manifest

log = logging.getLogger(__name__)

_ROUNDS = 3  # of further races between those that are close, a while after the first
_KEPT = 8  # networks whose engines stay loaded until then


@dataclass(frozen=True, slots=True)
class TrialOptions:
    """What to try."""

    backend: Backend = "auto"  # auto: every usable one
    threads: int = 1  # inside one model, on a CPU
    cache: Path | None = None  # folder of engines built on this machine; None: the bundle's folder
    build: bool = False  # also try engines that build for minutes
    tensorrt: TensorRtConfig | None = None  # how TensorRT builds and runs; None: the defaults


def choose_engines(folder: Path, manifest: Manifest, options: TrialOptions) -> EngineChoice:
    """Try and choose.

    Args:
        folder: of a verified bundle.
        manifest: of the bundle.
        options: what to try.

    Raises:
        BundleError: nothing passed for a model; the text says why.
        EngineError: a reference cannot be loaded, or the named engine cannot run here.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    # one that was named is worth the minutes
    pending = [name for name in _usable(options) if name in BUILDING_BACKENDS and name != options.backend]
    pending = [] if options.build else pending
    named = models_of(manifest)
    with ExitStack() as stack:
        contenders = list(_start(stack, options, pending))
        trial = _Trial(folder, named, Judge(folder, manifest, options.threads), contenders, options)
        tried = trial.run()
    models = {}
    for name, model in named.items():
        best = fastest(tried[name], model.ship)
        if best is None:
            problems = "; ".join(f"{one}: {one.problem}" for one in tried[name]) or "no engine here runs its forms"
            raise BundleError(f"{folder}: {name}: no engine passed on this machine: {problems}"[:2000])
        reason = reason_of(best, tried[name], model.ship)
        log.info("%s: %s, %s", name, best, reason)
        models[name] = ModelChoice(
            backend=best.backend, form=best.form, since=now, reason=reason[:1000], tried=tried[name]
        )
    return EngineChoice(
        schema=1,
        bundle_id=manifest.bundle_id,
        made_at=now,
        backend=options.backend,
        machine=describe_machine(options.threads, options.tensorrt),
        pending=pending,
        models=models,
    )


def reason_of(best: Tried, tried: Sequence[Tried], ship: str) -> str:
    """Return why one of the tried ones was chosen."""
    passed = [one for one in tried if one.problem is None and one.score_ms]
    others = sorted((one for one in passed if one is not best), key=lambda one: one.score_ms or 0.0)
    if not others:
        why = "the only one that passed" if len(tried) > 1 else "the only one"
    else:
        next_best = others[0]
        ratio = (next_best.score_ms or 0.0) / (best.score_ms or 1.0)
        if ratio >= 1 + TIE:
            why = f"fastest of {len(passed)} that passed, {ratio:.2f} times as fast as {next_best}"
        else:
            rule = "is the form that ships" if best.form == ship != next_best.form else "is preferred"
            why = f"as fast as {next_best} within {TIE:.0%}, and {rule}"
    return f"{why}; {best.evidence}"


def _usable(options: TrialOptions) -> list[Backend]:
    """Return the back ends to try, ONNX Runtime first.

    Raises:
        EngineError: the named one is not installed.
    """
    if options.backend != "auto":
        return [choose_backend(options.backend)]
    return [name for name in RUNS if unusable(name) is None] + plugin_names()


@dataclass(frozen=True, slots=True)
class _Contender:
    process: TrialProcess
    forms: tuple[str, ...]
    problem: str | None = None


def _start(stack: ExitStack, options: TrialOptions, pending: Sequence[Backend]) -> Iterator[_Contender]:
    """Start a process for each back end to try."""
    for name in _usable(options):
        if name in pending:
            continue
        builds, reserves = name in BUILDING_BACKENDS, name not in RUNS or name in GPU_BACKENDS
        process = stack.enter_context(
            TrialProcess(name, builds=builds, reserves_memory=reserves, tensorrt=options.tensorrt)
        )
        try:
            yield _Contender(process, process.forms())
        except EngineError as error:
            if options.backend != "auto":
                raise
            log.warning("engine %s cannot run here: %s", name, error)
            yield _Contender(process, RUNS.get(name, ()), str(error))


class _Trial:
    def __init__(
        self,
        folder: Path,
        models: dict[str, Model],
        judge: Judge,
        contenders: Sequence[_Contender],
        options: TrialOptions,
    ) -> None:
        self._folder, self._models, self._judge, self._options = folder, models, judge, options
        self._contenders = contenders
        self._times = TrialTimes(
            models, options.threads, lambda name, form: (folder / models[name].every_file[form]).stat().st_size
        )

    def run(self) -> dict[str, list[Tried]]:
        """Return what was tried for each model, with its times or its problem."""
        tried: dict[str, list[Tried]] = {}
        kept: dict[str, dict[Pair, TrialEngine]] = {}
        for name, model in self._models.items():
            tried[name], engines = self._prove(model)
            self._times.measure(name, engines, self._judge.batch)
            if self._times.is_first(name) and len(kept) < _KEPT:
                kept[name] = engines
            else:
                _close(engines)
        for _ in range(_ROUNDS):
            for name, engines in kept.items():
                leaders = self._times.leaders(name)
                close = {pair: engine for pair, engine in engines.items() if pair in leaders}
                if len(close) > 1:
                    self._times.measure(name, close, self._judge.batch)
        for engines in kept.values():
            _close(engines)
        return {name: [_with_times(one, self._times.of(name, one)) for one in rows] for name, rows in tried.items()}

    def _prove(self, model: Model) -> tuple[list[Tried], dict[Pair, TrialEngine]]:
        """Return what was tried, without times, and the engines that passed."""
        rows, engines = [], {}
        for entry, engine in self._tried(model):
            rows.append(entry)
            if engine is not None:
                engines[entry.backend, entry.form] = engine
        return rows, engines

    def _tried(self, model: Model) -> Iterator[tuple[Tried, TrialEngine | None]]:
        """Yield every engine and form of a model, with its problem or the loaded engine."""
        options = self._options
        forms = tuple(model.every_file)
        for contender in self._contenders:
            for form in (one for one in contender.forms if one in forms):
                path = self._folder / model.every_file[form]
                entry = Tried(
                    backend=contender.process.backend, form=form, megabytes=round(path.stat().st_size / 1e6, 3)
                )
                if contender.problem:
                    yield entry.model_copy(update={"problem": contender.problem[:1000]}), None
                    continue
                try:
                    engine = contender.process.open(path, options.threads, model.max_batch, options.cache)
                    evidence = self._judge.judge(model, engine)
                except EngineError as error:
                    yield entry.model_copy(update={"problem": str(error)[:1000]}), None
                else:
                    yield entry.model_copy(update={"evidence": evidence}), engine


def _close(engines: Mapping[Pair, TrialEngine]) -> None:
    for engine in engines.values():
        engine.close()


def _with_times(tried: Tried, times: Timed | None) -> Tried:
    if tried.problem is not None:
        return tried
    if times is None:
        return tried.model_copy(update={"problem": "it failed while it was timed"})
    return tried.model_copy(update={"ms": round(times.ms, 4), "score_ms": round(times.score_ms, 4)})
