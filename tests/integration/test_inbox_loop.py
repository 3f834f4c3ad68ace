"""From a device to the gallery and back: a taught item and an unknown object become items that every device knows."""

from __future__ import annotations

import csv
import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import pytest

from edge.bundle import slots
from edge.gallery.generation import write_gallery_index
from edge.gallery.store import store_path
from edge.gallery.writer import GalleryWriter
from edge.manifest.manifest import parse_manifest
from edge.telemetry.counters import Counters
from gallery_sync import cli as sync_cli
from gallery_sync.collector.inbox import Inbox
from gallery_sync.collector.server import FleetServer, Listen, Parts
from gallery_sync.repository.publish import publish
from tests.integration.edge_process import running_edge
from tests.integration.kiosk_scene import DEMO, poses, probe
from tests.integration.mosquitto import free_port
from tests.integration.small_demo import small_bundle
from tests.sync_samples import keys_of, make_repository, pull_folder, time_now
from tests.waiting import until
from trainer import cli as trainer_cli

TAUGHT, SEEN, KNOWN = "car-03", "can-09", "can-12"  # the gallery lacks the first two
CATEGORIES = {"car", "can"}
TAUGHT_LABEL, SEEN_LABEL = "Grandmother's car", "Lentil soup"
TOKEN = "a token of the inbox"
FPS, SIZE = 5, (480, 270)


def bundle_of_two(folder: Path) -> Path:
    """Write the demo's bundle with the embedders of two categories and no detector: it is proved in a few seconds."""
    path = small_bundle(folder, 1) / "bundle.json"
    manifest = json.loads(path.read_bytes())
    manifest["embedders"] = [one for one in manifest["embedders"] if set(one["categories"]) <= CATEGORIES]
    manifest["probes"] = [probe for probe in manifest["probes"] if probe["category"] in CATEGORIES][:2]
    manifest |= {"detector": None, "scene_probes": []}
    models = [manifest["classifier"], *manifest["embedders"]]
    named = {file for model in models for file in model["files"].values()}
    named |= {probe["path"] for probe in manifest["probes"]}
    manifest["files"] = [entry for entry in manifest["files"] if entry["path"] in named]
    path.write_text(json.dumps(manifest))
    return folder


def gallery_of_two(folder: Path, *lacks: str) -> Path:
    """Write the demo's gallery of the two categories without some items."""
    manifest = parse_manifest((DEMO / "bundle/bundle.json").read_text(), "demo")
    for category in sorted(CATEGORIES):
        model = manifest.embedder_for(category)
        assert model is not None
        base = store_path(DEMO / "gallery", category)
        with GalleryWriter(folder, category, model.space_id, model.heads, base=base) as writer:
            for item in lacks:
                if item.startswith(f"{category}-"):
                    writer.delete(item)
    write_gallery_index(folder, "2026-01-01T00:00:00Z")
    return folder


def write_video(path: Path, pictures: list[Any], seconds: float) -> None:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, SIZE)
    for picture in pictures:
        for _ in range(round(seconds * FPS)):
            video.write(cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA))
    video.release()


class Kiosk:
    """A device that runs: a kiosk, and a camera of its own beside it."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        assert response.status < 300, data
        return json.loads(data)

    def sees(self) -> bool:
        """Return whether it answers, and has a picture."""
        try:
            return bool(self.ask("GET", "/v1/state")["phase"] != "no_picture")
        except ConnectionRefusedError:
            return False

    def teach(self, label: str) -> str:
        """Teach what is in front of the camera; return the id of the item."""
        self.ask("POST", "/v1/teaching")
        until(lambda: self.ask("GET", "/v1/state")["teaching"]["looks"] >= 2, "two pictures are taken")
        return self.ask("POST", "/v1/taught", json.dumps({"label": label, "category": "car"}).encode())["item"]

    def look_up(self, picture: Any) -> dict[str, Any]:
        return self.ask("POST", "/v1/lookup", cv2.imencode(".jpg", picture)[1].tobytes())

    def named(self, picture: Any) -> str | None:
        match = self.look_up(picture)["match"]
        return match and match["item"]

    def retired(self) -> list[str | None]:
        return [item["retired"] for item in self.ask("GET", "/v1/taught")["taught"]]


@contextmanager
def running(folder: Path, inbox: str) -> Iterator[Kiosk]:
    port = free_port()
    (folder / "device.yaml").write_text(
        f"site: shop\ndevice: kiosk-1\nstate_dir: {folder / 'state'}\nengine: {{backend: onnxruntime}}\n"
        "cameras:\n"
        f"  counter: {{source: 'file://{folder / 'counter.mp4'}?loop=1', framing: whole_frame}}\n"
        f"  shelf: {{source: 'file://{folder / 'shelf.mp4'}?loop=1', framing: whole_frame}}\n"
        "recognition: {min_looks: 2}\n"
        f"kiosk: {{camera: counter, port: {port}, looks: 2, upload_url: '{inbox}', upload_token: '{TOKEN}'}}\n"
        f"unknowns: {{upload_url: '{inbox}', upload_token: '{TOKEN}'}}\n"
    )
    with running_edge(folder / "device.yaml", TOKEN):
        kiosk = Kiosk(port)
        until(kiosk.sees, "the kiosk has a picture")
        yield kiosk


@pytest.fixture
def inbox(tmp_path) -> Iterator[str]:
    """The inbox of the fleet's server; gives the URL of the device's folder."""
    parts = Parts(None, None, None, None, Counters(), (), Inbox(tmp_path / "inbox"))
    with FleetServer(parts, Listen(port=0, inbox_token=TOKEN)) as server:
        yield f"{server.url}/inbox/kiosk-1"


def train(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert trainer_cli.main(["inbox", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


def pull(repo: Path, state: Path) -> None:
    pulled = pull_folder(repo, state)
    slots.activate(state, pulled.slot, pulled.gallery)


def decide(review: Path, decision: str) -> None:
    """Write a decision into the rows of unknown objects."""
    rows = list(csv.DictReader(review.read_text().splitlines()))
    with review.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | ({"decision": decision} if row["kind"] == "unknown" else {}) for row in rows)


def test_what_devices_send_becomes_items_that_they_know(tmp_path, inbox, capsys):
    repo, out, seen = tmp_path / "repo", tmp_path / "review", probe(SEEN)
    bundle, gallery = bundle_of_two(tmp_path / "bundle"), gallery_of_two(tmp_path / "gallery", TAUGHT, SEEN)
    make_repository(repo)
    publish(repo, keys_of(repo), time_now(), bundle_folder=bundle, gallery_folder=gallery)
    pull(repo, tmp_path / "state")
    write_video(tmp_path / "counter.mp4", poses(TAUGHT)[:3], 1.0)
    write_video(tmp_path / "shelf.mp4", [seen, probe(KNOWN)], 1.0)
    with running(tmp_path, inbox) as kiosk:
        item = kiosk.teach(TAUGHT_LABEL)
        assert kiosk.named(poses(TAUGHT)[1]) == item
        assert kiosk.named(seen) is None
        uploads = tmp_path / "inbox/kiosk-1"
        until(lambda: len({path.name[:6] for path in uploads.glob("*.zip")}) == 2, "both arrive")

        taken = train(capsys, tmp_path / "inbox", "-o", out, "--bundle", bundle, "--gallery", gallery)
        assert (taken["taught"], taken["left_out"]) == (1, {})
        assert "data:image/" in (out / "review.html").read_text()  # thumbnails of proposed items
        decide(out / "review.csv", f"new {SEEN_LABEL}")
        decided = train(capsys, "--apply", out / "review.csv", "-o", out)["decided"]
        assert decided["as taught"] == 1
        assert decided["new"] >= 1
        assert sync_cli.main(["gallery", "add", str(repo), str(out)]) == 0
        assert kiosk.retired() == [None]  # the gallery that serves does not have it yet

        pull(repo, tmp_path / "state")
        until(lambda: kiosk.retired() == ["same_id"], "the kiosk retires its copy")
        match = until(lambda: kiosk.look_up(seen)["match"], "the new gallery serves")
        assert match["label"] == SEEN_LABEL
        assert kiosk.named(poses(TAUGHT)[1]) == item  # of the gallery now
