"""A running device re-identifies earlier objects once a new gallery holds them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from edge.bundle import slots
from edge.bundle.install import install_gallery
from edge.gallery.generation import read_gallery, write_gallery_index
from edge.gallery.writer import GalleryWriter
from tests.integration.mosquitto import Mosquitto
from tests.integration.test_device import DEMO, ROOT, gather, install, recorded, subscribe, write_config
from tests.store_samples import trusted


def without(items: dict[str, str], folder: Path) -> Path:
    """Copy the demo gallery without these items; return its folder."""
    shutil.copytree(DEMO / "gallery", folder)
    (folder / "gallery.json").unlink()
    spaces = read_gallery(DEMO / "gallery").categories
    for item_id, category in items.items():
        store = folder / f"{category}.sqlite"
        with GalleryWriter(folder, category, spaces[category].space_id, spaces[category].heads, base=store) as writer:
            writer.delete(item_id)
    return write_gallery_index(folder, "2026-01-01T00:00:00Z").folder


def events_of(found):
    return [message for topic, message in found if topic == "shelf/events"]


def test_new_gallery_identifies_departed_objects_as_historical(tmp_path):
    state = tmp_path / "state"
    shown = json.loads((DEMO / "stream.json").read_text())["objects"]
    absent = {one["item_id"]: one["category"] for one in shown[:4]}
    install(state)
    slots.activate(state, None, install_gallery(without(absent, tmp_path / "smaller"), state), trusted)
    with Mosquitto(tmp_path) as broker, subscribe(broker.port) as subscriber:
        config = write_config(tmp_path, broker.port, recorded("shelf"))
        with subprocess.Popen([sys.executable, "-m", "edge", "run", "-c", config], cwd=ROOT) as device:
            first = gather(subscriber.messages, lambda found: found[-1:] and found[-1][1].get("state") == "offline")
            slots.activate(state, None, install_gallery(DEMO / "gallery", state), trusted)
            later = gather(
                subscriber.messages,
                lambda found: absent.keys() <= {e["match"]["item"] for e in events_of(found) if e["match"]},
            )
            device.send_signal(signal.SIGTERM)
    before = {event["track_id"]: event for event in events_of(first)}
    reidentified = [event for event in events_of(later) if event["match"] and event["match"]["item"] in absent]
    assert all(event["historical"] and event["type"] == "update" for event in reidentified)
    assert all(before[event["track_id"]]["captured_at"] == event["captured_at"] for event in reidentified)
    assert not absent.keys() & {event["match"]["item"] for event in before.values() if event["match"]}
