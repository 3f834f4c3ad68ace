"""The folder of the demo: a device, a signed repository, and pictures of the demo's camera that wait for names.

Each step is skipped where its result is there, so that a demo that was stopped goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from console.services import Services
from console.sets.crops import NewBox, set_boxes
from console.sets.pictures import add_picture, find_picture
from console.sets.sets import create_set
from edge.build import load_models
from edge.bundle.install import install_bundle, install_gallery
from edge.bundle.slots import activate
from edge.capture.frame_source import EndOfStream
from edge.capture.open_source import open_source
from edge.config.camera_url import parse_source
from edge.config.schema import EngineConfig, RecognitionConfig
from edge.durable import write_durably
from edge.errors import ConsoleError
from edge.imaging.image import encode_image, read_image
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.recognise_image import recognise_objects
from edge.shipped.examples import shipped
from edge.telemetry.timing import Timings

BY = "demo"
NAME, TO_BOX = "Demo camera: things to name", "Demo camera: boxes to check"
_EVERY = 9  # frames of the video for each picture
_TO_BOX = 8  # pictures whose boxes wait for a person
_FOLDERS = {TO_BOX: "to-box", NAME: "to-name"}
Say = Callable[[str], None]


def build_demo(services: Services, say: Say) -> None:
    """Make what the demo works on.

    Raises:
        FinesightError: the shipped files are damaged, or the folder cannot be written.
    """
    settings = services.settings
    assets, folder = shipped("demo"), settings.data / "demo"
    if settings.device is not None and not settings.device.exists():
        say("installing the shipped bundle and gallery into a device's state folder")
        slot = install_bundle(assets / "bundle", settings.device)
        activate(settings.device, slot, install_gallery(assets / "gallery", settings.device))
    repository = folder / "repository"
    if not (repository / "metadata" / "timestamp.json").exists():
        say("signing a repository with keys of the demo")
        _sync("init", repository, "--line", "demo", "--development")
        _sync("publish", repository, "--bundle", assets / "bundle", "--gallery", assets / "gallery")
    pictures = folder / "pictures"
    if not pictures.exists():
        say("taking pictures from the demo's video")
        _take_pictures(assets / "stream.mp4", pictures)
    with services.database.read() as rows:
        known = {row["name"] for row in rows.execute("SELECT name FROM sets")}
    if not {NAME, TO_BOX} <= known:
        say("finding objects in them")
        models = load_models(assets / "bundle", assets / "gallery", EngineConfig())
        for name, below in _FOLDERS.items():
            if name not in known:
                _make_set(services, models, name, pictures / below)


def _make_set(services: Services, models: LoadedModels, name: str, folder: Path) -> None:
    """Make a set of pictures with the boxes that the shipped detector finds."""
    with services.database.write() as connection:
        now_s = services.clock()
        set_id = create_set(connection, now_s, BY, name, "folder", folder)
        for path in sorted(folder.glob("*.jpg")):
            source = {"device": BY, "camera": "shelf"}
            picture_id = add_picture(connection, now_s, set_id, path.name, path, whole=False, source=source)
            if picture_id is None:
                continue
            boxes = [
                NewBox(None, detection.box_px, "detector", detection.score)
                for detection, _ in recognise_objects(
                    models, read_image(path), RecognitionConfig().min_object_px, Timings()
                )
            ]
            version = find_picture(connection, picture_id).version
            set_boxes(connection, picture_id, version, boxes, "confirmed" if name == NAME else "proposed")


def _take_pictures(video: Path, folder: Path) -> None:
    """Write frames of a video; a pattern far apart, so that objects differ."""
    working = folder.with_name("pictures.part")
    for name in _FOLDERS.values():
        (working / name).mkdir(parents=True, exist_ok=True)
    source = open_source(parse_source(f"file://{video}"), "opencv")
    number = 0
    try:
        while True:
            frame = source.read(5.0)
            if frame is not None and number % _EVERY == 0:
                of = _FOLDERS[TO_BOX if number < _TO_BOX * _EVERY else NAME]
                write_durably(working / of / f"frame-{number:04d}.jpg", encode_image(frame.image_rgb, ".jpg"))
            number += 1
    except EndOfStream:
        pass
    finally:
        source.close()
    working.rename(folder)


def _sync(*words: object) -> None:
    """Run a command of `edge-sync`."""
    command = [sys.executable, "-m", "gallery_sync.cli", *map(str, words)]
    environment = {name: value for name, value in os.environ.items() if name != "FINESIGHT_KEYS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConsoleError("failed", (done.stderr.strip().splitlines() or ["edge-sync failed"])[-1])
