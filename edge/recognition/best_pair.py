"""Chooses what a device serves when it starts: the active pair or, if that cannot be used, the best that is left.

Rules:
1. A damaged file never keeps the device down while another whole pair is on it.
2. A pair that was never active is proved before it serves.
3. The device reports why the active pair does not serve, for as long as it does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.bundle.active_pointer import ActivePointer, ReleaseName, repair_active_pointer
from edge.bundle.bundle import Bundle
from edge.bundle.layout import gallery_folder, slot_folder
from edge.bundle.pairs import Pair, candidates, open_pair, read_pointer_or_none
from edge.bundle.prove import Prove
from edge.bundle.slots import how_to_activate
from edge.bundle.starts import Starts
from edge.errors import BundleError, FinesightError
from edge.gallery.generation import Gallery
from edge.recognition.loaded_models import LoadedModels

log = logging.getLogger(__name__)

Load = Callable[[Bundle, Gallery], LoadedModels]


@dataclass(frozen=True, slots=True)
class Serving:
    """What a device serves."""

    pair: Pair
    models: LoadedModels
    fallback: str | None  # why the active pair does not serve; None: it does
    damaged: tuple[str, ...] = ()  # files of the pair that serving does not read
    release: ReleaseName | None = None  # that the pair was pulled as; None: installed from folders
    trial: str | None = None  # that decides whether the pair stays; None: it is confirmed


def load_best_pair(state_dir: Path, load: Load, prove: Prove, starts: Starts) -> Serving:
    """Load the best pair of a state folder.

    Args:
        state_dir: of the device.
        load: loads a verified pair.
        prove: tries a pair that was never active.
        starts: counts the start, before the pair is loaded.

    Raises:
        BundleError: no pair can be used; the text says why for each, and what to do.
    """
    active, problem = read_pointer_or_none(state_dir)
    problems = [problem] if problem else [] if active else [f"{state_dir}: no bundle is active"]
    on_trial = Pair.of(active) if active is not None and active.trial is not None else None
    if active is not None and starts.gives_way(named := Pair.of(active), on_trial):
        when = ", on trial" if named == on_trial else ""
        problems.append(f"{named} ended the last {starts.of(named)} starts within a minute{when}")
    for pair in starts.in_order(candidates(state_dir), on_trial):
        is_active = active is not None and pair == Pair.of(active)
        try:
            bundle, gallery, damaged = open_pair(state_dir, pair)
            if not pair.proved:
                prove(slot_folder(state_dir, pair.slot), gallery_folder(state_dir, pair.gallery))
            starts.begin(pair)
            models = load(bundle, gallery)
        except Exception as error:
            # a FinesightError says which file and why; any other error needs its traceback
            log.error("%s cannot be used: %s", pair, error, exc_info=not isinstance(error, FinesightError))  # noqa: TRY400
            problems.append(f"{pair} cannot be used: {error}")
            continue
        fallback = None if is_active else f"{'; '.join(problems)}; using {pair}"
        if fallback:
            log.error("%s", fallback)
        _repair_pointer(state_dir, pair)
        for mismatch in damaged:
            log.warning("%s; serving does not read it; install or pull the bundle again", mismatch)
        release, trial = name_of(pair, active)
        return Serving(pair, models, fallback, tuple(damaged), release, trial)
    raise BundleError(f"{'; '.join(problems)}; {how_to_activate(state_dir)}")


def name_of(pair: Pair, active: ActivePointer | None) -> tuple[ReleaseName | None, str | None]:
    """Return the release and the trial of a pair that the pointer names; None for any other pair."""
    for pointer in (active, active and active.previous):
        if pointer is not None and Pair.of(pointer) == pair:
            return pointer.release, pointer.trial
    return None, None


def _repair_pointer(state_dir: Path, pair: Pair) -> None:
    try:
        repair_active_pointer(state_dir, pair.pointer())
    except BundleError as error:
        log.warning("%s", error)
    except OSError as error:
        log.warning("%s: cannot repair the pointer files: %s", state_dir, error.strerror or error)
