"""The engine and form of each model that this machine chose, and the file that remembers it.

Rules this module keeps:
1. Only what passed its probes here is chosen. The fastest wins; within 3 % the shipped form does, then the smaller one.
2. `auto` means the choice. A named back end or precision restricts it, and is never replaced by another.
3. Without a choice: ONNX Runtime with the shipped form. If what was chosen no longer loads, that comes next.
4. The file is only a memory. A damaged, foreign or missing one means that the device measures again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.durable import make_folder, oldest_first, set_aside, write_durably
from edge.errors import EngineError, first_validation_error
from edge.inference.engine import RUNS, Backend, Precision, choose_backend, choose_target, has_precision
from edge.manifest.embedder import EmbedderModel
from edge.manifest.manifest import Manifest
from edge.manifest.stages import ClassifierModel, DetectorModel, FinderModel, LocaliserModel
from edge.strict_json import parse_json

log = logging.getLogger(__name__)

Model = DetectorModel | ClassifierModel | LocaliserModel | EmbedderModel | FinderModel
FOLDER = "engines"
TIE = 0.03  # forms whose times differ by less are equally fast
_MAX_BYTES = 8 << 20
_MOST_FILES = 8
_Text = Annotated[str, Field(max_length=1000)]
_Name = Annotated[str, Field(max_length=600)]
_Ms = Annotated[float, Field(ge=0, le=1e7)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Tried(_Part):
    """One engine and form of a model, as tried on this machine."""

    backend: _Name
    form: _Name
    problem: _Text | None = None  # why it must not serve; None: it passed
    evidence: _Text = ""  # what it passed
    ms: _Ms | None = None  # one picture or crop; None: not measured
    score_ms: _Ms | None = None  # per picture or crop, averaged over the batches that the device uses
    megabytes: Annotated[float, Field(ge=0, le=1e7)] = 0.0  # of the file

    def __str__(self) -> str:
        return f"{self.backend} {self.form}"


class ModelChoice(_Part):
    """What was chosen for one model."""

    backend: _Name
    form: _Name
    since: _Name  # ISO 8601, UTC: when this engine and form were first chosen
    reason: _Text
    tried: Annotated[list[Tried], Field(max_length=200)]


class EngineChoice(_Part):
    """What was chosen for a bundle on this machine."""

    schema_version: Literal[1] = Field(1, alias="schema")
    bundle_id: _Name
    made_at: _Name  # ISO 8601, UTC
    backend: _Name  # auto: every engine was tried; else only this one
    machine: Annotated[dict[_Name, _Text], Field(max_length=50)]
    pending: Annotated[list[_Name], Field(max_length=50)] = []  # engines not tried yet, because they build for minutes
    models: Annotated[dict[_Name, ModelChoice], Field(max_length=20_000)]

    def decisions(self) -> dict[str, tuple[str, str]]:
        """Return the engine and form of each model."""
        return {name: (model.backend, model.form) for name, model in self.models.items()}


@dataclass(frozen=True, slots=True)
class Resolved:
    """The engine and form to run a model with."""

    backend: Backend  # never auto
    form: str
    reason: str
    ms: float | None = None  # one picture or crop, as measured here
    since: str | None = None  # ISO 8601; None: not chosen on this machine


def models_of(manifest: Manifest) -> dict[str, Model]:
    """Return the models of a bundle by the names that the choice, health and the command line use."""
    single: dict[str, Model | None] = {
        "detector": manifest.detector,
        "classifier": manifest.classifier,
        "localiser": manifest.localiser,
        "finder": manifest.finder,
    }
    named = {name: model for name, model in single.items() if model is not None}
    for number, embedder in enumerate(manifest.embedders):
        named[f"embedder {embedder.categories[0] if embedder.categories else number}"] = embedder
    return named


def precision_of(model: Model, backend: Backend, precision: Precision) -> Precision:
    """Return the precision to run a model in: as configured, but FP32 for a finder that has no such form.

    A finder is optional, and one in FP32 is better than none. Finders of older bundles have no other form.
    """
    if not isinstance(model, FinderModel):
        return precision
    runs = RUNS.get(backend, ()) if backend != "auto" else RUNS["onnxruntime"]
    has = any(form in model.files and has_precision(form, precision) for form in runs)
    return precision if has else "fp32"


def fastest(tried: Iterable[Tried], ship: str) -> Tried | None:
    """Return the best of those that passed, by rule 1; None if none did.

    Args:
        tried: of one model.
        ship: the form that the bundle ships.
    """
    passed = [one for one in tried if one.problem is None and one.score_ms is not None]
    if not passed:
        return None
    limit_ms = min(one.score_ms or 0.0 for one in passed) * (1 + TIE)
    close = [one for one in passed if (one.score_ms or 0.0) <= limit_ms]
    return min(close, key=lambda one: (one.form != ship, one.megabytes, one.backend != "onnxruntime", one.score_ms))


def resolve(
    name: str, model: Model, backend: Backend, precision: Precision, choice: EngineChoice | None
) -> list[Resolved]:
    """Return what to open a model with: the best first; the others only if that cannot be opened.

    Args:
        name: of the model, as `models_of` gives it.
        model: its manifest entry.
        backend: as configured.
        precision: as configured.
        choice: of this machine for this bundle; None: there is none.

    Raises:
        EngineError: what was named is not installed or not in the bundle, or failed its probes here.
    """
    entry = choice.models.get(name) if choice else None
    wanted = _wanted(name, entry, model, backend, precision)
    if backend != "auto":
        if wanted is not None:
            return [wanted]
        named = choose_backend(backend)
        return [
            Resolved(named, choose_target(model.every_file, model.ship, named, precision), f"engine {named} was named")
        ]
    default = choose_target(model.every_file, model.ship, "onnxruntime", precision)
    fallbacks = [Resolved("onnxruntime", default, "the default: no choice was made on this machine")]
    if precision == "shipped" and "fp32" in model.files and default != "fp32":
        fallbacks.append(Resolved("onnxruntime", "fp32", f"the form {default} cannot be loaded"))
    if wanted is None:
        return fallbacks
    others = [one for one in fallbacks if (one.backend, one.form) != (wanted.backend, wanted.form)]
    why = f"{wanted.backend} {wanted.form} was chosen, but cannot be loaded"
    return [wanted, *(replace(one, reason=why) for one in others)]


def _wanted(
    name: str, entry: ModelChoice | None, model: Model, backend: Backend, precision: Precision
) -> Resolved | None:
    """Return what a choice says within what is configured; None if it says nothing."""
    if entry is None:
        return None
    free = backend == "auto" and precision == "shipped"
    allowed = [
        one
        for one in entry.tried
        if one.form in model.every_file and backend in ("auto", one.backend) and has_precision(one.form, precision)
    ]
    best = fastest(allowed, model.ship)
    if free:  # as it was written down
        best = next((one for one in allowed if (one.backend, one.form) == (entry.backend, entry.form)), None)
        return None if best is None else Resolved(best.backend, best.form, entry.reason, best.ms, entry.since)
    if best is not None:
        of = "engine" if precision == "shipped" else f"precision {precision}"
        return Resolved(best.backend, best.form, f"the fastest that passed, with {of} configured", best.ms, entry.since)
    if failed := [one for one in allowed if one.problem]:
        raise EngineError(
            f"{name}: engine {backend} with precision {precision}: nothing of it passed its probes on this machine; "
            f"{failed[0]}: {failed[0].problem}; set engine.backend: auto and engine.precision: shipped"
        )
    return None


def choice_path(state_dir: Path, manifest: Manifest) -> Path:
    """Return the file of a bundle's choice: it names the content of the models, so that no other bundle gets it."""
    sha256 = {entry.path: entry.sha256 for entry in manifest.files}
    models = {
        name: {form: sha256[path] for form, path in sorted(model.every_file.items())}
        for name, model in models_of(manifest).items()
    }
    key = hashlib.sha256(json.dumps(models, sort_keys=True).encode()).hexdigest()[:32]
    return state_dir / FOLDER / f"{key}.json"


def read_choice(path: Path) -> EngineChoice | None:
    """Return a choice; None if there is none or the file is damaged, which is logged."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        return EngineChoice.model_validate(parse_json(data, _MAX_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        problem = error.strerror or str(error)
    except ValidationError as error:
        problem = first_validation_error(error)
    except ValueError as error:
        problem = str(error)
    log.warning("%s: %s; the engines are chosen again", path, problem)
    return None


def write_choice(path: Path, choice: EngineChoice) -> None:
    """Write a choice durably, and delete the oldest of the others when there are many.

    Raises:
        OSError: the file cannot be written.
    """
    make_folder(path.parent)
    set_aside(path)
    write_durably(path, choice.model_dump_json(by_alias=True, indent=1).encode() + b"\n")
    others = [other for other, _ in oldest_first(path.parent, "*.json") if other != path]  # the clock may be wrong
    for old in others[: -(_MOST_FILES - 1)]:
        with contextlib.suppress(OSError):
            old.unlink()


def distrust(choice: EngineChoice, ship: Mapping[str, str], problem: str) -> EngineChoice | None:
    """Return a choice without the engines that it chose other than ONNX Runtime on the CPU; None if there are none.

    Args:
        choice: whose engines ended the device.
        ship: the form that the bundle ships, by model.
        problem: why they must not serve any more.
    """
    suspects = {model.backend for model in choice.models.values()} - {"onnxruntime"}
    if not suspects:
        return None
    models = {}
    for name, model in choice.models.items():
        tried = [one.model_copy(update={"problem": problem}) if one.backend in suspects else one for one in model.tried]
        best = fastest(tried, ship.get(name, "fp32"))
        if best is not None:
            changed = {} if model.backend not in suspects else {"since": choice.made_at, "reason": problem}
            models[name] = model.model_copy(
                update={"backend": best.backend, "form": best.form, "tried": tried, **changed}
            )
    return choice.model_copy(update={"models": models})


def keep_since(choice: EngineChoice, before: EngineChoice | None) -> EngineChoice:
    """Return a new choice with the older dates of what stays as it was."""
    known: Mapping[str, ModelChoice] = before.models if before else {}
    models = {}
    for name, model in choice.models.items():
        old = known.get(name)
        same = old is not None and (old.backend, old.form) == (model.backend, model.form)
        models[name] = model.model_copy(update={"since": old.since}) if same and old else model
    return choice.model_copy(update={"models": models})
