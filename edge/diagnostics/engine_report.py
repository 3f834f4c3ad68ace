"""Tries the engines of a bundle for `edge bundle prove`, and describes the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.bundle.active_pointer import edge_command, read_staged_pointer
from edge.bundle.bundle import MANIFEST_NAME, Bundle, read_bundle
from edge.bundle.layout import slot_folder
from edge.bundle.pairs import read_pointer_or_none
from edge.bundle.prove import ProofOptions, prove_bundle, remember
from edge.bundle.slots import slot_of
from edge.errors import BundleError
from edge.inference.engine_choice import EngineChoice, ModelChoice, Tried

_GAP = "  "


def prove_engines(
    state_dir: Path, bundle: str | None, options: ProofOptions, prepare: Callable[[Bundle], None] = lambda _: None
) -> EngineChoice:
    """Try every engine of a bundle on this machine; for an installed bundle, write the choice down.

    Args:
        state_dir: of the device.
        bundle: slot, bundle id or folder; None: the active bundle or, if none is active, the staged one.
        options: how.
        prepare: builds what the trial needs and says how far it is.

    Raises:
        FinesightError: there is no such bundle, or nothing passed for one of its models.
    """
    folder, is_installed = _folder_of(state_dir, bundle)
    prepare(read_bundle(folder))
    choice = prove_bundle(folder, None, replace(options, choose=True, build=True)).choice
    if choice is None:
        raise BundleError(f"{folder}: choosing the engines failed, see the log; the default ones passed")
    return remember(state_dir, folder, choice) if is_installed else choice


def _folder_of(state_dir: Path, bundle: str | None) -> tuple[Path, bool]:
    if bundle is not None:
        if (Path(bundle) / MANIFEST_NAME).is_file():
            return Path(bundle), False
        return slot_folder(state_dir, slot_of(state_dir, bundle)), True
    active, problem = read_pointer_or_none(state_dir)
    named = active or read_pointer_or_none(state_dir, read_staged_pointer)[0]
    if named is None:
        install = edge_command("bundle install BUNDLE", state_dir)
        raise BundleError(
            problem or f"{state_dir}: no bundle is active or staged; name a bundle folder, or run: {install}"
        )
    return slot_folder(state_dir, named.slot), True


def describe_choice(choice: EngineChoice) -> dict[str, Any]:
    """Return the JSON of `edge bundle prove`."""
    return choice.model_dump(mode="json", by_alias=True)


def format_choice(choice: EngineChoice) -> Iterator[str]:
    """Return the lines that `edge bundle prove` prints: a row for each model, engine and form."""
    machine = choice.machine
    gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
    yield f"bundle {choice.bundle_id} on {machine.get('cpu', '')}{gpu}, {machine.get('threads', '')} thread(s)"
    rows = [("model", "engine", "form", "ms", "result")]
    for name, model in choice.models.items():
        rows += [(name if number == 0 else "", *_row(model, one)) for number, one in enumerate(_in_order(model))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for model_name, engine, form, ms, result in rows:
        cells = (
            model_name.ljust(widths[0]),
            engine.ljust(widths[1]),
            form.ljust(widths[2]),
            ms.rjust(widths[3]),
            result,
        )
        yield _GAP.join(cells).rstrip()
    if choice.pending:
        yield f"not tried: {', '.join(choice.pending)}"


def _in_order(model: ModelChoice) -> list[Tried]:
    """Return the chosen one, then those that passed by time, then the others."""
    return sorted(
        model.tried,
        key=lambda one: (
            (one.backend, one.form) != (model.backend, model.form),
            one.problem is not None,
            one.score_ms or 0,
        ),
    )


def _row(model: ModelChoice, tried: Tried) -> tuple[str, str, str, str]:
    if (tried.backend, tried.form) == (model.backend, model.form):
        result = f"chosen: {model.reason}"
    else:
        result = f"passed: {tried.evidence}" if tried.problem is None else f"out: {tried.problem}"
    return tried.backend, tried.form, "-" if tried.ms is None else f"{tried.ms:.2f}", result
