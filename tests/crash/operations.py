"""Operations on a device that a power cut may interrupt, for the processes that are recorded."""

from __future__ import annotations

from pathlib import Path

from edge.bundle import slots
from edge.bundle.active_pointer import ReleaseName, read_active_pointer, read_staged_pointer
from edge.bundle.install import install_bundle, install_gallery
from edge.bundle.starts import Starts
from edge.inference.stages import Stages
from edge.recognition.best_pair import Serving, load_best_pair
from edge.recognition.loaded_models import LoadedModels
from tests.store_samples import trusted

RELEASE = ReleaseName(line="shop", sequence=2, gallery_sequence=8)
TRIAL = "t-2"


def sources(state_dir: Path) -> Path:
    """Return the folder that holds the bundles and galleries to install."""
    return state_dir.parent / "sources"


def install(state_dir: Path) -> None:
    """Install bundle `two` and its gallery."""
    install_bundle(sources(state_dir) / "two", state_dir)
    install_gallery(sources(state_dir) / "four", state_dir)


def stage(state_dir: Path) -> None:
    """Stage what is installed."""
    slot = install_bundle(sources(state_dir) / "two", state_dir)
    slots.stage(state_dir, slot, install_gallery(sources(state_dir) / "four", state_dir), RELEASE)


def activate(state_dir: Path) -> None:
    """Switch to what is staged, on trial."""
    slots.activate(state_dir, prove=trusted, trial=TRIAL)


def switch_gallery(state_dir: Path) -> None:
    """Install another gallery for the active bundle and switch to it; the oldest gallery is deleted."""
    slots.activate(state_dir, None, install_gallery(sources(state_dir) / "five", state_dir), prove=trusted)


def confirm(state_dir: Path) -> None:
    """Confirm the trial."""
    slots.confirm(state_dir, TRIAL)


def rollback(state_dir: Path) -> None:
    """Return to the pair before."""
    slots.rollback(state_dir)


def start(state_dir: Path) -> Serving:
    """Start as `edge run` does: choose the best pair, count the start, repair the pointer."""
    return load_best_pair(state_dir, _load, _refuse, Starts(state_dir))


def converge(state_dir: Path) -> None:
    """Do again whatever is left to do, until bundle `two` serves and is confirmed."""
    pointer = read_active_pointer(state_dir)
    if pointer is None or (pointer.bundle_id, pointer.release) != ("two", RELEASE):
        if read_staged_pointer_or_none(state_dir) is None:
            stage(state_dir)
        activate(state_dir)
    confirm(state_dir)


def read_staged_pointer_or_none(state_dir: Path) -> object:
    """Return what is staged and whole; None if it is damaged."""
    pointer, _ = slots.read_pointer_or_none(state_dir, read_staged_pointer)
    if pointer is None:
        return None
    try:
        slots.read_bundle_and_gallery(state_dir, pointer.slot, pointer.gallery)
    except Exception:
        return None
    return pointer


def _load(bundle, gallery) -> LoadedModels:
    return LoadedModels(bundle.manifest.bundle_id, str(gallery.items), Stages(None, None, {}), {}, {})


def _refuse(*_: object) -> list[str]:
    raise AssertionError("a pair that never served was tried")


def pull(state_dir: Path) -> None:
    """Pull the newest release of the repository beside the device: refresh, erase, fetch, stage."""
    from tests.sync_samples import pull_folder

    pull_folder(state_dir.parent / "repo", state_dir)


def erase(state_dir: Path) -> None:
    """Apply the urgent deletions of the repository beside the device."""
    from gallery_sync.device.fetch import Options
    from gallery_sync.device.pull import erase as erase_urgently
    from gallery_sync.device.source import open_source
    from gallery_sync.transport.repository_files import FolderTransport
    from tests.sync_samples import time_now

    source = open_source(FolderTransport(state_dir.parent / "repo"), state_dir)
    source.client.refresh()
    erase_urgently(source, state_dir, Options(), time_now, None)


def publish(site: Path) -> None:
    """Publish release 2 in the repository of a folder that also holds its keys."""
    from gallery_sync.repository.publish import publish as publish_pair
    from tests.sync_samples import keys_of, time_now

    repo, made = site / "repo", site.parent / "sources"
    publish_pair(repo, keys_of(repo), time_now(), bundle_folder=made / "two", gallery_folder=made / "four")


JOURNAL_STATES = ("fetch", "verify", "stage", "prove", "armed", "switch")


def store_steps(state_dir: Path) -> None:
    """Make a journal and store the steps of a release in it."""
    from gallery_sync.agent.journal import open_journal
    from gallery_sync.agent.machine import State, Step, Target, Task

    journal = open_journal(state_dir)
    for number, state in enumerate(JOURNAL_STATES):
        task = Task(State(state), Target("shop", 2, "two", 2, 8), float(number), stores=number)
        journal.store(Step(task, store=True), float(number))
    journal.close()


def migrate_journal(state_dir: Path) -> None:
    """Open the journal of an older version, which brings it up to date."""
    from gallery_sync.agent.journal import open_journal

    open_journal(state_dir).close()


def collect_garbage(site: Path) -> None:
    """Give up old bundles, and delete what no device needs, half a year later."""
    from datetime import timedelta

    from gallery_sync.repository.upkeep.gc import collect_garbage as collect
    from tests.sync_samples import keys_of, time_now

    repo = site / "repo"
    collect(repo, time_now() + timedelta(days=200), keep_bundles=1, keys=keys_of(repo))


def agent_confirms(state_dir: Path) -> None:
    """Confirm the trial and raise the security floor, as the agent does."""
    from gallery_sync.agent.local_steps import LocalSteps
    from gallery_sync.agent.machine import Target

    release = Target(RELEASE.line, RELEASE.sequence, "two", 2, 8, security_floor=2)
    LocalSteps(state_dir, trusted, lambda: 0.0).confirm(release, TRIAL)
