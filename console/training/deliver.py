"""Packs runs into bundles, installs a pair into the device on this machine, and publishes it. All of it in jobs.

The commands are those that a person would type, so that a job shows how to do the same without the console.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from console.settings import Settings
from console.training.job import Job
from console.training.jobs import Jobs
from console.training.progress import LEARNED_WORK
from console.training.results import bundle_of, pair_of, read_json
from edge.bundle.active_pointer import read_active_pointer
from edge.bundle.bundle import MANIFEST_NAME
from edge.errors import ConsoleError, FinesightError
from edge.file_names import hashed_file_name

EDGE = (sys.executable, "-m", "edge")
SYNC = (sys.executable, "-m", "gallery_sync.cli")
QUANTIZE = (sys.executable, "-m", "quantize.cli")
_MODEL = "model.json"  # in the folder of a trained model


@dataclass(frozen=True, slots=True)
class Target:
    """The device on this machine, and what it runs now."""

    state_dir: Path
    bundle: str  # id; empty: none
    gallery: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A bundle and a gallery that a job made."""

    bundle: Path
    gallery: Path
    bundle_id: str
    sequence: int


def made_pair(job: Job) -> Pair | None:
    """Return the pair that a job made, with its id; None if it made none."""
    found = pair_of(job)
    if found is None or job.state != "done":
        return None
    manifest = read_json(found[0] / MANIFEST_NAME)
    return Pair(*found, str(manifest.get("bundle_id", "?")), int(manifest.get("sequence", 0)))


def device_of(settings: Settings) -> Target | None:
    """Return the device on this machine; None: the console was started without one."""
    if settings.device is None:
        return None
    try:
        pointer = read_active_pointer(settings.device)
    except FinesightError:
        pointer = None
    return Target(settings.device, pointer.bundle_id if pointer else "", pointer.gallery if pointer else "")


def start_install(settings: Settings, jobs: Jobs, job: Job, by: str) -> Job:
    """Install and activate the pair of a job in the device on this machine.

    Raises:
        ConsoleError: the console has no device, or the job made no pair.
    """
    pair = _pair(job)
    if settings.device is None:
        raise ConsoleError("missing", "no device is given; start the console with --device STATE_DIR")
    state = str(settings.device)
    install = [*EDGE, "bundle", "install", str(pair.bundle), "--gallery", str(pair.gallery), "--state-dir", state]
    activate = [*EDGE, "bundle", "activate", "--state-dir", state]
    script = f"{shlex.join(install)} && {shlex.join(activate)}"
    name = f"Install {pair.bundle_id} into the device"
    return jobs.start("install", name, ["/bin/sh", "-c", script], by, about={"of": job.id}, heavy=False)


def publish_command(settings: Settings, pair: Pair, *, hold: bool) -> list[str]:
    """Return the command that publishes a pair; its keys come from $FINESIGHT_KEYS."""
    command = [*SYNC, "publish", str(settings.repository), "--bundle", str(pair.bundle), "--gallery", str(pair.gallery)]
    return [*command, "--hold"] if hold else command


def start_publish(settings: Settings, jobs: Jobs, job: Job, by: str, *, hold: bool) -> Job:
    """Publish the pair of a job in the console's repository; without keys a draft is left to be signed.

    Raises:
        ConsoleError: the console has no repository, or it is not made yet; or the job made no pair.
    """
    pair = _pair(job)
    repository = settings.repository
    if repository is None:
        raise ConsoleError("missing", "no repository is given; start the console with --repo REPO")
    if not (repository / "metadata").is_dir():
        raise ConsoleError("missing", f"{repository} is no repository yet; {how_to_init(repository)}")
    if settings.keys is None:
        _make_empty_ring(jobs.keys)
    name = f"Publish {pair.bundle_id}{', held back' if hold else ''}"
    about = {"of": job.id, "hold": hold, "signs": settings.keys is not None}
    return jobs.start("publish", name, publish_command(settings, pair, hold=hold), by, about=about, heavy=False)


def how_to_init(repository: Path) -> str:
    """Say how a repository is made, once, where its keys are."""
    return f"make it once, where its keys shall be: edge-sync init {shlex.quote(str(repository))} --line LINE"


@dataclass(frozen=True, slots=True)
class PackRequest:
    """What a bundle shall be packed from."""

    name: str  # of the bundle
    with_jobs: tuple[Job, ...] = ()  # further runs: a detector, a classifier, other embedders
    precision: str = "auto"  # auto, fp32
    fallback_fp32: bool = True


def start_pack(jobs: Jobs, job: Job, request: PackRequest, by: str) -> Job:
    """Pack the models of jobs into a bundle.

    Raises:
        ConsoleError: a job has no trained model.
    """
    models: list[str] = []
    index = scenes = None
    for one in (job, *request.with_jobs):
        found = trained_models(one)
        if not found:
            raise ConsoleError("invalid", f"job {one.id} has no trained model; it is {one.state}")
        for kind, run in found:
            models += [f"--{kind}", str(run)]
            data = one.folder / "data"
            file = next((data / name for name in ("index.csv", "coco.json") if (data / name).is_file()), None)
            index, scenes = (index, file) if kind == "detector" else (file, scenes)
    number = jobs.next_sequence()
    bundle_id = f"{hashed_file_name(request.name).replace('~', '-')}-{number}"
    argv = [*QUANTIZE, "pack", "--id", bundle_id, "--sequence", str(number), "--out", "bundle", *models]
    argv += ["--index", str(index)] if index else []
    argv += ["--scenes", str(scenes)] if scenes else []
    argv += ["--precision", request.precision, *(["--fallback-fp32"] if request.fallback_fp32 else [])]
    return jobs.start(
        "pack", f"Pack {bundle_id}", argv, by, about={"of": job.id, "bundle": bundle_id, "sequence": number}
    )


def trained_models(job: Job) -> list[tuple[str, Path]]:
    """Return the kind and the folder of each model that a job trained."""
    run = job.folder / "run"
    folders = [run, *(sorted(one for one in run.iterdir() if one.is_dir()) if run.is_dir() else [])]
    cards = [(str(read_json(folder / _MODEL).get("kind", "")), folder) for folder in folders]
    return [(kind, folder) for kind, folder in cards if kind]


def start_evaluation(jobs: Jobs, job: Job, by: str) -> Job:
    """Evaluate the bundle of a job, each of its precisions, on the pictures that were held out.

    Raises:
        ConsoleError: the job made no bundle, or its data are gone.
    """
    bundle, of = bundle_of(job), job.about.get("of")
    folders = [job.folder, *([jobs.home(of)] if isinstance(of, int) else [])]
    names = (f"{LEARNED_WORK}/index.csv", "data/index.csv", "data/coco.json")
    data = next((path for folder in folders for name in names if (path := folder / name).is_file()), None)
    if bundle is None or data is None:
        raise ConsoleError("missing", f"job {job.id} made no bundle that can be evaluated on its data")
    argv = [
        sys.executable, "-m", "trainer.cli", "evaluate", "--bundle", str(bundle), "--data", str(data),
        "--out", "evaluation.json",
    ]  # fmt: skip
    return jobs.start("evaluate", f"Evaluate {job.name}", argv, by, about={"of": job.id})


def _pair(job: Job) -> Pair:
    pair = made_pair(job)
    if pair is None:
        raise ConsoleError("invalid", f"job {job.id} made no bundle with a gallery; it is {job.state}")
    return pair


def _make_empty_ring(folder: Path) -> None:
    from gallery_sync.repository.keys import KEYS_NAME, KeyRing

    if not (folder / KEYS_NAME).exists():
        folder.mkdir(parents=True, exist_ok=True)
        KeyRing.open_or_empty(folder).write()
