"""From photos to a running device, in a browser: upload, boxes, names, training, publication, search."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.console_browser import logged_in
from tests.console_samples import running_console
from tests.console_story import Story, cut, read_photos
from tests.integration.small_demo import DEMO, small_bundle
from tests.sync_server import serving
from tests.waiting import LONG_DEADLINE_S, until

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("FINESIGHT_DATA", ROOT.parent / "shared/data"))
PHOTOS, MINUTES = 8, 1.0  # benchmarks/console_story.py takes 30 and longer

pytestmark = [pytest.mark.slow, pytest.mark.data]


def sync(*words: object) -> None:
    command = [sys.executable, "-m", "gallery_sync.cli", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def background(log: Path, *words: object) -> Iterator[None]:
    """Run a module until the end of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, "-m", *map(str, words)], cwd=ROOT, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(60)
            finally:
                process.kill()
                process.wait()


@contextmanager
def running_device(folder: Path, camera: Path) -> Iterator[Path]:
    """Run a device with the demo's pair, and its update agent; yield its state folder."""
    repo, state = folder / "repository", folder / "state"
    sync("init", repo, "--line", "shop", "--development")
    sync("publish", repo, "--bundle", small_bundle(folder / "first", 1), "--gallery", DEMO / "gallery")
    with ExitStack() as stack:
        server = stack.enter_context(serving(repo))
        sync("enrolment", "new", repo, "--url", server.url, "-o", folder / "devices", "--device", "cam-1")
        sync("enrol", folder / "devices/cam-1.json", "--state-dir", state)
        (folder / "device.yaml").write_text(
            f"site: shop\ndevice: cam-1\nstate_dir: {state}\nengine: {{backend: onnxruntime}}\n"
            f"cameras:\n  counter: {{source: 'file://{camera}?loop=1', framing: whole_frame}}\n"
        )
        (folder / "agent.yaml").write_text(
            "poll_s: 1\ntrial: {seconds: 2, look_s: 0.5, answers: 1, match_rate_drop: 0.9, frame_rate: 0.05}\n"
        )
        policy = ["--config", folder / "agent.yaml", "--device-config", folder / "device.yaml"]
        stack.enter_context(
            background(folder / "agent.log", "gallery_sync.cli", "agent", "--state-dir", state, *policy)
        )
        until((state / "current").exists, "the first release is active", LONG_DEADLINE_S)
        stack.enter_context(background(folder / "edge.log", "edge", "run", "--config", folder / "device.yaml"))
        yield state


def confirmed(state: Path, release: int) -> bool:
    """Return whether the device has confirmed a release."""
    last = json.loads((state / "agent.json").read_bytes()).get("last") or {}
    assert last.get("outcome") in (None, "confirmed"), last
    return last.get("sequence") == release


def tell(folder: Path, browser, count: int, minutes: float) -> Story:
    """Run the whole story; return it with what it measured."""
    photos = read_photos(DATA / "playing_cards/train", count)
    with running_device(folder, DEMO / "stream.mp4") as state:
        until(
            lambda: (state / "agent.json").exists() and confirmed(state, 1), "release 1 is confirmed", LONG_DEADLINE_S
        )
        keys = folder / "repository.keys"
        settings = {"repository": folder / "repository", "keys": keys, "device": state}
        with running_console(folder / "console", **settings) as client, logged_in(browser, client) as page:
            story = Story(page, client, photos)
            story.upload("Cards")
            story.propose_boxes()
            story.correct_boxes()
            story.review()
            job = story.train("cards", minutes)
            story.evaluate(job)
            story.publish(job)
            until(lambda: confirmed(state, 2), "the device confirmed what the console published", LONG_DEADLINE_S)
            story.lap("device takes it over")
            picture = folder / "query.png"
            name = cut(photos[0], 0, picture)
            story.told.found = story.search(picture)
            assert story.told.found == name
            print(json.dumps(asdict(story.told)))
            return story


def test_photos_become_what_a_running_device_knows(tmp_path, browser):
    story = tell(tmp_path, browser, PHOTOS, MINUTES)
    assert story.told.crops == sum(len(photo.objects) for photo in story.photos)
