"""Finds the pairs of a bundle and a gallery that the console can recognise with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from console.settings import Settings
from edge.bundle.active_pointer import read_active_pointer
from edge.bundle.bundle import MANIFEST_NAME
from edge.bundle.layout import gallery_folder, slot_folder
from edge.errors import FinesightError
from edge.gallery.generation import INDEX_NAME
from edge.shipped.examples import shipped

DEVICE, REPOSITORY, DEMO = "device", "repository", "demo"
RUN = "run/"  # before the path of a run below the folder of runs
_MOST_RUNS = 50  # the newest ones are listed
_WITHIN_RUN = ("", "shop")  # where a job keeps what `edge-train learn` wrote
_PAIRS = (("bundle", "gallery"), ("work/bundle", "work/gallery"))


@dataclass(frozen=True, slots=True)
class Choice:
    """A bundle and a gallery to recognise with."""

    id: str
    name: str  # for people
    bundle: Path  # folder; that of a repository is filled when it is first used
    gallery: Path | None  # folder; None: there is none, and everything is unknown


def device_choice(settings: Settings) -> Choice | None:
    """Return the active pair of the device on this machine."""
    pair = settings.device and _active_pair(settings.device)
    return Choice(DEVICE, f"Device: {pair[2]}", pair[0], pair[1]) if pair else None


def demo_choice(settings: Settings) -> Choice | None:
    """Return the shipped demo's pair, if the console shows the demo."""
    if not settings.is_demo:
        return None
    folder = shipped("demo")
    return Choice(DEMO, "Demo", folder / "bundle", folder / "gallery")


def run_choices(settings: Settings) -> Iterator[Choice]:
    """Yield the runs that made a bundle and a gallery, the newest first."""
    try:
        runs = sorted((one for one in os.scandir(settings.runs) if one.is_dir()), key=lambda one: -one.stat().st_mtime)
    except OSError:
        return
    for run in runs[:_MOST_RUNS]:
        if (choice := _choice_of_run(Path(run.path))) is not None:
            yield choice


def run_choice(settings: Settings, choice_id: str) -> Choice | None:
    """Return a run by the id of its choice."""
    name = choice_id.removeprefix(RUN)
    if name in ("", ".", "..") or "/" in name or not name.isprintable():
        return None
    return _choice_of_run(settings.runs / name)


def _active_pair(state_dir: Path) -> tuple[Path, Path, str] | None:
    """Return the folders of the active pair of a state folder and its bundle's id; None if it has none."""
    try:
        pointer = read_active_pointer(state_dir)
    except FinesightError:
        return None
    if pointer is None:
        return None
    return slot_folder(state_dir, pointer.slot), gallery_folder(state_dir, pointer.gallery), pointer.bundle_id


def _choice_of_run(run: Path) -> Choice | None:
    name, made = f"Training run {run.name}", _pair_of_run(run)
    if made is None:
        return None
    bundle, gallery, bundle_id = made
    return Choice(f"{RUN}{run.name}", f"{name}: {bundle_id}" if bundle_id else name, bundle, gallery)


def _pair_of_run(run: Path) -> tuple[Path, Path, str] | None:
    """Return the folders that a run made, and the bundle's id if it is known without reading the bundle."""
    for part in _WITHIN_RUN:
        folder = run / part
        if (active := _active_pair(folder / "state")) is not None:
            return active
        for bundle, gallery in _PAIRS:
            if (folder / bundle / MANIFEST_NAME).is_file() and (folder / gallery / INDEX_NAME).is_file():
                return folder / bundle, folder / gallery, ""
    return None
